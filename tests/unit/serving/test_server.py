"""When a server lets clients connect."""

from __future__ import annotations

import socket

import pytest
import uvicorn

from sidtune.serving.server import bound, run


def test_clients_connect_once_the_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    listener, told = bound("127.0.0.1", 0), []
    address = listener.getsockname()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)

    def announce() -> None:
        socket.create_connection(address).close()
        told.append(address)

    run(None, listener, 1, announce)
    assert told == [address]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
