"""Encoded examples in Arrow files: memory-mapped, cached by fingerprint, and checked for damage."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.base.hashing import digest, file_digest
from sidtune.base.ragged import Ragged
from sidtune.base.storage import MATTERS_OF_SPACE
from sidtune.encoding.encoded import Encoded
from sidtune.encoding.encoder import Encoder
from sidtune.tasks.base import Part

# Raised whenever the same files and settings give other examples.
FORMAT_VERSION = 5
EXAMPLES, MANIFEST = "examples.arrow", "manifest.json"
LISTS = pa.large_list(pa.int32())
SCHEMA = pa.schema([("input_ids", LISTS), ("label_spans", LISTS), ("history", pa.int64())])
EXAMPLES_AT_ONCE = 65_536
# Number of retries, and seconds between them, for an entry that another process has just moved.
TRIES, PAUSE = 20, 0.1


@dataclass(frozen=True)
class Counts:
    """Statistics of one encoded task; lengths in tokens."""

    examples: int = 0
    tokens: int = 0
    labels: int = 0
    longest: int = 0
    truncated: int = 0
    dropped: int = 0

    def plus(self, encoded: Encoded) -> Counts:
        """The counts after adding one chunk."""
        lengths = encoded.input_ids.lengths
        return Counts(
            self.examples + len(lengths),
            self.tokens + int(lengths.sum()),
            self.labels + int(_label_counts(encoded.label_spans).sum()),
            max(self.longest, int(lengths.max(initial=0))),
            self.truncated + encoded.truncated,
            self.dropped + encoded.dropped,
        )


class EncodedTask:
    """The encoded examples of one task, read from disk on access.

    Args:
        name: task name.
        folder: a complete cache entry.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.counts, reader = _open(folder)
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        self._input_ids = [_ragged(batch.column("input_ids")) for batch in batches]
        self._label_spans = [_ragged(batch.column("label_spans")) for batch in batches]
        self._starts = np.cumsum([0, *(len(ids) for ids in self._input_ids)])
        self.lengths = _joined([ids.lengths for ids in self._input_ids])
        self.label_counts = _joined([_label_counts(spans) for spans in self._label_spans])
        self.histories = _joined([batch.column("history").to_numpy() for batch in batches])

    def __reduce__(self) -> tuple[type[EncodedTask], tuple[str, Path]]:
        """Pickle only name and path, so that worker processes open the file themselves."""
        return EncodedTask, (self.name, self.folder)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """`input_ids (length,)` and `label_spans (spans, 2)` of one example."""
        batch = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[batch])
        return self._input_ids[batch][row], self._label_spans[batch][row].reshape(-1, 2)


class Corpus:
    """Several encoded tasks as one indexable list of examples."""

    def __init__(self, tasks: Sequence[EncodedTask]) -> None:
        self.tasks = list(tasks)
        self.sizes = [len(task) for task in tasks]
        self._starts = np.cumsum([0, *self.sizes])
        self.lengths = _joined([task.lengths for task in tasks])
        self.label_counts = _joined([task.label_counts for task in tasks])
        self.histories = _joined([task.histories for task in tasks])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
        """`input_ids (length,)`, `label_spans (spans, 2)` and the task's number."""
        task = int(np.searchsorted(self._starts, index, side="right")) - 1
        return *self.tasks[task][index - int(self._starts[task])], task


def cached_task(
    name: str, fingerprint: dict[str, Any], cache_dir: Path, encode: Callable[[], Iterator[Encoded]]
) -> EncodedTask:
    """Load the encoded task from the cache, or encode it and add it to the cache.

    Args:
        name: task name.
        fingerprint: everything the result depends on; its hash names the cache entry.
        cache_dir: folder of all entries.
        encode: yields the task's examples in chunks; called only if there is no valid entry.
    """
    folder = cache_dir / f"{name}-{digest(fingerprint)[:32]}"
    with using_cache(cache_dir):
        if not _sound(folder):
            aside = unused_path(cache_dir)
            try:
                aside.mkdir()
                _write(aside, fingerprint, _apart(encode))
                _publish(aside, folder)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        return EncodedTask(name, folder)


