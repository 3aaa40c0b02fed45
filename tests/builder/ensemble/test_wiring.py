"""What a user writes becomes a graph: the obvious is inferred, the rest is asked for in these words."""

from dataclasses import replace

import pytest

from builder.ensemble.checks import check
from builder.ensemble.graph import edges
from builder.ensemble.places import SPEC_PLACES
from builder.ensemble.wiring import wire
from builder.ensemble.written import Written, WrittenOutput, WrittenStep, written_of
from builder.findings import Findings
from tests.builder.ensemble.small import ENCODER, TOKENIZE, model

TEXT = {"text": "string[batch, 1]"}
F4 = "float32[batch, 4]"
IMAGE = "float32[batch, 3, 8, 8]"


def wired(tree, *models):
    return wire("search", written_of(tree), {one.name: one for one in models})


def told(tree, *models):
    with pytest.raises(Findings) as caught:
        wired(tree, *models)
    return [(found.what, found.fix, found.path) for found in caught.value.findings]


def wires(graph):
    return {f"{edge.source.label} -> {edge.target.label}" for edge in edges(graph)}


def own(graph):
    return {port.name: str(port) for port in graph.inputs}, {port.name: str(port) for port in graph.outputs}


SEARCH = {
    "input text -> tokenize.text",
    "tokenize.ids -> encoder.ids",
    "tokenize.mask -> encoder.mask",
    "encoder.embedding -> output embedding",
}


@pytest.mark.parametrize("steps", [["tokenize", "encoder"], ["encoder", "tokenize"]])
@pytest.mark.parametrize(
    "more", [{}, {"inputs": TEXT}, {"outputs": ["embedding"]}, {"outputs": {"embedding": "float32[batch, 384]"}}]
)
def test_steps_whose_tensors_are_called_alike_need_no_wiring(steps, more):
    graph = wired({"steps": steps, **more}, TOKENIZE, ENCODER)
    assert wires(graph) == SEARCH
    assert own(graph) == ({"text": "string[batch, 1]"}, {"embedding": "float32[batch, 384]"})
    assert graph.max_batch_size == 8
    assert check(graph, SPEC_PLACES) == []


def test_wiring_by_hand_is_kept_and_the_rest_inferred():
    minilm = model(
        "minilm",
        {"input_ids": "int64[batch, seq]", "mask": "int64[batch, seq]"},
        {"embedding": "float32[batch, 384]"},
        batch=4,
    )
    step = {
        "name": "encoder",
        "model": "minilm",
        "version": 3,
        "inputs": {"input_ids": "tokenize.ids"},
        "outputs": {"embedding": "pooled"},
    }
    graph = wired({"steps": ["tokenize", step], "inputs": TEXT}, TOKENIZE, minilm)
    assert wires(graph) == {
        "input text -> tokenize.text",
        "tokenize.ids -> encoder.input_ids",
        "tokenize.mask -> encoder.mask",
        "encoder.embedding -> output pooled",
    }
    assert (graph.steps[1].model_name, graph.steps[1].model_version, graph.max_batch_size) == ("minilm", 3, 4)
    assert graph.steps[1].inputs == {"input_ids": "tokenize.ids", "mask": "tokenize.mask"}
    assert graph.steps[1].outputs == {"embedding": "pooled"}


def test_a_single_open_input_takes_the_single_tensor_that_fits():
    decode = model("decode", {"jpeg": "string[batch, 1]"}, {"pixels": IMAGE, "size": "int64[batch, 2]"})
    classify = model("classify", {"image": IMAGE}, {"logits": "float32[batch, 10]"})
    graph = wired({"steps": ["decode", "classify"], "inputs": {"file": "string[batch, 1]"}}, decode, classify)
    assert wires(graph) == {
        "input file -> decode.jpeg",
        "decode.pixels -> classify.image",
        "decode.size -> output size",
        "classify.logits -> output logits",
    }


def test_of_tensors_of_one_name_the_one_made_of_the_others_is_meant():
    names = ("decode", "resize", "normalise")
    steps = [model(name, {"image": IMAGE}, {"image": IMAGE}) for name in names]
    last = model("classify", {"image": IMAGE}, {"logits": "float32[batch, 10]"})
    graph = wired({"steps": [*names, "classify"]}, *steps, last)
    assert wires(graph) == {
        "input image -> decode.image",
        "decode.image -> resize.image",
        "resize.image -> normalise.image",
        "normalise.image -> classify.image",
        "classify.logits -> output logits",
    }


