"""Ids of users and items: text or whole numbers, in any notation of the file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# Above this, floating-point numbers skip integers, so two ids may have become one.
LARGEST_FLOAT = 2**53
LARGEST_OF = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): LARGEST_FLOAT}
# Arrow's plain strings are limited to 2 GiB per column; dictionaries are not, and store repeated
# texts once.
CODES = pa.dictionary(pa.int32(), pa.large_string())
# A whole number as written by a floating-point column.
WHOLE_FLOAT = r"^-?(?:0|[1-9][0-9]{0,15})\.0+$"
ROWS_AT_ONCE = 65_536
# So few ids, as of a request, are looked up one by one.
FEW = 1_024
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
    """The id of a JSON value, or None if it is not an id; 17.0 is the id 17."""
    if type(value) is float and value.is_integer() and abs(value) <= LARGEST_FLOAT:
        return str(int(value))
    # Exact types, since bool is a subclass of int.
    return str(value) if type(value) in (str, int) else None


def number_text(value: float) -> str:
    """A number as a text of an item: 1984.0 is 1984; empty for NaN, by which tables say that there
    is none, and for infinities.
    """
    return (as_id(value) or repr(value)) if math.isfinite(value) else ""


def id_list(values: Any) -> list[str] | None:
    """The ids of a list of JSON values, or None if it is not a list or a value is not an id."""
    if not isinstance(values, list):
        return None
    if set(map(type, values)) <= {str, int}:
        return list(map(str, values))
    found = [text for text in map(as_id, values) if text is not None]
    return found if len(found) == len(values) else None


def split_ids(text: str) -> list[str]:
    """Ids that commas separate; one that contains a comma is in double quotes, as in CSV."""
    if not text.strip():
        return []
    (found,) = csv.reader([" ".join(text.splitlines())], skipinitialspace=True)
    return [name.strip() for name in found if name.strip()]


def join_ids(ids: Sequence[str]) -> str:
    """The text that `split_ids` reads."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(ids)
    return text.getvalue()


def number_id(text: str) -> str | None:
    """The id of a decimal number, or None if it is not whole or too large to be exact
    as a float.
    """
    value = Decimal(text)
    if abs(value) > LARGEST_FLOAT or value != value.to_integral_value():
        return None
    return str(int(value))


