"""Folders and files: versions, artifacts, Python sources."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

from benchmarks.differential.case import LINK, Case
from benchmarks.differential.onnx_models import changed, onnx_model


def _artifact(case: Case, ending: str, rng: random.Random) -> str | None:
    """A model's file; of another model of the repository at times."""
    found = sorted(path for path in case.files if path.endswith(ending))
    return rng.choice(found) if found else None


def _version(case: Case, rng: random.Random) -> str | None:
    found = sorted({"/".join(path.split("/")[:2]) for path in case.files if re.match(r"\w+/\d+/", path)})
    return rng.choice(found) if found else None


def version_renamed(case: Case, rng: random.Random) -> Case | None:
    """A version folder whose name is no version."""
    folder = _version(case, rng)
    model = folder.split("/")[0] if folder else ""
    new = rng.choice(("v1", "0", "-1", "01", "1.0", "latest", "2", "one", "1 ", "99999999999999999999", "1a"))
    return case.moved(f"{folder}/", f"{model}/{new}/") if folder else None


def version_removed(case: Case, rng: random.Random) -> Case | None:
    """A version folder is not there."""
    folder = _version(case, rng)
    return case.moved(f"{folder}/", None) if folder else None


def version_emptied(case: Case, rng: random.Random) -> Case | None:
    """A version folder with nothing in it."""
    folder = _version(case, rng)
    return case.moved(f"{folder}/", None).with_file(f"{folder}/", b"") if folder else None


def version_is_a_file(case: Case, rng: random.Random) -> Case | None:
    """A file where the version's folder belongs."""
    folder = _version(case, rng)
    return case.moved(f"{folder}/", None).with_file(folder, b"1\n") if folder else None


def version_added(case: Case, rng: random.Random) -> Case | None:
    """One more version: empty, a copy, with another file, not a number."""
    folder = _version(case, rng)
    if folder is None:
        return None
    model = folder.split("/")[0]
    new = f"{model}/{rng.choice(('2', '7', '10', '0', 'old', '.tmp'))}/"
    if rng.random() < 0.5:
        return case.with_file(new, b"") if new not in case.files else None
    for path, content in case.files.items():
        if path.startswith(f"{folder}/"):
            case = case.with_file(new + path[len(folder) + 1 :], content)
    return case


def artifact_missing(case: Case, rng: random.Random) -> Case | None:
    """A model's file is not there, or is called otherwise."""
    path = _artifact(case, rng.choice((".onnx", ".py")), rng)
    if path is None:
        return None
    without = case.with_file(path, None)
    other = path.rsplit("/", 1)[0] + "/" + rng.choice(("model.bin", "Model.onnx", "model.onnx.bak", "models.py"))
    return (
        without.with_file(other, case.files[path])
        if rng.random() < 0.6
        else without.with_file(path.rsplit("/", 1)[0] + "/", b"")
    )


def artifact_moved(case: Case, rng: random.Random) -> Case | None:
    """A model's file lies beside its version folder, not in it."""
    path = _artifact(case, rng.choice((".onnx", ".py")), rng)
    if path is None:
        return None
    model, version, name = path.split("/")[0], path.split("/")[1], path.split("/")[-1]
    return (
        case.with_file(path, None).with_file(f"{model}/{version}/", b"").with_file(f"{model}/{name}", case.files[path])
    )


def config_missing(case: Case, rng: random.Random) -> Case | None:
    """No configuration, or under another name: Triton completes it from the model, where it can."""
    if not case.text():
        return None
    without = case.with_file(f"{case.target}/config.pbtxt", None)
    name = rng.choice(("config.pbtx", "Config.pbtxt", "config.txt", "1/config.pbtxt", ""))
    return without.with_file(f"{case.target}/{name}", case.text()) if name else without


def stranger_added(case: Case, rng: random.Random) -> Case | None:
    """Something in the repository that is no model: a file, a folder, an empty one, a hidden one."""
    files = (
        ("README.md", b"# models\n"),
        ("notes/readme.txt", b"hello"),
        ("empty/", b""),
        (".git/HEAD", b"ref: refs/heads/main\n"),
        ("data/1/data.bin", b"\0" * 10),
        ("__pycache__/a.pyc", b"\0"),
    )
    return case.with_file(*rng.choice(files))


def onnx_truncated(case: Case, rng: random.Random) -> Case | None:
    """An ONNX file that ends too early."""
    path = _artifact(case, ".onnx", rng)
    content = case.files[path] if path else b""
    return case.with_file(path, content[: rng.randrange(1, len(content))]) if path else None


