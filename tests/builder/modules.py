"""Modules that the tests export: each has one property that matters, named by its class."""

import numpy as np
import torch


class Good(torch.nn.Module):
    """Two inputs by keyword, two outputs by name; an output called as a submodule is."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(100, 8)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, ids, mask):
        tokens = self.embedding(ids) * mask[..., None].to(torch.float32)
        return {"embedding": self.head(tokens).sum(1), "tokens": tokens, "unused": tokens}


class Halves(torch.nn.Module):
    """A tuple of two; also batch norm and dropout, which differ in training mode."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5))

    def forward(self, x):
        y = self.layers(x)
        return y[:, :4], y[:, 4:]


class Echo(torch.nn.Module):
    """Gives its input back as two outputs."""

    def forward(self, x):
        return x, x


class BakedBatch(torch.nn.Module):
    """Right at batch 2 only."""

    def forward(self, x):
        return x.view(2, -1)[:, :4] * 2


class IgnoresBatch(torch.nn.Module):
    """One answer for the whole batch."""

    def forward(self, x):
        return x.sum(0, keepdim=True)


class NoOperator(torch.nn.Module):
    """Uses an operator that ONNX does not have."""

    def forward(self, x):
        return torch.linalg.eigvals(x).real


class Raises(torch.nn.Module):
    """Raises when it is called."""

    def forward(self, x):
        raise RuntimeError("the model has a bad day")


class Doubles(torch.nn.Module):
    """Gives float64."""

    def forward(self, x):
        return x.to(torch.float64)


class Integers(torch.nn.Module):
    """int32 in, int64 and bool out."""

    def forward(self, x):
        return x.to(torch.int64) * 2, x > 0


class Infinite(torch.nn.Module):
    """Divides by zero."""

    def forward(self, x):
        return x / 0.0


class DataDependent(torch.nn.Module):
    """A Python branch on a value: dynamo refuses, TorchScript freezes one side."""

    def forward(self, x):
        return x + 1 if x.sum() > -1e30 else x - 1


def make(name, seed=0):
    torch.manual_seed(seed)
    return globals()[name]()


def raises():
    raise KeyError("weights.pt")


def not_a_module():
    return {"a": 1}


def id_samples():
    rng = np.random.default_rng(0)
    return [{"ids": rng.integers(0, 100, n), "mask": np.ones(n, np.int64)} for n in (3, 5, 9, 12)]
