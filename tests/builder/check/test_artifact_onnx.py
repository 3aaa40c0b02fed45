"""ONNX files against their configuration: each rule fires on what it is for, and not on its mended twin."""

import random
import time
from dataclasses import replace

import onnx
import pytest
from onnx import TensorProto, helper

from builder.check.target import server_of
from builder.graphs.onnx_summary import CONFIG_TYPES, summary_of, summary_of_bytes
from builder.releases import PINNED_RELEASE, RELEASES, ir_taken, opset_taken
from serving.dtypes import BY_ONNX
from tests.builder.check.artifact_models import CONFIG, UNBATCHED, found, graph, on_disk, value

F = TensorProto.FLOAT
MASKED = graph([helper.make_node("Add", ["x", "mask"], ["y"])], [value("x"), value("mask")])
OVERRIDABLE = graph(inputs=[value("x"), value("w", shape=[4])])
SCALAR = graph(
    [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)], [value("x", shape=["n", 4])], [value("y", shape=[])]
)
FOREIGN = graph(
    [helper.make_node("Magic", ["x"], ["y"], domain="my.ops")],
    opsets=[helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)],
)
WITH_FUNCTION = graph(
    [helper.make_node("Magic", ["x"], ["y"], domain="my.ops")],
    opsets=[helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)],
    functions=[
        helper.make_function(
            "my.ops", "Magic", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)]
        )
    ],
)
SEQUENCE = """
max_batch_size: 8 input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ] output [ { name: "y" data_type: TYPE_FP32
dims: [ 4 ] } ] sequence_batching { control_input [ { name: "START" control [ { kind: CONTROL_SEQUENCE_START
fp32_false_true: [ 0, 1 ] } ] } ] }"""
STATE = SEQUENCE.partition("control_input")[0] + (
    'state [ { input_name: "IN" output_name: "OUT" data_type: TYPE_FP32 dims: [ 4 ] } ] }'
)


def with_control(shape, kind=F):
    nodes = [helper.make_node("Cast", ["START"], ["s"], to=F), helper.make_node("Add", ["x", "s"], ["y"])]
    return graph(nodes, [value("x"), value("START", kind, shape)])


def sequence_graph():
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(F, None))
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("SequenceConstruct", ["x"], ["z"])]
    return graph(nodes, outputs=[value("y"), helper.make_value_info("z", kind)])


