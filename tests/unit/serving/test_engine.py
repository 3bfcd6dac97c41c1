"""The engine's queue and batches, with a stand-in for the model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from sidtune.base.errors import UserError
from sidtune.config.search import RankOptions
from sidtune.serving.engine import MOST_FAILURES, Closing, Engine, ModelFailed, Overloaded
from sidtune.serving.queries import Query, Reply, Served
from sidtune.serving.reload import Reloader

SECONDS = 60


class Model:
    """Answers with the history's ids; waits while the gate is shut, and fails on `poison`."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate, self.busy = threading.Event(), threading.Event()
        self.gate.set()

    def answer(self, served: Served, queries: Sequence[Query]) -> list[Reply | UserError]:
        self.busy.set()
        assert self.gate.wait(SECONDS)
        names = [query.history[0] for query in queries]
        if "poison" in names:
            raise RuntimeError("poison")
        self.batches.append(names)
        return [
            UserError(name, "") if name == "unknown" else Reply([], [name], [], served.generation)
            for name in names
        ]

    def shut(self, engine: Engine) -> Future[Reply]:
        """Shut the gate behind a first query, which the model is busy with from then on."""
        self.gate.clear()
        self.busy.clear()
        first = engine.submit(Query(("first",)))
        assert self.busy.wait(SECONDS)
        return first


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    made = Model()
    monkeypatch.setattr(Served, "answer", lambda served, queries: made.answer(served, queries))
    return made


@pytest.fixture
def start(model: Model) -> Iterator[Callable[..., Engine]]:
    engines = []

    def started(**options: Any) -> Engine:
        stand_in: Any = SimpleNamespace(
            bundle=SimpleNamespace(catalogue=SimpleNamespace(ids="1")),
            settled=lambda options: options,
        )
        engines.append(Engine(stand_in, RankOptions(), **options))
        return engines[-1]

    yield started
    model.gate.set()
    for engine in engines:
        engine.close()


def names(futures: Sequence[Future[Reply]]) -> list[str]:
    return [future.result(SECONDS).unknown[0] for future in futures]


def test_who_waits_while_the_model_is_busy_goes_together(
    model: Model, start: Callable[..., Engine]
) -> None:
    sizes = []
    engine = start(batch=3, on_batch=lambda size, seconds: sizes.append(size))
    first = model.shut(engine)
    waiting = [engine.submit(Query((name,))) for name in "abcde"]
    assert engine.waiting == 5
    model.gate.set()
    assert names([first, *waiting]) == ["first", *"abcde"]
    assert model.batches == [["first"], ["a", "b", "c"], ["d", "e"]]
    engine.close()
    assert sizes == [1, 3, 2]


def test_a_batch_is_counted_before_its_answers_go_out(
    model: Model, start: Callable[..., Engine]
) -> None:
    waiting: list[Future[Reply]] = []
    seen: list[list[bool]] = []
    engine = start(on_batch=lambda size, seconds: seen.append([f.done() for f in waiting]))
    waiting.append(model.shut(engine))
    waiting += [engine.submit(Query((name,))) for name in ("poison", "b")]
    model.gate.set()
    assert names([waiting[0], waiting[2]]) == ["first", "b"]
    assert seen == [[False, False, False], [True, False, False]]


def test_a_full_queue_takes_no_more(model: Model, start: Callable[..., Engine]) -> None:
    engine = start(queue=2)
    model.shut(engine)
    assert engine.ready
    waiting = [engine.submit(Query((name,))) for name in "ab"]
    assert not engine.ready
    with pytest.raises(Overloaded):
        engine.submit(Query(("c",)))
    model.gate.set()
    assert names(waiting) == ["a", "b"]
    assert engine.ready


