"""Users' classes for the tests of python models; copied into folders of their own and served."""

import numpy as np
from python_sibling import shout  # a module beside it


class Counting:
    """Counts what it is given in one call, so that a test sees what was put together."""

    def __init__(self, scale=1):
        self.scale = scale

    def execute(self, x):
        if (x < 0).any():
            raise ValueError(f"no number below zero: {float(x.min())}")
        return {"y": x * np.float32(self.scale), "rows": np.full((len(x), 1), len(x), np.int64)}


class Texts:
    def __init__(self, suffix="!"):
        self.suffix = suffix

    def execute(self, text):
        flat = [shout(each.decode()) + self.suffix for each in text.reshape(-1)]
        return np.array(flat, dtype=object).reshape(text.shape)


class Optional:
    def execute(self, x, bias=None):
        return {"y": x if bias is None else x + bias}


class Answers:
    """Gives whatever its argument names: for the messages about wrong answers."""

    def __init__(self, kind):
        self.kind = kind

    def execute(self, x):
        return {
            "none": lambda: None,
            "list": lambda: {"y": x.tolist()},
            "absent": lambda: {"z": x},
            "dtype": lambda: {"y": x.astype(np.float64)},
            "rank": lambda: {"y": x[0]},
            "batch": lambda: {"y": x[:0]},
            "size": lambda: {"y": x[:, :1]},
            "bare": lambda: x,
            "strided": lambda: {"y": np.stack([x, x], axis=-1)[..., 0]},
            "yielded": lambda: (answer for answer in [{"y": x}]),
            "exit": lambda: raise_(SystemExit(3)),
        }[self.kind]()


def raise_(exception):
    raise exception


class Counts:
    """Decoupled: as many responses as it is asked for."""

    def execute(self, n):
        for value in range(int(n[0, 0])):
            if value == 3:
                raise RuntimeError("three is enough")
            yield {"i": np.array([[value]], np.int32)}


class Routes:
    """BLS: which model answers depends on what is asked, and how often on what it says."""

    def __init__(self, call, limit=100.0):
        self.call = call
        self.limit = limit

    def execute(self, x):
        if (x < 0).any():
            return {"y": self.call("negative", {"x": x})["y"]}
        while x.max() < self.limit:
            x = self.call("double", {"x": x})["y"]
        first, second = self.call.together([("double", {"x": x}), ("double", {"x": x + 1})])
        return {"y": first["y"] + second["y"]}


class Undeclared:
    def __init__(self, call):
        self.call = call

    def execute(self, x):
        return self.call("secret", {"x": x})


class Reader:
    """Opens a file that lies beside it."""

    def __init__(self, name):
        from pathlib import Path

        self.words = (Path(__file__).parent / name).read_text().split()

    def execute(self, index):
        return {"word": np.array([self.words[i] for i in index], dtype=object)}
