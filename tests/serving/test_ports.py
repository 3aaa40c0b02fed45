from __future__ import annotations

import os
import socket

from serving.ports import can_bind, free_ports, listened_by, listeners


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports("127.0.0.1", 5)
    assert len(set(ports)) == 5
    assert all(can_bind("127.0.0.1", port) for port in ports)


def test_who_listens() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not can_bind("127.0.0.1", port)
        assert os.getpid() in listeners(port)
        assert listened_by([os.getpid()], port)
        assert not listened_by([os.getppid()], port)
    assert listeners(port) == {}
    assert not listened_by([os.getpid()], port)
