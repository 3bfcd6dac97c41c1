"""The application of `sidtune play`: one page, and what it asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi import Query as Parameter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.staticfiles import StaticFiles

from sidtune.base.errors import UserError
from sidtune.decoding.paths import sid_path
from sidtune.playground.titles import Titles
from sidtune.serving.app import model_json, reply_json
from sidtune.serving.bodies import ItemIds
from sidtune.serving.engine import Engine
from sidtune.serving.limits import Limits
from sidtune.serving.queries import Query
from sidtune.serving.web import Refusal, ask, fault_json, make_app

STATIC = Path(__file__).with_name("static")
# Nothing from elsewhere, and no script but the page's own, whatever a title holds.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Question(BaseModel):
    """A history and how lists are wanted for it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    history: ItemIds = Field(min_length=1, max_length=1_000)
    k: int = Field(10, ge=1)
    exclude_history: bool = False
    candidates: ItemIds | None = Field(None, min_length=1, max_length=50_000)
    rank: bool = True

    def query(self, beams: int) -> Query:
        """For a model that is searched with so many beams."""
        candidates = None if self.candidates is None else frozenset(self.candidates)
        k = min(self.k, beams)
        return Query(
            tuple(self.history),
            k,
            self.exclude_history,
            candidates,
            skip_unknown=True,
            rank=self.rank,
        )


class PathQuestion(Question):
    """The same, and the item whose path is wanted; `model` counts from 0."""

    model: int = Field(0, ge=0)
    item_id: str


def playground_app(engines: Sequence[Engine], names: Sequence[str], host: str) -> FastAPI:
    """The application; closes the engines at its end.

    Args:
        engines: one for each model.
        names: of the models, as shown.
        host: the address that it listens at.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for engine in engines:
            engine.close()

    limits = Limits(seconds=60)
    app = make_app("sidtune play", "A playground.", limits, host, lifespan)
    bundles = [engine.served.recommender.bundle for engine in engines]
    titles = Titles([(bundle.catalogue, bundle.users) for bundle in bundles])

    @app.middleware("http")
    async def guarded(
        request: Request, following: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await following(request)
        response.headers.update(HEADERS)
        return response

    @app.get("/api/models")
    async def models() -> list[dict[str, Any]]:
        """What is played with."""
        shown = zip(names, engines, strict=True)
        return [{"name": name, **model_json(engine)} for name, engine in shown]

    @app.get("/api/search")
    def search(
        q: str = Parameter("", max_length=500), limit: int = Parameter(20, ge=1, le=1_000)
    ) -> dict[str, Any]:
        """Items by words of their titles."""
        found, count = titles.find(q, limit)
        return {"items": [asdict(match) for match in found], "count": count}

    @app.post("/api/recommend")
    async def recommend(question: Question) -> Any:
        """The list of every model; of one that cannot answer, why."""
        lists = [_list(engine, question, limits) for engine in engines]
        history = [{"item_id": item, "title": titles.title(item)} for item in question.history]
        return JSONResponse({"history": history, "lists": await asyncio.gather(*lists)})

    @app.post("/api/path")
    def path(question: PathQuestion) -> dict[str, Any]:
        """How a model comes to an item."""
        if question.model >= len(engines):
            raise Refusal(422, f"model: there are {len(engines)}, counted from 0")
        try:
            return _path(engines[question.model], question)
        except UserError as error:
            raise Refusal(422, error.message, error.hint) from None

    app.mount("/", StaticFiles(directory=STATIC, html=True))
    return app


async def _list(engine: Engine, question: Question, limits: Limits) -> dict[str, Any]:
    try:
        query = question.query(engine.served.options.width)
        return reply_json(await ask(engine, query, limits))
    except Refusal as error:
        return fault_json(error.detail, error.hint)


def _path(engine: Engine, question: PathQuestion) -> dict[str, Any]:
    served, query = engine.served, question.query(1)
    recommender, _ = served.restricted(query.candidates, query.rank)
    located = recommender.located([query.history, [question.item_id]])
    history, item = located.take(np.array([0])), int(located[1][0])
    known = history.keep(history.values >= 0)
    if item < 0 or recommender.answers.sid_of[item] < 0:
        raise UserError(
            f"item_id: {question.item_id!r} may not be recommended by this model",
            "Ask for an item of its catalogue, within the candidates.",
        )
    if not len(known.values):
        raise UserError(
            "history: this model knows none of the items", "Give items of its catalogue."
        )
    steps = sid_path(recommender, known, item, served.options.normalize)
    return {
        "steps": [asdict(step) for step in steps],
        "log_probability": sum(step.log_probability for step in steps),
    }
