"""What a server takes: limits of requests, and the middleware that holds bodies to them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Args:
        body: bytes of a request.
        history: items of a history.
        candidates: ids in a list of candidates.
        seconds: a request may take, besides those in which its body arrives, which may be as many.
    """

    body: int = 1_000_000
    history: int = 1_000
    candidates: int = 50_000
    seconds: float = 10.0


class BodyLimit:
    """Refuses bodies that are too large (413) or arrive too slowly (408)."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with a `receive` that counts and looks at the clock."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        left = self.limits.body
        declared = Headers(scope=scope).get("content-length", "0")
        too_large = declared.isdecimal() and (len(declared) > 18 or int(declared) > left)
        loop = asyncio.get_running_loop()
        until = loop.time() + self.limits.seconds
        done = False

        async def counted() -> Message:
            nonlocal left, done
            if too_large:
                raise self._too_large()
            if done:
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408, f"the body did not arrive within {self.limits.seconds:g} seconds"
                ) from None
            left -= len(message.get("body", b""))
            done = not message.get("more_body", False)
            if left < 0:
                raise self._too_large()
            return message

        await self.app(scope, counted, send)

    def _too_large(self) -> HTTPException:
        return HTTPException(
            413, f"the body is larger than {self.limits.body:,} bytes", {"Connection": "close"}
        )