# rule, files that fire it, the same mended: each (configuration, model.onnx)
CASES = {
    "onnx-input-unknown": ((CONFIG.replace('"x"', '"image"'), graph()), (CONFIG, graph())),
    "onnx-output-unknown": ((CONFIG.replace('"y"', '"scores"'), graph()), (CONFIG, graph())),
    "onnx-input-missing": (
        (CONFIG, MASKED),
        (CONFIG.replace("input [", 'input [ { name: "mask" data_type: TYPE_FP32 dims: [ 4 ] },'), MASKED),
    ),
    "onnx-dtype": ((CONFIG.replace("TYPE_FP32", "TYPE_FP16", 1), graph()), (CONFIG, graph())),
    "onnx-shape": ((CONFIG.replace("[ 4 ]", "[ -1, 4 ]", 1), graph()), (CONFIG, graph())),
    "onnx-batch": ((CONFIG, graph(inputs=[value("x", shape=[1, 4])])), (UNBATCHED.replace("-1", "1", 1),
                    graph(inputs=[value("x", shape=[1, 4])]))),
    "onnx-not-a-tensor": ((CONFIG, sequence_graph()), (CONFIG, graph())),
    "onnx-optional": (
        (CONFIG.replace("dims", "optional: true dims", 1), OVERRIDABLE),
        (UNBATCHED.replace("output", 'input [ { name: "w" data_type: TYPE_FP32 dims: [ 4 ] optional: true } ]\noutput'),
         OVERRIDABLE),
    ),
    "onnx-ragged": (
        (CONFIG.replace("dims", "allow_ragged_batch: true dims", 1), graph()),
        (CONFIG.replace("dims: [ 4 ]", "allow_ragged_batch: true dims: [ -1 ]", 1),
         graph([helper.make_node("Expand", ["x", "shape"], ["y"])], [value("x", shape=["n"])], weights={"shape": [4]})),
    ),
    "onnx-control": ((SEQUENCE, graph()), (SEQUENCE, with_control(["batch", 1]))),
    "onnx-unreadable": ((CONFIG, graph().SerializeToString()[:-40]), (CONFIG, graph())),
    "onnx-graph": ((CONFIG, graph([helper.make_node("Add", ["x", "v"], ["y"])])), (CONFIG, graph())),
    "onnx-opset": ((CONFIG, graph(opset=opset_taken(None) + 1)), (CONFIG, graph(opset=opset_taken(None)))),
    "onnx-ir-version": ((CONFIG, graph(ir_version=14)), (CONFIG, graph(ir_version=13))),
    "onnx-custom-domain": ((CONFIG, FOREIGN), (CONFIG, WITH_FUNCTION)),
    "onnx-operator": ((CONFIG, graph([helper.make_node("Identty", ["x"], ["y"])])),
                      (CONFIG, graph([helper.make_node("Identity", ["x"], ["y"])]))),
    "onnx-warmup": (
        ('model_warmup [ { name: "w" batch_size: 1 } ]', graph()),
        ('model_warmup [ { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 '
         "zero_data: true } } } ]", graph()),
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_fires_and_its_mended_twin_is_clean(rule, tmp_path):
    (config, file), (mended_config, mended_file) = CASES[rule]
    bad = found(on_disk(tmp_path / "bad", config, {"1/model.onnx": file}), warnings=False)
    assert rule in bad, bad
    good = on_disk(tmp_path / "good", mended_config, {"1/model.onnx": mended_file})
    assert found(good, warnings=False) == {}


MESSAGES = [
    (
        CONFIG.replace('"x"', '"X"'),
        graph(),
        "1/model.onnx has no input 'X'; it has 'x'",
        "write 'x'",
        ("input", 0, "name"),
    ),
    (
        CONFIG,
        MASKED,
        "1/model.onnx takes 2 inputs, and the configuration has 1: 'mask' is missing",
        "name 'mask' too",
        ("input",),
    ),
    (
        CONFIG.replace("input [", 'input [ { name: "w" data_type: TYPE_FP32 dims: [ 4 ] },'),
        OVERRIDABLE,
        "1/model.onnx takes 1 inputs, and the configuration has 2",
        "the file has a value for 'w': `optional: true`, or leave it out",
        ("input",),
    ),
    (
        UNBATCHED.replace("dims", "optional: true dims", 1),
        graph(),
        "1/model.onnx takes 1 inputs, and the configuration has 0",
        "'x' cannot be `optional`: the file holds no value for it",
        ("input",),
    ),
    (
        CONFIG.replace("TYPE_FP32", "TYPE_INT32", 1),
        graph(),
        "input 'x' is TYPE_INT32, and TYPE_FP32 in 1/model.onnx",
        "write data_type: TYPE_FP32",
        ("input", 0, "data_type"),
    ),
    (
        CONFIG.replace("[ 4 ]", "[ 3 ]", 1),
        graph(),
        "input 'x' has dims [3] and a batch dimension, and the shape [-1, 4] in 1/model.onnx",
        "write dims: [4]",
        ("input", 0, "dims"),
    ),
    (
        CONFIG.replace("dims: [ 4 ]", "dims: [ 1 ] reshape { shape: [ 2, 2 ] }", 1),
        graph(),
        "input 'x' has reshape [2, 2] and a batch dimension, and the shape [-1, 4] in 1/model.onnx",
        "write shape: [4]",
        ("input", 0, "reshape", "shape"),
    ),
    (
        CONFIG,
        graph(inputs=[value("x", shape=[1, 4])]),
        "max_batch_size is 8, and input 'x' of 1/model.onnx has the shape [1, 4]: its first dimension is not open",
        "export it with a dynamic batch, or set max_batch_size: 0",
        ("max_batch_size",),
    ),
    (
        SEQUENCE,
        with_control(["batch", 2]),
        "sequence control 'START' has the shape [2] in 1/model.onnx",
        "a control has the shape [1] for each sample",
        ("sequence_batching", "control_input", 0, "name"),
    ),
    (
        SEQUENCE,
        with_control(["batch", 1], TensorProto.INT32),
        "sequence control 'START' is TYPE_FP32, and TYPE_INT32 in 1/model.onnx",
        "give it values of TYPE_INT32",
        ("sequence_batching", "control_input", 0, "control"),
    ),
    (
        STATE,
        graph(),
        "1/model.onnx has no input 'IN' for the state",
        "it has 'x'",
        ("sequence_batching", "state", 0, "input_name"),
    ),
]


@pytest.mark.parametrize("config, file, message, fix, path", MESSAGES, ids=[text[:40] for _, _, text, _, _ in MESSAGES])
def test_messages_name_both_sides_and_the_place(config, file, message, fix, path, tmp_path):
    hits = [hit for hits in found(on_disk(tmp_path / "m", config, {"1/model.onnx": file})).values() for hit in hits]
    assert (message, fix, path) in [(hit.message, hit.fix, hit.path) for hit in hits]


@pytest.mark.parametrize(
    "config, file",
    [
        ("", graph()),  # everything completed
        ("max_batch_size: 8", graph()),
        (CONFIG.partition("output")[0], graph()),
        (CONFIG.replace("[ 4 ]", "[ 2 ]", 1).replace("[ 4 ]", "[ -1 ]"),  # an input may fix what is open, no output may
         graph(inputs=[value("x", shape=["batch", "n"])], weights={"w": [1.0]},
               outputs=[value("y", shape=["batch", "n"])])),
        (UNBATCHED.replace("[ -1, 4 ] } ]\noutput", "[ 3, 4 ] } ]\noutput"), graph()),  # an input may fix what is open
        ('output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ] input [ { name: "x" data_type: TYPE_FP32 '
         "dims: [ 2, 4 ] } ]", SCALAR),
        (CONFIG, graph(outputs=[value("y"), value("x2")], nodes=[helper.make_node("Add", ["x", "w"], ["y"]),
                                                                helper.make_node("Relu", ["x"], ["x2"])])),
        (CONFIG, graph(inputs=[value("x"), value("w", shape=[4])], ir_version=3)),
        (CONFIG.replace("dims: [ 4 ]", "dims: [ 2, 2 ] reshape { shape: [ 4 ] }", 1), graph()),
        # The file leaves the output open; from its nodes it follows.
        (CONFIG, graph(outputs=[value("y", shape=["batch", "n"])])),
    ],
)  # fmt: skip
def test_what_the_server_loads_is_clean(config, file, tmp_path):
    onnx.checker.check_model(file)
    assert found(on_disk(tmp_path / "m", config, {"1/model.onnx": file}), warnings=False) == {}


def test_an_output_has_to_be_as_open_as_in_the_file(tmp_path):
    file = graph(
        inputs=[value("x", shape=["batch", "n"])], outputs=[value("y", shape=["batch", "n"])], weights={"w": [1.0]}
    )
    hits = found(on_disk(tmp_path / "m", CONFIG, {"1/model.onnx": file}), warnings=False)
    assert [hit.path for hit in hits.pop("onnx-shape")] == [("output", 0, "dims")] and not hits


def test_completion_turns_batching_on_before_the_rest_is_compared(tmp_path):
    """Half a configuration of a model that can batch gets max_batch_size 4: the other half is held against that."""
    config = 'output [ { name: "y" data_type: TYPE_FP32 dims: [ -1, 4 ] } ]'
    hits = found(on_disk(tmp_path / "m", config, {"1/model.onnx": graph()}), warnings=False)
    assert "and a batch dimension" in hits["onnx-shape"][0].message
    clean = config.replace("-1, 4", "4")
    assert not found(on_disk(tmp_path / "n", clean, {"1/model.onnx": graph()}), warnings=False)


def test_every_served_version_is_looked_at_and_no_other(tmp_path):
    files = {"1/model.onnx": graph(), "2/model.onnx": b"rubbish" * 9, "3/model.onnx": MASKED}
    model = on_disk(tmp_path / "m", CONFIG, files, versions=(1, 2, 3))
    assert set(found(model, warnings=False)) == {"onnx-unreadable", "onnx-input-missing"}
    object.__setattr__(model, "served", (1,))
    assert found(model, warnings=False) == {}


def test_a_folder_named_as_the_file_is_looked_into(tmp_path):
    model = on_disk(tmp_path / "m", CONFIG, {"1/model.onnx/model.onnx": MASKED})
    assert "1/model.onnx/model.onnx takes 2 inputs" in found(model)["onnx-input-missing"][0].message


@pytest.mark.parametrize("release", ["24.10", "25.09", "26.01", "26.03", "26.09"])
def test_the_release_decides_the_opset_and_the_ir_version(release, tmp_path):
    newest, ir = opset_taken(release), ir_taken(release)
    config = CONFIG
    good = on_disk(tmp_path / "a", config, {"1/model.onnx": graph(opset=newest, ir_version=ir)}, release=release)
    assert found(good, warnings=False) == {}
    new = on_disk(tmp_path / "b", config, {"1/model.onnx": graph(opset=newest + 1, ir_version=ir + 1)}, release=release)
    hits = found(new, warnings=False)
    assert hits["onnx-opset"][0].message == (
        f"1/model.onnx has opset {newest + 1}, and the server of release {release} takes up to {newest}"
    )
    assert hits["onnx-ir-version"][0].fix == f"set model.ir_version = {ir} and save it again"


@pytest.mark.parametrize(
    ("nodes", "opset", "found_there"),
    [
        (
            [helper.make_node("Gelu", ["x"], ["y"])],
            17,
            ["1/model.onnx has the operator 'Gelu', which came with opset 20"],
        ),
        ([helper.make_node("Gelu", ["x"], ["y"])], 20, []),
        ([helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")], 17, []),
        ([helper.make_node("relu", ["x"], ["y"])], 17, ["1/model.onnx has the operator 'relu', which ONNX has not"]),
    ],
)
def test_an_operator_has_to_be_in_the_opset_that_the_file_names(nodes, opset, found_there, tmp_path):
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = on_disk(tmp_path, CONFIG, {"1/model.onnx": graph(nodes, opsets=opsets)})
    hits = found(model).get("onnx-operator", [])
    assert [hit.message.startswith(text) for hit, text in zip(hits, found_there, strict=True)] == [True] * len(hits)
    library = CONFIG + 'model_operations { op_library_filename: "libops.so" }'
    assert "onnx-operator" not in found(on_disk(tmp_path / "l", library, {"1/model.onnx": graph(nodes, opsets=opsets)}))


def test_the_embedded_server_takes_what_its_onnx_runtime_takes(tmp_path):
    release = server_of("embedded").release
    assert release.name == "24.10"
    newest = opset_taken(None, release.onnxruntime)
    assert newest > opset_taken("24.10")
    for opset, refused in ((newest, False), (newest + 1, True)):
        model = on_disk(tmp_path / str(opset), CONFIG, {"1/model.onnx": graph(opset=opset)})
        assert ("onnx-opset" in found(replace(model, release=release))) is refused


@pytest.mark.parametrize(
    ("said", "fits"), [(["batch", "any"], True), (["batch", 5], False), (["batch"], False), (["batch", 4], True)]
)
def test_what_follows_from_the_nodes_counts_only_where_the_file_says_nothing(said, fits, tmp_path):
    relu = [helper.make_node("Relu", ["x"], ["y"])]
    model = on_disk(tmp_path, CONFIG, {"1/model.onnx": graph(relu, outputs=[value("y", shape=said)])})
    assert ("onnx-shape" not in found(model)) is fits


def test_a_known_domain_needs_no_opset(tmp_path):
    file = graph([helper.make_node("Relu", ["x"], ["y"])], opsets=[helper.make_opsetid("ai.onnx.ml", 3)])
    assert found(on_disk(tmp_path, CONFIG, {"1/model.onnx": file}), warnings=False) == {}


def test_what_releases_take_is_what_was_measured():
    assert {name: (opset_taken(name), ir_taken(name)) for name in ("24.10", "25.04", "25.10", "26.05", "26.09")} == {
        "24.10": (21, 10), "25.04": (22, 10), "25.10": (23, 11), "26.05": (25, 13), "26.09": (26, 13),
    }  # fmt: skip
    assert opset_taken(None) == opset_taken(PINNED_RELEASE) == max(map(opset_taken, RELEASES))


# --- external data ----------------------------------------------------------------------------------------------------


def external(location="w.data", length=16, offset=0):
    file = graph()
    tensor = file.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=text)
    return file


@pytest.mark.parametrize(
    "file, data, message",
    [
        (external(), {}, "1/model.onnx needs 1/w.data: no such file"),
        (external(), {"1/w.data": b"123"}, "1/w.data has 3 bytes, and 1/model.onnx needs 16"),
        (external(offset=8), {"1/w.data": bytes(16)}, "1/w.data has 16 bytes, and 1/model.onnx needs 24"),
        (external(length=0), {"1/w.data": bytes(8)}, "1/w.data has 8 bytes, and 1/model.onnx needs 16"),
        (external(""), {}, "1/model.onnx needs a location that is empty: nothing"),
        (external(length="many"), {"1/w.data": bytes(16)}, "tensor 'w' lies at offset '0', length 'many'"),
        (external("w.data/"), {"1/w.data/x": b""}, "1/model.onnx needs 1/w.data: a folder"),
    ],
)
def test_external_data_has_to_be_there_and_long_enough(file, data, message, tmp_path):
    hits = found(on_disk(tmp_path / "m", CONFIG, {"1/model.onnx": file, **data}), warnings=False)
    assert list(hits) == ["onnx-external-data"] and message in hits["onnx-external-data"][0].message


def test_external_data_that_is_there_is_fine(tmp_path):
    for name, file in {"a": external(), "b": external("sub/w.data"), "c": external("sub/../w.data")}.items():
        files = {"1/model.onnx": file, "1/w.data": bytes(16), "1/sub/w.data": bytes(16)}
        assert found(on_disk(tmp_path / name, CONFIG, files), warnings=False) == {}


@pytest.mark.parametrize("location", ["../w.data", "/etc/passwd", "sub/../../w.data"])
def test_external_data_outside_of_the_folder_is_refused_unseen(location, tmp_path):
    files = {"1/model.onnx": external(location), "w.data": bytes(16)}
    hits = found(on_disk(tmp_path / "m", CONFIG, files), warnings=False)
    assert list(hits) == ["onnx-external-outside"] and repr(location) in hits["onnx-external-outside"][0].message


def test_external_data_behind_a_link_out_of_the_folder_is_refused(tmp_path):
    model = on_disk(tmp_path / "m", CONFIG, {"1/model.onnx": external()})
    (tmp_path / "w.data").write_bytes(bytes(16))
    (tmp_path / "m/1/w.data").symlink_to(tmp_path / "w.data")
    assert list(found(model, warnings=False)) == ["onnx-external-outside"]
    # A folder of links, as caches of downloads make them, is taken for what it shows.
    (tmp_path / "m/1/model.onnx").rename(tmp_path / "model.onnx")
    (tmp_path / "m/1/model.onnx").symlink_to(tmp_path / "model.onnx")
    assert found(model, warnings=False) == {}


def test_an_input_without_a_shape_is_a_single_number(tmp_path):
    """As ONNX Runtime shows it to the backend, which then takes nothing but ones."""
    file = graph(inputs=[value("x", shape=None)])
    hits = found(on_disk(tmp_path / "a", UNBATCHED, {"1/model.onnx": file}), warnings=False)
    assert hits["onnx-shape"][0].fix == "write dims: [ 1 ]: the tensor is a single number"


def test_external_data_inside_of_a_node_and_of_a_branch_is_found(tmp_path):
    outer = external().graph.initializer[0]
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=outer)], "b", [], [value("c", shape=[4])])
    nodes = [
        helper.make_node("If", ["k"], ["v"], then_branch=inner, else_branch=inner),
        helper.make_node("Add", ["x", "v"], ["y"]),
    ]
    file = graph(nodes, [value("x"), value("k", TensorProto.BOOL, [])])
    assert [data.location for data in summary_of_bytes(file.SerializeToString()).external] == ["w.data", "w.data"]


