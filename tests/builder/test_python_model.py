"""Python models without a server: the class, its files, what is written, and its answers in this process."""

import subprocess
import sys

import numpy as np
import pytest

from builder.errors import PythonModelError
from builder.python_model import PythonRunner, check_class, collect, write_version
from builder.usercode import user_code
from tests.builder import python_models as p

X, Y = {"x": "float32[batch, n: 1..4]"}, {"y": "float32[batch, n]"}


@pytest.fixture
def folder(tmp_path):
    return p.sources(tmp_path / "user")


def write(folder, files=None, **more):
    for name, text in {**(files or {}), **more}.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def problem(what, folder, step):
    with user_code(folder), pytest.raises(PythonModelError) as error:
        what(step, folder)
    return str(error.value)


# the class


def test_a_class_that_fits_is_given(folder):
    with user_code(folder):
        kind = check_class(p.step("Counting", X, Y, args={"scale": 3}), folder)
        assert kind(scale=3).scale == 3


@pytest.mark.parametrize(
    ("code", "keys", "message"),
    [
        ("C = 3", {}, "has no callable 'C'"),
        ("def C(): ...", {}, "step.py:C is no class"),
        ("class C:\n    def run(self, x): ...", {}, "its methods: run"),
        ("class C:\n    def execute(self, y): ...", {}, "expected: execute(self, x)"),
        ("class C:\n    async def execute(self, x): ...", {}, "execute() of step.py:C is asynchronous"),
        ("class C:\n    def execute(self, x): yield x", {}, "set model_transaction_policy: {decoupled: true}"),
        ("class C:\n    def execute(self, x): ...", {"args": {"size": 1}}, "does not take what it is called with"),
        ("class C:\n    def execute(self, x): ...", {"calls": ("a",)}, "is to call a, and takes no `call`"),
        ("class C:\n    def __init__(self, call): ...\n    def execute(self, x): ...", {}, "expected: calls: [MODEL"),
        ("import nowhere_to_be_found", {}, "pip install nowhere_to_be_found"),
    ],
)
def test_a_class_that_does_not_fit_is_refused(folder, code, keys, message):
    write(folder, step=code)
    text = " ".join(problem(check_class, folder, p.step("step.py:C", X, Y, **keys)).split())
    assert message in text


def test_an_init_that_raises_is_told_with_its_line(folder):
    write(folder, step="class C:\n    def __init__(self):\n        open('/nowhere')\n    def execute(self, x): ...\n")
    text = problem(PythonRunner, folder, p.step("step.py:C", X, Y))
    assert "step.py:C() raised" in text
    assert "step.py:3, in __init__" in text


@pytest.mark.parametrize(
    ("args", "place"),
    [
        ({"a": {"b": [1, {2}]}}, "args.a.b[1]"),
        ({"a": {3: 4}}, "the key 3"),
        ({"a": float("nan")}, "got:      nan"),
    ],
)
def test_arguments_that_are_no_plain_data_are_refused(args, place):
    with pytest.raises(PythonModelError, match="cannot be written into its") as error:
        p.step("Counting", X, Y, args=args).description()
    assert place in str(error.value)


# its files


def test_modules_are_found_through_each_other_and_nothing_else_is_taken(folder):
    files = {
        "main": "import os, numpy\nfrom pack import inner\nimport space.deep\n\ndef late():\n    import lazy\n",
        "pack/__init__": "from . import relative\n",
        "pack/inner": "from .relative import one\nfrom pack.sub.leaf import two\n",
        "pack/relative": "one = 1\n",
        "pack/sub/leaf": "two = 2\n",
        "pack/unused": "",
        "space/deep": "import lazy\n",
        "lazy": "import importlib\nimportlib.import_module('named')\n",
        "named": "",
        "unused": "import nowhere_to_be_found\n",
    }
    write(folder, files)
    code = collect("main.py:C", folder)
    modules = ["lazy", "main", "named", "pack/__init__", "pack/inner", "pack/relative", "pack/sub/leaf", "space/deep"]
    assert list(code.files) == [f"{name}.py" for name in modules]
    assert code.imports == {}
    assert list(collect("pack.inner:C", folder).files) == [f"{name}.py" for name in modules if "pack" in name]


def test_packages_are_told_with_the_line_unless_the_code_does_without(folder):
    write(
        folder,
        main="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import types_only\nimport first.part\n"
        "try:\n    import faster\nexcept ImportError:\n    faster = None\n"
        "try:\n    import needed\nexcept ValueError:\n    pass\nfrom first import other\n",
    )
    assert collect("main.py:C", folder).imports == {"first": "main.py:4", "needed": "main.py:10"}
    assert collect("somewhere.else:C", folder).imports == {"somewhere": "somewhere.else:C"}


