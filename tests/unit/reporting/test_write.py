"""The page of a report: what it says, that it is inert, and that a browser draws it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.reporting.making import RANKERS, write_run

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.evaluation.details import history_lengths
from sidtune.evaluation.report import LONGEST_COUNTED, Details, Report
from sidtune.evaluation.results import read_report
from sidtune.reporting import data, ranking, write
from sidtune.reporting.curves import thinned
from sidtune.reporting.page import Chart
from sidtune.reporting.record import Record, read_records
from sidtune.reporting.write import leave_report, write_report
from sidtune.runs.files import CONFIG, METRICS, REPORT

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"alert(1)\">{{7*7}}&"
MOST_BYTES = 2_000_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs, the first of which has hostile titles."""
    folder = tmp_path_factory.mktemp("runs")
    return [write_run(folder / "shop", 0, HOSTILE), write_run(folder / "<b>other", 1)]


@pytest.fixture(scope="module")
def one(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(runs[:1], tmp_path_factory.mktemp("one") / "made" / "one.html")


@pytest.fixture(scope="module")
def two(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(runs, tmp_path_factory.mktemp("two") / "two.html")


def charts(page: Path) -> dict[str, Any]:
    found = re.search(r'id="charts">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    specs: dict[str, Any] = json.loads(found[1])
    return specs


def values(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a chart."""
    return [row for rows in spec["datasets"].values() for row in rows]


def sections(page: Path) -> list[str]:
    return re.findall(r'<section id="(\w+)">', page.read_text())


def text(page: Path) -> str:
    """What the page shows as text, without scripts."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", without_scripts(page))).split())


def test_a_run_has_every_section_and_its_figures(runs: list[Path], one: Path) -> None:
    assert sections(one) == [
        "run", "ranking", "levels", "sources", "examples", "training", "data",
    ]  # fmt: skip
    shown = text(one)
    report = read_report(runs[0] / "evaluation" / "test.json")
    assert report
    for name in RANKERS:
        found = report.rankers[name].item["HR@10"]
        assert f"{found.value:.4f} {found.low:.3f}–{found.high:.3f}" in shown
    for words in ("somebody/a-base", "train.csv", "5,000", "steps 40, epochs: 2", "+0.0300"):
        assert words in shown
    assert "/far/away" not in shown, "where files lie is nobody's business"
    assert "sid_next 10 2 400 40 40 60 3 1" in shown
    assert "transitions from the latest item 70.0%" in shown


def test_examples_are_shown_by_title_with_the_target_marked(runs: list[Path], one: Path) -> None:
    report = read_report(runs[0] / "evaluation" / "test.json")
    assert report
    assert report.details
    page = one.read_text()
    cards = re.findall(r'<article class="block card (\w+)">(.*?)</article>', page, re.DOTALL)
    assert len(cards) == len(report.details.examples) > 5
    for (verdict, card), example in zip(cards, report.details.examples, strict=True):
        expected = "first" if example.rank == 1 else "near" if example.rank else "missed"
        assert verdict == expected
        assert card.count('<li class="target">') == (example.rank > 0)
        listed = re.search(r"<ol>(.*)</ol>", card, re.DOTALL)
        assert listed
        shown = re.findall(r'<span class="id">(\w+)</span>', listed[1])
        assert shown == example.items


def test_curves_are_those_of_the_log(runs: list[Path], one: Path) -> None:
    logged = [json.loads(line) for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    drawn = next(spec for name, spec in charts(one).items() if name == "training-1")
    for name, key in (("all tasks", "loss"), ("title_next", "title_next_loss")):
        rows = [(row["x"], row["y"]) for row in values(drawn) if row["name"] == name]
        expected = [(entry["step"], entry[key]) for entry in logged if key in entry]
        assert np.array(rows) == pytest.approx(np.array(expected), rel=1e-5)


def test_reinforcement_shows_what_it_logs(runs: list[Path], tmp_path: Path) -> None:
    reinforced = write_run(tmp_path / "reinforced", 2)
    logged = {"reward": 0.2, "hit_groups": 0.3, "taught_groups": 0.4, "kl": 0.01, "entropy": 2.5}
    logged |= {"tokens_saved": 0.8, "loss": -0.1, "eval_hr@50": 0.6}
    (reinforced / METRICS).write_text(json.dumps({"step": 1, **logged}))
    drawn = charts(write_report([reinforced], tmp_path / "alone.html"))
    curves = [values(spec) for name, spec in drawn.items() if name.startswith("training-")]
    rows = {(row["x"], row["y"]) for curve in curves for row in curve}
    assert {(1, value) for name, value in logged.items() if name != "loss"} <= rows
    # What it minimises is no loss in nats, and has no place beside one.
    assert "Training loss" not in text(write_report([*runs, reinforced], tmp_path / "all.html"))
    assert "Training loss" in text(write_report(runs, tmp_path / "supervised.html"))


def test_long_curves_are_means_of_neighbours() -> None:
    points = [(float(step), float(step % 7)) for step in range(10_000)]
    found = thinned(points, 100)
    assert len(found) == 100
    assert found[1] == pytest.approx(np.mean(points[100:200], axis=0), rel=1e-5)
    assert thinned(points[:100], 100) == points[:100]


def test_several_runs_are_compared(two: Path) -> None:
    assert sections(two) == ["comparison", "settings", "ranking", "levels", "training"]
    shown = text(two)
    assert "<b>other against shop, by item" in shown
    assert "training.learning_rate 0.01 0.02" in shown
    assert "NDCG@10, shop" in shown
    names = {row["name"] for row in values(charts(two)["training-1"])}
    assert names == {"shop", "<b>other"}


def test_groups_of_other_rows_have_no_common_number(runs: list[Path]) -> None:
    def counted(records: list[Record]) -> set[str]:
        section = ranking.ranking(records)
        assert section
        found = [block.table for block in section.blocks if isinstance(block, Chart)]
        return {str(row[1]) for table in found if table for row in table.rows}

    first, second = read_records(runs)
    assert "–" not in counted([first, second])
    assert first.report
    assert second.report
    rankers = {
        name: replace(summary, by_history=[replace(group, rows=1) for group in summary.by_history])
        for name, summary in second.report.rankers.items()
    }
    fewer = replace(second, report=replace(second.report, rankers=rankers))
    assert "–" in counted([first, fewer])


def test_long_histories_are_said_to_count_as_shorter_ones() -> None:
    notes = []
    for longest in (3, LONGEST_COUNTED + 50):
        lists = Ragged.from_lengths(np.zeros(1 + longest, np.int32), np.array([1, longest]))
        details = Details([], [], history_lengths({"train": lists}))
        report = Report({}, 1, 1, 0, 0, 0.0, 1, {}, details)
        section = data.data(Record(Path("run"), "run", report=report))
        assert section
        (chart,) = section.blocks
        assert isinstance(chart, Chart)
        notes.append(chart.note)
    assert notes[0] == "Mean: train 2.0."
    assert "Histories of more than 200 items are drawn at 200." in notes[1]


def test_figures_of_short_lists_are_named_by_their_own_cutoff(tmp_path: Path) -> None:
    """Lists of eight have figures at 5, and none at 8."""
    run = write_run(tmp_path / "run")
    file = run / "evaluation" / "test.json"
    tree = json.loads(file.read_text())
    for ranker in tree["rankers"].values():
        for level in ("sid", "item"):
            ranker[level] = {n: v for n, v in ranker[level].items() if not n.endswith("@10")}
    tree["list_length"] = tree["settings"]["beams"] = 8
    file.write_text(json.dumps(tree))
    page = text(write_report([run], tmp_path / "short.html"))
    value = tree["rankers"]["ranker"]["item"]["HR@5"]["value"]
    assert f"HR@5, ranker {value:.4f}" in page
    assert "HR@8, ranker" not in page


def test_nothing_of_a_run_is_markup(one: Path, two: Path) -> None:
    for page in (one, two):
        assert len(page.read_bytes()) < MOST_BYTES
        tags = re.findall(r"<[a-z][^>]*>", without_scripts(page))
        assert not [tag for tag in tags if re.match(r"<(img|b|iframe|link|object)\b", tag)]
        linking = [tag for tag in tags if re.search(r"\b(src|href)=", tag)]
        assert len(linking) >= 5
        assert all(re.fullmatch(r'<a href="#\w+">', tag) for tag in linking)
    assert HOSTILE in text(one)


def without_scripts(page: Path) -> str:
    """The page as a browser splits it: a script ends at the first end tag."""
    return re.sub(r"<(script|style)\b.*?</\1>", " ", page.read_text(), flags=re.DOTALL)


def test_the_policy_allows_the_scripts_of_the_page_alone(one: Path) -> None:
    page = one.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy
    allowed = re.findall(r"'sha256-([^']+)'", html.unescape(policy[1]))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert hashes == allowed
    assert len(hashes) == 2
    assert "default-src 'none'" in html.unescape(policy[1])


def test_a_missing_library_is_named_and_a_report_of_its_own_accord_left_out(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "find_spec", lambda name: None if name == "vl_convert" else name)
    with pytest.raises(UserError, match="a report needs vl-convert-python") as error:
        write_report(runs[:1], tmp_path / "report.html")
    assert "pip install 'sidtune[report]'" in error.value.hint
    assert leave_report(runs[0]) is None
    assert not (runs[0] / REPORT).exists()


def test_a_report_of_its_own_accord(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(runs[1], tmp_path / "run"))
    assert leave_report(run) == run / REPORT
    (run / "plan.json").write_text("{")
    assert leave_report(run) is None
    assert "no report was written" in " ".join(capsys.readouterr().err.split())
    (run / REPORT).unlink()
    (run / CONFIG).write_text("logging: {report: false}")
    assert leave_report(run) is None
    (run / CONFIG).unlink()
    assert leave_report(run) is None, "it is no run's folder"
    assert not (run / REPORT).exists()


def test_drawing_is_told_once_nothing_is_refused(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="nor an evaluation"):
        write_report([tmp_path], tmp_path / "report.html", said=True)
    assert capsys.readouterr().err == ""
    write_report(runs[:1], tmp_path / "report.html", said=True)
    assert "Drawing the report" in capsys.readouterr().err


def test_a_folder_is_no_file(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        write_report(runs[:1], tmp_path)


# --- in a browser ---


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def test_a_browser_draws_it(browser: Any, one: Path, two: Path) -> None:
    """In light and dark, on a phone, without a complaint and without a request."""
    looks = [(one, "dark", 390), (two, "light", 1280)]
    grounds = set()
    for file, scheme, width in looks:
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
        complaints: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message, to=complaints: to.append(message.text))
        page.on("pageerror", lambda error, to=complaints: to.append(str(error)))
        page.on("request", lambda request, to=requests: to.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_function("document.documentElement.dataset.drawn", timeout=60_000)
        assert complaints == []
        assert requests == [file.as_uri()]
        count = len(charts(file))
        marks = page.evaluate(
            "[...document.querySelectorAll('.chart svg')].filter("
            "svg => svg.querySelector('.mark-line path, .mark-symbol path')).length"
        )
        assert marks == count > 5
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert "owned" not in page.title()
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        colours = page.evaluate(
            "[...document.querySelectorAll('.chart svg .mark-line path')]"
            ".map(path => getComputedStyle(path).stroke)"
        )
        assert all(colour.startswith("rgb") for colour in colours)
        if file == one:
            shown = page.inner_text("#examples")
            assert HOSTILE in shown
        page.close()
    assert len(grounds) == 2, "dark is not light"