# --- graphs and rubbish ---


def test_graphs_that_cannot_be_built_say_why(tmp_path):
    add, relu = helper.make_node("Add", ["x", "a"], ["y"]), helper.make_node("Relu", ["y"], ["a"])
    broken = {
        "the nodes run in a circle": graph([add, relu]),
        "'y' is made by two nodes": graph([helper.make_node("Relu", ["x"], ["y"])] * 2),
        "output 'z' is made by no node": graph(outputs=[value("z")]),
        "Add takes 'v', which no node makes and is no input or initializer": graph(
            [helper.make_node("Add", ["x", "v"], ["y"])]
        ),
        "input 'x' is there twice": graph(inputs=[value("x"), value("x")]),
        "'w' of shape [4] holds 2 bytes in place of 16": graph(),
        "the file names no opset: it was cut short behind its graph, or never had one": graph(),
    }
    del broken[list(broken)[-1]].opset_import[:]
    broken[list(broken)[-2]].graph.initializer[0].raw_data = b"12"
    for index, (problem, file) in enumerate(broken.items()):
        model = on_disk(tmp_path / str(index), "", {"1/model.onnx": file})
        assert f"1/model.onnx: {problem}" in [hit.message for hit in found(model)["onnx-graph"]]


@pytest.mark.parametrize(
    "content, fix",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "this is a Git LFS pointer: `git lfs pull`"),
        (b"<!DOCTYPE html><html>", "this is a web page: download the file itself"),
        (b"PK\x03\x04" + bytes(40), "this is a zip archive: export the model with torch.onnx.export"),
        (b"\xff" * 40, "copy or export it again"),
        (b"\x08\x07", "copy or export it again"),
    ],
)
def test_what_is_no_onnx_file_says_what_it_is(content, fix, tmp_path):
    hits = found(on_disk(tmp_path / "m", CONFIG, {"1/model.onnx": content}), warnings=False)
    assert list(hits) == ["onnx-unreadable"] and hits["onnx-unreadable"][0].fix == fix


