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


def about_rows(file: Path) -> int:
    """The rows of Parquet; of text the lines, counted in the first megabytes and scaled up."""
    if kind_of(file) == ".parquet":
        try:
            return int(pyarrow.parquet.read_metadata(file).num_rows)
        except (pa.ArrowException, OSError):
            return 0
    begin, scale = _beginning(file)
    return round((begin.count(b"\n") or 1) * scale)


def about_events(file: Path) -> int:
    """The events of lines `user item item …`, by the same rule."""
    begin, scale = _beginning(file)
    return round((len(begin.split()) - begin.count(b"\n")) * scale)


def _beginning(file: Path) -> tuple[bytes, float]:
    """The first megabytes, and how many times as long the whole text is."""
    with opened(file) as stream:
        begin = stream.read(LOOKED_AT)
    size = file.stat().st_size * (PACKED if file.suffix == ".gz" else 1)
    return begin, 1 if len(begin) < LOOKED_AT else size / len(begin)
