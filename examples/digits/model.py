"""A small CNN for handwritten digits, trained in seconds and the same to the last bit on every run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data import split

if TYPE_CHECKING:
    import torch

SEED = 20
EPOCHS = 16
BATCH = 64


def network() -> torch.nn.Module:
    """The untrained module: images ``[batch, 1, 8, 8]`` of 0..16, as scikit-learn gives them, to 10 logits."""
    from torch import nn

    class Digits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Dropout(0.1),
                nn.Conv2d(1, 16, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(32 * 4 * 4, 64),
                nn.ReLU(),
                nn.Linear(64, 10),
            )

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            # Scaling belongs to the model: a client sends what it has.
            logits: torch.Tensor = self.layers(image / 16.0)
            return logits

    return Digits()


def load() -> torch.nn.Module:
    """Train on the training split and return the module, ready for inference.

    One thread and one seed: sums are then made in one order, and the same spec gives the same ONNX file, byte for byte.
    """
    import torch

    images, labels = (torch.from_numpy(array) for array in split("train"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            module = network()
            _train(module, images, labels)
    finally:
        torch.set_num_threads(threads)
    return module.eval()


def _train(module: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    import torch

    steps = EPOCHS * -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(module(images[rows]), labels[rows], label_smoothing=0.1)
            loss.backward()
            optimizer.step()
            schedule.step()
