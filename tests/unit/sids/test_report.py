"""The report: figures worked out by hand, and what must hold for any index."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.unit.sids.test_fit import run, shop

from sidtune.base.errors import UserError
from sidtune.data.catalogue import prefix_numbers
from sidtune.sids.fit import make
from sidtune.sids.report.measure import (
    collisions,
    common_prefixes,
    level_use,
    likeness,
    measure,
    neighbours,
)
from sidtune.sids.report.run import report

SIDS = [("<a_0>", "<b_0>"), ("<a_0>", "<b_1>"), ("<a_0>", "<b_1>"), ("<a_3>", "<b_0>")]


def test_use_of_a_level_by_hand() -> None:
    use = level_use(SIDS, 0)
    # Three quarters and one quarter: entropy 0.811 bits, Gini (1/4 + 2·3/4)·2/2 - 3/2 = 1/4.
    assert use == {
        "used": 2,
        "dead": 2,
        "entropy": pytest.approx(0.8113, abs=1e-4),
        "gini": pytest.approx(0.25),
        "largest": 3,
    }
    assert level_use(SIDS, 1)["gini"] == pytest.approx(0)
    assert level_use([("red", "x"), ("blue", "y")], 0)["dead"] is None


def test_collisions_by_hand() -> None:
    assert collisions(SIDS) == {
        "sids": 3,
        "items_sharing": 2,
        "share": 0.25,
        "most_items_of_a_sid": 2,
    }


def test_prefixes_of_sids_of_several_depths() -> None:
    assert prefix_numbers([("a",), ("a", "b"), ("a",), ("c", "b")]).tolist() == [
        [0, 0],
        [0, 1],
        [0, 0],
        [1, 2],
    ]


def test_likeness_by_hand() -> None:
    vectors = np.array([[0, 0], [2, 0], [10, 0], [10, 2]], np.float32)
    groups = np.array([[0, 0], [0, 1], [1, 2], [1, 3]])
    found = likeness(groups, vectors, neighbours(vectors))
    # Around the means (1, 0) and (10, 1) four squared distances of 1 are left; around (5.5, 0.5)
    # there are 86.
    whole = float(((vectors - vectors.mean(0)) ** 2).sum())
    assert found["distortion"] == [pytest.approx(4 / whole, rel=1e-5), pytest.approx(0, abs=1e-6)]


def test_neighbours_are_kept_where_prefixes_are_the_clusters() -> None:
    generator = np.random.default_rng(0)
    centres = np.eye(4, dtype=np.float32)
    vectors = (centres[np.arange(80) % 4] + generator.normal(0, 0.01, (80, 4))).astype(np.float32)
    sids = [(f"<a_{at % 4}>", f"<b_{at}>") for at in range(80)]
    figures = measure(sids, [""] * 80, vectors)
    assert figures["likeness"]["neighbours_kept"] == [1.0, 0.0]
    # At random a neighbour has one of the 19 other places of 79.
    assert figures["likeness_of_random_sids"]["neighbours_kept"][0] == pytest.approx(
        19 / 79, abs=0.1
    )
    assert "common_prefixes" not in figures


def test_the_largest_prefixes_with_their_titles() -> None:
    assert common_prefixes(SIDS, ["p", "q", "r", "s"]) == [
        {"prefix": "<a_0>", "items": 3, "titles": ["p", "q", "r"]},
        {"prefix": "<a_3>", "items": 1, "titles": ["s"]},
    ]


def test_our_own_index_has_its_report_and_any_other_gets_one(tmp_path: Path) -> None:
    made = make(run(tmp_path))
    own = report(made.folder)
    assert own == report(made.folder / "index.json")
    other = tmp_path / "other.index.json"
    other.write_bytes((made.folder / "index.json").read_bytes())
    figures = report(other)
    assert figures["levels"] == own["levels"]
    assert "likeness" not in figures
    # By the same texts the same vectors, and so the same figures.
    assert report(other, tmp_path / "shop.item.json")["likeness"] == own["likeness"]
    # An index of ours has vectors, which texts do not replace.
    items = json.loads((tmp_path / "shop.item.json").read_text())
    renamed = {item: {"title": f"item {item}"} for item in reversed(items)}
    (tmp_path / "renamed.item.json").write_text(json.dumps(renamed))
    found = report(made.folder, tmp_path / "renamed.item.json")
    assert found["likeness"]["distortion"] == pytest.approx(own["likeness"]["distortion"])
    assert found["common_prefixes"] != own["common_prefixes"]
    assert (
        own["likeness"]["neighbours_kept"][0]
        > 3 * own["likeness_of_random_sids"]["neighbours_kept"][0]
    )


def test_ids_of_items_and_index_may_be_written_differently(tmp_path: Path) -> None:
    index, items = tmp_path / "i.index.json", tmp_path / "i.item.json"
    index.write_text(json.dumps({"1": ["<a_1>"], "2": ["<a_2>"]}))
    items.write_text(json.dumps({"2.0": {"title": "mug"}, "1.0": {"title": "tent"}}))
    found = report(index, items)["common_prefixes"]
    assert [(group["prefix"], group["titles"]) for group in found] == [
        ("<a_1>", ["tent"]),
        ("<a_2>", ["mug"]),
    ]


def test_items_and_index_must_be_of_the_same_build(tmp_path: Path) -> None:
    index = tmp_path / "i.index.json"
    index.write_text(json.dumps({"0": ["<a_1>"], "99": ["<a_2>"]}))
    with pytest.raises(UserError, match=r"1 SIDs have no item in shop.item.json \(first 99\)"):
        report(index, shop(tmp_path))
    index.write_text(json.dumps({"0": ["<a_1>"]}))
    with pytest.raises(UserError, match=r"39 items have no SID in i.index.json \(first 1\)"):
        report(index, shop(tmp_path))
