"""The examples, built once for all workers and served once per worker."""

from __future__ import annotations

import fcntl
import functools
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("digits", "minilm", "efficientnet", "existing_onnx", "multimodal")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not item.path.is_relative_to(Path(__file__).parent):
            continue
        fixtures = getattr(item, "fixturenames", ())
        if "built" in fixtures:
            # The first of these builds everything, and on other workers waits until it is built.
            item.add_marker(pytest.mark.timeout(900))
        if "served" in fixtures:
            # With --dist loadgroup, one worker serves the examples instead of every worker a few of them.
            item.add_marker(pytest.mark.xdist_group("examples"))


def _module(example: str, file: str) -> ModuleType:
    from builder.usercode import user_code

    folder = EXAMPLES / example
    spec = importlib.util.spec_from_file_location(f"example_{example}_{file}", folder / f"{file}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with user_code(folder):
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def module_of() -> Callable[[str, str], ModuleType]:
    """``module_of("digits", "client")``: a file of an example, loaded under a name of its own, siblings importable."""
    return functools.cache(_module)


DIGITS_VARIANTS = ("onnx-fp32", "onnx-fp16", "onnx-int8", "tensorrt-rtx-fp16", "tensorrt-rtx-int8")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with every example, built by build-repo's own Python API; with it ``report.json``."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "built_examples"
    folder.mkdir(exist_ok=True)
    report = folder / "report.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not report.is_file():
            report.write_text(json.dumps(_build(folder / "model_repository")))
    failed = {name: result for name, result in json.loads(report.read_text()).items() if result["error"]}
    assert not failed, failed
    return folder


def _build(repository: Path) -> dict[str, Any]:
    import torch

    from builder import build, load_spec

    kept = EXAMPLES.parent / ".build" / "cache"  # of `make demo`: what has not changed since need not be done again
    if kept.is_dir():
        shutil.copytree(kept, repository.parent / ".build" / "cache")
    torch.set_num_threads(1)  # beside other workers, two threads that wait for each other take four times as long
    results: dict[str, Any] = {}
    for name in NAMES:
        spec = load_spec(EXAMPLES / name / "models.yaml").model_copy(update={"repository": repository})
        if name == "digits":  # the others have them in their specs, with recipes; this one is small enough to search
            digits = spec.models["digits"].model_copy(update={"variants": DIGITS_VARIANTS})
            spec = spec.model_copy(update={"models": {"digits": digits}})
        for result in build(spec).models:
            results[result.model] = json.loads(json.dumps(result.as_dict(), default=str))
    return results


@pytest.fixture(scope="session")
def repository(built: Path) -> Path:
    return built / "model_repository"


@pytest.fixture(scope="session")
def reports(built: Path) -> dict[str, Any]:
    """What build-repo said of each model."""
    found: dict[str, Any] = json.loads((built / "report.json").read_text())
    return found


@pytest.fixture(scope="session")
def served(repository: Path) -> Iterator[Any]:
    """A real Triton on the built examples."""
    from serving import Server

    with Server(repository) as server:
        yield server


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, served: Any) -> str:
    """The server's address, once with each protocol."""
    address = served.http_url if request.param == "http" else served.grpc_url
    return f"{request.param}://{address}"


@pytest.fixture
def addresses(served: Any) -> list[str]:
    """The arguments every client takes."""
    return ["--http", served.http_url, "--grpc", served.grpc_url]
