"""Operators that ONNX Runtime does not have: a library of them beside the model, in the embedded server."""

import importlib.util
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save
from PIL import Image

from builder import build, load_spec
from serving import Client
from serving.provision import pip_install, provisioned
from serving.server import Server

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("onnxruntime_backend")]

_spec = importlib.util.spec_from_file_location("onnx_repository", Path(__file__).with_name("onnx_repository.py"))
r = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(r)

EXTENSIONS = "0.15.2"
DOMAIN = "com.microsoft.extensions"
LIBRARY = "libextensions.so"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "kitten", "doze", "##s"]
OPERATIONS = f'model_operations {{ op_library_filename: [ "{LIBRARY}" ] }}\n'


@pytest.fixture(scope="session")
def library(triton_runtime):
    """The library inside the wheel of onnxruntime-extensions, for the server's Python."""
    version = triton_runtime.python.resolve().name.removeprefix("python")

    def install(folder):
        requirements = [f"onnxruntime-extensions=={EXTENSIONS}"]
        pip_install(folder, requirements, python_version=version, needed_for="the test of custom operators")

    folder = provisioned("extensions", f"{EXTENSIONS}-{version}", install)
    (found,) = (folder / "onnxruntime_extensions").glob("_extensions_pydll*.so")
    return found


def graph(op, outputs, input_type, shape, **attributes):
    node = helper.make_node(op, ["x"], list(outputs), domain=DOMAIN, **attributes)
    return helper.make_model(
        helper.make_graph(
            [node],
            op,
            [helper.make_tensor_value_info("x", input_type, shape)],
            [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in outputs.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)],
        ir_version=9,
    )


@pytest.fixture(scope="module")
def client(library, triton_runtime, tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    decode = graph("DecodeImage", {"y": (TensorProto.UINT8, ["h", "w", 3])}, TensorProto.UINT8, ["n"])
    ids = {name: (TensorProto.INT64, ["n"]) for name in ("ids", "types", "mask")}
    tokens = graph("BertTokenizer", ids, TensorProto.STRING, [1], vocab_file="\n".join(VOCABULARY))
    r.add(root, "decode", None, OPERATIONS + r.io({"x": "TYPE_UINT8[-1]"}, {"y": "TYPE_UINT8[-1, -1, 3]"}))
    r.add(root, "tokens", None, OPERATIONS)  # inputs and outputs completed from the file: that takes the library, too
    r.add(root, "without", None, "")
    for name, made in (("decode", decode), ("tokens", tokens), ("without", decode)):
        (root / name / "1").mkdir(exist_ok=True)
        save(made, root / name / "1" / "model.onnx")
    shutil.copyfile(library, root / "decode/1" / LIBRARY)
    shutil.copyfile(library, root / "tokens" / LIBRARY)
    with (
        Server(root, runtime=triton_runtime, exit_on_error=False) as server,
        Client(f"grpc://{server.grpc_url}") as client,
    ):
        yield client


def test_a_graph_with_operators_of_its_own_decodes_a_photograph(client):
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    smooth = np.stack([x * 3, y * 4, x + y], axis=-1).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(smooth).save(stream, "JPEG", quality=95)
    (pixels,) = client.infer("decode", {"x": np.frombuffer(stream.getvalue(), np.uint8)}).values()
    expected = np.asarray(Image.open(stream).convert("RGB")).astype(int)
    assert pixels.shape == (48, 64, 3)
    # Two decoders round differently; DecodeImage gives BGR.
    assert np.abs(pixels[..., ::-1].astype(int) - expected).mean() < 1


def test_a_graph_with_operators_of_its_own_tokenizes(client):
    answer = client.infer("tokens", {"x": np.array(["a kitten dozes"], dtype=object)})
    assert [VOCABULARY[token] for token in answer["ids"]] == ["[CLS]", "a", "kitten", "doze", "##s", "[SEP]"]


def test_without_the_library_the_operator_is_named(client):
    (reason,) = [model["reason"] for model in client.index() if model["name"] == "without"]
    assert "DecodeImage" in reason


def test_a_graph_with_operators_of_its_own_is_built(library, tmp_path):
    ids = {name: (TensorProto.INT64, ["n"]) for name in ("ids", "types", "mask")}
    save(graph("BertTokenizer", ids, TensorProto.STRING, [1], vocab_file="\n".join(VOCABULARY)), tmp_path / "t.onnx")
    (tmp_path / "lib").mkdir()
    shutil.copyfile(library, tmp_path / "lib" / LIBRARY)
    (tmp_path / "texts.py").write_text(
        "import numpy as np\n"
        "def texts():\n"
        "    return [{'x': np.array([text], object)} for text in (b'a kitten dozes', b'a', b'a a a a')]\n"
    )
    model = {
        "source": {"onnx": "t.onnx"},
        "outputs": dict.fromkeys(ids, "int64[n: 1..64]"),
        "samples": {"python": "texts.py:texts"},
        "operations": [f"lib/{LIBRARY}"],
        "batch": {"max": 0},
    }
    (tmp_path / "models.yaml").write_text(json.dumps({"repository": "models", "models": {"tokens": model}}))
    (result,) = build(load_spec(tmp_path / "models.yaml")).models
    assert result.error is None, str(result.error)
    version = tmp_path / "models" / "tokens" / "1"
    assert (version / LIBRARY).read_bytes() == library.read_bytes()
    assert f'op_library_filename: ["{LIBRARY}"]' in (version.parent / "config.pbtxt").read_text()
    model["operations"] = []
    (tmp_path / "models.yaml").write_text(json.dumps({"repository": "models", "models": {"tokens": model}}))
    (result,) = build(load_spec(tmp_path / "models.yaml")).models
    assert "BertTokenizer" in str(result.error)