def onnx_garbage(case: Case, rng: random.Random) -> Case | None:
    """An ONNX file that is none."""
    path = _artifact(case, ".onnx", rng)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
    contents = (
        b"",
        b"not a model",
        bytes(range(256)),
        pointer,
        b"PK\x03\x04" + b"\0" * 60,
        b"\x08\x08" + rng.randbytes(80),
    )
    return case.with_file(path, rng.choice(contents)) if path else None


def onnx_other(case: Case, rng: random.Random) -> Case | None:
    """Another model's ONNX file."""
    path = _artifact(case, ".onnx", rng)
    others = (
        onnx_model({"x": ("FLOAT", ["batch", 4])}, {"y": ("FLOAT", ["batch", 9])}),
        onnx_model({"x": ("FLOAT", [1, 4])}, {"y": ("FLOAT", [1, 4])}),
        onnx_model({"a": ("INT32", ["batch"])}, {"b": ("INT32", ["batch"])}),
    )
    return case.with_file(path, rng.choice(others)) if path else None


def _in_onnx(change: Callable[[Any, random.Random], object]) -> Callable[[Case, random.Random], Case | None]:
    def mutate(case: Case, rng: random.Random) -> Case | None:
        path = _artifact(case, ".onnx", rng)
        if path is None:
            return None
        try:
            new = changed(case.files[path], lambda model: change(model, rng))
        except (ValueError, IndexError):
            return None
        return case.with_file(path, new) if new != case.files[path] else None

    mutate.__doc__ = change.__doc__
    return mutate


def onnx_renamed(model: Any, rng: random.Random) -> None:
    """An input or output of the ONNX file is called otherwise."""
    value = rng.choice([*model.graph.input, *model.graph.output])
    old, value.name = value.name, value.name + "_0"
    for node in model.graph.node:
        for field in (node.input, node.output):
            for place, name in enumerate(field):
                if name == old:
                    field[place] = value.name


def onnx_retyped(model: Any, rng: random.Random) -> None:
    """An input or output of the ONNX file says another type."""
    rng.choice([*model.graph.input, *model.graph.output]).type.tensor_type.elem_type = rng.choice(
        (1, 3, 6, 7, 9, 11, 14, 16, 17)
    )


def onnx_reshaped(model: Any, rng: random.Random) -> None:
    """A dimension of the ONNX file's inputs or outputs is another, open, or gone."""
    dims = rng.choice([*model.graph.input, *model.graph.output]).type.tensor_type.shape.dim
    if not dims:
        raise ValueError("a scalar")
    way = rng.randrange(4)
    if way == 0:
        dims[rng.randrange(len(dims))].dim_value = rng.choice((1, 2, 5, 16))
    elif way == 1:
        dims[rng.randrange(len(dims))].dim_param = "free"
    elif way == 2:
        del dims[-1]
    else:
        dims.add(dim_value=1)


def onnx_versions(model: Any, rng: random.Random) -> None:
    """An operator set or a file format that is too new, too old, or unknown."""
    if rng.random() < 0.6:
        model.opset_import[0].version = rng.choice((0, 1, 6, 11, 13, 21, 23, 24, 30, 99))
    elif rng.random() < 0.5:
        model.ir_version = rng.choice((0, 1, 3, 9, 10, 11, 12, 14, 50))
    else:
        model.opset_import[0].domain = "ai.custom"


def onnx_operator(model: Any, rng: random.Random) -> None:
    """An operator that ONNX Runtime does not know, or one too few."""
    node = rng.choice(list(model.graph.node))
    way = rng.randrange(4)
    if way == 0:
        node.op_type = rng.choice(("Identty", "MyOp", "FusedEverything"))
    elif way == 1:
        node.domain = rng.choice(("com.example", "ai.onnx.contrib"))
    elif way == 2:
        model.graph.node.remove(node)
    else:
        node.input[0] = "nowhere"


def onnx_external(model: Any, rng: random.Random) -> None:
    """Weights in a file beside the model that is not there, or leads out of the folder."""
    used = {name for node in model.graph.node for name in node.input}
    weights = [weight for weight in model.graph.initializer if weight.name in used]
    if not weights:
        raise ValueError("no weights")
    weight = rng.choice(weights)
    for name in ("raw_data", "float_data", "int64_data", "int32_data", "double_data", "string_data", "uint64_data"):
        weight.ClearField(name)
    weight.data_location = 1
    weight.external_data.add(key="location", value=rng.choice(("weights.bin", "../weights.bin", "/tmp/absent.bin")))


