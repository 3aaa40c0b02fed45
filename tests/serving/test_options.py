from __future__ import annotations

from pathlib import Path

from serving.options import Ports, ServerOptions
from serving.runtime import Runtime


def test_the_command_line(tmp_path: Path) -> None:
    backends = tmp_path / "backends"
    for name, file in (("python", "libtriton_python.so"), ("onnxruntime", "model.py"), ("tensorrt", "libtriton_x.so")):
        (backends / name).mkdir(parents=True)
        (backends / name / file).write_text("")
    runtime = Runtime(kind="embedded", tritonserver=Path("/t"), backend_dir=backends, cache_dir=Path("/caches"))
    options = ServerOptions(
        [tmp_path],
        model_control_mode="poll",
        poll_interval_s=0.2,
        cache_size_bytes=64,
        exit_on_error=False,
        extra_args=["--log-verbose=1"],
    )
    assert options.command(runtime, Ports(1, 2, 3)) == [
        "/t",
        f"--model-repository={tmp_path}",
        "--http-address=127.0.0.1",
        "--http-port=1",
        "--grpc-address=127.0.0.1",
        "--grpc-port=2",
        "--metrics-address=127.0.0.1",
        "--metrics-port=3",
        "--model-control-mode=poll",
        "--exit-on-error=false",
        "--exit-timeout-secs=30",
        "--repository-poll-secs=1",
        "--strict-readiness=false",
        f"--backend-directory={backends}",
        "--cache-config=local,size=64",
        "--cache-directory=/caches",
        "--backend-config=python,shm-region-prefix-name=@SHARED_MEMORY_PREFIX@",
        "--backend-config=onnxruntime,shm-region-prefix-name=@SHARED_MEMORY_PREFIX@",
        "--log-verbose=1",
    ]


def test_a_container_s_server_keeps_what_is_its_own(tmp_path: Path) -> None:
    runtime = Runtime(kind="local", tritonserver=Path("/t"))
    options = ServerOptions([tmp_path], model_control_mode="explicit", load=["a", "b"])
    command = options.command(runtime, Ports(1, 2, 3))
    assert "--load-model=a" in command and "--load-model=b" in command
    assert not [part for part in command if part.startswith(("--backend-directory", "--cache"))]


def test_ports_know_their_names() -> None:
    ports = Ports(1, 2, 3)
    assert list(ports) == [1, 2, 3]
    assert ports.name_of(2) == "grpc_port"


def test_chosen_ports_stay_and_others_are_found(tmp_path: Path) -> None:
    ports = ServerOptions([tmp_path], ports=(None, 1234, None)).choose_ports()
    assert ports.grpc_port == 1234
    assert len({*ports}) == 3
