"""What all examples have in common: files, light imports, a spec that loads, a build that was verified."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
MODELS = {
    "digits": ["digits"],
    "minilm": ["minilm", "minilm_text"],
    "efficientnet": ["efficientnet", "efficientnet_jpeg"],
    "existing_onnx": ["magika"],
    "multimodal": ["scene"],
}
HEAVY = ("torch", "onnx", "onnxruntime", "transformers", "sklearn", "skimage", "magika")


def test_every_folder_is_known() -> None:
    folders = {path.parent.name for path in EXAMPLES.glob("*/models.yaml")}
    assert folders == set(MODELS), "add the new example to these tests and to examples/demo.py"


@pytest.mark.parametrize("example", MODELS)
def test_spec_loads_and_names_the_model(example: str) -> None:
    from builder import load_spec

    spec = load_spec(EXAMPLES / example / "models.yaml")
    assert set(MODELS[example]) <= set(spec.models)
    assert spec.repository == ROOT / "model_repository"
    for name, model in spec.models.items():
        assert model.samples is not None, name
    for name in MODELS[example]:
        assert (spec.models[name].evaluate is not None) == (name != "scene"), (
            name
        )  # random weights are right at nothing


@pytest.mark.parametrize("example", MODELS)
def test_importing_the_callables_loads_nothing_heavy(example: str) -> None:
    names = sorted(path.stem for path in (EXAMPLES / example).glob("*.py"))
    program = f"import sys, {', '.join(names)}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=EXAMPLES / example, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize("example", MODELS)
def test_readme_tells_how_to_build_serve_and_call(example: str) -> None:
    text = (EXAMPLES / example / "README.md").read_text(encoding="utf-8")
    assert f"build-repo examples/{example}/models.yaml" in text
    assert "serve-repo model_repository" in text
    assert f"python examples/{example}/client.py" in text
    for file in (EXAMPLES / example).iterdir():
        if file.is_file() and file.name != "README.md":
            assert f"`{file.name}`" in text, f"README.md does not say what {file.name} is"


@pytest.mark.parametrize("example", MODELS)
def test_client_without_a_server_says_so_without_a_traceback(example: str) -> None:
    command = [sys.executable, str(EXAMPLES / example / "client.py"), "--http", "127.0.0.1:9", "--grpc", "127.0.0.1:9"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("error: "), done.stderr
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.server
@pytest.mark.slow
def test_every_example_is_verified_with_its_real_samples(reports: dict[str, Any], repository: Path) -> None:
    for model in [name for names in MODELS.values() for name in names]:
        report = reports[model]
        assert report["status"] == "built", model
        assert report["notes"] == [], model
        if model != "scene":
            assert report["accuracy"] == pytest.approx(report["accuracy_reference"], abs=0.011), model
        manifest = json.loads((repository / model / "1" / "manifest.json").read_text())
        assert manifest, model


@pytest.mark.server
@pytest.mark.big  # CI runs `make demo-short` itself
def test_demo_calls_every_example_and_measures(repository: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "demo.py"), "--short", "--repository", str(repository)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    for expected in ("448 of 450", "daisy", "The cat is sleeping on the windowsill.", "README.md", "markdown"):
        assert expected in done.stdout
    for model in [name for names in MODELS.values() for name in names]:
        assert model in done.stdout.partition("bench-repo")[2], f"{model} was not measured"


def test_demo_without_models_names_the_command_that_builds_them(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "demo.py"), "--repository", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: digits, minilm, minilm_text, efficientnet, efficientnet_jpeg, magika, scene not in "
        f"{tmp_path}; build first: build-repo examples/*/models.yaml"
    )
