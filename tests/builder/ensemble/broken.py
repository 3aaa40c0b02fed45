"""One broken ensemble for each rule (or more), with the message that it gives: for the tests here and on a server."""

from dataclasses import replace

from tests.builder.ensemble.small import graph, model, search, step

_IDS = {"ids": "ids", "mask": "mask"}
_TAIL = model("tail", {"embedding": "float32[batch, 384]"}, {"scores": "float32[batch, 10]"})
_LOOP = model("loop", {"x": "float32[batch, 4]", "back": "float32[batch, 4]"}, {"y": "float32[batch, 4]"})
_ONE = model("one", {"x": "float32[batch, 4]"}, {"y": "float32[batch, 4]"})
_DECODE = model("decode", {"jpeg": "string[1]"}, {"image": "uint8[224, 224, 3]"}, batch=0)
_CLASSIFY = model("classify", {"image": "uint8[batch, 224, 224, 3]"}, {"top": "int64[batch, 5]"})
_STREAM = model("stream", {"x": "float32[batch, 4]"}, {"y": "float32[batch, 4]"}, decoupled=True)
_JOIN = model("join", {"a": "float32[batch, 4]", "b": "float32[batch, 4]"}, {"c": "float32[batch, 4]"})
_X, _Y = {"x": "float32[batch, 4]"}, {"y": "float32[batch, 4]"}


def _changed(original, **fields):
    return replace(original, **fields)


def _encoder(**ports):
    inputs = {"ids": "int64[batch, seq]", "mask": "int64[batch, seq]"} | ports
    return model("encoder", inputs, {"embedding": "float32[batch, 384]"})


def _second(**fields):
    """The search ensemble with another second step."""
    whole = search()
    return replace(whole, steps=(whole.steps[0], replace(whole.steps[1], **fields)))


def _chain(first, second, *, batch=8):
    return graph(
        {"x": f"float32[{first}]"},
        {"y": f"float32[{second}]"},
        step(model("a", {"x": f"float32[{first}]"}, {"m": f"float32[{first}]"}), {"x": "x"}, {"m": "m"}),
        step(model("b", {"m": f"float32[{second}]"}, {"y": f"float32[{second}]"}), {"m": "m"}, {"y": "y"}),
        batch=batch,
    )


def _far():
    """A range at the beginning that excludes a size two steps further on."""
    head = model("head", {"text": "string[batch, 1]"}, {"ids": "int64[batch, seq: 1..64]"})
    body = model("body", {"ids": "int64[batch, seq]"}, {"hidden": "float32[batch, seq, 8]"})
    pool = model("pool", {"hidden": "float32[batch, 128, 8]"}, {"y": "float32[batch, 8]"})
    return graph(
        {"text": "string[batch, 1]"},
        {"y": "float32[batch, 8]"},
        step(head, {"text": "text"}, {"ids": "ids"}),
        step(body, {"ids": "ids"}, {"hidden": "hidden"}),
        step(pool, {"hidden": "hidden"}, {"y": "y"}),
    )


def _two_takers():
    """Two steps take one tensor of free size as 64 and as 128: the server holds each against the free one alone."""
    give = model("give", {"x": "float32[batch, 4]"}, {"m": "float32[batch, free]"})
    narrow = model("narrow", {"m": "float32[batch, 64]"}, {"p": "float32[batch, 4]"})
    wide = model("wide", {"m": "float32[batch, 128]"}, {"q": "float32[batch, 4]"})
    return graph(
        _X,
        {"p": "float32[batch, 4]", "q": "float32[batch, 4]"},
        step(give, {"x": "x"}, {"m": "m"}),
        step(narrow, {"m": "m"}, {"p": "p"}),
        step(wide, {"m": "m"}, {"q": "q"}),
    )


def _only_first_differs():
    """The ensemble's output has the batch in its dims, one taker has it not, the maker batches."""
    make = model("make", {"x": "float32[batch, 4]"}, {"y": "float32[batch, 4]"})
    take = model("take", {"y": "float32[4]"}, {"z": "float32[4]"}, batch=0)
    return graph(
        {"x": "float32[free, 4]"},
        {"y": "float32[free, 4]", "z": "float32[4]"},
        step(make, {"x": "x"}, {"y": "y"}),
        step(take, {"y": "y"}, {"z": "z"}),
        batch=0,
    )


