"""The paired bootstrap: hand-worked intervals, known differences, rows that do not match, and what
is read.
"""

import io
import json
from dataclasses import replace
from math import log2, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from rich.console import Console

from sidtune.base.errors import UserError
from sidtune.evaluation import compare as module
from sidtune.evaluation.compare import (
    SETTINGS,
    Comparison,
    Difference,
    Evaluated,
    as_json,
    compare,
    interval_of,
    read_evaluated,
    render,
)


def table(ranks: list[int], item_ranks: list[int] | None = None, first_row: int = 0) -> pa.Table:
    n = len(ranks)
    columns = {
        "row": pa.array(range(first_row, first_row + n), pa.int64()),
        "user_id": [f"u{row}" for row in range(first_row, first_row + n)],
        "target": [f"i{row % 3}" for row in range(first_row, first_row + n)],
        "sid_rank": pa.array(ranks, pa.int64()),
        "item_rank": pa.array(item_ranks or ranks, pa.int64()),
    }
    return pa.table(columns)


def run(
    name: str, ranks: list[int], item_ranks: list[int] | None = None, depth: int = 10
) -> Evaluated:
    return Evaluated(name, table(ranks, item_ranks), depth)


def entry(comparison: Comparison, level: str, metric: str) -> Difference:
    (found,) = [
        part for part in comparison.differences if (part.level, part.metric) == (level, metric)
    ]
    return found


def write(folder: Path, predictions: pa.Table, summary: object = None) -> Path:
    evaluation = folder / "evaluation"
    evaluation.mkdir(parents=True)
    pyarrow.parquet.write_table(predictions, evaluation / "test.predictions.parquet")
    (evaluation / "test.json").write_text(json.dumps(summary or {"settings": {"beams": 20}}))
    return folder


def test_the_interval_of_four_rows_by_hand() -> None:
    # Differences 1, 1, 1, 0: a resample's mean is 0 with (1/4)^4 = 0.4%, at most 1/4 with 13/256 =
    # 5.1%, and 1 with (3/4)^4 = 31.6%. The quantiles of 2.5% and 97.5% are therefore 1/4 and 1.
    (found,) = compare(run("a", [0, 0, 0, 1]), [run("b", [1, 1, 1, 1])])
    assert entry(found, "SID", "HR@1") == Difference("SID", "HR@1", 1 / 4, 1, 3 / 4, 1 / 4, 1, True)


def test_an_interval_that_holds_zero_is_not_real() -> None:
    # Differences 1, 0: the mean is 0 with 1/4 and 1 with 1/4.
    (found,) = compare(run("a", [0, 1]), [run("b", [1, 1])])
    assert entry(found, "SID", "HR@1") == Difference("SID", "HR@1", 1 / 2, 1, 1 / 2, 0, 1, False)


def test_a_difference_that_every_row_has_is_certain() -> None:
    (found,) = compare(run("a", [2] * 5), [run("b", [0] * 5)])
    gain = entry(found, "item", "NDCG@10")
    assert (gain.first, gain.other) == pytest.approx((1 / log2(3), 0))
    assert (gain.low, gain.high) == pytest.approx((-1 / log2(3), -1 / log2(3)))
    assert gain.real


def test_a_run_does_not_differ_from_itself() -> None:
    ranks = [1, 0, 4, 2, 9, 0]
    (found,) = compare(run("a", ranks), [run("b", ranks)])
    assert {(part.difference, part.low, part.high, part.real) for part in found.differences} == {
        (0, 0, 0, False)
    }


def test_the_two_levels_are_told_apart() -> None:
    (found,) = compare(run("a", [1, 1], [2, 2]), [run("b", [1, 1], [1, 2])])
    assert entry(found, "SID", "MRR").difference == 0
    assert entry(found, "item", "MRR") == Difference(
        "item", "MRR", 1 / 2, 3 / 4, 1 / 4, 0, 1 / 2, False
    )
    assert [(part.level, part.metric) for part in found.differences] == [
        (level, metric)
        for level in ("SID", "item")
        for metric in ("HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10", "MRR")
    ]


def noisy(seed: int, share: float) -> list[int]:
    """2,000 ranks of 1 and 0, a hit with the chance `share`, from the same draws for one seed."""
    return [int(draw < share) for draw in np.random.default_rng(seed).random(2000)]


