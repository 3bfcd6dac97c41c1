"""Reads UTF-8 text, plain or gzipped, and JSON; errors name line and column."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from sidtune.base.errors import UserError, did_you_mean
from sidtune.base.faults import in_words

T = TypeVar("T")

CORRECT_JSON = "Correct it there, or write it again with a JSON library."
JAPANESE = "[ぁ-ヿ一-鿿]{2}"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Gzip compresses text 5 to 50 times; a higher ratio indicates a decompression bomb.
MOST_UNPACKED, ALWAYS_UNPACKED = 200, 1 << 25
BLOCK_BYTES = 1 << 16
# Maximum length of a record in bytes, equal to the limit of a CSV row.
LONGEST_RECORD = 1 << 24


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for sequential reading, decompressed if gzipped, after its byte-order mark.

    Raises:
        UserError: for a missing or empty file, a folder or a pipe; while reading, for a damaged
            file or an excessive compression ratio.
    """
    try:
        _refuse_other_kinds(path)
        with (
            io.BufferedReader(_Unpacked(path)) if path.suffix == ".gz" else path.open("rb")
        ) as file:
            stream = cast(BinaryIO, file)
            start = (
                len(BYTE_ORDER_MARK) if stream.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK else 0
            )
            stream.seek(start)
            if not any(block.strip() for block in iter(lambda: stream.read(BLOCK_BYTES), b"")):
                raise UserError(f"{path} is empty", "Remove it, or write it again.")
            stream.seek(start)
            yield stream
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{path}: damaged gzip file ({error})", "Copy or download it again."
        ) from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror or error}", "Check the path."
        ) from None


def _refuse_other_kinds(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected a file", "Give a file in it.")
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(
            f"no such file: {path}{did_you_mean(path.name, siblings)}", "Check the path."
        )
    if not path.is_file():
        # Files are read more than once, and a pipe may never end.
        raise UserError(
            f"{path} is a pipe or a device, expected a file", "Save its contents to a file."
        )


class _Unpacked(io.RawIOBase):
    """The contents of a gzipped file, with a limit on the compression ratio."""

    def __init__(self, path: Path) -> None:
        self.path, self.most = path, max(ALWAYS_UNPACKED, MOST_UNPACKED * path.stat().st_size)
        self.file = gzip.GzipFile(path)

    def readable(self) -> bool:
        """As `io.RawIOBase`."""
        return True

    def seekable(self) -> bool:
        """As `io.RawIOBase`."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As `io.RawIOBase`."""
        count = self.file.readinto(buffer)
        if self.file.tell() > self.most:
            raise UserError(
                f"{self.path}: the decompressed size exceeds {MOST_UNPACKED} times the file's size",
                "If you trust the file, decompress it first.",
            )
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As `io.RawIOBase`."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """As `io.RawIOBase`."""
        return self.file.tell()

    def close(self) -> None:
        """As `io.RawIOBase`."""
        self.file.close()
        super().close()


def read_lines(path: Path, longest: int | None = None) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their line ends; a byte-order mark and gzip are
    accepted.

    Raises:
        UserError: as `opened` and `decoded_lines`.
    """
    with opened(path) as stream:
        yield from decoded_lines(stream, str(path), longest)


def decoded_lines(stream: BinaryIO, where: str, longest: int | None = None) -> Iterator[str]:
    """Yield the lines of a stream with their line ends, each as soon as it arrives.

    Args:
        longest: maximum length of a line in bytes; no more is buffered.

    Raises:
        UserError: for text that is not UTF-8, and for a longer line.
    """
    most = -1 if longest is None else longest + 1
    for number, line in enumerate(iter(lambda: stream.readline(most), b""), start=1):
        if longest is not None and len(line) > longest:
            raise UserError(
                f"{where}, line {number}: the record exceeds {longest:,} bytes", "Shorten it."
            )
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{where}: not UTF-8: byte 0x{line[error.start]:02x} in line {number}",
                f"Convert it first; if its encoding is {(likely := _likely(line))}, by:"
                f" iconv -f {likely} -t UTF-8 {Path(where).name} > NEW_FILE",
            ) from None


