"""The first rung: a config.pbtxt that does not fit the ONNX file beside it, and what its message says to do."""

import onnx
import pytest
from onnx import TensorProto, helper

from builder.errors import ConfigError
from builder.verify import check_contract

INPUT = 'input { name: "x" data_type: TYPE_FP32 dims: 3 }'
OUTPUT = 'output { name: "y" data_type: TYPE_FP32 dims: 3 %s}'


@pytest.fixture
def staged_config(tmp_path):
    """``staged_config(input, output)``: a model folder ``m`` whose version 1 takes x and gives y, float32[N, 3]."""

    def make(role_in=INPUT, role_out=OUTPUT % ""):
        tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "xy"]
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", tensors[:1], tensors[1:])
        folder = tmp_path / "m"
        (folder / "1").mkdir(parents=True)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), folder / "1" / "model.onnx")
        (folder / "config.pbtxt").write_text(f'name: "m"\nmax_batch_size: 8\n{role_in}\n{role_out}\n')
        return folder

    return make


def test_what_fits_passes(staged_config):
    check_contract(staged_config(), 1)


@pytest.mark.parametrize(
    ("changed", "what", "where", "expected", "got", "fix"),
    [
        (
            {"role_out": OUTPUT % 'label_filename: "1/names.txt" '},
            "label file 1/names.txt is missing",
            "/m",
            "the labels of output 'y'",
            "no such file",
            "name it as `labels: {y: FILE}` in the spec",
        ),
        (
            {"role_in": INPUT.replace('"x"', '"z"')},
            "has input 'z', which the ONNX file has not",
            "models.m.config.input",
            "one of x",
            "z",
            "mend the name in the spec",
        ),
        (
            {"role_in": INPUT.replace("dims: 3", "dims: [3, 4]")},
            "has 3 dimensions in config.pbtxt and 2 in the ONNX file",
            "models.m.config.input",
            "float32[batch, 3]",
            "dims [3, 4] and a batch dimension",
            "mend `input` under `config`",
        ),
        (
            {"role_out": (OUTPUT % "").replace("FP32", "INT64")},
            "output 'y' of m differs between config.pbtxt and the ONNX file",
            "models.m.config.output",
            "TYPE_FP32",
            "TYPE_INT64 dims [3]",
            "mend `output` under `config`",
        ),
    ],
)
def test_what_does_not_fit_is_said_with_what_to_do(staged_config, changed, what, where, expected, got, fix):
    with pytest.raises(ConfigError) as caught:
        check_contract(staged_config(**changed), 1)
    error = caught.value
    assert what in error.what
    assert error.where.endswith(where)
    assert expected in error.expected
    assert error.got == got
    assert fix in error.fix
