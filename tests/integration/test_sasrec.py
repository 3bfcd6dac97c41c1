"""`sidtune baselines`: the simple ones on a tiny shop, and SASRec where the right answer is
obvious.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from tests.asking import call, message, results
from tests.rankers import BASELINES
from tests.tiny_data import write_shop

from sidtune.base.ragged import Ragged
from sidtune.data.rows import Rows
from sidtune.opponents import sasrec
from sidtune.opponents.baselines import Listing
from sidtune.tasks.config import Config

# Its install is larger than that of everything else but torch, so it is no part of what the suite
# asks for.
needs_replay = pytest.mark.skipif(
    importlib.util.find_spec("replay") is None,
    reason="SASRec needs RePlay: pip install -e '.[baselines]'",
)
CYCLE = 12


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A configuration whose base does not exist."""
    tree = {
        "output_dir": str(tmp_path / "run"),
        "model": {"base": "nowhere"},
        "data": write_shop(tmp_path / "data"),
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


@pytest.fixture
def one_point() -> Iterator[None]:
    """A grid of one point and few epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sasrec, "HIDDEN", (64,))
        patch.setattr(sasrec, "DROPOUT", (0.2,))
        patch.setattr(sasrec, "MAX_EPOCHS", 30)
        yield


# --- the command ---


def test_the_figures_are_those_beside_a_model(config: Config, run: Path, tmp_path: Path) -> None:
    assert call("evaluate", run).exit_code == 0
    beside, _ = results(run / "evaluation")
    done = call(
        "baselines", config.output_dir / "config.yaml", "--simple", "--output", tmp_path / "out"
    )
    assert done.exit_code == 0, done.output
    alone = json.loads((tmp_path / "out" / "test.json").read_text())
    assert list(alone["rankers"]) == [*BASELINES]
    for name in BASELINES:
        assert alone["rankers"][name] == beside["rankers"][name]
    for key in ("rows", "items", "colliding", "excluded", "list_length"):
        assert alone[key] == beside[key]
    # Both choose weights on validation rows.
    for file in ("rows", "train", "valid"):
        for key in (file, f"{file}_sha256"):
            assert alone["settings"][key] == beside["settings"][key], key
            assert alone["settings"][key], key


def test_every_ranker_can_be_compared(config: Config, run: Path, tmp_path: Path) -> None:
    assert call("evaluate", run).exit_code == 0
    out = tmp_path / "out"
    assert (
        call("baselines", config.output_dir / "config.yaml", "--simple", "--output", out).exit_code
        == 0
    )
    done = call("compare", run, *(out / name.replace(" ", "-") for name in BASELINES), "--json")
    assert done.exit_code == 0, done.output
    report = json.loads((out / "test.json").read_text())
    for name, comparison in zip(BASELINES, json.loads(done.stdout), strict=True):
        assert (comparison["rows"], comparison["unlike"]) == (12, [])
        for entry in comparison["differences"]:
            level = report["rankers"][name]["sid" if entry["level"] == "SID" else "item"]
            assert entry["other"] == pytest.approx(level[entry["metric"]]["value"])


def test_no_base_is_needed_and_results_lie_beside_the_run(shop: Path) -> None:
    done = call("baselines", shop, "--simple")
    assert done.exit_code == 0, done.output
    assert "12 rows, 8 items, lists of 50" in done.output
    folder = shop.parent / "run-baselines"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["test.json", *(name.replace(" ", "-") for name in BASELINES)]
    )
    assert not (shop.parent / "run").exists(), "training wants its folder empty"


def test_the_lists_that_are_written(shop: Path, tmp_path: Path) -> None:
    assert call("baselines", shop, "--simple", "--limit", 5, "--exclude-history").exit_code == 0
    report, rows = results(tmp_path / "run-baselines" / "repeat-last")
    assert list(report["rankers"]) == ["repeat last"]
    assert (report["rows"], len(rows)) == (5, 5)
    for row in rows:
        place = row["items"].index(row["target"]) + 1 if row["target"] in row["items"] else 0
        assert row["item_rank"] == place


def test_results_of_other_settings_are_kept(shop: Path) -> None:
    assert call("baselines", shop, "--simple").exit_code == 0
    assert call("baselines", shop, "--simple").exit_code == 0
    assert "different settings (limit)" in message("baselines", shop, "--simple", "--limit", 3)
    assert "different settings (sids_sha256)" in message(
        "baselines", shop, "--simple", "data.unique_sids=true"
    )
    assert "different settings (history)" in message(
        "baselines", shop, "--simple", "data.history=1"
    )
    # The simple ones choose their weights on validation rows.
    valid = shop.parent / "data" / "valid.csv"
    fewer = valid.read_text().splitlines(keepends=True)[:-1]
    (shop.parent / "fewer.csv").write_text("".join(fewer))
    assert "different settings (valid_sha256)" in message(
        "baselines", shop, "--simple", f"data.valid={shop.parent / 'fewer.csv'}"
    )


def test_a_comparison_names_other_sids_and_other_histories(shop: Path, tmp_path: Path) -> None:
    changes: list[tuple[str, ...]] = [(), ("data.unique_sids=true",), ("data.history=1",)]
    for number, change in enumerate(changes):
        assert (
            call(
                "baselines", shop, "--simple", *change, "--output", tmp_path / str(number)
            ).exit_code
            == 0
        )
    first, *others = (tmp_path / str(number) / "repeat-last" for number in range(3))
    for other, name in zip(others, ("sids_sha256", "history"), strict=True):
        assert f"the evaluations differ in {name}" in call("compare", first, other).output


def test_json_is_all_there_is_on_the_standard_output(shop: Path) -> None:
    printed = json.loads(call("baselines", shop, "--simple", "--json").stdout)
    assert list(printed["rankers"]) == [*BASELINES]


def test_mistakes(shop: Path) -> None:
    assert "--seed has no effect with --simple" in message(
        "baselines", shop, "--simple", "--seed", 1
    )
    assert "has no data.test" in message("baselines", shop, "data.test=null", "--simple")


def test_without_the_library(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "replay", None)
    monkeypatch.delitem(sys.modules, "replay.nn.sequential.sasrec", raising=False)
    said = message("baselines", shop)
    assert "pip install 'sidtune[baselines]'" in said
    assert "--simple" in said
    assert not (shop.parent / "run-baselines").exists()


# --- SASRec ---


def cycle(starts: list[int], length: int) -> Rows:
    """Users who walk around a cycle of items: every row of every user."""
    walks = [[(start + step) % CYCLE for step in range(length)] for start in starts]
    rows = [
        (f"u{user}", walk[:cut], walk[cut])
        for user, walk in enumerate(walks)
        for cut in range(1, length)
    ]
    users, histories, targets = zip(*rows, strict=True)
    return Rows(pa.array(users), Ragged.from_lists(histories), np.array(targets, np.int32))


def listing() -> Listing:
    return Listing.of(np.ones(CYCLE), np.arange(CYCLE), 10)


@needs_replay
def test_sasrec_learns_a_cycle(one_point: None) -> None:
    train, asked = cycle(list(range(CYCLE)) * 20, 6), cycle(list(range(CYCLE)), 8)
    scorer, (trial,) = sasrec.tune(train, asked, listing(), CYCLE, seed=0)
    scores = scorer(asked.history)
    assert scores.shape == (len(asked.target), CYCLE)
    assert (scores.argmax(axis=1) == asked.target).mean() > 0.98
    assert trial.ndcg > 0.98
    assert trial.hr == 1


@needs_replay
def test_sasrec_follows_from_its_seed(one_point: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sasrec, "MAX_EPOCHS", 2)
    train = cycle(list(range(CYCLE)), 6)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (
        sasrec.tune(train, train, listing(), CYCLE, seed)[0] for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are left alone"
    assert (first(train.history) == again(train.history)).all()
    assert (first(train.history) != other(train.history)).any()


@needs_replay
def test_padding_and_items_beyond_the_longest_history_do_not_count(one_point: None) -> None:
    train = cycle(list(range(CYCLE)) * 2, 6)
    scorer, _ = sasrec.tune(train, train, listing(), CYCLE, seed=0)
    histories = [[3], [7, 1, 2, 3, 4, 5, 6], [1, 2]]
    together = scorer(Ragged.from_lists(histories))
    for row, history in enumerate(histories):
        assert together[row] == pytest.approx(
            scorer(Ragged.from_lists([history[-scorer.longest :]]))[0], abs=1e-5
        )
    assert scorer.longest == 5


def test_every_item_but_the_first_is_a_target_once() -> None:
    pieces = sasrec._pieces(Ragged.from_lists([list(range(9)), [20, 21]]), longest=3)
    found = [pieces[number].tolist() for number in range(len(pieces))]
    assert found == [[5, 6, 7, 8], [2, 3, 4, 5], [0, 1, 2], [20, 21]]


@needs_replay
def test_sasrec_through_the_command(shop: Path, one_point: None) -> None:
    done = call("baselines", shop, "--seed", 3)
    assert done.exit_code == 0, done.output
    assert "SASRec: hidden" in done.output
    folder = shop.parent / "run-baselines"
    report, _ = results(folder / "sasrec")
    assert list(report["rankers"]) == ["SASRec"]
    assert report["settings"]["seed"] == 3
    (trial,) = report["settings"]["sasrec"]["grid"]
    assert (trial["hidden"], trial["dropout"]) == (64, 0.2)
    assert call("compare", folder / "sasrec", folder / "co-occurrence").exit_code == 0
