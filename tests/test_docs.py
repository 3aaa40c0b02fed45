"""The documents hold: their commands run, their links lead somewhere, their reference names every key."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Run elsewhere: CI itself runs make test and make demo-short; tests/compose/run.sh runs what needs containers.
ELSEWHERE = ("make ", "docker ", "podman", "pip install", "git ", "sudo ", "apt")
# make big-test runs these
LONG = ("your-first-model.md", "updating.md", "benchmarking.md", "comparing.md", "tuning.md", "serving.md")
COMMITS = ("comparing.md",)  # are run in a git repository of their own, and change nothing but that
AUTHOR = {f"GIT_{who}_{what}": "docs@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
BIN = Path(sys.executable).parent


def _blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def _commands(page):
    for block in _blocks(page, "bash"):
        joined = block.replace("\\\n", " ")
        for line in joined.splitlines():
            command = re.sub(r"\s+#.*$", "", line).strip()
            if command and not command.startswith("#"):
                yield command


def _runnable(page):
    if page.name in ("containers.md", "checking.md"):  # run block by block: tests/compose/run.sh, check/test_guide.py
        return []
    commits = "git commit " if page.name in COMMITS else "-"
    return [each for each in _commands(page) if each.startswith(commits) or not each.startswith(ELSEWHERE)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.fixture
def workplace(tmp_path):
    """A copy of the examples, as in a checkout, and a folder with the model of the README."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "model_repository").mkdir()
    return tmp_path


def _folder_for(page, workplace):
    """Where a page's commands are run: a page that shows a models.yaml describes that model's own folder."""
    if page.name in COMMITS:
        _git_repository(workplace)
    for block in _blocks(page, "yaml"):
        if name := re.match(r"# ((?:gate|nightly)\.yaml)\n", block):
            (workplace / name[1]).write_text(block)
        if block.startswith("# models.yaml"):
            folder = workplace / "mine"
            shutil.copytree(workplace / "examples" / "digits", folder)
            (folder / "models.yaml").write_text(block)
            return folder
    return workplace


def _git_repository(folder):
    """With the examples in it, in a commit: pages speak of revisions."""
    for command in (["init", "--quiet"], ["add", "examples"], ["commit", "--quiet", "--message", "examples"]):
        subprocess.run(["git", *command], cwd=folder, env={**os.environ, **AUTHOR}, check=True)


def _serve(command, folder, env):
    """Start a serve-repo in the background; returns when it says that it is ready."""
    log = folder / "serve.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=folder, env=env, stdout=stream, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        done = subprocess.run(["curl", "-sf", "-o", os.devnull, "http://localhost:8000/v2/health/ready"], check=False)
        if done.returncode == 0:
            return process
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    raise AssertionError(f"{command} did not become ready: {log.read_text()}")


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.xdist_group("default-ports")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.big, pytest.mark.timeout(900)] if page.name in LONG else [])
        for page in PAGES
        if _runnable(page)
    ],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_command_of_a_page_runs(page, workplace):
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", **AUTHOR}
    folder = _folder_for(page, workplace)
    servers = []
    try:
        for command in _runnable(page):
            if command.startswith("serve-repo") and not re.search(r"doctor|--help|--version", command):
                for server in servers:
                    server.send_signal(signal.SIGTERM)
                    server.wait(60)
                servers = [_serve(command, folder, env)]
                continue
            done = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, timeout=280, check=False
            )
            assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
    finally:
        for server in servers:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.xdist_group("test_docs")
def test_the_python_of_the_readme_runs(workplace):
    (code,) = _blocks(ROOT / "README.md", "python")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=workplace, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "(1, 10)" in done.stdout


def test_the_reference_names_every_key_of_the_spec():
    from builder.spec import SOURCE_KINDS, Batch, Export, Instances, ModelSpec, Warmup

    text = (ROOT / "docs/reference/spec.md").read_text()
    keys = {*SOURCE_KINDS}
    for model in (ModelSpec, Batch, Instances, Warmup, Export):
        keys |= {field.alias or name for name, field in model.model_fields.items()}
    assert [key for key in sorted(keys) if f"`{key}" not in text] == []