def test_the_numbers_of_types_are_onnx_s_own():
    assert {TensorProto.DataType.Name(number): text for number, text in CONFIG_TYPES.items()} == {
        name: dtype.config for name, dtype in BY_ONNX.items() if dtype.config
    }


def test_the_summary_says_what_onnx_says(tmp_path):
    for file in (graph(), MASKED, OVERRIDABLE, SCALAR, WITH_FUNCTION, external()):
        path = tmp_path / "model.onnx"
        path.write_bytes(file.SerializeToString())
        summary = summary_of_bytes(path.read_bytes())
        initializers = {tensor.name for tensor in file.graph.initializer}
        assert list(summary.inputs) == [v.name for v in file.graph.input if v.name not in initializers]
        assert list(summary.outputs) == [v.name for v in file.graph.output]
        assert summary.opsets == {entry.domain: entry.version for entry in file.opset_import}
        assert not summary.problems and summary.ir_version == file.ir_version


def test_a_file_cut_short_at_any_byte_is_an_error_and_never_an_exception(tmp_path):
    whole = OVERRIDABLE.SerializeToString()
    model = on_disk(tmp_path / "m", CONFIG, {"1/model.onnx": whole})
    for length in range(len(whole)):
        (tmp_path / "m/1/model.onnx").write_bytes(whole[:length])
        assert found(model, warnings=False), length


