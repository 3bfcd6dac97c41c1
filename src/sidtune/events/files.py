"""Which files a configuration names, and the tables of texts among them."""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidtune.base.errors import UserError, did_you_mean
from sidtune.base.hashing import file_digest
from sidtune.files.row_files import UNIX_LINES, kind_of, unreadable_header
from sidtune.files.text import LONGEST_RECORD, opened, read_jsonl, read_lines

if TYPE_CHECKING:
    import ibis.expr.types as ir

DELIMITERS = {".csv": ",", ".tsv": "\t"}
# What spreadsheets put between the columns of a .csv in some countries, and what others do.
OTHER_DELIMITERS = (";", "\t", "|")
JSON_LINES = (".jsonl", ".ndjson")
KINDS = (".parquet", *DELIMITERS, *JSON_LINES)
# Of JSON Lines, so many records say in which order the fields stand.
RECORDS_LOOKED_AT = 1_000
# DuckDB keeps several lines of this length at once.
LONGEST_LINE = 1 << 22


def matching_files(path: Path, key: str, names: str | None = None) -> list[Path]:
    """The files that a path means: itself, those of a folder and its folders, or those that match
    its pattern.

    Args:
        names: what the names of a folder's files match, without `.gz`, where any of them does.

    Raises:
        UserError: where there is none.
    """
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.is_file() and not _hidden(file, path)]
        named = [file for file in found if re.fullmatch(names or "", file.name.removesuffix(".gz"))]
        found = named or found
    elif path.exists() or not glob.has_magic(str(path)):
        found = [path]
    else:
        # A folder that exists is no pattern, whatever its name.
        folder = next(parent for parent in path.parents if parent.is_dir())
        below = glob.glob(str(path.relative_to(folder)), root_dir=folder, recursive=True)
        found = [folder / name for name in below if (folder / name).is_file()]
    if not found:
        raise UserError(f"{key}: no file matches {path}", "Check the path.")
    for file in found:
        if not file.exists():
            siblings = (
                [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
            )
            raise UserError(
                f"{key}: no such file: {file}{did_you_mean(file.name, siblings)}", "Check the path."
            )
        if not file.stat().st_size:
            raise UserError(f"{key}: {file} is empty", "Remove it, or write it again.")
    return sorted(found)


def one_kind(files: Sequence[Path], key: str) -> str:
    """The kind of plain table that all the files are.

    Raises:
        UserError: for a kind that is not known, and for several kinds.
    """
    kinds = {kind_of(file): file for file in files}
    for kind, file in kinds.items():
        if kind not in KINDS:
            raise UserError(
                f"{key}: {file}: unknown kind of file {kind!r}",
                f"Known: {', '.join(KINDS)}, each also with .gz; for files of public data sets give"
                " a format.",
            )
    if len(kinds) > 1:
        raise UserError(
            f"{key}: several kinds of files: {', '.join(kinds)}",
            "Name files of one kind, by a pattern.",
        )
    if kinds.keys() == {".parquet"} and any(file.suffix == ".gz" for file in files):
        raise UserError(
            f"{key}: Parquet in .gz cannot be read in pieces",
            "Unpack it; Parquet is compressed itself.",
        )
    return next(iter(kinds))


def text_table(connection: Any, files: Sequence[Path], kind: str) -> ir.Table:
    """CSV, TSV or JSON Lines through DuckDB, every column as text; the columns are those of the
    first file, of JSON Lines those of all files.

    Args:
        connection: Ibis's, to DuckDB.
    """
    paths = [glob.escape(str(file)) for file in files]
    if kind in JSON_LINES:
        columns = dict.fromkeys(_fields(connection, files, paths, kind), "VARCHAR")
        return connection.read_json(
            paths,
            format="newline_delimited",
            columns=columns,
            maximum_object_size=LONGEST_RECORD,
            hive_partitioning=False,
        )
    names, delimiter = header_of(files[0], kind)
    for file in files[1:]:
        if (other := header_of(file, kind)) != (names, delimiter):
            raise other_columns(file, other[0], files[0], names)
    return connection.read_csv(
        paths,
        columns=dict.fromkeys(names, "VARCHAR"),
        header=True,
        auto_detect=False,
        delim=delimiter,
        quote='"',
        escape='"',
        max_line_size=LONGEST_LINE,
        hive_partitioning=False,
    )


def _fields(connection: Any, files: Sequence[Path], paths: list[str], kind: str) -> list[str]:
    """The fields of JSON Lines: those of the first records in their order, then those that only
    later records have.

    Args:
        paths: the files, for DuckDB.
    """
    first = dict.fromkeys(name for file in files for name in header_of(file, kind)[0])
    every = connection.con.execute(
        "SELECT DISTINCT unnest(json_keys(json)) FROM read_json_objects(?,"
        f" format='newline_delimited', maximum_object_size={LONGEST_RECORD})",
        [paths],
    ).fetchall()
    names = [*first, *sorted({name for (name,) in every} - first.keys())]
    refuse_alike(files[0].parent if len(files) > 1 else files[0], names)
    return names


def refuse_alike(path: Path, names: Sequence[str]) -> None:
    """Refuse columns that differ in case alone: no engine tells them apart."""
    plain: dict[str, str] = {}
    for name in names:
        if (other := plain.setdefault(name.lower(), name)) != name:
            raise UserError(
                f"{path}: the columns {other!r} and {name!r} differ in upper and lower case alone",
                "Rename or remove one of them.",
            )


def other_columns(
    file: Path, names: Sequence[str], first: Path, its_names: Sequence[str]
) -> UserError:
    """Says that two files of one table have other columns."""
    return UserError(
        f"{file} has the columns {', '.join(names)[:200]}, and {first} has"
        f" {', '.join(its_names)[:200]}",
        "Give all files the same columns in the same order.",
    )


def header_of(path: Path, kind: str) -> tuple[list[str], str]:
    """The columns of a text file, from its header or from its first records, and what stands
    between them; in JSON Lines, nothing does.

    Raises:
        UserError: for a header that is broken, or names a column twice or in two ways.
    """
    if kind in JSON_LINES:
        records = islice(read_jsonl(path), RECORDS_LOOKED_AT)
        return list(dict.fromkeys(name for _, record in records for name in record)), ""
    try:
        lines = read_lines(path, LONGEST_RECORD)
        first = next(lines, "")
        delimiter = _delimiter(first, kind)
        names = next(csv.reader(chain([first], lines), delimiter=delimiter), [])
    except csv.Error as error:
        raise unreadable_header(path, first, error) from None
    for name in names:
        if not name.strip() or names.count(name) > 1:
            what = f"the column {name!r} stands twice" if name.strip() else "a column has no name"
            raise UserError(f"{path}: {what}", "Name every column once, in the first line.")
    refuse_alike(path, names)
    return names, delimiter


def _delimiter(header: str, kind: str) -> str:
    """What stands between the columns: in a .csv whose header has no comma, what it has instead."""
    usual = DELIMITERS[kind]
    if kind != ".csv" or usual in header:
        return usual
    other = max(OTHER_DELIMITERS, key=header.count)
    return other if other in header else usual


def text_fault(said: str) -> UserError | None:
    """What DuckDB says of a text file in words about the file; None if it says something else.

    Args:
        said: its error, which ends with the file and the options of its reader.
    """
    file = re.search(r"^  file = (.+)$", said, re.MULTILINE)
    if not file:
        return None
    path, line = Path(file[1]), re.search(r"CSV Error on Line: (\d+)", said)
    where = f"{path}, line {int(line[1])}" if line else str(path)
    if "state machine reached an invalid state" in said and (ends := _line_ends(path)):
        return UserError(f"{path}: {ends}", UNIX_LINES)
    if fields := re.search(r"^Expected Number of Columns: (\d+) Found: (\d+)", said, re.MULTILINE):
        return UserError(
            f"{where}: {fields[2]} fields, and the header has {fields[1]}",
            "Correct or remove the line. A field that holds what separates fields stands in double"
            " quotes.",
        )
    if "unterminated quote" in said:
        return UserError(
            f"{where}: a field in double quotes is not closed, or goes on behind its closing quote",
            'Correct the line. A double quote inside a quoted field is written twice: "".',
        )
    if "not utf-8" in said:
        # Raises with the byte and its line.
        for _ in read_lines(path):
            pass
    if "Maximum line size" in said:
        return UserError(f"{where}: the record exceeds {LONGEST_LINE:,} bytes", "Shorten it.")
    return None


def _line_ends(path: Path) -> str | None:
    """Where a file that ends its lines in several ways does so first, or None."""
    names = {b"\n": "a line feed", b"\r\n": "carriage return and line feed"}
    kept: bytes | None = None
    with opened(path) as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST_RECORD), b""), 1):
            text = line.rstrip(b"\r\n")
            end = line[len(text) :]
            if b"\r" in text:
                return f"line {number} holds a carriage return in its middle"
            kept = kept or end
            if end in names and kept in names and end != kept:
                return f"line {number} ends with {names[end]}, and line 1 with {names[kept]}"
    return None


def digests(files: Sequence[Path]) -> Iterator[str]:
    """What each file holds, as a hash with the ending of its name, which says how it is read."""
    for file in files:
        yield f"{kind_of(file)}:{file_digest(file)}"


def _hidden(file: Path, folder: Path) -> bool:
    """Whether a file is none of the data: writers of folders leave `_SUCCESS` and `.crc` files."""
    return any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
