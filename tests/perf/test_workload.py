"""Workloads from files, flags and Python: what is taken, and that all that is wrong is said at once."""

from pathlib import Path

import pytest

from perf.errors import WorkloadError
from perf.workload import Workload, load_workload, workload_from


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models").mkdir()
    return tmp_path


def write(folder, text):
    path = folder / "workload.yaml"
    path.write_text(text)
    return path


def problems_of(*args, **kwargs):
    with pytest.raises(WorkloadError) as caught:
        load_workload(*args, **kwargs)
    assert caught.value.exit_code == 2
    return caught.value


def test_a_file_with_everything(folder):
    text = "repository: models\nmodels: [a, b]\nconcurrency: [1, 2]\nbatch_size: 4\nprotocol: grpc\n"
    text += "shared_memory: system\nseconds: 2.5\nstability_percentage: 20\nshapes: {ids: [16]}\n"
    workload = load_workload(write(folder, text))
    assert workload == Workload(
        repository=folder / "models",  # relative to the file
        models=("a", "b"),
        concurrency=(1, 2),
        batch_size=4,
        protocol="grpc",
        shared_memory="system",
        seconds=2.5,
        stability_percentage=20.0,
        shapes={"ids": (16,)},
    )


def test_flags_win_over_the_file_and_absent_flags_do_not(folder):
    path = write(folder, "repository: models\nconcurrency: 8\nseconds: 9\n")
    workload = load_workload(path, {"concurrency": ["1", "4"], "seconds": None})
    assert (workload.concurrency, workload.seconds) == ((1, 4), 9.0)
    assert load_workload(path).concurrency == (8,)  # one number needs no list


def test_the_default_repository_is_taken_when_it_is_there(folder, monkeypatch):
    monkeypatch.chdir(folder)
    error = problems_of()
    assert error.what == "nothing to measure" and "--url" in error.fix
    (folder / "model_repository").mkdir()
    assert load_workload().repository == Path("model_repository")


@pytest.mark.parametrize(
    ("url", "address", "protocol"),
    [
        ("127.0.0.1:8000", "127.0.0.1:8000", "http"),
        ("http://host.example:80/", "host.example:80", "http"),
        ("grpc://[::1]:8001", "[::1]:8001", "grpc"),
        ("https://host:443", "host:443", "http"),
        ("grpcs://host:8001", "host:8001", "grpc"),
    ],
)
def test_addresses(url, address, protocol):
    workload = workload_from(url=url)
    assert (workload.address, workload.protocol) == (address, protocol)
    assert workload.tls == url.startswith(("https:", "grpcs:"))


@pytest.mark.parametrize("url", ["127.0.0.1", "ftp://host:1", "host:99999", "a b:1", ""])
def test_addresses_that_are_none(url):
    with pytest.raises(WorkloadError, match="not a server's address") as caught:
        workload_from(url=url)
    assert "127.0.0.1:8000" in caught.value.expected


def test_the_address_may_not_contradict_the_protocol():
    with pytest.raises(WorkloadError, match="contradict each other"):
        workload_from(url="grpc://h:1", protocol="http")


def test_a_concurrency_given_twice_is_measured_once(folder):
    assert workload_from(url="h:1", concurrency=(4, 1, 4)).concurrency == (4, 1)


def test_all_problems_at_once_each_with_its_line(folder):
    text = "repository: nowhere\nconcurency: [1]\nconcurrency: [1, 0, x]\nprotocol: grcp\nseconds: fast\n"
    text += "batch_size: 2\nbatch_size: 3\nshapes: {ids: 4}\n"
    path = write(folder, text)
    error = problems_of(path, {"url": "foo"})
    found = {(problem.where, problem.what) for problem in error.problems}
    assert found == {
        (f"{path}:2, concurency", "unknown key concurency"),
        (f"{path}:3, concurrency[1]", "concurrency is out of range"),
        (f"{path}:3, concurrency[2]", "concurrency is of the wrong type"),
        (f"{path}:4, protocol", "protocol has no such value"),
        (f"{path}:5, seconds", "seconds is of the wrong type"),
        (f"{path}:7", "key batch_size is here twice"),
        (f"{path}:8, shapes.ids", "shapes is of the wrong type"),
        (f"{path}:1, repository", "no such model repository"),
        ("--url", "not a server's address"),
    }
    text = str(error)
    assert text.startswith("9 problems in the workload")
    for expected in ("did you mean concurrency?", "did you mean grpc?", "at least 1", "http or grpc", "a whole number"):
        assert expected in text
    assert len(error.as_dict()["problems"]) == 9


def test_a_flags_problem_names_the_flag_and_pythons_the_argument():
    error = problems_of(None, {"url": "h:1", "batch_size": "0", "models": [1]})
    assert {problem.where for problem in error.problems} == {"--batch-size", "--model"}
    with pytest.raises(WorkloadError) as caught:
        workload_from(url="h:1", batch_size=0)
    assert caught.value.where == "batch_size"


@pytest.mark.parametrize(
    ("text", "what", "detail"),
    [
        ("- a\n- b\n", "not a workload", "a list"),
        ("42", "not a workload", "a single value"),
        ("a: [1\nb: 2", "not valid YAML", "workload.yaml:2"),
        ("concurrency: []\nurl: h:1", "concurrency is empty", "at least one"),
        ("seconds: 0\nurl: h:1", "seconds is out of range", "at least 0.3"),
        ("seconds: .nan\nurl: h:1", "seconds is out of range", "nan"),
        ("repository: workload.yaml", "no such model repository", "is a file"),
    ],
)
def test_single_problems(folder, text, what, detail):
    error = problems_of(write(folder, text))
    assert error.what == what
    assert detail in str(error)


def test_a_missing_file_says_how_to_go_on(tmp_path):
    error = problems_of(tmp_path / "none.yaml")
    assert error.what == "the workload cannot be read" and "bench-repo --repository" in error.fix