BROKEN = [
    ("ensemble-empty", "ensemble 'search' has no step", graph(_X, _Y)),
    ("ensemble-step-unnamed", "step 1 of ensemble 'search' names no model", _second(model_name="", model=None)),
    (
        "ensemble-model-missing",
        "step 'encoder': the repository has no model 'encodr'",
        _changed(_second(model_name="encodr", model=None), models=("encoder", "tokenize")),
    ),
    (
        "ensemble-recursion",
        "ensemble 'search' needs itself: search -> search",
        graph(_X, _Y, step("search", {"x": "x"}, {"y": "y"}), uses={"search": ("search",)}),
    ),
    (
        "ensemble-recursion",
        "ensemble 'search' needs itself: search -> rank -> deep -> search",
        graph(
            _X,
            _Y,
            step("rank", {"x": "x"}, {"y": "y"}),
            uses={"search": ("rank",), "rank": ("tail", "deep"), "deep": ("search",)},
        ),
    ),
    ("ensemble-version", "step 'encoder' asks for version 2 of 'encoder'; served: 3", _second(model_version=2)),
    (
        "ensemble-version",
        "step 'encoder' asks for version 0 of 'encoder': a step that names no version asks for version 0",
        _second(model_version=0),
    ),
    (
        "ensemble-version",
        "step 'encoder' asks for version -2 of 'encoder': versions are numbers from 1",
        _second(model_version=-2),
    ),
    ("ensemble-step-unwired", "step 'encoder' has no input in the ensemble", _second(inputs={})),
    ("ensemble-step-unwired", "step 'encoder' has no output in the ensemble", _second(outputs={})),
    (
        "ensemble-unknown-input",
        "step 'encoder': model 'encoder' has no input 'idz'",
        _second(inputs=_IDS | {"idz": "ids"}),
    ),
    (
        "ensemble-unknown-output",
        "step 'encoder': model 'encoder' has no output 'pooled'",
        _second(outputs={"embedding": "embedding", "pooled": "pooled"}),
    ),
    ("ensemble-input-unconnected", "encoder.mask int64[batch, seq] is not connected", _second(inputs={"ids": "ids"})),
    (
        "ensemble-produced-twice",
        "tensor 'ids' is written twice: by tokenize.ids and encoder.embedding",
        _second(outputs={"embedding": "ids"}),
    ),
    (
        "ensemble-input-overwritten",
        "tensor 'x' is an input of the ensemble, and one.y writes to it",
        graph(
            _X,
            {"z": "float32[batch, 4]"},
            step(_ONE, {"x": "x"}, {"y": "x"}),
            step(_changed(_ONE, name="two"), {"x": "x"}, {"y": "z"}),
        ),
    ),
    (
        "ensemble-not-produced",
        "encoder.mask takes tensor 'masc', which nothing makes",
        _second(inputs={"ids": "ids", "mask": "masc"}),
    ),
    (
        "ensemble-not-produced",
        "output 'scores' is made by no step",
        search(outputs={"embedding": "float32[batch, 384]", "scores": "float32[batch, 10]"}),
    ),
    (
        "ensemble-cycle",
        "steps wait for each other: loop -(p)-> one, one -(q)-> loop",
        graph(
            _X,
            _Y,
            step(_LOOP, {"x": "x", "back": "q"}, {"y": "p"}),
            step(_ONE, {"x": "p"}, {"y": "q"}),
            step(_changed(_ONE, name="last"), {"x": "p"}, {"y": "y"}),
        ),
    ),
    (
        "ensemble-cycle",
        "steps wait for each other: loop -(y)-> loop",
        graph(_X, _Y, step(_LOOP, {"x": "x", "back": "y"}, {"y": "y"})),
    ),
    (
        "ensemble-unused-input",
        "input language string[batch, 1] of the ensemble is not used by any step",
        search(inputs={"text": "string[batch, 1]", "language": "string[batch, 1]"}),
    ),
    (
        "ensemble-unused-tensor",
        "tensor 'scores' (tail.scores) is used by no step and no output",
        _changed(search(), steps=(*search().steps, step(_TAIL, {"embedding": "embedding"}, {"scores": "scores"}))),
    ),
    (
        "ensemble-dtype",
        "tokenize.ids int64[batch, seq] -> encoder.ids int32[batch, 128]: cast or change the spec",
        search(encoder=_encoder(ids="int32[batch, 128]")),
    ),
    (
        "ensemble-dtype",
        "encoder.embedding float32[batch, 384] -> output embedding float16[batch, 384]: cast or change the spec",
        search(outputs={"embedding": "float16[batch, 384]"}),
    ),
    (
        "ensemble-shape",
        "a.m float32[batch, 3, 224, 224] -> b.m float32[batch, 3, 240, 240]: dimension 2 is 224 and 240: "
        "reshape or change the spec",
        _chain("batch, 3, 224, 224", "batch, 3, 240, 240"),
    ),
    (
        "ensemble-shape",
        "a.m float32[batch, 4] -> b.m float32[batch, 2, 2]: 2 dimensions and 3: reshape or change the spec",
        _chain("batch, 4", "batch, 2, 2"),
    ),
    (
        "ensemble-shape",
        "output y float32[-1, 4] and take.y float32[4] are both tensor 'y': reshape or change the spec",
        _only_first_differs(),
    ),
    (
        "ensemble-shape-at-request",
        "a.m float32[batch, n: 256..512] -> b.m float32[batch, k: 1..128]: dimension 1 is "
        "256..512 and 1..128: reshape or change the spec",
        _chain("batch, n: 256..512", "batch, k: 1..128"),
    ),
    (
        "ensemble-shape-at-request",
        "body.hidden float32[batch, seq, 8] -> pool.hidden float32[batch, 128, 8]: dimension 1 is "
        "1..64 by head.ids int64[batch, seq: 1..64] and 128 by pool.hidden float32[batch, 128, 8], through head.ids "
        "-> body.ids, body.hidden -> pool.hidden: reshape or change the spec",
        _far(),
    ),
    (
        "ensemble-shape-at-request",
        "give.m float32[batch, -1] -> wide.m float32[batch, 128]: dimension 1 is 64 by "
        "narrow.m float32[batch, 64] and 128 by wide.m float32[batch, 128], through give.m -> narrow.m, "
        "give.m -> wide.m: reshape or change the spec",
        _two_takers(),
    ),
    ("ensemble-max-batch-size", "the ensemble takes batches of 64, step 'tokenize' of 8", search(batch=64)),
    (
        "ensemble-batch-lost",
        "decode.image uint8[224, 224, 3] -> classify.image uint8[batch, 224, 224, 3]: a batch does "
        "not fit, decode.image is of a model that does not batch",
        graph(
            {"jpeg": "string[batch, 1]"},
            {"top": "int64[batch, 5]"},
            step(_DECODE, {"jpeg": "jpeg"}, {"image": "image"}),
            step(_CLASSIFY, {"image": "image"}, {"top": "top"}),
        ),
    ),
    (
        "ensemble-optional",
        "input text string[batch, 1] -> tokenize.text string[batch, 1]: callers may leave it out, and "
        "tokenize.text is not optional",
        search(inputs={"text?": "string[batch, 1]"}),
    ),
    (
        "ensemble-decoupled-mixed",
        "step 'join' takes inputs of different flows: a from decoupled 'stream', b from the request",
        graph(
            _X,
            {"c": "float32[batch, 4]"},
            step(_STREAM, {"x": "x"}, {"y": "y"}),
            step(_JOIN, {"a": "y", "b": "x"}, {"c": "c"}),
        ),
    ),
    (
        "ensemble-decoupled-mixed",
        "the ensemble's outputs are of different flows: y from decoupled 'stream', z from the request",
        graph(
            _X,
            {"y": "float32[batch, 4]", "z": "float32[batch, 4]"},
            step(_STREAM, {"x": "x"}, {"y": "y"}),
            step(_ONE, {"x": "x"}, {"y": "z"}),
        ),
    ),
    (
        "ensemble-decoupled",
        "ensemble 'search' is decoupled: step 'stream' answers any number of times",
        graph(_X, _Y, step(_STREAM, {"x": "x"}, {"y": "m"}), step(_ONE, {"x": "m"}, {"y": "y"})),
    ),
    (
        "ensemble-dim-narrowed",
        "input x float32[batch, seq] -> a.x float32[batch, 4]: dimension 1 may be any size, and only 4 is taken by a.x",
        _changed(_chain("batch, 4", "batch, 4"), inputs=graph({"x": "float32[batch, seq]"}, {}).inputs),
    ),
    (
        "ensemble-dim-narrowed",
        "tokenize.ids int64[batch, seq] -> encoder.ids int64[batch, seq: 1..512]: dimension 1 may "
        "be any size, and only 1..512 is taken by encoder.ids",
        search(encoder=_encoder(ids="int64[batch, seq: 1..512]")),
    ),
    (
        "ensemble-dim-unchecked",
        "one.y float32[batch, -1] -> two.x float32[batch, 4]: dimension 1 may be any size, and "
        "only 4 is taken by two.x",
        graph(
            _X,
            _Y,
            step(model("one", _X, {"y": "float32[batch, free]"}), {"x": "x"}, {"y": "m"}),
            step(_changed(_ONE, name="two"), {"x": "m"}, {"y": "y"}),
        ),
    ),
    (
        "ensemble-unbatched",
        "input x float32[4] -> a.x float32[batch, 4]: every step batches, and callers can send one sample at a time",
        _changed(
            _chain("batch, 4", "batch, 4", batch=0),
            inputs=graph({"x": "float32[4]"}, {}).inputs,
            outputs=graph({}, {"y": "float32[4]"}).outputs,
        ),
    ),
    (
        "ensemble-single-step",
        "ensemble 'search' has the one step 'one'",
        graph(_X, _Y, step(_ONE, {"x": "x"}, {"y": "y"})),
    ),
    (
        "ensemble-could-be-optional",
        "input x float32[batch, 4] has to be given, though every step that takes it could do without",
        graph(
            _X | {"w": "float32[batch, 4]"},
            _Y,
            step(
                model("one", {"x?": "float32[batch, 4]", "w": "float32[batch, 4]"}, _Y),
                {"x": "x", "w": "w"},
                {"y": "m"},
            ),
            step(_changed(_ONE, name="two"), {"x": "m"}, {"y": "y"}),
        ),
    ),
    (
        "ensemble-fusable",
        "steps one and two are ONNX graphs side by side: as one model they pass on 1 tensor fewer",
        graph(
            _X,
            _Y,
            step(_changed(_ONE, format="onnx"), {"x": "x"}, {"y": "m"}),
            step(_changed(_ONE, name="two", format="onnx"), {"x": "m"}, {"y": "y"}),
        ),
    ),
]
"""Rule, message, graph."""

