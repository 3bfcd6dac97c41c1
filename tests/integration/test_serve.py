"""`sidtune serve`: answers over HTTP equal `recommend`, and no request is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from fastapi.testclient import TestClient
from tests.asking import call, message
from tests.serving import Client, engine_of, free_port

from sidtune.serving.app import serving_app
from sidtune.serving.engine import Engine
from sidtune.serving.limits import Limits
from sidtune.serving.metrics import Metrics
from sidtune.serving.queries import Served
from sidtune.tasks.config import Config

HISTORIES = [["3", "1"], ["1"], ["5", "5"], ["0", "2", "4", "6"], ["7"], ["2", "1", "2"]]
LIMITS = Limits(body=3_000, history=20, candidates=5, seconds=20)


def client_of(folder: Path, limits: Limits = LIMITS) -> TestClient:
    metrics = Metrics()
    engine = engine_of(folder, queue=limits.queue, batch=limits.batch, on_batch=metrics.on_batch)
    app = serving_app(engine, metrics, limits, "127.0.0.1")
    return TestClient(app, "http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(config: Config) -> Iterator[TestClient]:
    with client_of(config.output_dir) as made:
        yield made


@pytest.fixture(scope="module")
def ranked_client(ranked: Path) -> Iterator[TestClient]:
    with client_of(ranked) as made:
        yield made


def recommended(folder: Path, histories: list[list[str]], *options: object) -> list[Any]:
    """What `sidtune recommend` prints."""
    lines = "".join(json.dumps({"history": history}) + "\n" for history in histories)
    done = call("recommend", folder, "--input", "-", "--json", *options, stdin=lines)
    return [json.loads(line)["items"] for line in done.output.splitlines()]


def same(found: list[Any], expected: list[Any]) -> None:
    """Equal items, with scores equal up to rounding."""
    scores = [[item.pop("score") for item in items] for items in (found, expected)]
    assert found == expected
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


# --- answers ---


@pytest.mark.parametrize("which", ["client", "ranked_client"])
def test_answers_equal_recommend(
    which: str, config: Config, ranked: Path, request: pytest.FixtureRequest
) -> None:
    folder = config.output_dir if which == "client" else ranked
    client: TestClient = request.getfixturevalue(which)

    def ask(history: list[str]) -> Any:
        response = client.post("/recommend", json={"history": history, "k": 4})
        assert response.status_code == 200
        return response.json()["items"]

    expected = recommended(folder, HISTORIES, "-k", 4)
    assert all(("sources" in item) == (which != "client") for item in expected[0])
    with ThreadPoolExecutor(len(HISTORIES)) as pool:
        for found, items in zip(pool.map(ask, HISTORIES), expected, strict=True):
            same(found, items)


def test_options_equal_those_of_recommend(
    config: Config, client: TestClient, tmp_path: Path
) -> None:
    (tmp_path / "allowed.txt").write_text("2\n4\n5\n7\n")
    body = {"history": [4, 2.0], "exclude_history": True, "candidates": ["2", "4", 5, "7"]}
    found = client.post("/recommend", json=body).json()
    options = ("--exclude-history", "--candidates", tmp_path / "allowed.txt")
    (expected,) = recommended(config.output_dir, [["4", "2"]], *options)
    assert {item["item_id"] for item in expected} == {"5", "7"}
    same(found["items"], expected)


def test_unknown_items_are_passed_over_where_that_is_asked_for(client: TestClient) -> None:
    def ask(**body: Any) -> Any:
        return client.post("/recommend", json=body).json()

    plain, mixed = ask(history=["1"]), ask(history=["x", "1", "x", "y"], skip_unknown=True)
    assert mixed == plain | {"unknown": ["x", "y"]}
    nobody = ask(history=["x"], skip_unknown=True)
    assert nobody == {"items": [], "unknown": ["x"], "generation": 1}
    some = ask(history=["1"], candidates=["2", "z"])
    assert [item["item_id"] for item in some["items"]] == ["2"]
    assert some["unknown_candidates"] == ["z"]


# --- bad requests ---


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ('{"history": ["1"]', 400, "the body is not JSON: Expecting ',' delimiter at character"),
        ("", 422, "body: is missing"),
        ("[1]", 422, "expected a JSON object"),
        ("{}", 422, "history: is missing"),
        ('{"history": []}', 422, "history: is empty"),
        ('{"history": "12"}', 422, "history: expected a list of item ids"),
        ('{"history": [true]}', 422, "history: expected a list of item ids"),
        ('{"history": ["\\ud800"]}', 422, "history: an id holds half of a surrogate pair"),
        ('{"history": ["1", "no", "none"]}', 422, "not in the catalogue: 'no', 'none'"),
        ('{"history": ["1"], "k": 0}', 422, "k: Input should be greater than or equal to 1"),
        ('{"history": ["1"], "k": "5"}', 422, "k: Input should be a valid integer"),
        ('{"history": ["1"], "k": 51}', 422, "k: is 51, at most 50 here"),
        ('{"history": ["1"], "size": 5}', 422, "size: unknown field"),
        ('{"history": ["1"], "candidates": []}', 422, "candidates: is empty"),
        ('{"history": ["1"], "candidates": ["x"]}', 422, "none of the 1 ids is in the catalogue"),
        (json.dumps({"history": ["1"] * 21}), 422, "history: 21 items, at most 20 are taken"),
        (
            json.dumps({"history": ["1"], "candidates": list("abcdef")}),
            422,
            "candidates: 6 items, at most 5 are taken",
        ),
        (json.dumps({"history": ["1" * 3_000]}), 413, "the body is larger than 3,000 bytes"),
        ("[" * 2_000, 400, "body"),
        ('{"history": [' + "9" * 2_900 + "]}", 422, "not in the catalogue"),
        ('{"history": [NaN]}', 422, "history: expected a list of item ids"),
    ],
)
def test_a_bad_request_gets_one_message(
    client: TestClient, body: str, status: int, said: str
) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.post("/recommend", content=body, headers=headers)
    assert said in response.json()["error"]
    assert response.status_code == status
    assert set(response.json()) <= {"error", "hint"}


def test_wrong_paths_methods_and_hosts(client: TestClient) -> None:
    assert client.get("/nothing").status_code == 404
    assert client.get("/recommend").status_code == 405
    refused = client.get("/model", headers={"Host": "evil.example"})
    assert refused.status_code == 400


def test_a_prompt_that_is_too_long_is_refused(run: Path) -> None:
    question = json.loads((run / "sid_recommender.json").read_text())
    question["template"]["prompt"] = ["{history_titles}", "{history_sids}"]
    (run / "sid_recommender.json").write_text(json.dumps(question))
    table = pyarrow.parquet.read_table(run / "sid_catalogue.parquet")
    titles = [[*table["title"].to_pylist()[:-1], "long " * 300]]
    table = table.set_column(1, table.schema.field(1), titles)
    pyarrow.parquet.write_table(table, run / "sid_catalogue.parquet")
    with client_of(run) as client:
        assert client.post("/recommend", json={"history": ["1"]}).status_code == 200
        response = client.post("/recommend", json={"history": ["7"]})
        assert response.status_code == 422
        assert "too long for the model: it exceeds cutoff_len=200" in response.json()["error"]


# --- overload and faults ---


class Gate:
    """Models are busy until it opens."""

    def __init__(self) -> None:
        self.busy, self.opened = threading.Event(), threading.Event()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made, answer = Gate(), Served.answer

    def waiting(served: Served, queries: Any) -> Any:
        made.busy.set()
        made.opened.wait(20)
        return answer(served, queries)

    monkeypatch.setattr(Served, "answer", waiting)
    yield made
    made.opened.set()


def test_overload_is_503_with_a_time_to_come_back(config: Config, gate: Gate) -> None:
    with (
        client_of(config.output_dir, Limits(queue=2, batch=1)) as client,
        ThreadPoolExecutor(9) as pool,
    ):
        asked = [pool.submit(client.post, "/recommend", json={"history": ["1"]})]
        assert gate.busy.wait(20)
        asked += [pool.submit(client.post, "/recommend", json={"history": ["1"]}) for _ in range(8)]
        for future in islice(as_completed(asked), 6):
            assert future.result().headers["Retry-After"] == "1"
            assert "overloaded: 2 requests wait" in future.result().json()["error"]
        assert client.get("/ready").status_code == 503
        assert client.get("/health").status_code == 200
        gate.opened.set()
        statuses = sorted(future.result().status_code for future in asked)
        assert statuses == [200] * 3 + [503] * 6
        text = client.get("/metrics").text
        assert 'sidtune_requests_total{status="503"} 6.0' in text
        assert 'sidtune_requests_total{status="200"} 3.0' in text
        assert "sidtune_batch_requests_count 3.0" in text
        assert "sidtune_model_generation 1.0" in text
        assert client.get("/ready").json() == {"status": "ready"}


def test_a_request_that_takes_too_long_is_503(config: Config, gate: Gate) -> None:
    with client_of(config.output_dir, Limits(seconds=0.1)) as client:
        response = client.post("/recommend", json={"history": ["1"]})
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "1"
        assert "no answer within 0.1 seconds" in response.json()["error"]
        gate.opened.set()


def test_a_model_that_fails_is_500(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(served: Served, queries: Any) -> Any:
        raise RuntimeError("device lost")

    monkeypatch.setattr(Served, "answer", failing)
    monkeypatch.setattr("sidtune.serving.engine.MOST_FAILURES", 1)
    with client_of(config.output_dir) as client:
        response = client.post("/recommend", json={"history": ["1"]})
        assert response.status_code == 500
        assert response.json() == {"error": "the model failed; the server's log says why"}
        assert "device lost" in caplog.text
        assert client.get("/health").status_code == 503


# --- what is told about a server ---


def test_openapi_describes_requests_and_answers(client: TestClient) -> None:
    tree = client.get("/openapi.json").json()
    operation = tree["paths"]["/recommend"]["post"]
    body = tree["components"]["schemas"]["RecommendBody"]
    assert body["required"] == ["history"]
    assert set(body["properties"]) == {
        "history",
        "k",
        "exclude_history",
        "candidates",
        "skip_unknown",
    }
    assert {"200", "400", "413", "422", "503"} <= set(operation["responses"])


def test_model_says_what_is_served(ranked_client: TestClient) -> None:
    told = ranked_client.get("/model").json()
    assert (told["generation"], told["items"], told["beams"]) == (1, 8, 50)
    assert "transitions" in told["sources"]


# --- the command ---


def test_a_server_is_reloaded_and_stopped_without_a_lost_request(
    config: Config, ranked: Path, tmp_path: Path
) -> None:
    """Clients ask without pause while the folder becomes another one, SIGHUP and SIGTERM come."""
    model, port = tmp_path / "model", free_port()
    model.symlink_to(config.output_dir)
    expected = {
        generation: [
            [item["item_id"] for item in items] for items in recommended(folder, HISTORIES)
        ]
        for generation, folder in ((1, config.output_dir), (2, ranked))
    }
    assert expected[1] != expected[2]
    reloaded, stopping, faults = threading.Event(), threading.Event(), list[Any]()
    counts = {1: 0, 2: 0}

    def ask(worker: int, again: Callable[[], bool]) -> None:
        client = Client(port)
        client.wait()
        while again():
            status, answer = client.post("/recommend", {"history": HISTORIES[worker]})
            if status != 200:
                faults.append((status, answer))
                return
            generation = answer["generation"]
            counts[generation] += 1
            if generation == 2:
                reloaded.set()
            if [item["item_id"] for item in answer["items"]] != expected[generation][worker]:
                faults.append((generation, answer))

    def drive() -> None:
        try:
            Client(port).wait()
            with ThreadPoolExecutor(3) as pool:
                workers = [
                    pool.submit(ask, each, lambda: not reloaded.is_set()) for each in range(3)
                ]
                model.unlink()
                model.symlink_to(ranked)
                os.kill(os.getpid(), signal.SIGHUP)
                for worker in workers:
                    worker.result()
                # In flight when the server is asked to stop.
                last = [Client(port) for _ in range(3)]
                for client in last:
                    client.wait()
                answers = [
                    pool.submit(client.post, "/recommend", {"history": HISTORIES[0]})
                    for client in last
                ]
                while not any(answer.done() for answer in answers):
                    threading.Event().wait(0.001)
                stop()
                faults.extend(answer.result() for answer in answers if answer.result()[0] != 200)
        finally:
            stop()

    def stop() -> None:
        """Once, and not when the server is gone: then the signal would end the tests."""
        if not stopping.is_set():
            stopping.set()
            os.kill(os.getpid(), signal.SIGTERM)

    driver = threading.Thread(target=drive)
    driver.start()
    done = call("serve", model, "--port", port)
    stopping.set()
    driver.join()
    assert done.exit_code == 0, done.output
    assert not faults
    assert min(counts.values()) > 0
    assert f"POST http://127.0.0.1:{port}/recommend" in done.output
    assert "reloaded: generation 2, 8 items" in done.output


def test_mistakes_of_the_command(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        said = message("serve", config.output_dir, "--port", port)
    assert f"cannot listen at 127.0.0.1, port {port}" in said
    assert "no such folder" in message("serve", "nothing", "--port", 0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = message("serve", config.output_dir)
    assert "sidtune serve needs fastapi, uvicorn, prometheus_client" in said
    assert "pip install 'sidtune[serve]'" in said


def test_engines_end_with_their_application(config: Config) -> None:
    engine: Engine = engine_of(config.output_dir)
    with TestClient(serving_app(engine, Metrics(), LIMITS, "0.0.0.0")) as client:
        assert client.get("/ready", headers={"Host": "any.example"}).status_code == 200
    assert not engine.healthy


def _memory(port: int) -> float:
    """Megabytes that a server has, by its own metrics."""
    connection = Client(port).connection
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    return float(re.findall(r"^process_resident_memory_bytes (\S+)", text, re.M)[0]) / 1e6


@pytest.mark.long
def test_an_hour_of_load(ranked: Path) -> None:
    """Nothing lost, and memory steady, with a reload every tenth of the time.

    `SIDTUNE_LOAD_SECONDS` makes it shorter.
    """
    seconds = float(os.environ.get("SIDTUNE_LOAD_SECONDS", "3600"))
    port, until = free_port(), time.monotonic() + seconds
    command = [sys.executable, "-m", "sidtune", "serve", str(ranked), "--port", str(port)]
    server = subprocess.Popen(command)
    counts: Counter[int] = Counter()

    def ask(worker: int) -> None:
        client = Client(port)
        client.wait()
        while time.monotonic() < until:
            number = next(numbers)
            body: dict[str, Any] = {"history": HISTORIES[number % len(HISTORIES)], "k": 3}
            if number % 5 == 0:
                body["candidates"] = [str(item) for item in range(8) if item != number % 7]
            status, _ = client.post("/recommend", body)
            counts[status] += 1

    numbers = iter(range(sys.maxsize))
    Client(port).wait()
    with ThreadPoolExecutor(8) as pool:
        workers = [pool.submit(ask, worker) for worker in range(8)]
        memory = []
        for _ in range(9):
            time.sleep(seconds / 10)
            memory.append(_memory(port))
            server.send_signal(signal.SIGHUP)
        for done in workers:
            done.result()
    server.terminate()
    assert server.wait(60) == 0
    print(f"{counts[200]:,} requests in {seconds:,.0f} s; MB: {[round(each) for each in memory]}")
    assert set(counts) == {200}
    assert max(memory[4:]) < 1.1 * max(memory[1:4])