def test_the_interval_is_that_of_the_paired_differences() -> None:
    # The same draws: each row that hits in one also hits in the other, which adds a twentieth of
    # the rows.
    first, other = noisy(1, 0.40), noisy(1, 0.45)
    (found,) = compare(run("a", first), [run("b", other)])
    hit = entry(found, "SID", "HR@1")
    differences = np.array(other) - np.array(first)
    error = 1.96 * differences.std() / sqrt(2000)
    assert hit.real
    assert hit.difference == pytest.approx(differences.mean())
    assert (hit.low, hit.high) == pytest.approx(
        (hit.difference - error, hit.difference + error), abs=0.1 * error
    )


def test_pairing_is_what_makes_a_small_difference_real() -> None:
    (paired,) = compare(run("a", noisy(1, 0.40)), [run("b", noisy(1, 0.42))])
    (unrelated,) = compare(run("a", noisy(1, 0.40)), [run("b", noisy(2, 0.42))])
    narrow, wide = entry(paired, "SID", "HR@1"), entry(unrelated, "SID", "HR@1")
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    assert narrow.real
    assert not wide.real


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    trials = 200
    random = np.random.default_rng(5)
    missed = 0
    for _ in range(trials):
        first, other = (random.random((2, 150)) < 0.4).astype(int).tolist()
        (found,) = compare(run("a", first), [run("b", other)], resamples=1000)
        missed += entry(found, "SID", "HR@1").real
    # Binomial(200, 0.05) is between 2 and 20 with a chance of more than 99.8%.
    assert 2 <= missed <= 20


def test_same_input_same_interval() -> None:
    first, other = run("a", noisy(1, 0.4)), run("b", noisy(2, 0.4))
    assert compare(first, [other]) == compare(first, [other])


def test_company_and_chunks_do_not_change_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    first, other, third = run("a", noisy(1, 0.4)), run("b", noisy(2, 0.4)), run("c", noisy(3, 0.9))
    (alone,) = compare(first, [other])
    monkeypatch.setattr(module, "CHUNK_COUNTS", 7 * 2000)
    beside, _ = compare(first, [other, third])
    for one, two in zip(alone.differences, beside.differences, strict=True):
        assert (one.low, one.high) == pytest.approx((two.low, two.high), abs=1e-12)