def test_a_folder_of_data_is_taken_whole(folder):
    (folder / "words/inner").mkdir(parents=True)
    (folder / "words/inner/a.txt").write_text("a")
    (folder / "words/b.txt").write_text("b")
    write(folder, main="", plugin="import python_sibling")
    elsewhere = {"data/vocabulary": folder / "words", "plugin.py": folder / "plugin.py"}
    code = collect("main.py:C", folder, files=elsewhere)
    expected = ["data/vocabulary/b.txt", "data/vocabulary/inner/a.txt", "main.py", "plugin.py", "python_sibling.py"]
    assert list(code.files) == expected


@pytest.mark.parametrize(
    ("code", "files", "message"),
    [
        ({"main": "import broken", "broken": "def f(:\n"}, {}, "broken.py is no Python that can be read"),
        ({"main": "import triton_python_backend_utils"}, {}, "which only the server has"),
        ({"main": ""}, {"/etc/x": "main.py"}, "'/etc/x' leads out of the model's folder"),
        ({"main": ""}, {"../x": "main.py"}, "'../x' leads out of the model's folder"),
        ({"main": ""}, {"x": "absent.txt"}, "absent.txt is not there"),
        ({"main": ""}, {"x": "../outside.py"}, "is outside the folder of the spec"),
        ({"main": "import json", "json": ""}, {}, "rename it, for example my_json"),
    ],
)
def test_files_that_cannot_be_taken_are_refused(folder, code, files, message):
    write(folder, **code)
    (folder.parent / "outside.py").write_text("")
    with pytest.raises(PythonModelError) as error:
        collect("main.py:C", folder, files={target: folder / source for target, source in files.items()})
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["tokenizers.py", "types.py", "triton_repo_step.py"])
def test_a_class_in_a_file_whose_name_is_taken_is_refused(folder, name):
    (folder / name).write_text("class C:\n    def execute(self, x): ...\n")
    with pytest.raises(PythonModelError, match="has a name that is taken"):
        collect(f"{name}:C", folder)


def test_a_class_that_is_nowhere_is_refused(folder):
    with pytest.raises(PythonModelError, match=r"gone\.py is not there"):
        collect("gone.py:C", folder)


# what is written


def test_equal_arguments_give_equal_bytes_and_the_users_files_as_they_are(folder, tmp_path):
    args = {"suffix": 'it\'s "so" {{ x }}\n\\', "": None}
    step = p.step("Texts", {"t": "string[batch, 1]"}, {"u": "string[batch, 1]"}, args=args)
    code = collect(step.reference, folder)
    first = write_version(step, code, tmp_path / "a" / "1", name="m")
    second = write_version(step, code, tmp_path / "b" / "1", name="m")
    assert first == second
    assert first == ["code/python_classes.py", "code/python_sibling.py", "model.py", "triton_repo_step.py"]
    for relative in first:
        assert (tmp_path / "a/1" / relative).read_bytes() == (tmp_path / "b/1" / relative).read_bytes()
    assert (tmp_path / "a/1/code/python_classes.py").read_bytes() == (folder / "python_classes.py").read_bytes()
    written = (tmp_path / "a/1/model.py").read_text()
    values = {}
    exec(written[written.index("STEP =") : written.index("\n\nclass ")], values)
    assert values["STEP"] == step.description()


def test_the_boilerplate_runs_on_numpy_alone(tmp_path, folder):
    """In the server there is neither this project nor any of its dependencies."""
    step = p.step("Counting", X, Y | {"rows": "int64[batch, 1]"})
    write_version(step, collect(step.reference, folder), tmp_path / "1", name="m")
    code = (
        "import sys; sys.path.insert(0, '1'); import triton_repo_step as s\n"
        "print(sorted(n for n in sys.modules if n.split('.')[0] in ('builder', 'serving', 'jinja2', 'pydantic')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# its answers


def run(folder, step, call=None, **inputs):
    with user_code(folder), PythonRunner(step, folder, call) as runner:
        return runner(inputs)


def answers(kind):
    return p.step("Answers", X, Y, args={"kind": kind})


@pytest.mark.parametrize("kind", ["bare", "strided"])
def test_one_output_may_be_given_bare_and_comes_contiguous(folder, kind):
    x = np.ones((2, 3), np.float32)
    y = run(folder, answers(kind), x=x)["y"]
    assert y.tolist() == x.tolist()
    assert y.flags.c_contiguous


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "Answers.execute returned nothing (None), expected a mapping of y to numpy arrays"),
        ("list", "returned 'y' as a list, expected a numpy array float32[batch, n]"),
        ("absent", "returned no 'y': expected y, got z"),
        ("dtype", "'y' as float64[2, 3], expected float32[batch, n]: give it that dtype, .astype(numpy.float32)"),
        ("rank", "returned 'y' as float32[3], expected float32[batch, n] at batch=2, n=3"),
        ("batch", "returned 'y' as float32[0, 3], expected float32[batch, n] at batch=2, n=3"),
        ("size", "returned 'y' as float32[2, 1], expected float32[batch, n] at batch=2, n=3"),
        ("yielded", "yields its answers, and the model is not decoupled"),
        ("exit", "Answers.execute raised SystemExit: 3"),
    ],
)
def test_a_wrong_answer_is_refused_with_both_sides(folder, kind, message):
    with pytest.raises(PythonModelError) as error:
        run(folder, answers(kind), x=np.ones((2, 3), np.float32))
    assert message in str(error.value)


