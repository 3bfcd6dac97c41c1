"""Runs an application until it is asked to stop."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from sidtune.base.errors import UserError

# Seconds beyond the limit of a request that a stop waits for answers.
GRACE = 5


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address, which nobody can connect to before the server runs.

    Raises:
        UserError: if the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.ExitStack() as unless_bound:
            listener = unless_bound.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            unless_bound.pop_all()
    except (OSError, UnicodeError) as error:
        # A name that no resolver takes, with an empty or a long label, is a UnicodeError.
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen at {host}, port {port}: {reason}",
            "Choose another --port or --host.",
        ) from None
    return listener


def url(listener: socket.socket) -> str:
    """Where a bound socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(
    app: Any,
    listener: socket.socket,
    seconds: float,
    announce: Callable[[], None],
    on_hangup: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that were taken are answered first.

    Args:
        app: an ASGI application.
        seconds: that a request may take.
        announce: called when clients can connect; the first ones wait until the server has started.
        on_hangup: called on SIGHUP.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(seconds) + GRACE,
    )
    # uvicorn raises the signal that stopped it once more when it is done: then it means nothing.
    kept = {number: signal.signal(number, _ignore) for number in (signal.SIGTERM, signal.SIGINT)}
    if on_hangup:
        kept[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: on_hangup())
    try:
        listener.listen(config.backlog)
        announce()
        uvicorn.Server(config).run([listener])
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        listener.close()


def _ignore(*_: object) -> None:
    pass
