"""About how many rows a file has, from its size and its beginning."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from sidtune.files.row_files import kind_of
from sidtune.files.text import opened

LOOKED_AT = 1 << 22
# Text in gzip, as shops and public data sets have it.
PACKED = 4


def about_rows(file: Path, headed: bool) -> int:
    """The rows of Parquet; of text the lines, counted in the first megabytes and scaled up.

    Args:
        headed: the first line of the text names its columns.
    """
    if kind_of(file) == ".parquet":
        try:
            return int(pyarrow.parquet.read_metadata(file).num_rows)
        except (pa.ArrowException, OSError):
            return 0
    begin, scale = _beginning(file)
    return round(_lines(begin, scale) * scale) - headed


def about_events(file: Path) -> int:
    """The events of lines `user item item …`, by the same rule."""
    begin, scale = _beginning(file)
    return round((len(begin.split()) - _lines(begin, scale)) * scale)


def _lines(begin: bytes, scale: float) -> int:
    """Lines of the beginning; of a whole text the last one need not end."""
    return begin.count(b"\n") + (scale == 1 and begin[-1:] not in (b"", b"\n"))


def _beginning(file: Path) -> tuple[bytes, float]:
    """The first megabytes, and how many times as long the whole text is."""
    with opened(file) as stream:
        begin = stream.read(LOOKED_AT)
    size = file.stat().st_size * (PACKED if file.suffix == ".gz" else 1)
    return begin, 1 if len(begin) < LOOKED_AT else size / len(begin)