def as_ids(values: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """An Arrow column of ids as `large_string`, and a mask of values that are not whole numbers,
    `(n,)`.

    Raises:
        ArrowTypeError: for a column of another type, such as dates.
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if isinstance(values.type, pa.UuidType):
        texts = [None if name is None else str(name) for name in values.to_pylist()]
        values = pa.array(texts, pa.large_string())
    if pa.types.is_floating(values.type):
        return _whole(values)
    if not _names(values.type):
        raise pa.ArrowTypeError(f"{values.type} is not a type of ids")
    return values.cast(pa.large_string()), np.zeros(len(values), bool)


def coded_ids(values: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Like `as_ids`, with ids of type `CODES`: each name once, in order of first occurrence."""
    if pa.types.is_string_view(values.type):
        values = values.cast(pa.large_string())
    coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    # Only names that occur: a batch may carry the dictionary of the whole file.
    used = coded.indices.dictionary_encode()
    names, bad = as_ids(coded.dictionary.take(used.dictionary))
    broken: NDArray[np.bool_] = np.append(bad, False)[_places(used.indices)]
    return pa.DictionaryArray.from_arrays(used.indices, names), broken


def empty_ids(ids: pa.Array) -> NDArray[np.bool_]:
    """Mask of values that are null or empty in a column of type `CODES`, `(n,)`."""
    empty = pc.fill_null(pc.equal(ids.dictionary, ""), True).to_numpy(zero_copy_only=False)
    found: NDArray[np.bool_] = np.append(empty, True)[_places(ids.indices)]
    return found


def _places(indices: pa.Array) -> NDArray[np.int64]:
    """Dictionary codes, -1 for null, `(n,)`."""
    places: NDArray[np.int64] = (
        pc.fill_null(indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    )
    return places


def _names(kind: pa.DataType) -> bool:
    """Whether a type is text (which some writers mark as bytes) or an integer."""
    if pa.types.is_decimal(kind):
        return bool(kind.scale == 0)
    return any(suits(kind) for suits in SUITABLE)


def _whole(values: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    numbers = pc.fill_null(values.cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        bad: NDArray[np.bool_] = ~(
            (np.abs(numbers) <= LARGEST_OF[values.type]) & (numbers == np.trunc(numbers))
        )
    whole = pa.array(
        np.where(bad, 0.0, numbers).astype(np.int64),
        mask=values.is_null().to_numpy(zero_copy_only=False),
    )
    return whole.cast(pa.large_string()), bad


def canonical(ids: pa.Array) -> pa.Array:
    """Ids of type `large_string` with texts such as `17.0` replaced by `17`; others, `17.5` and
    `017.0` too, stay.
    """
    written = pc.fill_null(pc.match_substring_regex(ids, WHOLE_FLOAT), False)
    if not pc.any(written).as_py():
        return ids
    given = ids.filter(written)
    numbers = pc.replace_substring_regex(given, r"\.0+$", "").cast(pa.int64())
    exact = pc.less_equal(pc.abs(numbers), LARGEST_FLOAT)
    return pc.replace_with_mask(
        ids, written, pc.if_else(exact, numbers.cast(pa.large_string()), given)
    )


def is_text(name: str) -> bool:
    """Whether a string can be written as UTF-8: it holds no half of a surrogate pair."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_users(users: pa.Array) -> pa.Array:
    """User ids, of type `CODES` or plain text, as codes with one name per user: `7.0`
    is user `7`.
    """
    coded = (
        users
        if pa.types.is_dictionary(users.type)
        else users.cast(pa.large_string()).dictionary_encode()
    )
    names = canonical(coded.dictionary)
    if names is coded.dictionary:
        return coded
    once = names.dictionary_encode()
    return pa.DictionaryArray.from_arrays(once.indices.take(coded.indices), once.dictionary)


def in_common(columns: Sequence[pa.Array]) -> list[NDArray[np.int64]]:
    """The users of several columns as integers that identify the same user across columns."""
    joined = (
        pa.concat_arrays([as_users(column) for column in columns])
        .indices.to_numpy()
        .astype(np.int64)
    )
    return np.split(joined, np.cumsum([len(column) for column in columns])[:-1])


def as_texts(ids: pa.Array) -> pa.ChunkedArray:
    """A column of type `CODES` as plain text for a file, in chunks within the size limit of Arrow
    strings.
    """
    pieces = [
        ids.slice(start, ROWS_AT_ONCE).cast(pa.large_string())
        for start in range(0, len(ids), ROWS_AT_ONCE)
    ]
    return pa.chunked_array([piece.cast(pa.string()) for piece in pieces], pa.string())


@dataclass(frozen=True)
class Names:
    """Finds ids by name: as written or, where unambiguous, `17.0` for `17` and vice versa.

    Args:
        names: `(m,)`, the ids as written first.
        places: `(m,)`, the position of the id that each name refers to.
    """

    names: pa.Array
    places: NDArray[np.int32]

    @classmethod
    def of(cls, ids: Sequence[str]) -> Names:
        """The names of distinct ids. `17` refers to `17.0` only if no other id is the
        same number.
        """
        written = pa.array(ids, pa.large_string())
        others = canonical(written)
        counts = others.value_counts()
        unclear = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        extra = np.flatnonzero(
            pc.invert(
                pc.or_(pc.equal(written, others), pc.is_in(others, value_set=unclear))
            ).to_numpy(zero_copy_only=False)
        )
        places = np.concatenate([np.arange(len(ids)), extra]).astype(np.int32)
        return cls(pa.concat_arrays([written, others.take(pa.array(extra))]), places)

    def positions(self, ids: pa.Array) -> NDArray[np.int32]:
        """The position of each id in the list, `(n,)`: by exact text, else by equal number; -1 if
        there is none.

        Args:
            ids: strings, or a column of type `CODES`.
        """
        if pa.types.is_dictionary(ids.type):
            found: NDArray[np.int32] = np.append(self.positions(ids.dictionary), np.int32(-1))[
                _places(ids.indices)
            ]
            return found
        texts = ids.cast(pa.large_string())
        at = self._found(texts)
        if (at < 0).any():
            at = np.where(at < 0, self._found(canonical(texts)), at)
        return np.append(self.places, np.int32(-1))[at]

    def _found(self, texts: pa.Array) -> NDArray[np.int64]:
        """The place among the names of each text, -1 if there is none."""
        if len(texts) > FEW:
            return _places(pc.index_in(texts, value_set=self.names))
        return np.array([self._place_of.get(text, -1) for text in texts.to_pylist()], np.int64)

    @cached_property
    def _place_of(self) -> dict[str, int]:
        """Name → place, kept: Arrow makes a table of all names in every call."""
        return {name: place for place, name in enumerate(self.names.to_pylist())}
