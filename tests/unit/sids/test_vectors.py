"""Texts, behaviour, encoders and files as vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import scipy.sparse as sp
from sklearn.utils.extmath import randomized_svd

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.config.sids import SidsConfig
from sidtune.data.rows import Rows
from sidtune.sids.items import Items
from sidtune.sids.vectors import co_occurrence, fit_vectors, place_vectors
from sidtune.sids.vectors.co_occurrence import CoOccurrence
from sidtune.sids.vectors.given import read_vectors
from sidtune.sids.vectors.source import Source
from sidtune.sids.vectors.words import terms

MUGS = ["blue mug", "red mug", "green mug", "mug with handle"]
TENTS = ["tent for two", "tent for four", "red tent", "winter tent"]


def items(*texts: str) -> Items:
    return Items([str(place) for place in range(len(texts))], list(texts), list(texts))


def no_rows() -> Rows:
    raise AssertionError("not asked for")


def rows(*histories: tuple[list[int], int]) -> Rows:
    lists = [history for history, _ in histories]
    flat = np.array([item for history in lists for item in history], np.int32)
    users = pa.array(["u"] * len(lists), pa.large_string()).dictionary_encode()
    return Rows(
        users,
        Ragged.from_lengths(flat, np.array([*map(len, lists)])),
        np.array([t for _, t in histories], np.int32),
    )


def source(given: Items, *histories: tuple[list[int], int], **options: object) -> Source:
    return Source(given, SidsConfig.model_validate(options), lambda: rows(*histories))


def alike(vectors: np.ndarray) -> np.ndarray:
    return vectors @ vectors.T


# --- words ---


def test_words_and_pairs_of_words() -> None:
    assert list(terms("Blue Mug, 12 oz\nBig")) == [
        "blue",
        "mug",
        "blue mug",
        "12",
        "mug 12",
        "oz",
        "12 oz",
        "big",
    ]


def test_characters_where_words_have_no_blanks() -> None:
    assert list(terms("蓝色杯")) == ["蓝", "色", "杯", "蓝色", "色杯", "蓝色杯"]
    assert list(terms("USBケーブル 2m")) == [
        "usb",
        *"ケーブル",
        "ケー",
        "ーブ",
        "ブル",
        "ケーブ",
        "ーブル",
        "2m",
    ]


def test_widths_and_case_of_letters_do_not_matter() -> None:
    assert list(terms("ＵＳＢ")) == list(terms("usb"))


# --- text ---


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (MUGS, TENTS),
        (
            ["蓝色马克杯", "红色马克杯", "绿色马克杯", "大马克杯"],
            ["双人帐篷", "四人帐篷", "红帐篷", "冬季帐篷"],
        ),
        (["青いマグカップ", "赤いマグカップ", "緑のマグカップ", "大きなマグカップ"], 
         ["二人用テント", "四人用テント", "赤いテント", "冬のテント"]),
    ],
    ids=["English", "Chinese", "Japanese"],
)  # fmt: skip
def test_items_of_one_kind_are_alike(first: list[str], second: list[str]) -> None:
    vectors, _, _ = fit_vectors(source(items(*first, *second), text_dimensions=3))
    likeness = alike(vectors)
    assert np.allclose(np.diag(likeness), 1, atol=1e-5)
    within, across = likeness[:4, :4][~np.eye(4, dtype=bool)], likeness[:4, 4:]
    assert within.mean() > across.mean() + 0.3


def test_text_vectors_repeat_to_the_bit_and_new_items_get_those_of_equal_texts() -> None:
    given = items(*MUGS, *TENTS)
    vectors, states, widths = fit_vectors(source(given))
    again, _, _ = fit_vectors(source(given))
    assert np.array_equal(vectors, again)
    placed = place_vectors(items("red tent", "blue mug"), states, SidsConfig(), vectors, widths)
    assert np.allclose(placed, vectors[[6, 0]], atol=1e-6)


def test_empty_texts_share_the_vector_zero_and_are_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    vectors, _, _ = fit_vectors(source(items("blue mug", "", "red tent", "")))
    assert (vectors[[1, 3]] == 0).all()
    assert "2 of 4 items have no text at all" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["", ""], "no item has any text"),
        (["!!!", "???"], "no text of any item has a letter"),
        (["blue mug"] * 3, "all 3 items have the same vector"),
    ],
)
def test_texts_that_tell_nothing_apart_are_refused(texts: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        fit_vectors(source(items(*texts)))


# --- behaviour ---


def test_items_of_the_same_histories_are_alike() -> None:
    # Users buy 0, 1, 2 together, and 3, 4, 5.
    given = [([a], b) for group in ((0, 1, 2), (3, 4, 5)) for a in group for b in group if a != b]
    vectors, _ = CoOccurrence().fit(
        source(items(*"abcdef"), *given, vectors="co_occurrence", co_occurrence_dimensions=2)
    )
    likeness = alike(vectors)
    assert likeness[:3, :3].min() > 0.99
    assert np.abs(likeness[:3, 3:]).max() < 0.01


def test_behaviour_is_a_randomised_singular_value_decomposition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = sp.random_array((300, 300), density=0.05, rng=np.random.default_rng(0))
    matrix = (counts + counts.T).tocsr().astype(np.float32)
    monkeypatch.setattr(co_occurrence, "_pairs", lambda rows, items: None)
    monkeypatch.setattr(co_occurrence, "_information", lambda pairs: matrix)
    vectors = co_occurrence.behaviour(rows(([0], 1)), 300, 16, 0)
    left, sizes, _ = randomized_svd(matrix, 16, n_iter=2, random_state=0)
    expected = left * np.sqrt(sizes)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert vectors is not None
    assert vectors @ vectors.T == pytest.approx(expected @ expected.T, abs=1e-3)


def test_items_without_company_share_the_vector_zero_and_are_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    vectors, _ = CoOccurrence().fit(
        source(
            items(*"abcd"),
            ([0], 1),
            ([1], 0),
            ([2, 2], 2),
            vectors="co_occurrence",
            co_occurrence_dimensions=2,
        )
    )
    assert (vectors[2:] == 0).all()
    assert "2 of 4 items stand beside no other" in capsys.readouterr().err


def test_new_items_without_behaviour_borrow_that_of_items_with_like_texts() -> None:
    given = [([a], b) for group in (range(4), range(4, 8)) for a in group for b in group if a != b]
    asked = source(
        items(*MUGS, *TENTS),
        *given,
        vectors={"text": 1, "co_occurrence": 0.5},
        co_occurrence_dimensions=2,
    )
    vectors, states, widths = fit_vectors(asked)
    placed = place_vectors(items("blue mug"), states, asked.options, vectors, widths)
    likeness = (placed @ vectors.T)[0]
    assert placed.shape[1] == vectors.shape[1] == sum(widths)
    assert int(likeness.argmax()) == 0


def test_behaviour_alone_knows_no_new_items() -> None:
    asked = source(
        items(*"abc"), ([0], 1), ([1], 2), vectors="co_occurrence", co_occurrence_dimensions=2
    )
    vectors, states, widths = fit_vectors(asked)
    with pytest.raises(UserError, match="know nothing of items that no training row has"):
        place_vectors(items("d"), states, asked.options, vectors, widths)


def test_weights_are_lengths() -> None:
    asked = source(
        items(*MUGS),
        ([0], 1),
        ([1], 2),
        ([2], 3),
        vectors={"text": 2, "co_occurrence": 0.5},
        co_occurrence_dimensions=2,
    )
    vectors, _, widths = fit_vectors(asked)
    assert np.allclose(np.linalg.norm(vectors[:, : widths[0]], axis=1), 2, atol=1e-5)
    assert np.allclose(np.linalg.norm(vectors[:, widths[0] :], axis=1), 0.5, atol=1e-5)


# --- files ---


def save(folder: Path, ids: list[object], vectors: list[object]) -> Path:
    pyarrow.parquet.write_table(pa.table({"item_id": ids, "vector": vectors}), folder / "v.parquet")
    return folder / "v.parquet"


def test_vectors_of_a_parquet_file_find_their_items(tmp_path: Path) -> None:
    file = save(tmp_path, [2, 0, 9, 1], [[2.0, 2.0], [0.0, 0.5], [9.0, 9.0], [1.0, 1.0]])
    assert read_vectors(file, items("a", "b", "c")).tolist() == [[0.0, 0.5], [1.0, 1.0], [2.0, 2.0]]


@pytest.mark.parametrize(
    ("ids", "vectors", "said"),
    [
        ([0, 1], [[1.0], [2.0]], r"1 of 3 items have no vector \(first item 2\)"),
        ([0, 1, 2, 1], [[1.0]] * 4, r"1 of 3 items have several vectors \(first item 1\)"),
        ([0, 1, 2], [[1.0], [2.0, 3.0], [4.0]], r"different dimensions: 1, 2 \(first in row 2\)"),
        (
            [0, 1, 2],
            [[1.0], [float("nan")], [4.0]],
            r"1 of 3 vectors hold NaN.*first that of item 1",
        ),
        ([0, 1, 2], [[1.0], [None], [4.0]], r"1 of 3 vectors hold NaN"),
        ([0, 1, 2], ["a", "b", "c"], "expected lists of numbers"),
    ],
)
def test_parquet_vectors_of_another_shape_are_refused(
    tmp_path: Path, ids: list[object], vectors: list[object], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        read_vectors(save(tmp_path, ids, vectors), items("a", "b", "c"))


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.ones((2, 4)), "2 vectors, and the catalogue has 3 items"),
        (np.ones(3), "expected a matrix"),
        (np.array([["a"], ["b"], ["c"]]), "expected a matrix"),
        (np.array([[1.0], [np.inf], [2.0]]), "1 of 3 vectors hold"),
        (np.array([[1.0], [1e300], [2.0]]), "1 of 3 vectors hold"),
        (np.ones((3, 0)), "expected a matrix"),
    ],
)
def test_arrays_of_another_shape_are_refused(
    tmp_path: Path, vectors: np.ndarray, said: str
) -> None:
    np.save(tmp_path / "v.npy", vectors)
    with pytest.raises(UserError, match=said):
        read_vectors(tmp_path / "v.npy", items("a", "b", "c"))


def test_a_file_that_is_no_array_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.npy").write_text("hello")
    with pytest.raises(UserError, match=r"not a readable \.npy array"):
        read_vectors(tmp_path / "v.npy", items("a"))


def test_new_vectors_of_another_dimension_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "old.npy", np.eye(3))
    np.save(tmp_path / "new.npy", np.ones((1, 2)))
    options = SidsConfig(vectors="file", file=tmp_path / "old.npy")
    vectors, states, widths = fit_vectors(Source(items("a", "b", "c"), options, no_rows))
    later = options.model_copy(update={"file": tmp_path / "new.npy"})
    with pytest.raises(
        UserError, match="vectors of 2 dimensions, and the codebooks were fitted on 3"
    ):
        place_vectors(items("d"), states, later, vectors, widths)
