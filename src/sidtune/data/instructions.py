"""Reads instruction data."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from sidtune.base.errors import UserError
from sidtune.files.text import read_jsonl

INSTRUCTIONS = pa.schema([("prompt", pa.string()), ("response", pa.string())])


def read_instructions(path: Path) -> pa.Table:
    """Read JSONL records `prompt, response`; other fields are ignored.

    Raises:
        UserError: names file, line and field of a missing or empty value.
    """
    rows = []
    for line, record in read_jsonl(path):
        for name in INSTRUCTIONS.names:
            value = record.get(name)
            if not isinstance(value, str) or not value:
                raise UserError(
                    f"{path}, line {line}: {name}: expected text, found {value!r:.60}",
                    "Each line is an object with the texts prompt and response.",
                )
        rows.append({name: record[name] for name in INSTRUCTIONS.names})
    return pa.Table.from_pylist(rows, INSTRUCTIONS)
