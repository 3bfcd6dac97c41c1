"""What Prometheus is told about a server."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sidtune.serving.engine import Engine

SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "sidtune_requests",
            "Requests for recommendations, by status code.",
            ["status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "sidtune_request_seconds",
            "Seconds from the first byte of a request to its answer.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "sidtune_batch_requests",
            "Requests that the model answered together.",
            buckets=SIZES,
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "sidtune_batch_seconds",
            "Seconds that the model took for a batch.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.reloads = Counter(
            "sidtune_reloads", "Reloads, by outcome.", ["outcome"], registry=self.registry
        )

    def on_batch(self, size: int, seconds: float) -> None:
        """Count a batch."""
        self.batches.observe(size)
        self.batch_seconds.observe(seconds)

    def on_reload(self, outcome: str) -> None:
        """Count a reload."""
        self.reloads.labels(outcome).inc()

    def watch(self, engine: Engine) -> None:
        """Show an engine's queue and the generation of its model."""
        waiting = Gauge(
            "sidtune_queue_requests", "Requests that wait for the model.", registry=self.registry
        )
        waiting.set_function(lambda: engine.waiting)
        generation = Gauge(
            "sidtune_model_generation",
            "Counts up with each reload.",
            registry=self.registry,
        )
        generation.set_function(lambda: engine.served.generation)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self.registry)


class Measured:
    """Middleware that counts the requests of one path, and times them."""

    def __init__(self, app: ASGIApp, metrics: Metrics, path: str) -> None:
        self.app, self.metrics, self.path = app, metrics, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; a request is counted just before its answer is sent."""
        if scope["type"] != "http" or scope["path"] != self.path:
            await self.app(scope, receive, send)
            return
        start, counted = time.perf_counter(), False

        def count(status: int) -> None:
            nonlocal counted
            counted = True
            self.metrics.requests.labels(str(status)).inc()
            self.metrics.seconds.observe(time.perf_counter() - start)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            if not counted:
                count(500)
