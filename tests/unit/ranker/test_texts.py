"""Vectors of texts as the ranker gets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.unit.ranker.making import catalogue

from sidtune.config.sids import SidsConfig
from sidtune.ranker.texts import text_vectors

ITEMS = 4
# Not in the catalogue's order, with an item that it does not have, and without its item 2.
ORDER = ["3", "elsewhere", "0", "1"]


def items_file(folder: Path, titles: str = "title of {}") -> Path:
    path = folder / "shop.item.json"
    path.write_text(json.dumps({name: {"title": titles.format(name)} for name in ORDER}))
    return path


def given(folder: Path, vectors: np.ndarray) -> SidsConfig:  # type: ignore[type-arg]
    np.save(folder / "vectors.npy", vectors.astype(np.float32))
    return SidsConfig(vectors="file", file=folder / "vectors.npy")


def test_given_vectors_are_in_the_order_of_their_items(tmp_path: Path) -> None:
    vectors = np.array([[3, 4], [1, 1], [0, 2], [5, 0]])
    found = text_vectors(items_file(tmp_path), given(tmp_path, vectors), catalogue(ITEMS))
    assert found is not None
    assert found == pytest.approx(np.array([[0, 1], [1, 0], [0, 0], [0.6, 0.8]]))


def test_vectors_of_texts_are_in_the_order_of_the_catalogue(tmp_path: Path) -> None:
    found = text_vectors(items_file(tmp_path, "same words"), None, catalogue(ITEMS))
    assert found is not None
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 0, 1])


def test_a_given_file_counts_before_that_of_the_section_sids(tmp_path: Path) -> None:
    old = items_file(tmp_path, "")
    new = tmp_path / "new.item.json"
    new.write_text(json.dumps({"0": {"title": "a mug"}, "1": {"title": "a tent"}}))
    options = SidsConfig(catalogue=old)
    assert text_vectors(old, options, catalogue(ITEMS)) is None
    found = text_vectors(old, options, catalogue(ITEMS), new)
    assert found is not None
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 0, 0])


def test_an_id_that_is_written_as_a_float_is_the_same_item(tmp_path: Path) -> None:
    path = tmp_path / "shop.item.json"
    path.write_text(json.dumps({f"{item}.0": {"title": "same words"} for item in range(ITEMS)}))
    found = text_vectors(path, None, catalogue(ITEMS))
    assert found is not None
    assert np.linalg.norm(found, axis=1) == pytest.approx([1] * ITEMS)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_left_out_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: float
) -> None:
    vectors = np.ones((len(ORDER), 2))
    vectors[1, 1] = wrong
    assert text_vectors(items_file(tmp_path), given(tmp_path, vectors), catalogue(ITEMS)) is None
    said = " ".join(capsys.readouterr().err.split())
    assert "text neighbours are left out" in said
    assert "1 of 4 vectors hold NaN" in said


def test_without_texts_there_are_no_vectors(tmp_path: Path) -> None:
    assert text_vectors(None, None, catalogue(ITEMS)) is None
    assert text_vectors(items_file(tmp_path, ""), None, catalogue(ITEMS)) is None
