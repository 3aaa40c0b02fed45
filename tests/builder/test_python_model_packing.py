"""What a class needs: packed for the server's Python, or looked up where the server looks."""

import platform
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from builder.errors import PythonModelError
from builder.python_model import ServerPython, check_imports, collect, pack, server_pythons
from builder.releases import RELEASES
from serving import Client
from serving.server import Server
from tests.builder import python_models as p

X, Y = {"x": "float32[batch, 1]"}, {"y": "float32[batch, 1]"}


def wheel(folder, name, version, files, *, requires=(), tag="py3-none-any"):
    """A wheel made here: no index is needed."""
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels that pip takes for its only index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    wheel(folder, "adder", "1.0", {"adder/__init__.py": "from helper import one\n"}, requires=["helper>=1", "numpy"])
    wheel(folder, "helper", "1.5", {"helper.py": "one = 1\n"})
    wheel(folder, "numpy", "1.26.4", {"numpy/__init__.py": "", "numpy.libs/x.so": ""})
    wheel(folder, "numpy", "2.4.0", {"numpy/__init__.py": "", "numpy.libs/x.so": ""})
    return folder


@pytest.fixture
def here():
    return ServerPython("3.11", "the server here", numpy="1.26.4", site=tuple(map(Path, sys.path)))


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_packages_come_with_what_they_need_without_numpy_once_for_each_python(index, here, tmp_path):
    machine = platform.machine()
    for version in ("311", "312"):
        tag = (
            f"cp{version}-cp{version}-manylinux_2_38_{machine}" if version == "312" else "cp311-cp311-linux_" + machine
        )
        wheel(index, "compiled", "1.0", {f"compiled{version}.so": ""}, tag=tag)
    theirs = ServerPython("3.12", "an image", glibc=(2, 39))
    pack(["adder==1.0", "compiled==1.0"], tmp_path, [here, theirs])
    for version in ("3.11", "3.12"):
        names = {name.partition("/")[0] for name in tree(tmp_path / version)}
        library = f"compiled{version.replace('.', '')}.so"
        infos = {"adder-1.0.dist-info", "compiled-1.0.dist-info", "helper-1.5.dist-info"}
        assert names == {"adder", "helper.py", library, *infos}


def test_a_wheel_for_a_newer_machine_than_the_servers_is_not_taken(index, tmp_path):
    wheel(index, "new", "1.0", {"new.py": ""}, tag=f"cp310-cp310-manylinux_2_36_{platform.machine()}")
    wheel(index, "adder", "1.1", {"adder.py": ""}, requires=["nothing"])
    server = ServerPython("3.10", "an image", glibc=(2, 35))
    pack(["adder==1.1"], tmp_path / "a", [server], dependencies=False)
    assert "adder.py" in tree(tmp_path / "a/3.10")
    with pytest.raises(PythonModelError, match="cannot be packed"):
        pack(["new==1.0"], tmp_path / "b", [server])


def test_a_package_that_wants_another_numpy_than_the_servers_is_refused(index, here, tmp_path):
    wheel(index, "modern", "1.0", {"modern.py": ""}, requires=["numpy>=2"])
    with pytest.raises(PythonModelError, match=r"cannot be packed for Python 3\.11 \(the server here\)") as error:
        pack(["modern==1.0"], tmp_path / "packed", [here])
    assert "with numpy 1.26.4, which the server has" in str(error.value)
    assert "numpy" in error.value.got


