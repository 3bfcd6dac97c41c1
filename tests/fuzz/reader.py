"""A reader under test: its files are harmed as a seed says, and it may refuse them or read them
right.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import yaml
from tests.fuzz.mutations import as_json, harmed, reencoded, wrong_table, wrong_tree

from sidtune.base.errors import UserError

Files = dict[str, bytes]


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Args:
        files: valid ones, by their names below the folder.
        read: reads them in a folder, and asserts what holds for what it accepts.
        harm: names of the files that are harmed; all by default.
        pace: one in so many inputs of the other readers; some take long to start.
        mends: whether it may write again what it finds damaged.
    """

    files: Callable[[], Files]
    read: Callable[[Path], Any]
    harm: tuple[str, ...] = ()
    pace: int = 1
    mends: bool = False

    @property
    def json_file(self) -> str | None:
        """The first file that is harmed, where it holds JSON."""
        name, *_ = self.harm or tuple(self.files())
        return name if name.endswith((".json", ".jsonl")) else None

    def __call__(self, name: str, seed: int, folder: Path) -> None:
        """Write the files of a seed, read them; seed 0 is valid and must be accepted."""
        r = Random(f"{name} {seed}")
        files = dict(self.files())
        target = r.choice(self.harm or tuple(files))
        if seed:
            files[target] = _hostile(target, files[target], r)
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        try:
            self.read(folder)
        except UserError:
            assert seed, "valid files were refused"
            raise
        finally:
            left = {
                file: (folder / file).read_bytes() for file in files if (folder / file).exists()
            }
            assert self.mends or left == files, "a reader changed what it read"


def _hostile(name: str, content: bytes, r: Random) -> bytes:
    if name.endswith(".gz") and r.random() < 0.7:
        return gzip.compress(_hostile(name.removesuffix(".gz"), gzip.decompress(content), r), 1)
    kind = r.random()
    if kind < 0.15:
        return reencoded(content, r)
    try:
        if kind < 0.6 and name.endswith(".json"):
            return as_json(wrong_tree(json.loads(content), r), r)
        if kind < 0.6 and name.endswith(".jsonl"):
            lines = content.splitlines()
            at = r.randrange(len(lines))
            lines[at] = as_json(wrong_tree(json.loads(lines[at]), r), r).replace(b"\n", b"")
            return b"\n".join(lines) + b"\n"
        if kind < 0.6 and name.endswith(".yaml"):
            tree = wrong_tree(yaml.safe_load(content), r)
            return yaml.dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
        if kind < 0.7 and name.endswith(".parquet"):
            return parquet_bytes(wrong_table(pyarrow.parquet.read_table(io.BytesIO(content)), r), r)
    except (pa.ArrowException, RecursionError):
        pass  # such a file cannot be written
    return harmed(content, r)


def json_bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def lines_bytes(values: list[Any]) -> bytes:
    return b"".join(json_bytes(value) + b"\n" for value in values)


def parquet_bytes(table: pa.Table, r: Random | None = None) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(
        table, sink, compression=r.choice(["snappy", "none", "zstd"]) if r else "none"
    )
    return sink.getvalue()
