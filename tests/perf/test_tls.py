"""A server behind TLS: a real one behind a small proxy that ends the encryption, with a certificate of its own."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading

import numpy as np
import pytest

from perf import bench
from perf.errors import WorkloadError
from perf.workload import workload_from
from serving import Client
from serving.errors import ServerUnavailableError

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


def test_certificates_that_are_not_there(tmp_path):
    with pytest.raises(WorkloadError, match="no such file") as caught:
        workload_from(url="https://h:1", ca_file=tmp_path / "none.pem")
    assert caught.value.where == "ca_file"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return key, cert


@contextlib.contextmanager
def encrypted(address, certificate):
    """The port of a proxy that takes TLS and hands everything on to ``address``."""
    key, cert = certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2", "http/1.1"])  # gRPC asks for it
    host, _, port = address.rpartition(":")
    held = []

    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(listener):
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                with contextlib.suppress(OSError):
                    client = context.wrap_socket(plain, server_side=True)
                    server = socket.create_connection((host, int(port)))
                    held.extend((client, server))
                    for ends in ((client, server), (server, client)):
                        threading.Thread(target=pump, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    for end in held:
        end.close()


@needs_openssl
@pytest.mark.server
@pytest.mark.xdist_group("perf")
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_encrypted_server_is_measured(server, certificate, protocol):
    address = server.http_url if protocol == "http" else server.grpc_url
    with encrypted(address, certificate) as port:
        url = f"{protocol}s://localhost:{port}"
        result = bench(url=url, ca_file=certificate[1], models=["scale"], concurrency=[2], seconds=0.3)
        assert result.ok, [run.error for run in result.models] + [point.error for point in result.points]
        assert result.server["url"] == url and result.points[0].latency.requests > 0
        with pytest.raises(ServerUnavailableError, match="certificate that is trusted") as caught:
            bench(url=url, models=["scale"], seconds=0.3)
        assert "--ca-file" in caught.value.fix


@needs_openssl
@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_a_stream_trusts_the_given_certificate(server, certificate):
    with (
        encrypted(server.grpc_url, certificate) as port,
        Client(f"grpcs://localhost:{port}", ca_file=certificate[1]) as client,
    ):
        (tensor,) = client.metadata("scale")["inputs"]
        x = np.ones([abs(int(size)) for size in tensor["shape"]], np.float32)
        assert len(list(client.stream("scale", {tensor["name"]: x}))) == 1
