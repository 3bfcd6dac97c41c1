"""Reads Parquet files in batches, with a limit on the decompressed size."""

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

# Read buffer; column chunks may be as large as the file.
BUFFER_BYTES = 1 << 20
# Maximum rows per batch; the size of lists is known only after reading them.
ROWS_AT_ONCE = 4096
# Well below the 2 GiB limit of Arrow string arrays.
TABLE_BYTES = 1 << 28


@contextmanager
def opened_parquet(path: Path, hint: str = "") -> Iterator[pyarrow.parquet.ParquetFile]:
    """Open a Parquet file, gzipped or not; string columns are read as dictionaries.

    A long text may be repeated in every row.

    Args:
        hint: hint of the error for a file that cannot be read.

    Raises:
        UserError: for a file that cannot be read, on opening or later.
    """
    with opened(path) as stream:
        # Parquet needs random access, which a gzipped file does not offer.
        source = io.BytesIO(stream.read()) if path.suffix == ".gz" else stream
        try:
            # Not Arrow's dataset reader, which would turn `a=1` in the path into a column.
            schema = pyarrow.parquet.ParquetFile(source).schema_arrow
            texts = [field.name for field in schema if _is_text(field.type)]
            yield pyarrow.parquet.ParquetFile(
                source, read_dictionary=texts, buffer_size=BUFFER_BYTES
            )
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}: cannot be read as Parquet: {str(error)[:200]}", hint
            ) from None


def tables(
    file: pyarrow.parquet.ParquetFile,
    path: Path,
    columns: list[str] | None = None,
    rows: int | None = None,
) -> Iterator[pa.Table]:
    """The contents of a file in tables, validated as UTF-8; string columns are dictionaries.

    Args:
        columns: names of the columns to read; all by default.
        rows: maximum rows per table; by default, as many as fit into `TABLE_BYTES`.

    Raises:
        UserError: if the decompressed size exceeds `MOST_UNPACKED` times the file's size.
    """
    waiting: list[pa.Table] = []
    count = size = 0
    said, most = 0, max(ALWAYS_UNPACKED, MOST_UNPACKED * path.stat().st_size)
    piece = min(ROWS_AT_ONCE, rows or ROWS_AT_ONCE)
    for batch in file.iter_batches(piece, columns=columns):
        # Arrow does not validate UTF-8 on reading, and fails later.
        batch.validate(full=True)
        plain = sum(map(_size, batch.columns))
        said += plain
        if said > most:
            raise UserError(
                f"{path}: the decompressed size exceeds {MOST_UNPACKED} times the file's size",
                "If you trust the file, write it again without dictionary encoding and"
                " compression.",
            )
        waiting.append(
            pa.table([_compact(column) for column in batch.columns], names=batch.schema.names)
        )
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
        nothing = pa.table(
            [pa.array([], field.type) for field in file.schema_arrow], file.schema_arrow.names
        )
        return pa.concat_tables([_plain(nothing), *plain])


def _is_text(kind: pa.DataType) -> bool:
    return any(
        kind.equals(text)
        for text in (pa.string(), pa.large_string(), pa.string_view(), pa.binary())
    )


def _size(column: pa.Array) -> int:
    """The size of a column in bytes without dictionary encoding."""
    if not pa.types.is_dictionary(column.type) or not _is_text(column.type.value_type):
        return int(column.nbytes)
    lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
    return int(column.indices.nbytes) + int(pc.sum(lengths).as_py() or 0)


def _compact(column: pa.Array) -> pa.Array:
    """A column with a dictionary reduced to its own values: a batch carries the dictionary of many
    batches.
    """
    if not pa.types.is_dictionary(column.type):
        return column
    used = column.indices.dictionary_encode()
    return pa.DictionaryArray.from_arrays(used.indices, column.dictionary.take(used.dictionary))


def _plain(table: pa.Table) -> pa.Table:
    columns = [
        pa.chunked_array(map(_decoded, column.chunks), _decoded_type(column.type))
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)


def _decoded(chunk: pa.Array) -> pa.Array:
    return chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk


def _decoded_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
