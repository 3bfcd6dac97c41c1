"""Bodies are held to their limits while they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from sidtune.serving.limits import BodyLimit, Limits

LIMITS = Limits(body=10, seconds=0.05)


def received(*parts: bytes, declared: str | None = None, ends: bool = True) -> bytes:
    """What an application reads of a body that arrives in parts."""
    waiting = [
        {"type": "http.request", "body": part, "more_body": not ends or at < len(parts) - 1}
        for at, part in enumerate(parts)
    ]
    read = bytearray()

    async def receive() -> Any:
        if not waiting:
            await asyncio.sleep(10)
        return waiting.pop(0)

    async def application(scope: Any, receive: Callable[[], Any], send: Any) -> None:
        while True:
            message = await receive()
            read.extend(message["body"])
            if not message["more_body"]:
                return

    headers = [] if declared is None else [(b"content-length", declared.encode("latin-1"))]
    scope = {"type": "http", "headers": headers}
    asyncio.run(BodyLimit(application, LIMITS)(scope, receive, None))  # type: ignore[arg-type]
    return bytes(read)


def status(*parts: bytes, **options: Any) -> int:
    with pytest.raises(HTTPException) as refused:
        received(*parts, **options)
    return refused.value.status_code


def test_a_body_within_the_limits_passes() -> None:
    assert received(b"01234", b"56789") == b"0123456789"
    assert received(b"", declared="0") == b""
    assert received(b"01", declared="\xb2") == b"01", "no number is no length"


def test_a_body_that_is_too_large_is_refused() -> None:
    assert status(b"01234", b"56789", b"x") == 413
    assert status(b"", declared="11") == 413
    assert status(b"", declared="1" * 5_000) == 413
    assert status(b"0123456789x", declared="3") == 413


def test_a_body_that_is_too_slow_is_refused() -> None:
    assert status(b"01", ends=False) == 408
