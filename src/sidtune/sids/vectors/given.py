"""Vectors that the user made: `.npy`, or Parquet with an id and a list of numbers in each row."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.config.sids import SidsConfig
from sidtune.data.item_files import ID_COLUMNS, read_columns
from sidtune.files.ids import Names, as_ids
from sidtune.sids.items import Items
from sidtune.sids.kmeans import Floats
from sidtune.sids.vectors.source import Source, State, need_finite

COLUMNS = ("vector", "embedding")
# What NumPy raises for a damaged file: its header is a Python literal.
UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    SyntaxError,
    TypeError,
    OverflowError,
    RecursionError,
    TokenError,
)


class Given:
    """A file of vectors."""

    def fit(self, source: Source) -> tuple[Floats, State]:
        """The vectors as they are, `(n, d)`."""
        return self.place(source.items, State(), source.options), State()

    def place(self, items: Items, state: State, options: SidsConfig) -> Floats:
        """The vectors of other items, from the file that the options name.

        Raises:
            UserError: as `read_vectors`.
        """
        assert options.file
        return read_vectors(options.file, items)


def read_vectors(path: Path, items: Items) -> Floats:
    """Vectors `(n, d)` of items.

    Args:
        path: a `.npy` array whose rows are in the order of the catalogue, or Parquet with columns
            `item_id` and `vector` in any order.

    Raises:
        UserError: for a file of another kind, another number of rows, vectors of different lengths,
            items without a vector, ids that stand twice, and numbers that are not finite.
    """
    vectors = _of_npy(path, items) if path.suffix == ".npy" else _of_parquet(path, items)
    with np.errstate(over="ignore"):
        found = np.ascontiguousarray(vectors, np.float32)
    need_finite(found, items, str(path), "Make these vectors again, or remove these items.")
    return found


def _of_npy(path: Path, items: Items) -> NDArray[Any]:
    if not path.is_file():
        raise UserError(f"no such file: {path}", "Check sids.file.")
    try:
        vectors: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        raise UserError(
            f"{path}: not a readable .npy array: {str(error)[:200]}", "Write it with numpy.save."
        ) from None
    if (
        vectors.ndim != 2
        or not np.issubdtype(vectors.dtype, np.number)
        or np.iscomplexobj(vectors)
        or not vectors.size
    ):
        message = (
            f"{path}: expected a matrix of numbers (items, dimensions), found {vectors.dtype}"
            f" {vectors.shape}"
        )
        raise UserError(message, "Give one row an item.")
    if len(vectors) != len(items):
        message = f"{path}: {len(vectors):,} vectors, and the catalogue has {len(items):,} items"
        raise UserError(
            message, "Give one row an item in the order of the catalogue, or Parquet with item ids."
        )
    return vectors


def _of_parquet(path: Path, items: Items) -> NDArray[Any]:
    table = read_columns(
        path, "Vectors are read from .npy, or from Parquet with columns item_id and vector."
    )
    name = next((name for name in ID_COLUMNS if name in table.column_names), None)
    column = next((name for name in COLUMNS if name in table.column_names), None)
    if name is None or column is None or not table.num_rows:
        found = ", ".join(table.column_names) if table.num_rows else "no row"
        raise UserError(
            f"{path}: expected the columns item_id and vector, found {found}",
            "Name the columns so.",
        )
    try:
        ids = as_ids(table[name].combine_chunks())[0]
    except pa.ArrowException as error:
        raise UserError(
            f"{path}: column {name}: {error}", "Item ids are text or whole numbers."
        ) from None
    # In the order of the catalogue; of an item that stands twice neither counts.
    places = Names.of(items.ids).positions(ids)
    counts = np.bincount(places[places >= 0], minlength=len(items))
    for what, wrong in (("have no vector", counts == 0), ("have several vectors", counts > 1)):
        if wrong.any():
            first = items.ids[int(wrong.argmax())]
            message = (
                f"{path}: {int(wrong.sum()):,} of {len(items):,} items {what} (first item {first})"
            )
            raise UserError(message, "Give one row an item.")
    return _matrix(table[column].combine_chunks(), path)[_inverse(places, len(items))]


def _inverse(places: NDArray[np.int32], items: int) -> NDArray[np.int64]:
    rows = np.empty(items, np.int64)
    known = np.flatnonzero(places >= 0)
    rows[places[known]] = known
    return rows


def _matrix(column: pa.Array, path: Path) -> NDArray[Any]:
    kind = column.type
    nested = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    if not nested or not (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    ):
        raise UserError(
            f"{path}: expected lists of numbers as vectors, found {kind}",
            "Write a list in each row.",
        )
    lengths = column.value_lengths()
    distinct = lengths.unique().to_pylist()
    if len(distinct) > 1 or not distinct[0]:
        row = next(
            row
            for row, length in enumerate(lengths.to_pylist(), 1)
            if not length or length != distinct[0]
        )
        shown = ", ".join(f"{length or 0:,}" for length in distinct[:5])
        raise UserError(
            f"{path}: vectors of different dimensions: {shown} (first in row {row})",
            "Make them alike.",
        )
    # A missing number is none: NaN, which is refused with its item.
    flat: NDArray[Any] = column.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1)
