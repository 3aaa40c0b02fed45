"""Three small encoders, for text, images and sound, and what puts them together; random weights, the same each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data import CLASSES, SAMPLE_RATE, VOCABULARY

if TYPE_CHECKING:
    import torch

WIDTH = 32


def text() -> torch.nn.Module:
    """``ids``, ``int64[batch, words]`` with 0 where there is none, to ``text_vector``, ``float32[batch, 32]``."""
    import torch
    from torch import nn

    class TextEncoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(VOCABULARY, WIDTH)
            self.out = nn.Linear(WIDTH, WIDTH)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            there = (ids != 0).unsqueeze(-1).to(torch.float32)
            mean = (self.table(ids) * there).sum(dim=1) / there.sum(dim=1).clamp(min=1.0)
            return torch.tanh(self.out(mean))

    return _seeded(TextEncoder, 1)


def image() -> torch.nn.Module:
    """``image``, ``float32[batch, 3, 64, 64]``, to ``image_vector``, ``float32[batch, 32]``."""
    import torch
    from torch import nn

    class ImageEncoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
            self.out = nn.Linear(16, WIDTH)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            features = torch.relu(self.second(torch.relu(self.first(image))))
            return torch.tanh(self.out(features.mean(dim=(2, 3))))

    return _seeded(ImageEncoder, 2)


def audio() -> torch.nn.Module:
    """``audio``, ``float32[batch, samples]`` of a second or more, to ``audio_vector``, ``float32[batch, 32]``."""
    import torch
    from torch import nn

    class AudioEncoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bands = nn.Conv1d(1, 16, SAMPLE_RATE // 40, stride=SAMPLE_RATE // 100)
            self.out = nn.Linear(16, WIDTH)

        def forward(self, audio: torch.Tensor) -> torch.Tensor:
            energy = self.bands(audio.unsqueeze(1)).square().mean(dim=2)
            return torch.tanh(self.out(torch.log1p(energy)))

    return _seeded(AudioEncoder, 3)


def fusion() -> torch.nn.Module:
    """The three vectors to ``scores``, ``float32[batch, 4]``, which add up to one."""
    import torch
    from torch import nn

    class Fusion(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(3 * WIDTH, 64)
            self.out = nn.Linear(64, CLASSES)

        def forward(
            self, text_vector: torch.Tensor, image_vector: torch.Tensor, audio_vector: torch.Tensor
        ) -> torch.Tensor:
            together = torch.cat([text_vector, image_vector, audio_vector], dim=-1)
            return self.out(torch.relu(self.hidden(together))).softmax(dim=-1)

    return _seeded(Fusion, 4)


def _seeded(kind: type[torch.nn.Module], seed: int) -> torch.nn.Module:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind().eval()
