"""`sidtune serve`: answers over HTTP equal `recommend`, and no request is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving import SECONDS, engine_of, recommended

from sidtune.serving.app import serving_app
from sidtune.serving.engine import Engine
from sidtune.serving.limits import Limits
from sidtune.serving.metrics import Metrics
from sidtune.serving.queries import Served
from sidtune.tasks.config import Config

HISTORIES = [["3", "1"], ["1"], ["5", "5"], ["0", "2", "4", "6"], ["7"], ["2", "1", "2"]]
LIMITS = Limits(body=3_000, history=20, candidates=5, seconds=SECONDS)


def client_of(folder: Path, limits: Limits = LIMITS, **queue: int) -> TestClient:
    metrics = Metrics()
    engine = engine_of(folder, on_batch=metrics.on_batch, **queue)
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
        ('{"history": ["1"], "k": 0}', 422, "k: expected at least 1"),
        ('{"history": ["1"], "k": "5"}', 422, "k: expected a whole number"),
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


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from("0123"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["history", "k", "exclude_history", "candidates", "skip_unknown"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=JSON_VALUES | st.dictionaries(FIELDS, JSON_VALUES, min_size=1))
def test_whatever_is_asked_the_server_does_not_fail(client: TestClient, body: Any) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.post("/recommend", content=json.dumps(body), headers=headers)
    assert response.status_code in (200, 400, 413, 422)
    assert ("error" in response.json()) == (response.status_code != 200)


def test_wrong_paths_methods_and_hosts(client: TestClient) -> None:
    assert client.get("/nothing").status_code == 404
    assert client.get("/recommend").status_code == 405
    for host in ("evil.example", "127.0.0.1.evil.example:8000", "[::1", ""):
        refused = client.get("/model", headers={"Host": host})
        assert refused.status_code == 400
        assert refused.json()["error"].startswith(f"the header Host is {host!r}")
        assert "Host: 127.0.0.1" in refused.json()["hint"]
    for host in ("LOCALHOST", "[::1]:8000", "127.0.0.1:1"):
        assert client.get("/model", headers={"Host": host}).status_code == 200


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
        made.opened.wait(SECONDS)
        return answer(served, queries)

    monkeypatch.setattr(Served, "answer", waiting)
    yield made
    made.opened.set()


def test_overload_is_503_with_a_time_to_come_back(config: Config, gate: Gate) -> None:
    with (
        client_of(config.output_dir, Limits(seconds=SECONDS), queue=2, batch=1) as client,
        ThreadPoolExecutor(9) as pool,
    ):
        asked = [pool.submit(client.post, "/recommend", json={"history": ["1"]})]
        assert gate.busy.wait(SECONDS)
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
    with client_of(config.output_dir, Limits(seconds=0.5)) as client:
        response = client.post("/recommend", json={"history": ["1"]})
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "1"
        assert "no answer within 0.5 seconds" in response.json()["error"]
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


def test_what_a_stranger_forgets_is_said(client: TestClient) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post("/recommend", content='{"history": ["1"]}', headers=form)
    assert answer.status_code == 422
    assert "Content-Type: application/json" in answer.json()["hint"]
    assert "/openapi.json" in client.get("/").json()["hint"]


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


def test_engines_end_with_their_application(config: Config) -> None:
    engine: Engine = engine_of(config.output_dir)
    with TestClient(serving_app(engine, Metrics(), LIMITS, "0.0.0.0")) as client:
        assert client.get("/ready", headers={"Host": "any.example"}).status_code == 200
    assert not engine.healthy
