"""Loads a model aside while another one serves, and swaps them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sidtune.base.errors import UserError
from sidtune.base.terminal import console, warn
from sidtune.config.search import RankOptions
from sidtune.decoding.recommender import Recommender
from sidtune.serving.engine import Engine
from sidtune.serving.queries import Query, Served

Outcome = Callable[[str], None]


class Reloader:
    """Reloads on demand, one load at a time; demands during a load are answered by one more.

    Args:
        engine: keeps its model where a load fails.
        load: reads the model's folder.
        on_outcome: called with `loaded` or `failed`.
    """

    def __init__(
        self, engine: Engine, load: Callable[[], Recommender], on_outcome: Outcome = lambda _: None
    ) -> None:
        self._engine, self._load, self._on_outcome = engine, load, on_outcome
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    def demand(self) -> None:
        """Reload soon; returns at once, so that a signal handler may call it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="reloader", daemon=True)
            self._thread.start()
        self._wanted.set()

    def reload(self) -> int | None:
        """Load, try the model, and swap; the new generation, or None where that failed, which is
        said.
        """
        try:
            recommender = self._load()
            try_out(recommender, self._engine.served.asked)
        except Exception as error:
            reason = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            warn(f"reload failed, the old model goes on: {reason}")
            self._on_outcome("failed")
            return None
        generation = self._engine.swap(recommender)
        items = len(recommender.bundle.catalogue.ids)
        console.print(f"reloaded: generation {generation}, {items:,} items")
        self._on_outcome("loaded")
        return generation

    def _work(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            self.reload()


def try_out(recommender: Recommender, options: RankOptions) -> None:
    """Ask a model once before anybody waits for it.

    Raises:
        UserError: if its outputs are NaN.
    """
    first = recommender.bundle.catalogue.ids[0]
    Served(recommender, options).answer([Query((first,))])
