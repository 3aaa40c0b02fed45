"""What must hold of docker-compose.yml, .env, the Dockerfile and their guide; `make compose-test` runs them."""

import re
import sys
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="tomllib came with Python 3.11")

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "serving/Dockerfile"
GUIDE = ROOT / "docs/guides/containers.md"
SERVICES = ("gpu", "cpu", "perf")
SERVERS = ("gpu", "cpu")


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load(COMPOSE.read_text())["services"]


def env_file():
    lines = [line for line in (ROOT / ".env").read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_each_service_belongs_to_the_profile_of_its_name(services):
    assert {name: service["profiles"] for name, service in services.items()} == {name: [name] for name in SERVICES}


def test_images_are_named_in_env_only_and_pinned(services):
    images = env_file()
    for name in SERVICES:
        variable = re.fullmatch(r"\$\{(\w+)\}", services[name]["image"])
        assert variable and variable[1] in images, services[name]["image"]
    for variable, image in images.items():
        repository, _, tag = image.rpartition(":")
        assert repository and re.search(r"\d", tag) and tag != "latest", f"{variable}={image} is not pinned"
    starts = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    assert starts == ["${BASE_IMAGE}", "python", "python"]  # the base from .env, then the Dockerfile's own stage


def test_images_built_here_start_from_the_base_in_env(services):
    for name in ("cpu", "perf"):
        build = services[name]["build"]
        assert build["args"] == {"BASE_IMAGE": "${BASE_IMAGE}"}
        assert (ROOT / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE
    assert services["cpu"]["image"] == services["perf"]["image"]


@pytest.mark.parametrize("name", SERVICES)
def test_the_repository_is_mounted_read_only(services, name):
    assert services[name]["volumes"] == ["${MODEL_REPOSITORY:-./model_repository}:/models:ro"]


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_runs_as_root_or_can_become_root(services, name):
    service = services[name]
    assert service["user"] == "1000:1000"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_healthy_when_it_is_ready(services, name):
    check = services[name]["healthcheck"]
    assert check["test"][:2] == ["CMD", "curl"]
    assert check["test"][-1].endswith("/v2/health/ready")
    assert services["perf"]["depends_on"][name] == {"condition": "service_healthy", "required": False}
    assert services[name]["networks"]["default"]["aliases"] == ["triton"]


@pytest.mark.parametrize("name", SERVERS)
def test_ports_are_open_to_this_machine_only_by_default(services, name):
    assert [port.rpartition(":")[2] for port in services[name]["ports"]] == ["8000", "8001", "8002"]
    assert all(port.startswith("${BIND:-127.0.0.1}:") for port in services[name]["ports"])


def test_the_gpu_server_gets_gpus_shared_memory_and_limits(services):
    gpu = services["gpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert gpu["ulimits"] == {"memlock": -1, "stack": 64 * 1024 * 1024}
    assert gpu["shm_size"] == services["cpu"]["shm_size"] == "1gb"


def test_a_stop_waits_longer_than_triton_does(services):
    for name in SERVERS:
        assert int(services[name]["stop_grace_period"].removesuffix("s")) > 30  # Triton's --exit-timeout-secs


def test_commands_exist_in_the_image(services):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert services["cpu"]["command"][0] in scripts
    assert services["perf"]["entrypoint"][0] in scripts


def test_the_build_context_holds_what_the_wheel_is_made_of():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {*wheel, project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    assert let_in == needed | {"constraints.txt"}
    assert "*" in lines and not [name for name in let_in if not (ROOT / name).exists()]


def test_every_command_of_the_guide_is_run_or_says_why_not():
    text = GUIDE.read_text()
    blocks = re.findall(r"(.*)\n```bash\n", text)
    assert len(blocks) == text.count("```bash") > 0
    marks = [re.fullmatch(r"<!-- (run by make compose-test: (\w+)|not run: .+) -->", line) for line in blocks]
    assert all(marks), blocks
    named = [mark[2] for mark in marks if mark and mark[2]]
    script = (ROOT / "tests/compose/run.sh").read_text()
    assert re.findall(r"^  guide (\w+)$", script, re.MULTILINE) == named  # all of them, in the guide's order


def test_the_variables_in_the_guide_are_those_of_the_file():
    used = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    told = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*)(?:=[^`]*)?`", GUIDE.read_text()))
    assert used - {"TRITON_REPO_IMAGE"} <= told
