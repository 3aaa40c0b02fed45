"""Small ensembles, written in the notation of the spec: ``model("encoder", {"ids": "int64[batch, seq]"}, {...})``."""

from dataclasses import replace

from builder.ensemble.graph import FREE, EnsembleGraph, Port, Step, StepModel
from builder.tensors import parse_tensor


def port(name, text):
    """``?`` after a name: optional; a dimension called ``free`` is -1; ``None``: nothing is known."""
    plain = name.rstrip("?")
    if text is None:
        return Port(plain, None, None)
    tensor = parse_tensor(plain, text)
    dims = tuple(FREE if dim.name == "free" else dim for dim in tensor.dims)
    return Port(plain, tensor.dtype, dims, optional=name.endswith("?"))


def ports(texts):
    return tuple(port(name, text) for name, text in texts.items())


def model(name, inputs, outputs, *, batch=8, **more):
    return StepModel(name, batch, ports(inputs), ports(outputs), **more)


def step(of, inputs, outputs, **more):
    """``of``: a StepModel, or the name of one that is not there."""
    name = of if isinstance(of, str) else of.name
    known = None if isinstance(of, str) else of
    return replace(Step(name, name, known, inputs=inputs, outputs=outputs), **more)


def graph(inputs, outputs, *steps, batch=8, name="search", **more):
    return EnsembleGraph(name, ports(inputs), ports(outputs), batch, tuple(steps), **more)


TOKENIZE = model("tokenize", {"text": "string[batch, 1]"}, {"ids": "int64[batch, seq]", "mask": "int64[batch, seq]"})
ENCODER = model(
    "encoder",
    {"ids": "int64[batch, seq]", "mask": "int64[batch, seq]"},
    {"embedding": "float32[batch, 384]"},
    versions=(1, 2, 3),
    served=(3,),
)


def search(tokenize=TOKENIZE, encoder=ENCODER, *, inputs=None, outputs=None, **more):
    """Text to embedding in two steps."""
    return graph(
        inputs or {"text": "string[batch, 1]"},
        outputs or {"embedding": "float32[batch, 384]"},
        step(tokenize, {"text": "text"}, {"ids": "ids", "mask": "mask"}),
        step(encoder, {"ids": "ids", "mask": "mask"}, {"embedding": "embedding"}),
        **more,
    )