def test_branches_meet_again_and_each_first_step_has_its_input():
    text = model("text", {"text": "string[batch, 1]"}, {"t": F4})
    image = model("image", {"image": "uint8[batch, h, w]"}, {"i": F4})
    audio = model("audio", {"sound": "float32[batch, samples: 1..16000]"}, {"a": F4})
    head = model("head", {"t": F4, "i": F4, "a": F4}, {"y": "float32[batch, 2]"})
    graph = wired({"steps": ["text", "image", "audio", "head"]}, text, image, audio, head)
    assert own(graph) == (
        {"text": "string[batch, 1]", "image": "uint8[batch, h, w]", "sound": "float32[batch, samples: 1..16000]"},
        {"y": "float32[batch, 2]"},
    )
    assert {"text.t -> head.t", "image.i -> head.i", "audio.a -> head.a"} < wires(graph)


def test_sizes_that_a_later_step_fixes_are_those_of_the_ensemble():
    first = model("first", {"x": "float32[batch, seq]"}, {"h": "float32[batch, seq]"})
    second = model(
        "second",
        {"h": "float32[batch, k: 1..512]", "w": "float32[batch, 7, k: 1..512]"},
        {"y": "float32[batch, k: 1..512]"},
    )
    graph = wired(
        {
            "steps": ["first", {"model": "second", "inputs": {"w": "w"}}],
            "inputs": {"x": "float32[batch, n]", "w": "float32[batch, m, free]"},
        },
        first,
        second,
    )
    assert own(graph) == (
        {"x": "float32[batch, n: 1..512]", "w": "float32[batch, 7, n: 1..512]"},
        {"y": "float32[batch, n: 1..512]"},
    )
    assert check(graph) == []


def test_dimensions_of_one_name_that_are_not_the_same_get_two():
    a = model("a", {"x": "float32[batch, seq]"}, {"p": F4})
    b = model("b", {"y": "float32[batch, seq]", "p": F4}, {"q": F4})
    graph = wired({"steps": ["a", {"model": "b", "inputs": {"y": "other"}}]}, a, b)
    assert own(graph)[0] == {"other": "float32[batch, b_seq]", "x": "float32[batch, seq]"}


def test_an_ensemble_batches_where_all_of_it_does():
    alone = model("alone", {"x": "float32[n, 4]"}, {"h": "float32[n, 4]"}, batch=0)
    batching = model("batching", {"h": F4}, {"y": F4}, batch=6)
    steps = {"steps": ["alone", "batching"]}
    graph = wired(steps, alone, batching)
    assert graph.max_batch_size == 0
    assert own(graph) == ({"x": "float32[n, 4]"}, {"y": "float32[n, 4]"})
    batched = wired(steps | {"max_batch_size": 3}, alone, batching)
    assert batched.max_batch_size == 3
    assert own(batched) == ({"x": F4}, {"y": F4})
    assert {rule.id for rule, _ in check(graph) + check(batched) if rule.severity == "error"} == set()
    said = wired({"steps": ["one"], "inputs": {"h": "float32[4]"}}, replace(batching, name="one"))
    assert (said.max_batch_size, own(said)[0]) == (0, {"h": "float32[4]"})
    assert told(
        {"steps": ["one"], "inputs": {"h": "float32[4]"}, "max_batch_size": 2}, replace(batching, name="one")
    ) == [
        (
            "'h' is float32[4], and the ensemble takes batches of 2",
            "begin it with `batch`, or write `max_batch_size: 0`",
            ("inputs", "h"),
        )
    ]


def test_an_optional_input_is_left_open_or_taken_from_who_has_it():
    masked = model(
        "masked", {"ids": "int64[batch, seq]", "mask?": "int64[batch, seq]", "type?": "int64[batch, seq]"}, {"y": F4}
    )
    graph = wired({"steps": ["tokenize", "masked"]}, TOKENIZE, masked)
    assert graph.steps[1].inputs == {"ids": "tokenize.ids", "mask": "tokenize.mask"}


def test_names_in_the_pool_never_meet():
    a = model("a", {"x": F4}, {"y": F4})
    b = model("b", {"y": F4}, {"z": F4})
    graph = wired({"steps": ["a", {"model": "b", "inputs": {"y": "a.y"}}], "inputs": {"a.y_": F4, "x": F4}}, a, b)
    assert graph.steps[1].inputs == {"y": "a.y"}
    clash = wired({"steps": ["a", "b"], "outputs": {"a.y": "b.z"}}, a, b)
    assert (clash.steps[1].inputs, clash.steps[1].outputs) == ({"y": "a.y_"}, {"z": "a.y"})


