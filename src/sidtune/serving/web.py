"""What all servers share: one shape for errors, limits of bodies, and names of hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from sidtune import __version__
from sidtune.base.errors import UserError
from sidtune.base.faults import in_words
from sidtune.serving.bodies import Fault
from sidtune.serving.engine import Closing, Engine, ModelFailed, Overloaded
from sidtune.serving.limits import BodyLimit, Limits
from sidtune.serving.queries import Query, Reply

LOOPBACK = ("127.0.0.1", "localhost", "::1")
RETRY = {"Retry-After": "1"}
SHOWN = 3
# What pydantic calls a fault, and how we say it.
SAID = {
    "extra_forbidden": "unknown field",
    "model_attributes_type": "expected a JSON object",
    "model_type": "expected a JSON object",
    "dict_type": "expected a JSON object",
}
FAULTS: dict[int | str, dict[str, Any]] = {
    400: {"model": Fault, "description": "The body is not JSON."},
    413: {"model": Fault, "description": "The body is too large."},
    422: {"model": Fault, "description": "A field, or an item that the model does not know."},
    503: {"model": Fault, "description": "Overloaded: try again after Retry-After seconds."},
}


class Refusal(HTTPException):
    """A request that is not answered as asked.

    Args:
        error: what is wrong.
        hint: what to do; empty where there is nothing to do.
    """

    def __init__(
        self, status: int, error: str, hint: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, error, headers)
        self.hint = hint


class OnLoopback:
    """Refuses requests to another name than those of loopback (400)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at the header `Host` before anything else."""
        app: ASGIApp = self.app
        if scope["type"] != "lifespan":
            host = Headers(scope=scope).get("host", "")
            if _name_of(host) not in LOOPBACK:
                app = _answer(
                    400,
                    f"the header Host is {host!r:.80}, and this server listens on loopback only",
                    "Let a proxy send Host: 127.0.0.1, or start the server with --host, such as"
                    " --host 0.0.0.0.",
                )
        await app(scope, receive, send)


def _name_of(host: str) -> str | None:
    """The name in a header `Host`, without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def make_app(title: str, description: str, limits: Limits, host: str, lifespan: Any) -> FastAPI:
    """An application that answers every fault with `{"error", "hint"}`.

    Args:
        host: the address that it listens at. On loopback only requests to a name of loopback are
            answered, so that no web page reaches the server by a name of its own.
        lifespan: as FastAPI takes it.
    """
    app = FastAPI(
        title=title,
        description=description,
        version=__version__,
        lifespan=lifespan,
        # These pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(BodyLimit, limits=limits)
    if host in LOOPBACK:
        app.add_middleware(OnLoopback)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _failed)
    return app


async def ask(engine: Engine, query: Query, limits: Limits) -> Reply:
    """Let an engine answer.

    Raises:
        Refusal: 422 for a query that cannot be answered, 503 where there is no room or no
            time, 500 where the model failed.
    """
    try:
        async with asyncio.timeout(limits.seconds):
            return await asyncio.wrap_future(engine.submit(query))
    except UserError as error:
        raise Refusal(422, error.message, error.hint) from None
    except Overloaded:
        message = f"overloaded: {engine.queue:,} requests wait already"
        raise Refusal(503, message, "Try again later.", RETRY) from None
    except TimeoutError:
        message = f"overloaded: no answer within {limits.seconds:g} seconds"
        raise Refusal(503, message, "Try again later.", RETRY) from None
    except Closing:
        raise Refusal(503, "the server is stopping", "", RETRY) from None
    except ModelFailed:
        raise Refusal(500, "the model failed; the server's log says why") from None


def _invalid(request: Request, error: Exception) -> JSONResponse:
    """400 for what is not JSON, 422 for other fields than expected."""
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    if faults[0]["type"] == "json_invalid":
        place = faults[0]["loc"][-1]
        reason = faults[0].get("ctx", {}).get("error", "")
        return _answer(400, f"the body is not JSON: {reason} at character {place}")
    told = _told(faults)
    kind = request.headers.get("content-type", "")
    if faults[0]["loc"] == ("body",) and not kind.startswith("application/json"):
        return _answer(422, told, "Send it with the header Content-Type: application/json.")
    return _answer(422, told, "See /openapi.json.")


def _told(faults: Sequence[Any]) -> str:
    said = []
    for fault in faults[:SHOWN]:
        where = ".".join(str(part) for part in fault["loc"][1:]) or fault["loc"][0]
        message = SAID.get(fault["type"]) or in_words(fault)
        said.append(f"{where}: {message}")
    more = len(faults) - SHOWN
    return "; ".join(said) + (f"; and {more:,} more" if more > 0 else "")


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    hint = error.hint if isinstance(error, Refusal) else ""
    if error.status_code == 404:
        hint = "/openapi.json lists what there is."
    return _answer(error.status_code, error.detail, hint, error.headers)


def _failed(request: Request, error: Exception) -> JSONResponse:
    return _answer(500, "an internal error; the server's log says more")


def _answer(status: int, error: str, hint: str = "", headers: Any = None) -> JSONResponse:
    return JSONResponse(fault_json(error, hint), status, headers)


def fault_json(error: str, hint: str) -> dict[str, str]:
    """A fault as JSON; no hint where there is none."""
    return {"error": error, "hint": hint} if hint else {"error": error}