def _likely(line: bytes) -> str:
    """The encoding that a line which is not UTF-8 seems to have: UTF-16, that of Chinese or of
    Japanese texts, or Latin 1.

    UTF-16 begins with a mark. GB 2312 has the common characters, each in two bytes that Latin 1
    hardly has side by side. Read as Shift JIS, Latin 1 gives no two kana or kanji side by side.
    """
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    for codec, name, typical in (("gb2312", "GB18030", ""), ("cp932", "CP932", JAPANESE)):
        with suppress(UnicodeDecodeError):
            if re.search(typical, line.decode(codec)):
                return name
    return "LATIN1"


def read_text(path: Path) -> str:
    """Read a UTF-8 file; raises as `read_lines`."""
    return "".join(read_lines(path))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: as `read_text`, and for invalid JSON (with line and column), duplicate keys and
            numbers that are not finite.
    """
    return parse_json(read_text(path), str(path))


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file whose top level is a non-empty object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(
            f"{path}: expected a JSON object at the top level, found {_kind(value)}",
            "Is it the right file? An object begins with {.",
        )
    if not value:
        raise UserError(
            f"{path}: the JSON object is empty", "Is it the right file? Write it again."
        )
    return value


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON Lines file with their line numbers, counted from 1; empty lines are
    skipped.
    """
    for number, line in enumerate(read_lines(path, LONGEST_RECORD), start=1):
        if line.strip():
            value = parse_json(line.rstrip("\n"), f"{path}, line {number}")
            if not isinstance(value, dict):
                raise UserError(
                    f"{path}, line {number}: expected a JSON object, found {_kind(value)}",
                    "Write one JSON object in each line.",
                )
            yield number, value


def parse_json(text: str, where: str) -> Any:
    """Parse JSON; errors are reported with line and column."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=lambda pairs: _unique(pairs, where),
            parse_float=_finite,
            parse_constant=_finite,
        )
        if "\\ud" in text.lower():
            # Half a surrogate pair is valid JSON but not valid text: tokenizers and files reject
            # it.
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise UserError(
            f"{where}: {half} is half of a surrogate pair",
            "Write the whole surrogate pair, or remove it.",
        ) from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(
            f"{where}: not valid JSON: {error.msg} at {place}",
            CORRECT_JSON,
        ) from None
    except ValueError as error:
        # A number that is not finite, or has thousands of digits; the rest of the message is advice
        # for programmers.
        raise UserError(
            f"{where}: not valid JSON: {str(error).partition(';')[0]}",
            CORRECT_JSON,
        ) from None
    except RecursionError:
        raise UserError(
            f"{where}: the JSON is nested too deeply", "Write it with less nesting."
        ) from None


def _finite(text: str) -> float:
    """Refuse NaN and Infinity, which Python accepts although they are not JSON, and 1e400, which it
    reads as Infinity.

    A number that is not whole, or too large to be exact, must not become another id by rounding.
    """
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.40} is not a finite number")
    rounded = (
        value and value.is_integer() and abs(value) <= 2**53 and Decimal(text) != Decimal(value)
    )
    return math.nextafter(value, math.copysign(math.inf, value)) if rounded else value


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        message = f"{where}: the key {twice!r:.80} occurs twice in one object"
        raise UserError(message, "Remove one of them.")
    return found


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "text", type(None): "null"}.get(
        type(value), type(value).__name__
    )


def read_json_model(path: Path, model: type[T], hint: str) -> T:
    """Read a JSON object into a Pydantic model or a dataclass.

    Args:
        hint: what to do about a file that does not fit.

    Raises:
        UserError: as `read_json_object`; and for the first value that does not fit the model.
    """
    try:
        return TypeAdapter(model).validate_python(read_json_object(path))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise UserError(f"{path}: {place}: {in_words(fault)}", hint) from None
