"""Twelve architectures of transformers, made small, with random weights: what `benchmarks/coverage.py` builds.

This file is the user's code of the specs that it writes: `load` gives a module, `samples` seeded inputs for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

SAMPLES = 48
LABELS = 16
VOCABULARY = 512
_TEXT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
_IDS = {"input_ids": "int64[batch, sequence: 1..32]", "attention_mask": "int64[batch, sequence]"}
_IMAGE = {"pixel_values": "float32[batch, 3, 64, 64]"}
_SOUND = {"input_values": "float32[batch, 4000]"}


@dataclass(frozen=True)
class Architecture:
    """One of them.

    Attributes:
        config_class, model_class: of transformers.
        config: what makes it small.
        inputs, output: as in a spec; the output is the model's field of that name.
    """

    config_class: str
    model_class: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    output: tuple[str, str]


_CLASSES = ("logits", f"float32[batch, {LABELS}]")
ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture("BertConfig", "BertForSequenceClassification", _TEXT, _IDS, _CLASSES),
    "distilbert": Architecture(
        "DistilBertConfig",
        "DistilBertForSequenceClassification",
        {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128},
        _IDS,
        _CLASSES,
    ),
    "roberta": Architecture("RobertaConfig", "RobertaForSequenceClassification", _TEXT, _IDS, _CLASSES),
    "vit": Architecture(
        "ViTConfig", "ViTForImageClassification", {**_TEXT, "image_size": 64, "patch_size": 8}, _IMAGE, _CLASSES
    ),
    "resnet": Architecture(
        "ResNetConfig",
        "ResNetForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [16, 32, 64, 128], "depths": [1, 2, 1, 1], "layer_type": "basic"},
        _IMAGE,
        _CLASSES,
    ),
    "convnext": Architecture(
        "ConvNextConfig",
        "ConvNextForImageClassification",
        {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 2, 1]},
        _IMAGE,
        _CLASSES,
    ),
    "swin": Architecture(
        "SwinConfig",
        "SwinForImageClassification",
        {"image_size": 64, "patch_size": 4, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        _IMAGE,
        _CLASSES,
    ),
    "mobilenetv2": Architecture(
        "MobileNetV2Config", "MobileNetV2ForImageClassification", {"depth_multiplier": 0.35}, _IMAGE, _CLASSES
    ),
    "segformer": Architecture(
        "SegformerConfig",
        "SegformerForSemanticSegmentation",
        {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "decoder_hidden_size": 64},
        _IMAGE,
        ("logits", f"float32[batch, {LABELS}, 16, 16]"),
    ),
    "wav2vec2": Architecture(
        "Wav2Vec2Config",
        "Wav2Vec2ForCTC",
        {**_TEXT, "conv_dim": [32] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
        _SOUND,
        ("logits", f"float32[batch, 12, {VOCABULARY}]"),
    ),
    "gpt2": Architecture(
        "GPT2Config",
        "GPT2LMHeadModel",
        {
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "use_cache": False,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        _IDS,
        ("logits", f"float32[batch, sequence, {VOCABULARY}]"),
    ),
    "t5-encoder": Architecture(
        "T5Config",
        "T5EncoderModel",
        {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4},
        _IDS,
        ("last_hidden_state", "float32[batch, sequence, 64]"),
    ),
}


def load(name: str) -> torch.nn.Module:
    """One of the architectures; its weights are drawn with a seed, as transformers draws them."""
    import torch
    import transformers

    chosen = ARCHITECTURES[name]
    torch.manual_seed(0)
    config = getattr(transformers, chosen.config_class)(**chosen.config, vocab_size=VOCABULARY, num_labels=LABELS)
    model = _settled(getattr(transformers, chosen.model_class)(config), name)
    names = list(chosen.inputs)

    class Named(torch.nn.Module):
        """The model with the spec's inputs, and one tensor as its answer."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.model(**inputs)[chosen.output[0]]
            return answer

    parameters = [inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in ("self", *names)]
    Named.forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return Named().eval()


def _settled(model: torch.nn.Module, name: str) -> torch.nn.Module:
    """Batch norms that have seen the samples: as they are drawn, a deep network's signal ends at 1e-25."""
    import torch

    norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.momentum = None  # the mean over all that it sees
        rows = samples(name)
        with torch.no_grad():
            model.train()(**{key: torch.from_numpy(np.stack([row[key] for row in rows])) for key in rows[0]})
    return model.eval()


def samples(name: str) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Seeded inputs: tokens of 8 to 32 with padding, smooth pictures with noise, sounds of a few tones."""
    rng = np.random.default_rng(0)
    makers = {"input_ids": _tokens, "pixel_values": _picture, "input_values": _sound}
    return [makers[next(iter(ARCHITECTURES[name].inputs))](rng) for _ in range(SAMPLES)]


def _tokens(rng: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    length = int(rng.integers(8, 33))
    mask = np.ones(length, np.int64)
    mask[length - int(rng.integers(0, length // 2)) :] = 0
    return {"input_ids": rng.integers(3, VOCABULARY, length) * mask + (1 - mask), "attention_mask": mask}


def _picture(rng: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    coarse = rng.standard_normal((3, 8, 8)).repeat(8, axis=1).repeat(8, axis=2)
    return {"pixel_values": (coarse + 0.3 * rng.standard_normal((3, 64, 64))).astype(np.float32)}


def _sound(rng: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    at = np.arange(4000) / 16000
    tones = sum(rng.random() * np.sin(2 * np.pi * rng.uniform(80, 2000) * at) for _ in range(4))
    return {"input_values": (tones + 0.1 * rng.standard_normal(4000)).astype(np.float32)}
