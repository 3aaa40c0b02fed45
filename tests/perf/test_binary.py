"""Finding perf_analyzer: the order, and what is said when there is none."""

import stat
from pathlib import Path

import pytest

from perf import binary
from perf.binary import find_binary
from perf.errors import AnalyzerUnavailableError

SAYS = "#!/bin/sh\necho 'Perf Analyzer Version 9.9.9 (commit abc)' >&2\nexit 99\n"
LACKS = "#!/bin/sh\necho 'error while loading shared libraries: libb64.so.0d' >&2\nexit 127\n"


def program(folder, text):
    folder.mkdir(exist_ok=True)
    path = folder / "perf_analyzer"
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.delenv("PERF_ANALYZER", raising=False)


def test_the_variable_comes_first(tmp_path, monkeypatch):
    program(tmp_path / "path", SAYS)
    chosen = program(tmp_path / "own", SAYS)
    monkeypatch.setenv("PATH", str(tmp_path / "path"), prepend=":")
    monkeypatch.setenv("PERF_ANALYZER", str(chosen))
    found = find_binary()
    assert (found.path, found.origin, found.version) == (chosen, "PERF_ANALYZER", "9.9.9 (commit abc)")


def test_then_the_path(tmp_path, monkeypatch):
    on_path = program(tmp_path / "path", SAYS)
    monkeypatch.setenv("PATH", str(tmp_path / "path"), prepend=":")
    assert find_binary().path == on_path


@pytest.mark.parametrize(("target", "got"), [("nowhere", "nothing there"), (".", "a folder")])
def test_a_variable_that_leads_nowhere(tmp_path, monkeypatch, target, got):
    monkeypatch.setenv("PERF_ANALYZER", str(tmp_path / target))
    with pytest.raises(AnalyzerUnavailableError, match="named by PERF_ANALYZER cannot be run") as caught:
        find_binary()
    assert got in caught.value.got and "unset it" in caught.value.fix


def test_a_chosen_one_that_lacks_its_libraries(tmp_path, monkeypatch):
    monkeypatch.setenv("PERF_ANALYZER", str(program(tmp_path / "own", LACKS)))
    with pytest.raises(AnalyzerUnavailableError, match="does not run") as caught:
        find_binary()
    assert "libb64.so.0d" in caught.value.got and "LD_LIBRARY_PATH" in caught.value.fix


def test_one_that_is_too_old(tmp_path, monkeypatch):
    old = program(tmp_path / "path", SAYS.replace("9.9.9 (commit abc)", "2.45.0 (commit 3c1eb13)"))  # as it says it
    monkeypatch.setenv("PERF_ANALYZER", str(old))
    with pytest.raises(AnalyzerUnavailableError, match="named by PERF_ANALYZER is too old") as caught:
        find_binary()
    assert (caught.value.expected, caught.value.got) == ("2.46 or newer", "2.45.0 (commit 3c1eb13)")
    assert "unset it" in caught.value.fix and caught.value.where == str(old)
    old.write_text(old.read_text().replace("2.45.0", "2.46.0"))
    assert find_binary().version == "2.46.0 (commit 3c1eb13)"


def test_one_on_the_path_that_is_too_old_is_passed_over(tmp_path, monkeypatch):
    program(tmp_path / "path", SAYS.replace("9.9.9", "2.36.0"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"), prepend=":")
    provided = binary.Binary(tmp_path / "other", "2.50.0", "tritonclient 2.50.0")
    monkeypatch.setattr(binary, "provided_binary", lambda reporter: provided)
    assert find_binary() is provided


@pytest.mark.parametrize(
    ("machine", "glibc"), [("aarch64", (2, 37)), ("x86_64", (2, 34)), ("x86_64", None), ("riscv64", (2, 41))]
)
def test_a_machine_without_one_is_told_what_would_do(monkeypatch, machine, glibc):
    monkeypatch.setattr(binary.platform, "machine", lambda: machine)
    monkeypatch.setattr(binary, "glibc_version", lambda: glibc)
    monkeypatch.setattr(binary.shutil, "which", lambda name: None)
    with pytest.raises(AnalyzerUnavailableError, match="no perf_analyzer for this kind of machine") as caught:
        find_binary()
    assert machine in caught.value.got and "PERF_ANALYZER" in caught.value.fix


@pytest.mark.server
def test_one_is_provided_that_runs_and_the_second_time_nothing_is_fetched(binary, monkeypatch):
    import perf.binary as module

    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(module, "pip_install", refuse)
    again = module.provided_binary()
    assert again.version in (module.NEWEST, module.OLDER)
    assert Path(again.path).is_file() and again.version in again.origin
    assert module._try(again.path, again.env).runs


@pytest.mark.server
def test_a_path_that_does_not_run_is_passed_over_with_a_word(binary, tmp_path, monkeypatch):
    program(tmp_path / "path", LACKS)
    monkeypatch.setenv("PATH", str(tmp_path / "path"), prepend=":")
    warnings = []

    class Listener:
        def warn(self, message):
            warnings.append(message)

    found = find_binary(reporter=Listener())
    assert found.path.parent.parent.name != "path"
    assert "does not run" in warnings[0] and "libb64.so.0d" in warnings[0]