def python_syntax(case: Case, rng: random.Random) -> Case | None:
    """Python that cannot be compiled."""
    path = _artifact(case, "model.py", rng)
    source = case.files[path].decode() if path else ""
    news = (
        source.replace("def execute(self, requests):", "def execute(self, requests)"),
        source.replace("class TritonPythonModel:", "class TritonPythonModel"),
        source.replace("    def execute", "  def execute"),
        source + "\n)\n",
        source.replace("return", "retrun x", 1),
        "print 'hello'\n" + source,
        source.replace("import", "imprt", 1),
        "<<<<<<< HEAD\n" + source,
        source.replace("(", "((", 1),
    )
    return case.with_file(path, rng.choice([new for new in news if new != source])) if path else None


def python_class(case: Case, rng: random.Random) -> Case | None:
    """A Python model without its class, or with another name."""
    path = _artifact(case, "model.py", rng)
    source = case.files[path].decode() if path else ""
    news = (
        source.replace("TritonPythonModel", "TritonModel"),
        source.replace("TritonPythonModel", "Model"),
        source.replace("TritonPythonModel", "tritonPythonModel"),
        source.replace("class TritonPythonModel", "def TritonPythonModel(): pass\nclass X"),
        "",
        "x = 1\n",
        "import triton_python_backend_utils as pb_utils\n",
    )
    return case.with_file(path, rng.choice(news)) if path else None


def python_methods(case: Case, rng: random.Random) -> Case | None:
    """A Python model without ``execute``, or with methods of other signatures."""
    path = _artifact(case, "model.py", rng)
    source = case.files[path].decode() if path else ""
    news = (
        source.replace("def execute(", "def run("),
        source.replace("def initialize(self, args)", "def initialize(self)"),
        source.replace("def initialize(self, args)", "def initialise(self, args)"),
        source.replace(
            "auto_complete_config(auto_complete_model_config)", "auto_complete_config(self, auto_complete_model_config)"
        ),
        source.replace("    @staticmethod\n", ""),
        source.replace("        return config\n", "        return None\n"),
        source.replace("def finalize(self)", "def finalise(self)"),
    )
    news = tuple(new for new in news if new != source)
    return case.with_file(path, rng.choice(news)) if path and news else None


def python_encoding(case: Case, rng: random.Random) -> Case | None:
    """A Python model in an encoding that it does not name, or with bytes that are no text."""
    path = _artifact(case, "model.py", rng)
    source = case.files[path] if path else b""
    news = (
        b"# caf\xe9\n" + source,
        b"\0" + source,
        b"# -*- coding: latin-1 -*-\n# caf\xe9\n" + source,
        b"\xef\xbb\xbf" + source,
    )
    return case.with_file(path, rng.choice((*news, source.replace(b"\n", b"\r\n")))) if path else None


def python_raises(case: Case, rng: random.Random) -> Case | None:
    """A Python model that fails when it runs: only running it tells."""
    path = _artifact(case, "model.py", rng)
    source = case.files[path].decode() if path else ""
    news = (
        source.replace(
            "    def execute", '    def initialize(self, args):\n        raise ValueError("no")\n\n    def execute'
        ),
        source + '\nraise RuntimeError("at import")\n',
        "import absent_module_of_mine\n" + source,
        source.replace("class TritonPythonModel:", "class TritonPythonModel:\n    weights = open('/absent/w.bin')\n"),
        source.replace(
            "    def execute",
            "    @staticmethod\n    def auto_complete_config(c):\n        raise OSError('x')\n\n    def execute",
        ),
    )
    return case.with_file(path, rng.choice(news)) if path else None


def linked(case: Case, rng: random.Random) -> Case | None:
    """A link where a file or folder was: to itself, to nothing."""
    path = rng.choice(sorted(path for path in case.files if not path.endswith("/")))
    targets = (path.rsplit("/", 1)[-1], "absent", "/absent/file")
    return case.with_file(path, LINK + rng.choice(targets).encode())


FILES = {
    "version folder renamed": version_renamed,
    "version folder removed": version_removed,
    "version folder empty": version_emptied,
    "version is a file": version_is_a_file,
    "version added": version_added,
    "artifact missing": artifact_missing,
    "artifact beside its version": artifact_moved,
    "config missing": config_missing,
    "stranger in the repository": stranger_added,
    "link broken": linked,
    "ONNX truncated": onnx_truncated,
    "ONNX garbage": onnx_garbage,
    "ONNX of another model": onnx_other,
    "ONNX tensor renamed": _in_onnx(onnx_renamed),
    "ONNX tensor's type": _in_onnx(onnx_retyped),
    "ONNX tensor's shape": _in_onnx(onnx_reshaped),
    "ONNX opset and format": _in_onnx(onnx_versions),
    "ONNX operators": _in_onnx(onnx_operator),
    "ONNX external data": _in_onnx(onnx_external),
    "Python syntax": python_syntax,
    "Python class missing": python_class,
    "Python methods": python_methods,
    "Python encoding": python_encoding,
    "Python raises": python_raises,
}
