"""Answers concurrent queries in batches: whoever waits while the model is busy goes next,
together.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from sidtune.base.errors import UserError
from sidtune.config.search import RankOptions
from sidtune.decoding.recommender import Recommender
from sidtune.serving.queries import Query, Reply, Served

log = logging.getLogger(__name__)
# So many failures of the model in a row, and it is not healthy any more.
MOST_FAILURES = 10

Waiting = tuple[Query, Future[Reply]]


class Overloaded(Exception):
    """As many queries wait as may."""


class Closing(Exception):
    """The engine takes no more queries."""


class ModelFailed(Exception):
    """The model, not the query, is at fault; the log says more."""


class Engine:
    """A model behind a queue, and the one thread that asks it; used by any number of threads.

    A batch is what waits when the model is free. Nobody waits for a batch to fill, so a single
    client is answered as fast as without batches.

    Args:
        recommender: the first model.
        options: of the search.
        queue: queries that may wait.
        batch: queries answered together, at most.
        on_batch: called with the number of queries and the seconds of each batch.
    """

    def __init__(
        self,
        recommender: Recommender,
        options: RankOptions,
        queue: int = 256,
        batch: int = 32,
        on_batch: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self.queue, self.batch, self._on_batch = queue, batch, on_batch
        self._served = Served(recommender, options)
        self._waiting: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._failures = 0
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def served(self) -> Served:
        """The model that answers the next batch."""
        return self._served

    @property
    def waiting(self) -> int:
        """Queries that wait."""
        return len(self._waiting)

    @property
    def healthy(self) -> bool:
        """Whether queries are still being answered."""
        return self._thread.is_alive() and self._failures < MOST_FAILURES

    @property
    def ready(self) -> bool:
        """Whether another query would be taken."""
        return self.healthy and not self._closing and self.waiting < self.queue

    def submit(self, query: Query) -> Future[Reply]:
        """Put a query into the queue; cancelling what is returned takes it out again.

        The result is a `UserError` for a query that cannot be answered, and `ModelFailed` where
        something else went wrong.

        Raises:
            Overloaded: if the queue is full.
            Closing: after `close`.
        """
        with self._changed:
            if self._closing:
                raise Closing
            if len(self._waiting) >= self.queue:
                raise Overloaded
            future: Future[Reply] = Future()
            self._waiting.append((query, future))
            self._changed.notify()
        return future

    def swap(self, recommender: Recommender) -> int:
        """Let another model answer from the next batch on; returns its generation."""
        self._served = Served(recommender, self._served.asked, self._served.generation + 1)
        self._failures = 0
        return self._served.generation

    def close(self) -> None:
        """Take no more queries, and answer those that wait."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        """Answer batch after batch. A batch is counted before its answers go out, so that whoever
        has an answer finds it counted.
        """
        while (batch := self._take()) is not None:
            if batch:
                start = time.perf_counter()
                outcomes = self._outcomes([query for query, _ in batch])
                self._on_batch(len(batch), time.perf_counter() - start)
                for (_, future), outcome in zip(batch, outcomes, strict=True):
                    if isinstance(outcome, Exception):
                        future.set_exception(outcome)
                    else:
                        future.set_result(outcome)

    def _take(self) -> list[Waiting] | None:
        """The next batch, without queries that were cancelled; None when all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return None
            size = min(len(self._waiting), self.batch)
            taken = [self._waiting.popleft() for _ in range(size)]
        return [(query, future) for query, future in taken if future.set_running_or_notify_cancel()]

    def _outcomes(self, queries: Sequence[Query]) -> list[Reply | UserError | ModelFailed]:
        """The answers to a batch; where that fails, to each query alone, so that none spoils the
        others.
        """
        try:
            replies = self._served.answer(queries)
        except Exception:
            if len(queries) > 1:
                return [outcome for query in queries for outcome in self._outcomes([query])]
            log.exception("the model failed")
            self._failures += 1
            return [ModelFailed()]
        self._failures = 0
        return [*replies]