A = model("a", {"x": F4}, {"y": F4, "s": F4})
B = model("b", {"x": F4}, {"y": F4})
JOIN = model("join", {"y": F4}, {"z": F4})
ASKED = [
    ({"steps": ["tokenise"]}, [TOKENIZE], "there is no model 'tokenise'", "did you mean 'tokenize'?", ("steps", 0)),
    (
        {"steps": ["u"]},
        [replace(TOKENIZE, name="u", inputs=None)],
        "the tensors of model 'u' are not known",
        "",
        ("steps", 0),
    ),
    (
        {"steps": ["a", "b", "join"]},
        [A, B, JOIN],
        "join.y float32[batch, 4] may be a.y float32[batch, 4] or b.y float32[batch, 4]",
        "write which: `y: step.output`",
        ("steps", 2, "inputs", "y"),
    ),
    (
        {"steps": ["a", "b", {"model": "join", "inputs": {"y": "y"}}]},
        [A, B, JOIN],
        "'y' may be a.y float32[batch, 4] or b.y float32[batch, 4]",
        "write which: `y: step.output`",
        ("steps", 2, "inputs", "y"),
    ),
    (
        {"steps": ["tokenize", "encoder"], "inputs": {"txt": "string[batch, 2, 2]"}},
        [TOKENIZE, ENCODER],
        "nothing is connected to tokenize.text string[batch, 1]",
        'nothing here fits: declare it in the ensemble\'s `inputs`: {text: "string[batch, 1]"}',
        ("steps", 0, "inputs", "text"),
    ),
    (
        {"steps": ["a", {"model": "join", "inputs": {"y": "a.yy"}}]},
        [A, JOIN],
        "there is no tensor 'a.yy'",
        "did you mean 'a.y'?",
        ("steps", 1, "inputs", "y"),
    ),
    (
        {"steps": ["a", {"model": "join", "inputs": {"q": "a.y"}}]},
        [A, JOIN],
        "model 'join' has no input 'q'",
        "",
        ("steps", 1, "inputs", "q"),
    ),
    (
        {"steps": ["a", {"model": "join", "outputs": {"zz": "q"}}]},
        [A, JOIN],
        "model 'join' has no output 'zz'",
        "did you mean 'z'?",
        ("steps", 1, "outputs", "zz"),
    ),
    (
        {"steps": [{"model": "a", "outputs": {"y": "h", "s": "h"}}, {"model": "join", "inputs": {"y": "a.y"}}]},
        [A, JOIN],
        "a.s and a.y are both called 'h' in the ensemble",
        "",
        ("steps", 0, "outputs", "s"),
    ),
    (
        {"steps": [{"model": "a", "outputs": {"y": "x"}}], "inputs": {"x": F4}},
        [A],
        "a.y and an input of the ensemble are both called 'x' in the ensemble",
        "",
        ("steps", 0, "outputs", "y"),
    ),
    (
        {"steps": [{"model": "a", "outputs": {"s": "spare"}}, "join"], "outputs": ["z"]},
        [A, JOIN],
        "a.s is called 'spare', and nothing uses it",
        "take it out, or list it in `outputs`",
        ("steps", 0, "outputs", "s"),
    ),
    (
        {"steps": ["a", {"name": "c", "model": "b", "inputs": {"x": "a.s"}}]},
        [A, B],
        "two outputs are called 'y': a.y and c.y",
        "write outputs: {y: a.y, c_y: c.y}",
        ("outputs",),
    ),
    (
        {"steps": ["a"], "outputs": {"q": "int8[batch, 1]"}},
        [A],
        "no step makes 'q' int8[batch, 1]",
        "nothing here fits",
        ("outputs", "q"),
    ),
    (
        {"steps": ["a", "b"], "outputs": {"y": F4}},
        [A, B],
        "output 'y' may be a.y float32[batch, 4] or b.y float32[batch, 4]",
        "write which: `y: step.output`",
        ("outputs", "y"),
    ),
    (
        {"steps": ["a"], "outputs": {"p": "a.y", "q": "a.y"}},
        [A],
        "a.y is two outputs, 'p' and 'q'",
        "keep one",
        ("outputs", "q"),
    ),
    (
        {"steps": ["a"], "inputs": {"x": F4}, "outputs": ["x"]},
        [A],
        "output 'x' is an input of the ensemble",
        "",
        ("outputs", "x"),
    ),
    (
        {"steps": ["same"]},
        [model("same", {"x": F4}, {"x": F4})],
        "output 'x' (same.x) has the name of an input of the ensemble",
        "give it another name: outputs: {new_x: same.x}",
        ("outputs",),
    ),
    (
        {"steps": ["a", "t"]},
        [A, model("t", {"x": "int8[batch, 1]"}, {"q": F4})],
        "two steps take 'x' from the caller, as float32[batch, 4] and as int8[batch, 1]",
        "wire them to inputs of different names",
        ("steps", 1, "inputs", "x"),
    ),
    (
        {"steps": ["none"]},
        [model("none", {"x": F4}, {})],
        "the ensemble has no output: every tensor is used by a step",
        "",
        ("outputs",),
    ),
]


