"""The rooms: who may import whom, and what must not be imported to import us."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {"serving": {"serving"}, "perf": {"perf", "serving"}, "builder": {"builder", "perf", "serving"}}
HEAVY = ("torch", "onnx", "onnxruntime", "tritonclient", "tensorrt", "transformers", "onnx_ir", "onnxscript", "rich")


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


def _modules(path):
    """Whole names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "builder")


def _loaded(path):
    """Top-level packages that a file imports, those that it names to ``import_module`` included."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    named = {
        call.args[0].value.split(".")[0]
        for call in calls
        if ast.unparse(call.func).endswith("import_module") and call.args and isinstance(call.args[0], ast.Constant)
    }
    return named | set(_imports(path))


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_run_one_way(package):
    files = [path for path in (ROOT / package).rglob("*.py") if "backends" not in path.parts]
    assert files
    for path in files:
        ours = set(_imports(path)) & {"serving", "perf", "builder", "tests", "examples", "benchmarks"}
        assert ours <= ALLOWED[package], f"{path.relative_to(ROOT)} imports {ours - ALLOWED[package]}"


def test_only_choosing_measures():
    importers = {path.name for path in (ROOT / "builder").rglob("*.py") if "perf" in set(_imports(path))}
    assert importers == {"choose.py"}


def test_stages_of_the_builder_do_not_know_each_other():
    stages = {"sources", "export", "config", "verify", "repository", "precision", "engine", "ensemble", "python_model"}
    # The contract rung reads config.pbtxt back; publishing writes the one that names the version.
    shared = {"verify": {"config"}, "repository": {"config"}}
    for stage in stages:
        place = ROOT / "builder" / stage
        files = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]
        for path in files:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("builder."):
                    other = node.module.split(".")[1]
                    allowed = other not in stages - {stage} or other in shared.get(stage, set())
                    assert allowed, f"{path.relative_to(ROOT)} imports the stage builder.{other}"


def test_python_models_take_plain_arguments():
    """A class becomes a model without the spec or the pipeline, and what is copied into the server needs nobody."""
    room = ROOT / "builder" / "python_model"
    for path in room.rglob("*.py"):
        ours = {name.split(".")[1] for name in _modules(path) if name.startswith("builder.")}
        others = ours - {"errors", "python_model", "releases", "shadowing", "tensors", "usercode"}
        assert not others, f"{path.relative_to(ROOT)} imports builder.{sorted(others)}"
    assert set(_imports(room / "served.py")) - set(sys.stdlib_module_names) == {"numpy"}


@pytest.mark.parametrize("stage", ["precision", "engine"])
def test_what_makes_variants_takes_plain_arguments(stage):
    """Neither knows the spec, what is kept, or who builds: a recipe and an engine can be made of any ONNX file."""
    nouns = {"agreement", "artifact", "graphs", "numerics", "reference", "tensors"}
    ground = {"errors", "findings", "host", "operations", "quiet", "releases"}
    for path in (ROOT / "builder" / stage).rglob("*.py"):
        ours = {name.split(".")[1] for name in _modules(path) if name.startswith("builder.")}
        others = ours - nouns - ground - {stage}
        assert not others, f"{path.relative_to(ROOT)} imports builder.{sorted(others)}"


def test_an_ensemble_is_data():
    """Its checks judge any repository, so they know neither the spec nor who builds, and ask no server."""
    nouns = {"artifact", "errors", "findings", "graphs", "numerics", "reference", "rules", "tensors"}
    for path in (ROOT / "builder" / "ensemble").rglob("*.py"):
        ours = {name.split(".")[1] for name in _modules(path) if name.startswith("builder.")}
        assert ours <= nouns | {"ensemble"}, f"{path.relative_to(ROOT)} imports builder.{sorted(ours - nouns)}"
        served = {name for name in _modules(path) if name.startswith("serving")}
        assert served <= {"serving.dtypes"}, f"{path.relative_to(ROOT)} imports {sorted(served)}"


def test_rules_stand_on_the_ground_alone():
    """They judge a message: whoever has one, the spec, a stage or check-repo, may ask them."""
    for path in (ROOT / "builder" / "rules").rglob("*.py"):
        ours = {name.split(".")[1] for name in _modules(path) if name.startswith("builder.")}
        assert ours <= {"rules", "findings", "errors", "triton_fields", "releases"}, f"{path.relative_to(ROOT)}: {ours}"


def test_a_check_knows_no_stage():
    """It judges any repository, so it knows nothing of how ours are made, nor runs what it judges."""
    ground = {"errors", "findings", "releases", "triton_fields", "names", "tensors"}
    for path in (ROOT / "builder" / "check").rglob("*.py"):
        ours = {name.split(".")[1] for name in _modules(path) if name.startswith("builder.")}
        assert ours <= ground | {"check", "rules", "ensemble", "graphs"}, f"{path.relative_to(ROOT)} imports {ours}"
        assert not {"runpy", "torch", "onnxruntime", "pickle"} & _loaded(path), path


def test_only_the_process_of_an_engine_imports_its_library():
    libraries = {"tensorrt", "tensorrt_rtx", "polygraphy"}
    importers = {str(path.relative_to(ROOT)) for path in (ROOT / "builder").rglob("*.py") if libraries & _loaded(path)}
    assert importers == {f"builder/engine/{name}.py" for name in ("network", "process", "running", "tensorrt")}
    for package in ("serving", "perf"):
        assert not [path for path in (ROOT / package).rglob("*.py") if libraries & _loaded(path)]
    # Who starts that process reads constants of these modules, but nothing of the libraries comes with them.
    code = (
        f"import sys, builder.engine, builder.engine_stage; print([n for n in {sorted(libraries)} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_importing_a_package_imports_nothing_heavy(package):
    code = f"import {package}, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_every_name_that_a_package_exports_is_there(package):
    module = importlib.import_module(package)
    assert [name for name in getattr(module, "__all__", ()) if getattr(module, name, None) is None] == []


@pytest.mark.parametrize("command", ["builder.cli", "builder.cli_check", "serving.cli", "perf.cli", "perf.cli_tune"])
def test_help_imports_none_of_the_frameworks(command):
    code = (
        f"import sys, {command} as cli\n"
        "from serving.terminal import run\n"
        "run(cli.app, ['--help'])\n"
        "print('HEAVY', [n for n in ('torch', 'onnx', 'onnxruntime', 'tritonclient', 'tensorrt') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip().endswith("HEAVY []")


def test_only_the_commands_print():
    for package in ALLOWED:
        for path in (ROOT / package).rglob("*.py"):
            if path.name in ("cli.py", "terminal.py"):
                continue
            calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path
