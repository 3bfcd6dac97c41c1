"""The application of `sidtune serve`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, Response
from fastapi.responses import JSONResponse

from sidtune.decoding.stream import items_json
from sidtune.serving.bodies import RecommendAnswer, RecommendBody
from sidtune.serving.engine import Engine
from sidtune.serving.limits import Limits
from sidtune.serving.metrics import Measured, Metrics
from sidtune.serving.queries import Query, Reply
from sidtune.serving.web import FAULTS, RETRY, Refusal, ask, make_app

PATH = "/recommend"
DESCRIPTION = "Recommendations of a model that was trained with sidtune."


def serving_app(engine: Engine, metrics: Metrics, limits: Limits, host: str) -> FastAPI:
    """The application; closes the engine at its end.

    Args:
        host: the address that it listens at.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close()

    app = make_app("sidtune serve", DESCRIPTION, limits, host, lifespan)
    app.add_middleware(Measured, metrics=metrics, path=PATH)
    metrics.watch(engine)

    @app.post(PATH, response_model=RecommendAnswer, responses=FAULTS)
    async def recommend(body: Annotated[RecommendBody, Body()]) -> Any:
        """The best items for a history."""
        query = query_of(body, limits, engine.served.options.width)
        return JSONResponse(reply_json(await ask(engine, query, limits)))

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server works; 503 means that it should be started anew."""
        if not engine.healthy:
            raise Refusal(503, "the model keeps failing; the server's log says why")
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """Whether another request would be taken."""
        if not engine.ready:
            raise Refusal(503, "the queue is full, or the server stops", headers=RETRY)
        return {"status": "ready"}

    @app.get("/model")
    async def model() -> dict[str, Any]:
        """What is served."""
        return model_json(engine)

    @app.get("/metrics")
    async def prometheus() -> Response:
        """Metrics in Prometheus's text format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return app


def query_of(body: RecommendBody, limits: Limits, beams: int) -> Query:
    """The query of a request.

    Raises:
        Refusal: 422 for what exceeds a limit.
    """
    candidates = body.candidates
    lengths = {
        "history": (len(body.history), limits.history),
        "candidates": (len(candidates or ()), limits.candidates),
    }
    for name, (length, most) in lengths.items():
        if length > most:
            raise Refusal(422, f"{name}: {length:,} items, at most {most:,} are taken")
    if not body.history:
        raise Refusal(422, "history: is empty", "Give at least one item id.")
    if candidates is not None and not candidates:
        raise Refusal(422, "candidates: is empty", "Give at least one item id, or leave it out.")
    if body.k > beams:
        raise Refusal(
            422, f"k: is {body.k:,}, at most {beams} here", "`sidtune serve --beams` is it."
        )
    return Query(
        tuple(body.history),
        body.k,
        body.exclude_history,
        None if candidates is None else frozenset(candidates),
        body.skip_unknown,
    )


def reply_json(reply: Reply) -> dict[str, Any]:
    """A reply as JSON; empty lists of unknown items are left out, as `sidtune recommend` does."""
    tree: dict[str, Any] = {"items": items_json(reply.items)}
    if reply.unknown:
        tree["unknown"] = reply.unknown
    if reply.unknown_candidates:
        tree["unknown_candidates"] = reply.unknown_candidates
    return tree | {"generation": reply.generation}


def model_json(engine: Engine) -> dict[str, Any]:
    """What an engine serves."""
    served = engine.served
    recommender = served.recommender
    return {
        "generation": served.generation,
        "items": len(recommender.bundle.catalogue.ids),
        "beams": served.options.width,
        "normalize": served.options.normalize,
        "longest_history": recommender.bundle.longest_history,
        "sources": list(recommender.ranker.sources) if recommender.ranker else [],
    }