def test_without_a_network_it_is_said_what_could_not_be_had(here, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with pytest.raises(PythonModelError, match="cannot be packed") as error:
        pack(["adder==1.0"], tmp_path / "packed", [here])
    assert "that the index can be reached" in error.value.fix
    assert "by hand:" in error.value.fix


@pytest.mark.parametrize("text", ["adder", "adder>=1", "--pre", "adder==1.*", ""])
def test_a_requirement_without_its_version_is_refused(text, here, tmp_path):
    with pytest.raises(PythonModelError, match="does not say which version"):
        pack([text], tmp_path, [here])


@pytest.mark.parametrize("text", ["numpy==2.4.0", " NumPy ==1.26.4"])
def test_numpy_is_refused(text, here, tmp_path):
    with pytest.raises(PythonModelError, match="numpy cannot be packed beside a model"):
        pack([text], tmp_path, [here])


def packed(folder):
    """As :func:`pack` leaves it."""
    folder.mkdir(parents=True)
    (folder / "adder").mkdir()
    (folder / "adder/__init__.py").write_text("from helper import one\n")
    (folder / "helper.py").write_text("one = 1\n")


def code_of(folder, text):
    (folder / "main.py").write_text(text)
    return collect("main.py:C", folder)


def test_what_the_server_has_is_found_and_what_it_lacks_is_told(tmp_path):
    site = tmp_path / "site"
    (site / "package").mkdir(parents=True)
    (site / "single.py").write_text("")
    (site / "compiled.cpython-311-x86_64-linux-gnu.so").write_text("")
    server = ServerPython("3.11", "the server", site=(site,))
    assert check_imports(code_of(tmp_path, "import package.x, single, compiled, os, numpy\n"), [server]) == ()
    code = code_of(tmp_path, "import single\n\ndef f():\n    import adder\n")
    with pytest.raises(PythonModelError, match="the server has no adder, which the class needs") as error:
        check_imports(code, [server])
    assert error.value.where == "main.py:4"
    packed(tmp_path / "packed/3.11")
    assert check_imports(code, [server], tmp_path / "packed") == ()


def test_an_image_cannot_be_looked_into(tmp_path):
    image = ServerPython("3.12", "an image", glibc=(2, 39))
    (note,) = check_imports(code_of(tmp_path, "import adder\n"), [image])
    assert note == "not looked up: whether an image has adder; pack it under `requirements`"


@pytest.mark.server
def test_a_repository_is_for_the_server_here_and_for_that_of_its_release(triton_runtime, monkeypatch):
    monkeypatch.setattr("builder.python_model.packing.find_runtime", lambda: triton_runtime)
    version = triton_runtime.python.resolve().name.removeprefix("python")
    for release, python in (("24.10", "3.10"), ("26.09", "3.12"), (None, "3.12")):
        here, *theirs = server_pythons(release)
        assert (here.version, here.numpy) == (version, "1.26.4")
        assert [server.version for server in theirs] == [python] * (python != version)
    unknown = next(name for name, row in RELEASES.items() if row.python is None)
    with pytest.raises(PythonModelError, match="is in no public table"):
        server_pythons(unknown)


CLASS = """
import adder
from helper import one

class Adds:
    def execute(self, x):
        return x + adder.one + one
"""


@pytest.mark.server
@pytest.mark.xdist_group("python_model")
def test_a_packed_class_is_served_and_another_python_is_told(tmp_path, triton_runtime):
    folder = tmp_path / "user"
    folder.mkdir()
    (folder / "adds.py").write_text(CLASS)
    step = p.step("adds.py:Adds", X, Y)
    version = triton_runtime.python.resolve().name.removeprefix("python")
    for name, python in (("adds", version), ("other", "2.7")):
        packed(tmp_path / name / python)
        p.write_model(tmp_path / "repository", name, step, folder, packages=tmp_path / name)
    with (
        Server(tmp_path / "repository", runtime=triton_runtime, exit_on_error=False) as running,
        Client(f"http://{running.http_url}") as client,
    ):
        assert client.infer("adds", {"x": np.ones((1, 1), np.float32)})["y"].tolist() == [[3]]
        (reason,) = [model["reason"] for model in client.index() if model["name"] == "other"]
    mine = f"and the server runs Python {version}"
    assert f"the packages beside this model are for Python 2.7, {mine}" in reason
