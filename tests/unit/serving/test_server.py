"""The socket of a server."""

from __future__ import annotations

import socket

import pytest

from sidtune.base.errors import UserError
from sidtune.serving.server import bound


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
