"""Steps become one ONNX file that answers as they did, or it is said why they cannot."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from builder.ensemble.equality import check_fused, compare_fused
from builder.ensemble.fuse import fuse_onnx
from builder.errors import EnsembleError, ParityError, SourceError
from builder.graphs.onnx_tensors import interface_of_onnx
from tests.builder.ensemble.onnx_parts import branching, calling, dense, node, part, request, value, weight, write


def chain(tmp_path, *, outputs=("y",), **second):
    parts = [
        part(dense(tmp_path, "one"), {"x": "x"}, {"y": "m"}),
        part(dense(tmp_path, "two", seed=1, **second), {"x": "m"}, {"y": "y"}),
    ]
    to = tmp_path / "out" / "fused.onnx"
    fuse_onnx(parts, ["x"], outputs, to)
    return parts, to


def equal(parts, to, names=("x",)):
    differences = check_fused(parts, to, [request(names), request(names, batch=1, seed=2)])
    assert all(difference.ok and difference.max_abs < 1e-6 for difference in differences)
    return {difference.output for difference in differences}


def test_a_chain_is_one_file_with_the_names_of_the_ensemble(tmp_path):
    parts, to = chain(tmp_path)
    assert equal(parts, to) == {"y"}
    interface = interface_of_onnx(to)
    assert [str(tensor) for tensor in interface.inputs + interface.outputs] == ["float32[batch, 4]"] * 2
    model = onnx.load(to)
    assert [one.name for one in model.graph.node] == ["one/n", "", "one/n2", "two/n", "", "two/n2"]
    assert (model.producer_name, model.doc_string, list(model.metadata_props)) == ("triton-repo", "", [])
    assert {one.name for one in model.graph.value_info} == {"one/h", "two/h"}


def test_the_same_steps_make_the_same_bytes(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    assert chain(tmp_path / "a")[1].read_bytes() == chain(tmp_path / "b")[1].read_bytes()


def test_what_is_used_outside_as_well_is_an_output(tmp_path):
    parts, to = chain(tmp_path, outputs=("m", "y"))
    assert equal(parts, to) == {"m", "y"}


def test_branches_share_an_input_and_meet_again(tmp_path):
    parts = [
        part(dense(tmp_path, "left", outputs=("y", "z")), {"x": "x"}, {"y": "l", "z": "n"}),
        part(dense(tmp_path, "right", seed=3), {"x": "x"}, {"y": "r"}),
        part(dense(tmp_path, "join", inputs=("a", "b", "c"), seed=4), {"a": "l", "b": "r", "c": "x"}, {"y": "y"}),
    ]
    fuse_onnx(parts, ["x"], ["y", "n"], tmp_path / "fused.onnx")
    assert equal(parts, tmp_path / "fused.onnx") == {"y", "n"}
    assert [one.name for one in onnx.load(tmp_path / "fused.onnx").graph.input] == ["x"]


def test_subgraphs_and_functions_of_one_name_stay_what_they_are(tmp_path):
    parts = [
        part(calling(tmp_path, "double", scale=2.0), {"x": "x"}, {"y": "a"}),
        part(branching(tmp_path, "branch"), {"x": "a"}, {"y": "b"}),
        part(calling(tmp_path, "half", scale=0.5), {"x": "b"}, {"y": "c"}),
        part(calling(tmp_path, "again", scale=2.0), {"x": "c"}, {"y": "d"}),
        part(branching(tmp_path, "branch2", seed=5), {"x": "d"}, {"y": "y"}),
    ]
    to = tmp_path / "fused.onnx"
    fuse_onnx(parts, ["x"], ["y"], to)
    assert equal(parts, to) == {"y"}
    assert [function.name for function in onnx.load(to).functions] == ["Scale", "half_Scale"]


@pytest.mark.parametrize("opsets", [(13, 17), (20, 13), (17, 21)])
def test_the_newest_opset_of_the_steps_is_that_of_the_whole(tmp_path, opsets):
    parts = [
        part(calling(tmp_path, "one", scale=3.0, opset=opsets[0]), {"x": "x"}, {"y": "m"}),
        part(branching(tmp_path, "two", opset=opsets[1]), {"x": "m"}, {"y": "y"}),
    ]
    to = tmp_path / "fused.onnx"
    fuse_onnx(parts, ["x"], ["y"], to)
    assert {entry.domain: entry.version for entry in onnx.load(to).opset_import}[""] == max(opsets)
    assert equal(parts, to) == {"y"}


def test_the_newest_ir_version_is_kept(tmp_path):
    parts = [
        part(dense(tmp_path, "one", ir=8), {"x": "x"}, {"y": "m"}),
        part(dense(tmp_path, "two", ir=10), {"x": "m"}, {"y": "y"}),
    ]
    fuse_onnx(parts, ["x"], ["y"], tmp_path / "fused.onnx")
    assert onnx.load(tmp_path / "fused.onnx").ir_version == 10


def test_dimensions_keep_their_names_and_get_others_where_they_are_not_the_same(tmp_path):
    parts = [
        part(dense(tmp_path, "one", dims=("n", 4)), {"x": "x"}, {"y": "m"}),
        part(dense(tmp_path, "two", dims=("k", 4)), {"x": "m"}, {"y": "y"}),
        part(dense(tmp_path, "three", dims=("n", 4)), {"x": "q"}, {"y": "z"}),
        part(dense(tmp_path, "four", dims=("n", "w")), {"x": "z"}, {"y": "v"}),
    ]
    fuse_onnx(parts, ["x", "q"], ["y", "v"], tmp_path / "fused.onnx")
    graph = onnx.load(tmp_path / "fused.onnx").graph
    dims = {
        one.name: [dim.dim_param or dim.dim_value for dim in one.type.tensor_type.shape.dim]
        for one in (*graph.input, *graph.output)
    }
    assert dims == {"x": ["n", 4], "q": ["n_", 4], "y": ["n", 4], "v": ["n_", "w"]}


def test_an_output_that_is_an_input_or_a_weight_is_passed_on(tmp_path):
    odd = write(tmp_path / "odd.onnx", [node("Neg", ["x"], ["y"])], ["x"], ["y", "x", "w"], {"w": weight(1, 2, 4)})
    parts = [
        part(odd, {"x": "x"}, {"y": "y", "x": "same", "w": "const"}),
        part(dense(tmp_path, "next"), {"x": "same"}, {"y": "z"}),
    ]
    to = tmp_path / "fused.onnx"
    fuse_onnx(parts, ["x"], ["y", "z", "const", "same"], to)
    assert equal(parts, to) == {"y", "z", "const", "same"}


def test_a_weight_that_is_an_input_gives_way_where_it_is_given(tmp_path):
    path = dense(tmp_path, "old")
    model = onnx.load(path)
    model.graph.input.append(value("w", (4, 4)))
    path.write_bytes(model.SerializeToString())
    left_out = [part(path, {"x": "x"}, {"y": "y"})]
    fuse_onnx(left_out, ["x"], ["y"], tmp_path / "a.onnx")
    assert [one.name for one in onnx.load(tmp_path / "a.onnx").graph.input] == ["x"]
    equal(left_out, tmp_path / "a.onnx")
    given = [part(path, {"x": "x", "w": "weights"}, {"y": "y"})]
    fuse_onnx(given, ["x", "weights"], ["y"], tmp_path / "b.onnx")
    whole = [request() | {"weights": weight(9, 4, 4)}]
    assert [difference.ok for difference in check_fused(given, tmp_path / "b.onnx", whole)] == [True]


def external(folder, name, seed):
    path = dense(folder, name, seed=seed)
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location=f"{name}.weights", size_threshold=0)
    return path


@pytest.mark.parametrize("above", [0, 1 << 30])
def test_weights_in_files_of_their_own_go_where_the_size_of_all_says(tmp_path, above):
    big = write(
        tmp_path / "big.onnx",
        [node("MatMul", ["x", "a"], ["h"]), node("MatMul", ["h", "b"], ["y"])],
        ["x"],
        ["y"],
        {"a": weight(1, 4, 300), "b": weight(2, 300, 4)},
    )
    parts = [
        part(external(tmp_path, "one", 1), {"x": "x"}, {"y": "m"}),
        part(external(tmp_path, "two", 2), {"x": "m"}, {"y": "n"}),
        part(big, {"x": "n"}, {"y": "y"}),
    ]
    to = tmp_path / "out" / "fused.onnx"
    names = fuse_onnx(parts, ["x"], ["y"], to, external_above_bytes=above)
    assert names == (("fused.onnx.data",) if above == 0 else ())
    assert sorted(path.name for path in to.parent.iterdir()) == ["fused.onnx", *names]
    for path in tmp_path.glob("*.weights"):
        path.rename(path.with_suffix(".moved"))
    assert np.array_equal(numpy_helper.to_array(onnx.load(to).graph.initializer[0]), weight(1))
    for path in tmp_path.glob("*.moved"):
        path.rename(path.with_suffix(".weights"))
    assert equal(parts, to) == {"y"}


def test_weights_that_are_missing_are_told(tmp_path):
    parts = [
        part(external(tmp_path, "one", 1), {"x": "x"}, {"y": "m"}),
        part(dense(tmp_path, "two"), {"x": "m"}, {"y": "y"}),
    ]
    (tmp_path / "one.weights").unlink()
    with pytest.raises(SourceError, match="external data of the ONNX file is missing"):
        fuse_onnx(parts, ["x"], ["y"], tmp_path / "fused.onnx")


def custom(folder, name, version):
    model = onnx.load(dense(folder, name))
    model.graph.node[1].domain = "com.example"
    model.opset_import.add(domain="com.example", version=version)
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_operators_of_another_library_are_kept_and_their_versions_compared(tmp_path):
    parts = [
        part(custom(tmp_path, "one", 1), {"x": "x"}, {"y": "m"}),
        part(custom(tmp_path, "two", 1), {"x": "m"}, {"y": "y"}),
    ]
    fuse_onnx(parts, ["x"], ["y"], tmp_path / "fused.onnx", load=None)
    assert {entry.domain for entry in onnx.load(tmp_path / "fused.onnx").opset_import} == {"", "com.example"}
    with pytest.raises(EnsembleError, match="steps one, two as one graph are no valid ONNX file"):
        fuse_onnx(parts, ["x"], ["y"], tmp_path / "fused.onnx")
    parts[1] = part(custom(tmp_path, "two", 2), {"x": "m"}, {"y": "y"})
    with pytest.raises(EnsembleError, match="steps one and two cannot be one graph: their operators are of different"):
        fuse_onnx(parts, ["x"], ["y"], tmp_path / "fused.onnx", load=None)


def test_what_no_conversion_takes_is_told(tmp_path):
    parts = [
        part(external(tmp_path, "one", 1), {"x": "x"}, {"y": "m"}),
        part(dense(tmp_path, "two", opset=20), {"x": "m"}, {"y": "y"}),
    ]
    with pytest.raises(EnsembleError, match="step one cannot be brought to the opset of its neighbours") as caught:
        fuse_onnx(parts, ["x"], ["y"], tmp_path / "fused.onnx")
    assert (caught.value.expected, caught.value.got) == ("opset 20", "opset 17: its weights are in a file of their own")
    parts[0] = part(custom(tmp_path, "strange", 1), {"x": "x"}, {"y": "m"})
    model = onnx.load(parts[0].path)
    model.graph.node[0].op_type = "NoSuchOperator"
    parts[0].path.write_bytes(model.SerializeToString())
    with pytest.raises(EnsembleError, match="step strange cannot be brought to the opset of its neighbours"):
        fuse_onnx(parts, ["x"], ["y"], tmp_path / "fused.onnx")


def test_a_tensor_that_a_step_does_not_have_is_told(tmp_path):
    path = dense(tmp_path, "one")
    with pytest.raises(EnsembleError, match="step one has no input 'q'"):
        fuse_onnx([part(path, {"q": "x"}, {"y": "y"})], ["x"], ["y"], tmp_path / "fused.onnx")
    path.write_bytes(b"\x00\x01rubbish")
    with pytest.raises((EnsembleError, ValueError)):
        fuse_onnx([part(path, {"x": "x"}, {"y": "y"})], ["x"], ["y"], tmp_path / "fused.onnx")


def test_another_answer_is_no_fusion(tmp_path):
    parts, to = chain(tmp_path)
    other = replace(parts[1], path=dense(tmp_path, "other", seed=99))
    assert [difference.ok for difference in compare_fused([parts[0], other], to, [request()])] == [False]
    with pytest.raises(ParityError, match="steps one, two answer otherwise as one graph") as caught:
        check_fused([parts[0], other], to, [request()])
    assert caught.value.got.startswith("y: largest difference")
    with pytest.raises(ParityError, match="steps one, two were not compared"):
        check_fused(parts, to, [])
