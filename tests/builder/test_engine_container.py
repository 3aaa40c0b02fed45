"""The command that builds inside the server's image; the image itself is not to be had here."""

import os
import shlex
import subprocess

import pytest

from builder.engine.in_container import container_command, container_engine, run_in_container, shell_text
from builder.errors import EngineError, UnavailableError
from builder.releases import image_of


def command(tmp_path, **given):
    spec = tmp_path / "my models" / "models.yaml"
    spec.parent.mkdir(exist_ok=True)
    return container_command(spec, "26.09", ["digits"], **given)


def test_docker(tmp_path):
    words = command(tmp_path, mounts=[tmp_path / "served"], arguments=["--force"])
    folder = tmp_path / "my models"
    assert words[:3] == ["docker", "run", "--rm"]
    assert words[words.index("--gpus") + 1] == "all"
    assert words[words.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    volumes = [words[index + 1] for index, word in enumerate(words) if word == "--volume"]
    assert volumes[:2] == [f"{folder}:{folder}", f"{tmp_path}/served:{tmp_path}/served"]
    assert volumes[2].endswith(":/triton-repo:ro")
    assert words[words.index("--workdir") + 1] == str(folder)
    assert words[-4:-1] == [image_of("26.09"), "bash", "-c"]
    assert words[-1].endswith(f"/bin/build-repo '{folder}/models.yaml' --only digits --force")


def test_podman_gets_the_gpu_its_own_way(tmp_path):
    words = command(tmp_path, engine="podman")
    assert words[0] == "podman" and "nvidia.com/gpu=all" in words and "--gpus" not in words
    assert ("keep-id" in words) == (os.getuid() != 0)


def test_a_folder_inside_another_is_mounted_once(tmp_path):
    words = command(tmp_path, mounts=[tmp_path / "my models" / "model_repository"])
    assert len([word for word in words if word == "--volume"]) == 2


def test_the_script_is_one_that_a_shell_takes_and_installs_the_tensorrt_of_the_image(tmp_path):
    script = command(tmp_path)[-1]
    subprocess.run(["bash", "-n", "-c", script], check=True)
    # The installation and the build replaced by what shows their words; the rest of the script runs as it is.
    shown = script.replace("python3 -m pip install", "echo").replace(
        "exec /tmp/home/.local/bin/build-repo", "echo BUILD"
    )
    done = subprocess.run(
        ["bash", "-c", shown], env={**os.environ, "TRT_VERSION": "10.13.3.9+cuda13.0"}, capture_output=True, text=True
    )
    assert "tensorrt==10.13.3.9\n" in done.stdout and "/triton-repo[torch,serve,tensorrt]" in done.stdout
    assert f"BUILD {tmp_path}/my models/models.yaml --only digits" in done.stdout


def test_what_the_models_code_needs_is_installed_too(tmp_path):
    assert "requirements.txt" not in command(tmp_path)[-1]
    (tmp_path / "my models" / "requirements.txt").write_text("transformers\n")
    assert f"--requirement '{tmp_path}/my models/requirements.txt'" in command(tmp_path)[-1]


def test_what_is_shown_can_be_typed(tmp_path):
    words = command(tmp_path)
    assert shlex.split(shell_text(words)) == words


def test_an_engine_that_there_is_not(tmp_path):
    with pytest.raises(EngineError) as caught:
        command(tmp_path, engine="lxc")
    assert "docker or podman" in str(caught.value)


def test_without_docker_and_podman(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError) as caught:
        run_in_container(command(tmp_path))
    assert "docker is not installed" in str(caught.value) and "docker run --rm" in str(caught.value)
    assert container_engine() is None


def test_a_container_that_fails(tmp_path, monkeypatch):
    (tmp_path / "docker").symlink_to("/bin/false")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError) as caught:
        run_in_container(command(tmp_path))
    assert "exit status 1" in str(caught.value) and container_engine() == "docker"