class _Elsewhere(Exception):
    """An error of the operating system that is no fault of the cache."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _apart(encode: Callable[[], Iterator[Encoded]]) -> Iterator[Encoded]:
    """The examples; what fails while they are made, such as reading rows, is no fault of the
    cache.
    """
    try:
        yield from encode()
    except OSError as error:
        raise _Elsewhere(error) from None


@contextmanager
def using_cache(cache_dir: Path) -> Iterator[None]:
    """Create the cache folder; raise `UserError` if it cannot be read or written."""
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        yield
    except _Elsewhere as other:
        raise other.error from None
    except OSError as error:
        full = error.errno in MATTERS_OF_SPACE
        first = "Free disk space there" if full else "Make it readable and writable"
        raise UserError(
            f"encoding.cache_dir {cache_dir} cannot be used: {error.strerror or error}",
            f"{first}, or choose another encoding.cache_dir.",
        ) from None


def unused_path(cache_dir: Path) -> Path:
    """A path for something that is not an entry: incomplete, or moved out of the way."""
    return cache_dir / f".partial-{uuid.uuid4().hex}"


def encode_in_chunks(encoder: Encoder, parts: Sequence[Part]) -> Iterator[Encoded]:
    """Encode parts of any size in bounded memory."""
    for part in parts:
        for start in range(0, len(part), EXAMPLES_AT_ONCE):
            yield encoder.encode(
                part.take(np.arange(start, min(start + EXAMPLES_AT_ONCE, len(part))))
            )


def _write(folder: Path, fingerprint: dict[str, Any], chunks: Iterator[Encoded]) -> None:
    counts = Counts()
    with pa.OSFile(str(folder / EXAMPLES), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for chunk in chunks:
            columns = [
                chunk.input_ids.to_arrow(),
                chunk.label_spans.to_arrow(),
                pa.array(chunk.histories),
            ]
            writer.write_batch(pa.record_batch(columns, SCHEMA))
            counts = counts.plus(chunk)
    manifest = {
        "sha256": file_digest(folder / EXAMPLES),
        "counts": asdict(counts),
        "fingerprint": fingerprint,
    }
    text = json.dumps({**manifest, "digest": digest(manifest)}, indent=1)
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _publish(aside: Path, folder: Path) -> None:
    """Rename a finished entry to its final name, or use the valid entry another process has already
    published.

    Processes on several machines may do this at the same time. No locks are used, since they do not
    work on every shared file system. Folders are only renamed, and a rename never replaces a folder
    that contains files.
    """
    for attempt in range(TRIES):
        try:
            os.rename(aside, folder)
            return
        except OSError:
            if _sound(folder):
                return
            if attempt == TRIES - 1:
                raise
            if os.path.lexists(folder):
                _move_aside(folder)
            else:
                time.sleep(PAUSE)


def _move_aside(folder: Path) -> None:
    """Remove an invalid entry, and restore a valid one that another process has published in the
    meantime.
    """
    with suppress(FileNotFoundError):
        seen = _identity(folder)
        if _sound(folder):
            return
        moved = unused_path(folder.parent)
        os.rename(folder, moved)
        if _identity(moved) == seen and not _sound(moved):
            (
                moved.unlink()
                if moved.is_symlink() or moved.is_file()
                else shutil.rmtree(moved, ignore_errors=True)
            )
            return
        # If a third process has published meanwhile, keep this one where it is: it may be in use.
        with suppress(OSError):
            os.rename(moved, folder)


def _identity(path: Path) -> tuple[int, int, int]:
    """Identifies a folder independently of its name; unchanged by a rename."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _sound(folder: Path) -> bool:
    """Whether a cache entry is complete and undamaged.

    Raises:
        PermissionError: if the entry cannot be read.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest.pop("digest") != digest(manifest):
            return False
        return bool(manifest["sha256"] == file_digest(folder / EXAMPLES))
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _open(folder: Path) -> tuple[Counts, pa.RecordBatchFileReader]:
    """The contents of an entry, which may be missing for a moment while another process restores
    it.
    """
    for _ in range(TRIES):
        with suppress(FileNotFoundError):
            counts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["counts"]
            return Counts(**counts), pa.ipc.open_file(pa.memory_map(str(folder / EXAMPLES)))
        time.sleep(PAUSE)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))


def _ragged(column: pa.LargeListArray) -> Ragged:
    return Ragged(column.values.to_numpy(), column.offsets.to_numpy())


def _label_counts(spans: Ragged) -> NDArray[np.int64]:
    """Number of labels of each example, `(n,)`."""
    lengths = np.concatenate(
        [[0], np.cumsum(spans.values[1::2] - spans.values[::2], dtype=np.int64)]
    )
    return np.diff(lengths[spans.offsets // 2])


def _joined(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.int64), *parts])
