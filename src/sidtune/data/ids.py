"""What may name a user or an item: text or a whole number, however the file writes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# Floating-point numbers beyond it leave out whole ones, so two ids may have become one.
LARGEST_FLOAT = 2**53
SUITABLE = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_integer,
    pa.types.is_null,
)


def as_id(value: Any) -> str | None:
    """The id that a value of JSON or of a literal stands for, or None for one that is no id; 17.0 stands for 17."""
    if type(value) is float and value.is_integer() and abs(value) <= LARGEST_FLOAT:
        return str(int(value))
    # Exact types: to Python, true is a whole number.
    return str(value) if type(value) in (str, int) else None


def id_list(values: Any) -> list[str] | None:
    """The ids that the values of a list stand for, or None where one is no id, or there is no list."""
    if not isinstance(values, list):
        return None
    if set(map(type, values)) <= {str, int}:
        return list(map(str, values))
    found = [text for text in map(as_id, values) if text is not None]
    return found if len(found) == len(values) else None


def as_ids(values: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """An Arrow column of ids as text, and which of its values are numbers that are not whole, `(n,)`.

    Raises:
        ArrowTypeError: for a column of another type, such as one of dates.
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        return _whole(values.cast(pa.float64()))
    if not _names(values.type):
        raise pa.ArrowTypeError(f"{values.type} is no type of ids")
    return values.cast(pa.string()), np.zeros(len(values), bool)


def _names(kind: pa.DataType) -> bool:
    """Whether values of a type are text, which some writers mark as bytes, or whole numbers."""
    if pa.types.is_decimal(kind):
        return bool(kind.scale == 0)
    return any(suits(kind) for suits in SUITABLE)


def _whole(values: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    numbers = pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        bad: NDArray[np.bool_] = ~((np.abs(numbers) <= LARGEST_FLOAT) & (numbers == np.trunc(numbers)))
    whole = pa.array(np.where(bad, 0.0, numbers).astype(np.int64), mask=values.is_null().to_numpy(zero_copy_only=False))
    return whole.cast(pa.string()), bad