def test_bits_flipped_and_rubbish_are_never_an_exception_and_never_slow(tmp_path):
    whole = bytearray(external().SerializeToString())
    chance = random.Random(7)
    model = on_disk(tmp_path / "m", CONFIG, {"1/model.onnx": b"x"})
    began = time.process_time()
    for bit in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "m/1/model.onnx").write_bytes(flipped)
        found(model)
    for size in range(300):
        (tmp_path / "m/1/model.onnx").write_bytes(chance.randbytes(size * 7))
        found(model)
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    "start, part", [(b"", b"\x08\x01"), (b"\x3a\x80\xda\xc4\x09", b"\x0a\x00")], ids=["model", "graph"]
)
def test_a_file_of_endless_small_parts_is_left_alone(start, part, tmp_path):
    model = on_disk(tmp_path / "m", CONFIG, {"1/model.onnx": start + part * 10_000_000})
    began = time.process_time()
    hits = found(model)
    assert time.process_time() - began < 3 and "onnx-too-large" in hits


def test_a_sparse_file_of_ten_gigabytes_is_not_read(tmp_path):
    model = on_disk(tmp_path / "m", CONFIG, {"1/model.onnx": b""})
    with (tmp_path / "m/1/model.onnx").open("wb") as stream:
        stream.truncate(10 * 1024**3)
    began = time.process_time()
    hits = found(model, warnings=False)
    assert time.process_time() - began < 1
    assert "an ONNX file ends at 2 GiB" in hits["onnx-unreadable"][0].message


def test_the_weights_stay_on_disk_and_a_thousand_files_take_a_second(tmp_path):
    paths = []
    for number in range(200):
        paths.append(tmp_path / f"{number}.onnx")
        paths[-1].write_bytes(graph().SerializeToString())
    began = time.process_time()
    for path in paths:
        summary_of(path)
    assert (time.process_time() - began) * 5 < 8  # about one on a quiet machine; reading weights would be far more