def test_a_size_beyond_its_range_is_refused(folder):
    step = p.step("Counting", {"x": "float32[batch, n]"}, {"y": "float32[batch, m: 1..4]", "rows": "int64[batch, 1]"})
    assert run(folder, step, x=np.ones((1, 4), np.float32))["y"].shape == (1, 4)
    with pytest.raises(PythonModelError, match=r"float32\[1, 5\], expected float32\[batch, m: 1\.\.4\]"):
        run(folder, step, x=np.ones((1, 5), np.float32))


def test_texts_go_in_as_bytes_and_come_out_as_bytes(folder):
    step = p.step("Texts", {"text": "string[batch, n]"}, {"loud": "string[batch, n]"})
    for texts in (
        np.array([["ä", "b"]]),
        np.array([["ä", "b"]], dtype=object),
        np.array([["ä".encode(), b"b"]], object),
    ):
        assert run(folder, step, text=texts)["loud"].tolist() == [["Ä!".encode(), b"B!"]]


def test_elements_that_are_no_texts_are_refused(folder):
    write(
        folder, step="import numpy as np\nclass C:\n    def execute(self, x):\n        return np.array([[3]], object)\n"
    )
    step = p.step("step.py:C", {"x": "float32[batch, 1]"}, {"y": "string[batch, 1]"})
    with pytest.raises(PythonModelError, match="an array of texts holds a int, expected str or bytes"):
        run(folder, step, x=np.ones((1, 1), np.float32))
    write(folder, other="import numpy as np\nclass C:\n    def execute(self, x):\n        return x\n")
    step = p.step("other.py:C", {"x": "float32[batch, 1]"}, {"y": "string[batch, 1]"})
    with pytest.raises(PythonModelError, match="an object array of str or bytes"):
        run(folder, step, x=np.ones((1, 1), np.float32))


def test_the_class_cannot_change_the_callers_arrays(folder):
    write(folder, step="class C:\n    def execute(self, x):\n        x += 1\n        return x\n")
    x = np.zeros((1, 1), np.float32)
    assert run(folder, p.step("step.py:C", X, Y), x=x)["y"].tolist() == [[1]]
    assert x.tolist() == [[0]]


def test_an_absent_input_is_none_if_it_is_optional(folder):
    inputs = X | {"bias": "float32[batch, n]"}
    x = np.ones((1, 2), np.float32)
    assert run(folder, p.step("Optional", inputs, Y, optional=frozenset({"bias"})), x=x)["y"].tolist() == [[1, 1]]
    with pytest.raises(PythonModelError, match="the request has no 'bias'"):
        run(folder, p.step("Optional", inputs, Y), x=x)


def test_an_answer_of_several_responses_is_not_one(folder):
    step = p.step("Counts", {"n": "int32[1, 1]"}, {"i": "int32[1, 1]"}, batching=False, decoupled=True)
    assert run(folder, step, n=np.array([[1]], np.int32))["i"].tolist() == [[0]]
    with pytest.raises(PythonModelError, match="gave 2 responses to a request"):
        run(folder, step, n=np.array([[2]], np.int32))


def test_calls_are_answered_by_what_is_given_and_else_by_nobody(folder):
    step = p.step("Undeclared", X, Y, calls=("secret",))
    x = np.ones((1, 1), np.float32)
    assert run(folder, step, lambda model, inputs: {"y": inputs["x"] + 1}, x=x)["y"].tolist() == [[2]]
    with pytest.raises(PythonModelError, match="'secret' cannot be asked here"):
        run(folder, step, x=x)


def test_finalize_is_called_at_the_end(folder):
    write(
        folder,
        step="class C:\n    ended = []\n    def execute(self, x):\n        return x\n"
        "    def finalize(self):\n        self.ended.append(1)\n",
    )
    with user_code(folder):
        step = p.step("step.py:C", X, Y)
        kind = check_class(step, folder)
        with PythonRunner(step, folder):
            assert kind.ended == []
        assert kind.ended == [1]