def test_what_was_cancelled_is_not_asked(model: Model, start: Callable[..., Engine]) -> None:
    engine = start()
    model.shut(engine)
    gone, kept = engine.submit(Query(("gone",))), engine.submit(Query(("kept",)))
    assert gone.cancel()
    model.gate.set()
    assert names([kept]) == ["kept"]
    assert model.batches == [["first"], ["kept"]]
    model.shut(engine)
    assert engine.submit(Query(("alone",))).cancel()
    model.gate.set()
    assert names([engine.submit(Query(("after",)))]) == ["after"], "an empty batch ends nothing"


def test_a_query_that_breaks_the_model_spoils_no_other(
    model: Model, start: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    engine = start()
    model.shut(engine)
    futures = [engine.submit(Query((name,))) for name in ("a", "poison", "unknown", "b")]
    model.gate.set()
    assert names([futures[0], futures[3]]) == ["a", "b"]
    with pytest.raises(ModelFailed):
        futures[1].result(SECONDS)
    with pytest.raises(UserError, match="unknown"):
        futures[2].result(SECONDS)
    assert "RuntimeError: poison" in caplog.text


def test_a_model_that_keeps_failing_is_not_healthy(start: Callable[..., Engine]) -> None:
    engine = start()
    for _ in range(MOST_FAILURES):
        assert engine.healthy
        with pytest.raises(ModelFailed):
            engine.submit(Query(("poison",))).result(SECONDS)
    assert not engine.healthy
    assert not engine.ready
    assert names([engine.submit(Query(("good",)))]) == ["good"]
    assert engine.healthy


def test_closing_answers_who_waits(model: Model, start: Callable[..., Engine]) -> None:
    engine = start(batch=2)
    futures = [model.shut(engine), *(engine.submit(Query((name,))) for name in "abc")]
    closing = threading.Thread(target=engine.close)
    closing.start()
    model.gate.set()
    closing.join(SECONDS)
    assert names(futures) == ["first", *"abc"]
    with pytest.raises(Closing):
        engine.submit(Query(("late",)))


def test_no_query_is_lost_when_models_are_swapped(start: Callable[..., Engine]) -> None:
    engine = start(queue=10_000)
    stop = threading.Event()

    def ask(worker: int) -> list[int]:
        found = []
        while not stop.is_set() or not found:
            reply = engine.submit(Query((f"{worker}",))).result(SECONDS)
            assert reply.unknown == [f"{worker}"]
            found.append(reply.generation)
        return found

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, worker) for worker in range(4)]
        made = [engine.swap(engine.served.recommender) for _ in range(50)]
        stop.set()
        for worker in asked:
            generations = worker.result(SECONDS)
            assert generations == sorted(generations)
    assert made == list(range(2, 52))
    assert engine.submit(Query(("x",))).result(SECONDS).generation == 51


def test_a_reload_that_fails_leaves_the_model(
    start: Callable[..., Engine], capsys: pytest.CaptureFixture[str]
) -> None:
    engine = start()
    outcomes: list[str] = []

    def broken() -> Any:
        raise UserError("no such folder: gone", "Give another.")

    assert Reloader(engine, broken, outcomes.append).reload() is None
    assert engine.served.generation == 1
    assert "reload failed, the old model goes on: no such folder: gone" in capsys.readouterr().err
    assert Reloader(engine, lambda: engine.served.recommender, outcomes.append).reload() == 2
    assert outcomes == ["failed", "loaded"]


def test_demands_during_a_load_are_answered_by_one_more(start: Callable[..., Engine]) -> None:
    engine = start()
    loading, go, done = threading.Semaphore(0), threading.Semaphore(0), threading.Semaphore(0)

    def load() -> Any:
        loading.release()
        assert go.acquire(timeout=SECONDS)
        return engine.served.recommender

    reloader = Reloader(engine, load, lambda outcome: done.release())
    reloader.demand()
    assert loading.acquire(timeout=SECONDS)
    for _ in range(5):
        reloader.demand()
    go.release(2)
    assert done.acquire(timeout=SECONDS)
    assert done.acquire(timeout=SECONDS)
    assert loading.acquire(timeout=SECONDS)
    assert not reloader._wanted.is_set(), "nothing more is to be loaded"
    assert engine.served.generation == 3
