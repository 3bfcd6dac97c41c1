"""`sidtune play`: what its page asks for, and the page itself in a browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from fastapi.testclient import TestClient
from tests.asking import plainly_ranked
from tests.serving import engine_of, running
from tests.tiny_data import TITLES

from sidtune.playground.app import playground_app
from sidtune.tasks.config import Config

HOSTILE = "<img src=x onerror=\"document.title='taken'\"> & <b>bold</b> mug"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def app_of(*folders: Path) -> Any:
    engines = [engine_of(folder) for folder in folders]
    return playground_app(engines, [folder.name for folder in folders], "127.0.0.1")


@pytest.fixture(scope="module")
def client(config: Config, ranked: Path) -> Iterator[TestClient]:
    """The model with its ranker, beside the model alone."""
    with TestClient(app_of(ranked, config.output_dir), "http://127.0.0.1") as made:
        yield made


def test_models_are_described(client: TestClient) -> None:
    ranked, alone = client.get("/api/models").json()
    assert (ranked["items"], alone["items"]) == (8, 8)
    assert ranked["sources"]
    assert not alone["sources"]


def test_search_finds_titles(client: TestClient) -> None:
    found = client.get("/api/search", params={"q": "mug", "limit": 5}).json()
    assert [item["title"] for item in found["items"]] == ["Blue Mug, 12 oz"]
    assert found["count"] == 1
    assert client.get("/api/search", params={"limit": 0}).status_code == 422


def test_both_models_answer_one_history(client: TestClient, config: Config) -> None:
    asked = {"history": ["3", "x", "1"], "k": 3}
    answer = client.post("/api/recommend", json=asked).json()
    assert answer["history"] == [
        {"item_id": "3", "title": TITLES[3]},
        {"item_id": "x", "title": None},
        {"item_id": "1", "title": TITLES[1]},
    ]
    ranked, alone = answer["lists"]
    assert ranked["unknown"] == alone["unknown"] == ["x"]
    expected = [item for item, _ in plainly_ranked(config, ["3", "1"])[:3]]
    assert [item["item_id"] for item in alone["items"]] == expected
    assert all(item["sources"] for item in ranked["items"])
    unranked, _ = client.post("/api/recommend", json=asked | {"rank": False}).json()["lists"]
    assert unranked["items"] == alone["items"]
    few, _ = client.post(
        "/api/recommend", json=asked | {"candidates": ["1", "4"], "exclude_history": True}
    ).json()["lists"]
    assert [item["item_id"] for item in few["items"]] == ["4"]
    bad, _ = client.post("/api/recommend", json=asked | {"candidates": ["y"]}).json()["lists"]
    assert "none of the 1 ids is in the catalogue" in bad["error"]


def test_a_path_sums_to_the_score_by_a_plain_model(client: TestClient, config: Config) -> None:
    scores = dict(plainly_ranked(config, ["3", "1"]))
    for item in ("0", "6", "7"):
        asked = {"history": ["3", "1"], "item_id": item, "model": 1}
        path = client.post("/api/path", json=asked).json()
        assert path["log_probability"] == pytest.approx(scores[item], abs=1e-4)
        assert len(path["steps"]) == 3
        only = client.post("/api/path", json=asked | {"candidates": [item]}).json()
        assert only["log_probability"] == pytest.approx(scores[item], abs=1e-4)
        assert [step["allowed"] for step in only["steps"]] == [1, 1, 1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": 2}, "model: there are 2"),
        ({"item_id": "x"}, "item_id: 'x' may not be recommended"),
        ({"item_id": "\ud800"}, r"item_id: '\ud800' may not be recommended"),
        ({"candidates": ["2"]}, "item_id: '1' may not be recommended"),
        ({"history": ["x"]}, "history: this model knows none of the items"),
        ({"history": []}, "history: expected a length of at least 1"),
    ],
)
def test_a_path_that_there_is_not(client: TestClient, change: dict[str, Any], said: str) -> None:
    asked = {"history": ["3"], "item_id": "1"} | change
    json_type = {"Content-Type": "application/json"}
    response = client.post("/api/path", content=json.dumps(asked), headers=json_type)
    assert response.status_code == 422
    assert said in response.json()["error"]


def test_pages_load_nothing_from_elsewhere(client: TestClient) -> None:
    for name in ("/", "/play.js", "/play.css"):
        response = client.get(name)
        assert response.status_code == 200
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "http" not in response.text.replace("http://www.w3.org/2000/svg", "")
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


def assert_remarks_tell_other_places(cards: Any) -> None:
    """Both lists hold all items; one at the same place in both has no remark."""
    lists = [
        [(row.locator(".id").inner_text(), row.locator(".elsewhere")) for row in rows]
        for rows in (cards.nth(at).locator("ol > li").all() for at in (0, 1))
    ]
    orders = [[name for name, _ in found] for found in lists]
    assert orders[0] != orders[1]
    for found, other in zip(lists, reversed(orders), strict=True):
        for place, (name, remark) in enumerate(found, start=1):
            there = other.index(name) + 1
            expected = [f"place {there} in the other list"] if there != place else []
            assert remark.all_inner_texts() == expected


def test_the_page_in_a_browser(config: Config, ranked: Path, tmp_path: Path) -> None:
    """Search, history, both lists, a path, and a hostile title, by keyboard alone."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    hostile = tmp_path / "hostile"
    shutil.copytree(config.output_dir, hostile)
    table = pyarrow.parquet.read_table(hostile / "sid_catalogue.parquet")
    titles = [[HOSTILE] * table.num_rows]
    table = table.set_column(1, table.schema.field(1), titles)
    pyarrow.parquet.write_table(table, hostile / "sid_catalogue.parquet")
    faults: list[str] = []
    with running(app_of(hostile, ranked)) as address, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda said: faults.append(said.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        page.keyboard.press("/")
        page.keyboard.type("bold mug")
        sync_api.expect(page.locator("#matches li")).to_have_count(8)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_selector(".card li")
        assert HOSTILE in page.inner_text("#history li")
        cards = page.locator(".card")
        assert [cards.nth(at).locator("ol > li").count() for at in (0, 1)] == [8, 8]
        assert cards.nth(1).locator(".source").count() > 0
        assert HOSTILE in cards.nth(0).inner_text()
        assert_remarks_tell_other_places(cards)
        cards.nth(0).locator(".why").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector(".path .branch.chosen")
        assert cards.nth(0).locator(".path h3").count() == 3
        held: list[Any] = []
        page.route("**/api/recommend", lambda route: held.append(route))
        page.locator("#exclude").focus()
        page.keyboard.press("Space")
        sync_api.expect(page.locator("#status")).to_have_text("Ranking …")
        held[0].continue_()
        page.unroute("**/api/recommend")
        sync_api.expect(cards.nth(0).locator("ol > li")).to_have_count(7)
        assert page.title() == "sidtune play"
        assert page.locator("#status").inner_text().startswith("7 and 7 items in")
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.reload()
        page.wait_for_selector(".card li")
        browser.close()
    assert not faults
