"""The build of ONNX Runtime with OpenVINO: where it is looked for, when it is fetched, what is said where it is not."""

import dataclasses

import pytest

from serving import openvino
from serving.errors import RuntimeUnavailableError
from serving.interpreter import find_interpreter
from serving.openvino import asks_for_openvino, openvino_available, openvino_location, provide_openvino
from serving.server import Server

ASKS = 'optimization { execution_accelerators { cpu_execution_accelerator [ { name: "openvino" } ] } }'


def test_a_repository_asks_for_it_where_one_model_does(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/config.pbtxt").write_text('name: "openvino"')
    assert not asks_for_openvino([tmp_path])
    (tmp_path / "asks").mkdir()
    (tmp_path / "asks/config.pbtxt").write_text(ASKS)
    assert asks_for_openvino([tmp_path / "nothing", tmp_path])


def test_it_is_not_there_before_it_was_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_REPO_CACHE", str(tmp_path))
    assert not openvino_available() and openvino_location().is_relative_to(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_python_without_wheels_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_REPO_CACHE", str(tmp_path))
    old = dataclasses.replace(find_interpreter(), version="3.10")
    with pytest.raises(RuntimeUnavailableError, match="no ONNX Runtime with OpenVINO") as caught:
        provide_openvino(old)
    assert "Python 3.11 or 3.12" in caught.value.expected and caught.value.got.endswith("with Python 3.10")


def test_what_was_fetched_and_does_not_load_is_not_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_REPO_CACHE", str(tmp_path))
    monkeypatch.setattr(openvino, "pip_install", lambda folder, wanted, **others: None)
    if find_interpreter().version not in openvino.PYTHONS:
        pytest.skip("there are no wheels for this Python")
    with pytest.raises(RuntimeUnavailableError, match="does not work on this machine") as caught:
        provide_openvino()
    assert "libopenvino.so" in caught.value.got and not openvino_available()


@pytest.mark.server
def test_a_server_without_it_starts_and_warns(monkeypatch, tmp_path, triton_runtime, write_model):
    class Told:
        def __init__(self):
            self.warnings = []

        def __getattr__(self, name):
            from serving.progress import SILENT

            return self.warnings.append if name == "warn" else getattr(SILENT, name)

    def refuse(**others):
        raise RuntimeUnavailableError("pip could not install it", got="no route")

    monkeypatch.setattr("serving.server.provide_openvino", refuse)
    (write_model(tmp_path, "slow") / "config.pbtxt").open("a").write(ASKS)
    told = Told()
    with Server(tmp_path, runtime=triton_runtime, reporter=told, exit_timeout_s=1):
        assert told.warnings == ["models that ask for openvino are served without: pip could not install it; no route"]
