"""Parquet that others wrote: read a few rows at a time, as long as what it says stands in proportion to its size."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from sidtune.base.errors import UserError
from sidtune.files.text import ALWAYS_UNPACKED, MOST_UNPACKED, opened

# Column chunks, which may be as long as the file, are read piece by piece.
BUFFER_BYTES = 1 << 20
# Lists are measured only once they are there: so many rows of them at most.
ROWS_AT_ONCE = 4096
# Far from the 2 GiB that Arrow's arrays of texts end at.
TABLE_BYTES = 1 << 28


@contextmanager
def opened_parquet(path: Path, hint: str = "") -> Iterator[pyarrow.parquet.ParquetFile]:
    """A Parquet file, gzipped or not, whose columns of texts are read as dictionaries: one long text may stand in
    every row.

    Args:
        hint: what to do about a file that cannot be read.

    Raises:
        UserError: for a file that cannot be read, also while it is.
    """
    with opened(path) as stream:
        # Parquet is read from its end, and a gzipped file only from its beginning.
        source = io.BytesIO(stream.read()) if path.suffix == ".gz" else stream
        try:
            # Of a file alone: Arrow's reader of data sets would take `a=1` in its path for a column.
            schema = pyarrow.parquet.ParquetFile(source).schema_arrow
            texts = [field.name for field in schema if _is_text(field.type)]
            yield pyarrow.parquet.ParquetFile(source, read_dictionary=texts, buffer_size=BUFFER_BYTES)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not a readable Parquet file: {str(error)[:200]}", hint) from None


def tables(
    file: pyarrow.parquet.ParquetFile, path: Path, columns: list[str] | None = None, rows: int | None = None
) -> Iterator[pa.Table]:
    """What a file says, every text of it in UTF-8; columns of texts are dictionaries, however the file was written.

    Args:
        columns: the ones to read; all by default.
        rows: of a table, at most; all that fit into `TABLE_BYTES` by default.

    Raises:
        UserError: where that is more than `MOST_UNPACKED` times the file's size.
    """
    waiting: list[pa.Table] = []
    count = size = 0
    said, most = 0, max(ALWAYS_UNPACKED, MOST_UNPACKED * path.stat().st_size)
    piece = min(ROWS_AT_ONCE, rows or ROWS_AT_ONCE)
    for batch in file.iter_batches(piece, columns=columns):
        # Arrow takes texts as they are, and trips over them later.
        batch.validate(full=True)
        plain = sum(map(_size, batch.columns))
        said += plain
        if said > most:
            raise UserError(
                f"{path} says more than {MOST_UNPACKED} times its size",
                "Are its texts that long? If you trust it, write it without dictionaries and compression.",
            )
        waiting.append(pa.table([_compact(column) for column in batch.columns], names=batch.schema.names))
        count, size = count + batch.num_rows, size + plain
        if (rows and count + piece > rows) or size > TABLE_BYTES:
            yield pa.concat_tables(waiting)
            waiting, count, size = [], 0, 0
    if waiting:
        yield pa.concat_tables(waiting)


def read_parquet(path: Path, hint: str) -> pa.Table:
    """The table of a Parquet file; raises as `opened_parquet` and `tables`."""
    with opened_parquet(path, hint) as file:
        plain = [_plain(table) for table in tables(file, path)]
        nothing = pa.table([pa.array([], field.type) for field in file.schema_arrow], file.schema_arrow.names)
        return pa.concat_tables([_plain(nothing), *plain])


def _is_text(kind: pa.DataType) -> bool:
    return any(kind.equals(text) for text in (pa.string(), pa.large_string(), pa.string_view(), pa.binary()))


def _size(column: pa.Array) -> int:
    """How many bytes a column takes once it is plain."""
    if not pa.types.is_dictionary(column.type) or not _is_text(column.type.value_type):
        return int(column.nbytes)
    lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
    return int(column.indices.nbytes) + int(pc.sum(lengths).as_py() or 0)


def _compact(column: pa.Array) -> pa.Array:
    """A column with those texts alone that its rows have: a piece of a file brings the texts of many pieces."""
    if not pa.types.is_dictionary(column.type):
        return column
    used = column.indices.dictionary_encode()
    return pa.DictionaryArray.from_arrays(used.indices, column.dictionary.take(used.dictionary))


def _plain(table: pa.Table) -> pa.Table:
    columns = [pa.chunked_array(map(_decoded, column.chunks), _decoded_type(column.type)) for column in table.columns]
    return pa.table(columns, names=table.column_names)


def _decoded(chunk: pa.Array) -> pa.Array:
    return chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk


def _decoded_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
