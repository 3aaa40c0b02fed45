"""Graphs out of ``ModelConfig`` messages, and back."""

from dataclasses import replace

import pytest

from builder.ensemble.adapters import config_tree, graph_of_config, step_model_of_config, step_model_of_interface
from builder.ensemble.checks import check
from builder.ensemble.graph import BATCH_DIM, FREE, Port
from builder.tensors import Dim, Interface, parse_tensor
from builder.triton_fields import message_of
from serving.dtypes import BY_NAME
from tests.builder.ensemble.small import graph, model, search, step

ENCODER = {
    "name": "encoder",
    "backend": "onnxruntime",
    "max_batch_size": 4,
    "input": [
        {"name": "ids", "data_type": "TYPE_INT64", "dims": [-1]},
        {"name": "mask", "data_type": "TYPE_INT64", "dims": [-1], "optional": True, "allow_ragged_batch": True},
    ],
    "output": [{"name": "embedding", "data_type": "TYPE_FP32", "dims": [384]}],
    "model_transaction_policy": {"decoupled": True},
    "instance_group": [{"kind": "KIND_CPU"}],
    "response_cache": {"enable": True},
}


def step_tree(name, **more):
    return {
        "model_name": name,
        "model_version": -1,
        "input_map": {"ids": "ids"},
        "output_map": {"embedding": "y"},
    } | more


def ensemble_tree(*steps, **more):
    return {
        "name": "search",
        "platform": "ensemble",
        "max_batch_size": 4,
        "input": [{"name": "ids", "data_type": "TYPE_INT64", "dims": [1, -1], "reshape": {"shape": [-1]}}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [384]}],
        "ensemble_scheduling": {"step": list(steps)},
    } | more


def test_a_model_is_read_from_its_config():
    read = step_model_of_config(message_of(ENCODER), versions=[3, 1], served=[3])
    assert read.inputs == (
        Port("ids", BY_NAME["int64"], (BATCH_DIM, FREE)),
        Port("mask", BY_NAME["int64"], (BATCH_DIM, FREE), optional=True, ragged=True),
    )
    assert read.outputs == (Port("embedding", BY_NAME["float32"], (BATCH_DIM, Dim(size=384))),)
    assert (read.format, read.versions, read.served) == ("onnx", (1, 3), (3,))
    assert (read.decoupled, read.sequence, read.response_cache) == (True, False, True)
    assert read.instance_kinds == ("KIND_CPU",)


def test_what_a_config_leaves_to_the_backend_is_not_known():
    read = step_model_of_config(message_of({"name": "m", "platform": "tensorrt_plan", "sequence_batching": {}}))
    assert (read.inputs, read.outputs, read.versions, read.served) == (None, None, None, None)
    assert (read.format, read.sequence, read.max_batch_size) == ("tensorrt_plan", True, 0)
    odd = step_model_of_config(message_of({"name": "m", "input": [{"name": "x"}]}))
    assert odd.inputs == (Port("x", None, ()),)


def test_an_ensemble_is_read_from_its_config():
    models = {"encoder": step_model_of_config(message_of(ENCODER)), "search": step_model_of_config(message_of(ENCODER))}
    read = graph_of_config(message_of(ensemble_tree(step_tree("encoder"))), models)
    assert read.inputs == (Port("ids", BY_NAME["int64"], (BATCH_DIM, FREE)),)  # as its reshape gives it to the steps
    assert [(one.name, one.model, one.model_version) for one in read.steps] == [("encoder", models["encoder"], -1)]
    assert (read.steps[0].inputs, read.steps[0].outputs) == ({"ids": "ids"}, {"embedding": "y"})
    assert read.models == ("encoder",)
    assert {rule.id for rule, _ in check(read)} == {"ensemble-single-step", "ensemble-decoupled"}


def test_steps_of_one_model_are_numbered_and_an_absent_version_is_zero():
    tree = ensemble_tree(step_tree("encoder"), step_tree("encoder"), {"input_map": {"a": "b"}})
    read = graph_of_config(message_of(tree), {})
    assert [one.name for one in read.steps] == ["encoder#1", "encoder#2", "step 2"]
    assert [one.model_version for one in read.steps] == [-1, -1, 0]
    assert [one.model for one in read.steps] == [None, None, None]


def test_ensembles_in_ensembles_are_followed():
    def ensemble(name, *inner):
        return message_of(ensemble_tree(*map(step_tree, inner)) | {"name": name})

    messages = [ensemble("a", "b", "encoder"), ensemble("b", "c"), ensemble("c", "a"), message_of(ENCODER)]
    models = {message.name: step_model_of_config(message) for message in messages}
    read = graph_of_config(messages[0], models)
    assert read.uses == {"a": ("b", "encoder"), "b": ("c",), "c": ("a",)}
    assert [hit.message for rule, hit in check(read) if rule.id == "ensemble-recursion"] == [
        "ensemble 'a' needs itself: a -> b -> c -> a"
    ]
    decoupled = graph_of_config(
        message_of(ensemble_tree(step_tree("d"))), models | {"d": step_model_of_config(ensemble("d", "encoder"))}
    )
    assert decoupled.steps[0].model.decoupled  # as the server finds out: one of its steps is


def test_what_is_written_is_read_back():
    written = replace(search(), response_cache=True, max_inflight_requests=3)
    tree = config_tree(written)
    models = {one.model_name: one.model for one in written.steps}
    read = graph_of_config(message_of(tree), models)
    assert read == replace(written, models=("encoder", "tokenize"), uses={"search": ("tokenize", "encoder")})
    assert tree["ensemble_scheduling"]["step"][0] == {
        "model_name": "tokenize",
        "model_version": -1,
        "input_map": {"text": "text"},
        "output_map": {"ids": "ids", "mask": "mask"},
    }
    assert tree["input"] == [{"name": "text", "data_type": "TYPE_STRING", "dims": [1]}]
    optional = graph({"x?": "int8[n, 2]"}, {"y": "int8[n: 1..4, 2]"}, step(model("m", {}, {}), {}, {}), batch=0)
    assert config_tree(optional)["input"] == [
        {"name": "x", "data_type": "TYPE_INT8", "dims": [-1, 2], "optional": True}
    ]


@pytest.mark.parametrize(
    ("text", "message"), [(None, "its type and rank have to be known"), ("int8[n]", "begins with `batch`")]
)
def test_what_cannot_be_written_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        config_tree(graph({"x": text}, {}))


def test_a_model_of_the_spec_is_taken_as_it_is():
    tensor = parse_tensor("x", "float32[batch, seq: 1..8]")
    read = step_model_of_interface("m", Interface((tensor,), ()), max_batch_size=4, format="onnx", decoupled=True)
    assert read == model("m", {"x": "float32[batch, seq: 1..8]"}, {}, batch=4, format="onnx", decoupled=True)