@pytest.mark.parametrize("distinct", [3, 300])
def test_the_interval_is_that_of_rows_drawn_one_by_one(
    distinct: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(3)
    differences = random.choice(random.normal(size=distinct), 300)
    drawn = differences[random.integers(300, size=(20_000, 300))].mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    found = interval_of(differences)
    assert found == pytest.approx((low, high), abs=0.03 * (high - low))
    monkeypatch.setattr(module, "CHUNK_COUNTS", 1_000)
    assert interval_of(differences) == pytest.approx(found, abs=1e-11)


def test_the_shallowest_list_sets_the_depth() -> None:
    (found,) = compare(run("a", [6, 2], depth=10), [run("b", [2, 2], depth=5)])
    assert found.depth == 5
    assert [part.metric for part in found.differences[:4]] == ["HR@1", "HR@5", "NDCG@5", "MRR"]
    assert entry(found, "SID", "MRR").first == 1 / 4, "rank 6 is a miss in lists of 5"


def test_only_rows_that_all_runs_share_count() -> None:
    first = Evaluated("a", table([1, 2, 3, 4]), 10)
    other = Evaluated("b", table([5, 5, 5], first_row=1), 10)
    third = Evaluated("c", table([1, 1, 1]), 10)
    beside, last = compare(first, [other, third])
    assert (beside.rows, beside.first_left_out, beside.other_left_out) == (2, 2, 1)
    assert (last.rows, last.first_left_out, last.other_left_out) == (2, 2, 1)
    assert entry(beside, "SID", "MRR").first == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert entry(beside, "SID", "MRR").other == pytest.approx(1 / 5)
    assert entry(last, "SID", "MRR").other == 1


def test_a_row_of_another_user_or_target_is_another_row() -> None:
    whole = table([1, 2, 3])
    strange = whole.set_column(1, "user_id", pa.array(["u0", "x", "u2"]))
    strange = strange.set_column(2, "target", pa.array(["i0", "i1", "x"]))
    (found,) = compare(Evaluated("a", whole, 10), [Evaluated("b", strange, 10)])
    assert (found.rows, found.first_left_out, found.other_left_out) == (1, 2, 2)
    assert entry(found, "SID", "MRR").first == 1


def test_the_order_of_the_rows_does_not_matter() -> None:
    first, other, third = (
        run(name, noisy(seed, 0.4)) for name, seed in (("a", 1), ("b", 2), ("c", 3))
    )
    shuffles = [np.random.default_rng(seed).permutation(2000) for seed in range(2)]
    shuffled = [
        replace(part, table=part.table.take(rows))
        for part, rows in zip((first, other), shuffles, strict=True)
    ]
    assert compare(shuffled[0], [third, shuffled[1]]) == compare(first, [third, other])


def test_no_shared_row_is_refused() -> None:
    with pytest.raises(UserError, match="a, b share no rows"):
        compare(run("a", [1]), [Evaluated("b", table([1], first_row=5), 10)])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    predictions = table([1, 0, 3], [2, 0, 3])
    extra = predictions.append_column("items", pa.array([[1], [2], [3]]))
    found = read_evaluated(write(tmp_path / "run", extra), "test")
    settings = dict.fromkeys(SETTINGS) | {"beams": 20, "ranker": False}
    assert found == Evaluated(str(tmp_path / "run"), predictions, 20, settings)


def test_lists_of_a_ranker_are_told_from_those_of_a_model(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"beams": 20, "both_directions": False}
    ranked, both = plain | {"ranker_sha256": "0"}, plain | {"both_directions": True}
    kinds = (plain, ranked, {"beams": 20}, both)
    first, *others = [
        read_evaluated(write(tmp_path / str(number), table([1]), {"settings": settings}), "test")
        for number, settings in enumerate(kinds)
    ]
    found = [comparison.unlike for comparison in compare(first, others)]
    assert found == [["ranker"], [], ["both_directions"]]


def test_a_run_without_evaluation_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_evaluated(write(tmp_path, table([1])), "valid")
    assert caught.value.hint == f"Run: sidtune evaluate {tmp_path} --split valid"
    (tmp_path / "evaluation/test.json").unlink()
    with pytest.raises(UserError, match="has no evaluation of test"):
        read_evaluated(tmp_path, "test")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, table([1]))
    (tmp_path / "evaluation/test.predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"test\.predictions\.parquet: cannot be read as Parquet"):
        read_evaluated(tmp_path, "test")


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (table([1, 2]).drop_columns(["item_rank"]), "has no column item_rank"),
        (
            table([1, 2]).set_column(0, "row", pa.array(["0", "1"])),
            "column row: expected int64, found string",
        ),
        (
            table([1, 2]).set_column(3, "sid_rank", pa.array([1, None])),
            "sid_rank: expected int64, found int64 with 1 ",
        ),
        (table([1, 2]).set_column(0, "row", pa.array([4, 4])), "column row: duplicate numbers"),
    ],
)
def test_predictions_of_another_shape(tmp_path: Path, predictions: pa.Table, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_evaluated(write(tmp_path, predictions), "test")


@pytest.mark.parametrize("summary", [{"metrics": {}}, {"settings": []}, {"settings": {"beams": 0}}])
def test_a_summary_without_depth(tmp_path: Path, summary: object) -> None:
    with pytest.raises(UserError, match=r"test\.json: settings\.beams: expected a number from 1"):
        read_evaluated(write(tmp_path, table([1]), summary), "test")


def test_the_screen_shows_names_and_numbers() -> None:
    first = run("runs/[a]", [0, 0, 0, 1])
    (found,) = compare(first, [Evaluated("runs/[b]", table([1, 1, 1, 1, 1]), 10)])
    screen = io.StringIO()
    for part in render(found):
        Console(width=160, file=screen).print(part)
    text = screen.getvalue()
    assert "4 rows, lists of 10" in text
    assert "runs/[b]: 1 rows ignored that other runs lack" in text
    assert "runs/[a]" in text
    assert "0.2500 1.0000 +0.7500 +0.2500 to +1.0000 yes" in " ".join(text.split())


def test_json_holds_the_same() -> None:
    found = compare(run("a", [0, 1]), [run("b", [1, 1])])
    (plain,) = json.loads(json.dumps(as_json(found)))
    assert {key: plain[key] for key in ("first", "other", "rows", "depth")} == {
        "first": "a",
        "other": "b",
        "rows": 2,
        "depth": 10,
    }
    assert plain["differences"][0] == {
        "level": "SID",
        "metric": "HR@1",
        "first": 0.5,
        "other": 1.0,
        "difference": 0.5,
        "low": 0.0,
        "high": 1.0,
        "real": False,
    }