@pytest.mark.parametrize(("tree", "models", "what", "fix", "path"), ASKED, ids=[row[2][:40] for row in ASKED])
def test_what_is_not_clear_is_asked_for(tree, models, what, fix, path):
    assert (what, fix, path) in told(tree, *models)


def test_a_step_that_others_feed_is_given_nothing_silently():
    types = model("types", {"ids": "int64[batch, seq]", "types": "int64[batch, seq]"}, {"y": F4})
    found = told(
        {"steps": ["tokenize", {"model": "types", "inputs": {"ids": "tokenize.ids"}}]},
        TOKENIZE,
        replace(types, inputs=(*types.inputs, replace(types.inputs[1], name="more"))),
    )
    assert found[0] == (
        "nothing is connected to types.types int64[batch, seq]",
        "what fits: tokenize.ids int64[batch, seq] or tokenize.mask int64[batch, seq]",
        ("steps", 1, "inputs", "types"),
    )


def test_the_text_is_read():
    read = written_of(
        {
            "steps": ["a", {"model": "m", "name": "b", "version": 2, "inputs": {"x": "a.y"}, "outputs": {"y": "z"}}],
            "inputs": {"x": F4},
            "outputs": {"z": {"from": "b.y", "tensor": F4}, "w": "a.s"},
            "max_batch_size": 4,
        }
    )
    tensor = read.inputs[0]
    assert read == Written(
        (WrittenStep("a", "a"), WrittenStep("b", "m", 2, {"x": "a.y"}, {"y": "z"})),
        (tensor,),
        (WrittenOutput("z", "b.y", replace(tensor, name="z")), WrittenOutput("w", "a.s")),
        4,
    )
    assert written_of({"steps": ["a"], "outputs": ["a.y"]}).outputs == (WrittenOutput("y", "a.y"),)


MISWRITTEN = [
    ({}, "an ensemble needs `steps`", ("steps",)),
    ({"steps": "a"}, "an ensemble needs `steps`", ("steps",)),
    ({"steps": [3]}, "a step names no model", ("steps", 0)),
    ({"steps": ["a", "a"]}, "two steps are called 'a'", ("steps", 1)),
    ({"steps": ["a"], "input": {}}, "unknown key 'input'", ("input",)),
    ({"steps": [{"model": "a", "input": {}}]}, "unknown key 'input'", ("steps", 0, "input")),
    ({"steps": [{"model": "a", "name": 3}]}, "`name` is no text", ("steps", 0, "name")),
    ({"steps": [{"model": "a", "version": 0}]}, "`version` is no version", ("steps", 0, "version")),
    ({"steps": [{"model": "a", "inputs": ["x"]}]}, "`inputs` of a step has a wrong value", ("steps", 0, "inputs")),
    ({"steps": ["a"], "inputs": ["x"]}, "`inputs` has a wrong value", ("inputs",)),
    ({"steps": ["a"], "inputs": {"x": "float"}}, "'float' is no tensor", ("inputs", "x")),
    ({"steps": ["a"], "outputs": 3}, "`outputs` has a wrong value", ("outputs",)),
    ({"steps": ["a"], "outputs": {"y": {"form": "a.y"}}}, "unknown key 'form'", ("outputs", "y", "form")),
    ({"steps": ["a"], "outputs": {"y": {"from": 3}}}, "`from` is no text", ("outputs", "y", "from")),
    ({"steps": ["a"], "max_batch_size": True}, "`max_batch_size` is no batch size", ("max_batch_size",)),
]


@pytest.mark.parametrize(("tree", "what", "path"), MISWRITTEN, ids=[row[1] for row in MISWRITTEN])
def test_what_is_miswritten_is_told_with_its_place(tree, what, path):
    with pytest.raises(Findings) as caught:
        written_of(tree)
    assert [(found.what, found.path) for found in caught.value.findings] == [(what, path)]
