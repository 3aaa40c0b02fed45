"""ONNX sources whose weights lie in other files: found, copied flat, refused where they lead elsewhere."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from builder.api import build, load_spec
from builder.errors import SourceError
from builder.export import onnx_from_file
from builder.graphs.external_data import copy_with_data, external_files
from builder.reference import OnnxRunner
from builder.repository.manifest import load
from serving import Client, Server

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)


def _external(name, location, array, *, offset=0, **entries):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": offset, "length": array.nbytes, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _model(folder, *tensors, nodes=None):
    """x @ w, plus each further tensor."""
    folder.mkdir(exist_ok=True)
    names = [tensor.name for tensor in tensors]
    steps = [helper.make_node("MatMul", ["x", names[0]], ["s0"])]
    steps += [helper.make_node("Add", [f"s{k}", name], [f"s{k + 1}"]) for k, name in enumerate(names[1:])]
    steps += nodes or []
    steps.append(helper.make_node("Identity", [steps[-1].output[0]], ["y"]))
    graph = helper.make_graph(
        steps,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        initializer=tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="by hand")
    model.ir_version = 8
    (folder / "source.onnx").write_bytes(model.SerializeToString())
    return folder / "source.onnx"


def _write(path, *arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(array.tobytes() for array in arrays))


def _artifact(stages, source):
    made = stages(source={"onnx": str(source)})
    loaded = made.load()
    (made.folder / "out").mkdir()
    return onnx_from_file(loaded, made.samples(loaded), to=made.folder / "out/model.onnx")


def test_data_beside_the_graph_is_copied_and_the_graph_not_touched(stages, tmp_path):
    source = _model(tmp_path / "in", _external("w", "weights.bin", WEIGHTS))
    _write(source.with_name("weights.bin"), WEIGHTS)
    artifact = _artifact(stages, source)
    assert sorted(artifact.sha256) == ["model.onnx", "weights.bin"]
    assert artifact.path.read_bytes() == source.read_bytes()
    assert artifact.size_bytes == source.stat().st_size + WEIGHTS.nbytes
    assert "taken as it is from source.onnx, written by by hand" in artifact.notes


def test_several_files_and_sub_folders_become_one_flat_folder(stages, tmp_path):
    ones, twos = np.ones(4, np.float32), np.full(4, 2, np.float32)
    source = _model(
        tmp_path / "in",
        _external("w", "sub/deep/weights.bin", WEIGHTS, offset=16),
        _external("b", "sub/bias.bin", ones),
        _external("c", "golden.npz", twos),
        _external("d", "sub/bias.bin", twos, offset=ones.nbytes),
    )
    _write(source.parent / "sub/deep/weights.bin", np.zeros(4, np.float32), WEIGHTS)
    _write(source.parent / "sub/bias.bin", ones, twos)
    _write(source.parent / "golden.npz", twos)
    artifact = _artifact(stages, source)
    files = {path.name for path in artifact.path.parent.iterdir()}
    assert files == {"model.onnx", "model.onnx.data", "model.onnx.data2", "model.onnx.data3"} == set(artifact.sha256)
    x = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(OnnxRunner(artifact.path)({"x": x})["y"], WEIGHTS + 5)


def test_data_of_nodes_and_of_subgraphs_is_found(tmp_path):
    branch = helper.make_graph(
        [helper.make_node("Identity", ["inner"], ["chosen"])],
        "branch",
        [],
        [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [4])],
        initializer=[_external("inner", "inner.bin", np.ones(4, np.float32))],
    )
    nodes = [
        helper.make_node("Constant", [], ["k"], value=_external("k", "constant.bin", np.ones(4, np.float32))),
        helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["s0", "k"], ["t"]),
    ]
    source = _model(tmp_path / "in", _external("w", "weights.bin", WEIGHTS), nodes=nodes)
    for name, array in (("weights", WEIGHTS), ("constant", np.ones(4, np.float32)), ("inner", np.ones(4, np.float32))):
        _write(source.parent / f"{name}.bin", array)
    assert external_files(source) == {"constant.bin": 16, "inner.bin": 16, "weights.bin": 48}
    names = copy_with_data(source, tmp_path / "model.onnx", taken=("inner.bin",))
    assert sorted(names) == ["constant.bin", "model.onnx.data", "weights.bin"]
    assert external_files(tmp_path / "model.onnx") == {"constant.bin": 16, "model.onnx.data": 16, "weights.bin": 48}


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "sub/../../secret", "a\\..\\b", ""])
def test_a_location_outside_of_the_folder_is_refused_before_it_is_opened(stages, tmp_path, location):
    source = _model(tmp_path / "in", _external("w", location, WEIGHTS))
    with pytest.raises(SourceError, match="takes its weights from outside its own folder") as caught:
        stages(source={"onnx": str(source)}).load()
    assert caught.value.got == f"location {location!r}"
    assert "unless you know who made it" in caught.value.fix


def test_missing_data_is_named(stages, tmp_path):
    source = _model(tmp_path / "in", _external("w", "weights.bin", WEIGHTS))
    with pytest.raises(SourceError, match=r"external data of the ONNX file is missing") as caught:
        stages(source={"onnx": str(source)}).load()
    assert caught.value.expected == str(source.with_name("weights.bin"))


def test_data_that_is_cut_short_is_named_with_its_sizes(stages, tmp_path):
    source = _model(tmp_path / "in", _external("w", "weights.bin", WEIGHTS, offset=16))
    _write(source.with_name("weights.bin"), WEIGHTS)
    with pytest.raises(SourceError, match="is cut short") as caught:
        stages(source={"onnx": str(source)}).load()
    assert (caught.value.expected, caught.value.got) == ("at least 64 bytes", "48 bytes")


def test_an_offset_that_is_no_number_is_refused(stages, tmp_path):
    source = _model(tmp_path / "in", _external("w", "weights.bin", WEIGHTS, offset="-1"))
    _write(source.with_name("weights.bin"), WEIGHTS)
    with pytest.raises(SourceError, match="unusable offset") as caught:
        stages(source={"onnx": str(source)}).load()
    assert caught.value.where == f"{source}, tensor 'w'"
    assert caught.value.fix.startswith("save it again: onnx.save(")


def test_a_graph_that_onnx_runtime_refuses_is_the_sources_fault(stages, tmp_path):
    from builder.reference import reference_runner

    source = _model(tmp_path / "in", onnx.numpy_helper.from_array(WEIGHTS, "w"))
    model = onnx.load(source)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, source)
    made = stages(source={"onnx": str(source)})
    with pytest.raises(SourceError, match="ONNX Runtime does not take the file") as caught:
        reference_runner(made.load(), made.folder)
    assert "NoSuchOperator" in caught.value.got


def test_a_request_that_the_file_cannot_answer_is_the_sources_fault(stages, tmp_path):
    from builder.reference import reference_runner

    source = _model(tmp_path / "in", onnx.numpy_helper.from_array(WEIGHTS, "w"))
    made = stages(source={"onnx": str(source)})
    runner = reference_runner(made.load(), made.folder)
    with pytest.raises(SourceError, match=r"cannot run x float32\[2, 5\]"):
        runner({"x": np.zeros((2, 5), np.float32)})


@pytest.mark.server
@pytest.mark.slow
def test_external_data_is_published_and_served(tmp_path):
    source = _model(tmp_path / "in", _external("w", "sub/weights.bin", WEIGHTS), _external("b", "b.bin", WEIGHTS[0]))
    _write(source.parent / "sub/weights.bin", WEIGHTS)
    _write(source.parent / "b.bin", WEIGHTS[0])
    spec = tmp_path / "models.yaml"
    spec.write_text(f"models:\n  m: {{source: {{onnx: {source}}}}}\n")
    (result,) = build(load_spec(spec)).models
    assert (result.status, result.error) == ("built", None)
    version = tmp_path / "model_repository/m/1"
    assert {"model.onnx", "model.onnx.data", "b.bin"} <= {path.name for path in version.iterdir()}
    assert {"model.onnx", "model.onnx.data", "b.bin"} <= set(load(version).files)
    with Server(version.parent.parent) as server, Client(f"http://{server.http_url}") as client:
        answer = client.infer("m", {"x": np.eye(3, dtype=np.float32)})
    np.testing.assert_allclose(answer["y"], WEIGHTS + WEIGHTS[0])
