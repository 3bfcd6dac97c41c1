"""The socket of a server, and when clients can connect."""

from __future__ import annotations

import socket

import pytest
import uvicorn

from sidtune.base.errors import UserError
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


def test_an_address_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    class Kept(socket.socket):
        def __init__(self, *arguments: int) -> None:
            super().__init__(*arguments)
            made.append(self)

    with bound("127.0.0.1", 0) as holder:
        holder.listen()
        monkeypatch.setattr(socket, "socket", Kept)
        with pytest.raises(UserError, match=r"cannot listen at 127\.0\.0\.1, port"):
            bound("127.0.0.1", holder.getsockname()[1])
    assert [one.fileno() for one in made] == [-1], "closed"


@pytest.mark.parametrize("host", ["a" * 70, "no..where", "\ud800"])
def test_a_name_that_is_none(host: str) -> None:
    with pytest.raises(UserError, match="cannot listen at"):
        bound(host, 0)