GOOD = [
    search(),
    _chain("batch, n: 64..128", "batch, k: 32..256"),
    # A model that does not batch, with the batch in its dims, between two that do.
    graph(
        {"jpeg": "string[batch, 1]"},
        {"top": "int64[batch, 5]"},
        step(
            model("decode", {"jpeg": "string[n, 1]"}, {"image": "uint8[n, 224, 224, 3]"}, batch=0),
            {"jpeg": "jpeg"},
            {"image": "image"},
        ),
        step(_CLASSIFY, {"image": "image"}, {"top": "top"}),
    ),
    # Steps written in the wrong order, an output that is used inside as well, a tensor taken twice.
    graph(
        _X,
        {"y": "float32[batch, 4]", "c": "float32[batch, 4]"},
        step(_JOIN, {"a": "y", "b": "y"}, {"c": "c"}),
        step(_ONE, {"x": "x"}, {"y": "y"}),
    ),
    # Optional all the way, and an optional input that nothing is connected to.
    graph(
        _X | {"w?": "float32[batch, 4]"},
        {"c": "float32[batch, 4]"},
        step(
            model("one", _X | {"w?": "float32[batch, 4]", "v?": "float32[batch, 4]"}, _Y),
            {"x": "x", "w": "w"},
            {"y": "m"},
        ),
        step(_JOIN, {"a": "m", "b": "m"}, {"c": "c"}),
    ),
    # Nothing is said of a model whose tensors are not known, nor of versions that are not.
    graph(
        _X,
        _Y,
        step(replace(_ONE, inputs=None, outputs=None), {"what": "x"}, {"ever": "m"}, model_version=4),
        step(_changed(_ONE, name="two"), {"x": "m"}, {"y": "y"}),
    ),
]
"""Graphs that no rule says anything of (but for information)."""
