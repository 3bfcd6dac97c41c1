"""What the files of a folder are: events, items, rows, whole histories, SIDs."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice, product, takewhile
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet

from sidtune.base.errors import UserError
from sidtune.config.events import EventFormat
from sidtune.events.columns import find_column
from sidtune.events.files import DELIMITERS, JSON_LINES, header_of
from sidtune.events.readers import FORMATS, amazon
from sidtune.files.ids import id_list
from sidtune.files.row_files import GENERIC, MINIONEREC, kind_of
from sidtune.files.text import opened, read_json_object, read_lines
from sidtune.setup.counting import about_events, about_rows

Role = Literal["events", "catalogue", "train", "valid", "test", "interactions", "items", "index"]
# Words in the name of a file of rows.
SPLITS: Mapping[Role, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("valid", "val", "dev"),
    "test": ("test",),
}
# Of whole JSON documents, which are read to the end.
LARGEST_DOCUMENT = 1 << 29
LONGEST_LINE = 1 << 20
MOST_FILES = 10_000
# Folders that are parts of one table: `date=2020-01-01`, `2020-01`.
PARTITION = re.compile(r"(?P<key>[^=]+=).*|\d[\d_.-]*")
SEQUENCE_LINES = 20
# Ends the names of S3-Rec's files of items that users do not have.
NEGATIVES = "_sample"


@dataclass(frozen=True)
class Table:
    """One file, or files that are parts of one table, and what it seems to be.

    Args:
        path: the file, or a pattern of files.
        role: what a configuration uses it as; None where that is not clear.
        format: of a public data set.
        names: its columns, where it has some.
        rows: about how many; of `interactions` the training targets of all histories.
        shared: of an index, the number of items that share their SID.
        note: why it cannot be read.
    """

    path: Path
    role: Role | None = None
    format: EventFormat | None = None
    names: tuple[str, ...] = ()
    rows: int = 0
    shared: int = 0
    note: str = ""


def look(folder: Path) -> list[Table]:
    """What each file of a folder, and of the folders in it, seems to be.

    Raises:
        UserError: where there is no such folder, no file in it, or more files than are looked at.
    """
    if folder.is_file():
        raise UserError(
            f"{folder} is a file",
            f"Give the folder of your files: `sidtune init {folder.parent}`. --events names the"
            " table of events in it.",
        )
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder", "Give the folder of your files.")
    try:
        files = list(islice(_files(folder), MOST_FILES + 1))
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read: {error.strerror or error}", "Check its permissions."
        ) from None
    if not files:
        deeper = next((file.parent for file in folder.rglob("*") if file.is_file()), None)
        hint = f"Its files lie deeper: give {deeper}, or a folder above." if deeper else ""
        raise UserError(f"{folder} has no file", hint or "Give the folder of your files.")
    if len(files) > MOST_FILES:
        raise UserError(
            f"{folder} holds more than {MOST_FILES:,} files, too many to look at",
            "Give a folder with some of them, and correct the path in the file that is written: a"
            " pattern such as events/*.parquet stands for all.",
        )
    found = sorted((look_at(file) for file in files), key=_alike)
    tables: dict[tuple[str, ...], list[Table]] = {}
    for _, group in groupby(found, key=_alike):
        same = list(group)
        tables.setdefault(_numbered(same) or _alike(same[0]), []).extend(same)
    return [table for parts in tables.values() for table in _joined(parts)]


def look_at(file: Path) -> Table:
    """What one file seems to be; one that cannot be read says why."""
    try:
        table = next((made for rule in RULES if (made := rule(file))), None)
        if table is None:
            return Table(file, note="not used")
        headed = kind_of(file) in DELIMITERS or table.format == "recbole"
        return replace(table, rows=table.rows or about_rows(file, headed))
    except UserError as error:
        return Table(file, note=f"{error.message.splitlines()[0]}. {error.hint}")


def _files(folder: Path, top: bool = True) -> Iterator[Path]:
    """The files of a folder and of the folders in it; deeper ones of partitions alone."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith((".", "_")):
            continue
        if entry.is_file() and (entry.stat().st_size or not top):
            yield entry
        elif entry.is_dir() and (top or PARTITION.fullmatch(entry.name)):
            yield from _files(entry, top=False)


def _place(table: Table) -> str:
    """The same for files of one folder, and of folders that are partitions of one table."""
    parent = table.path.parent
    if table.format or table.role not in ("events", "catalogue", None):
        return str(parent)
    partitions = [PARTITION.fullmatch(part) for part in parent.parts]
    parts = (
        found["key"] or "0" if found else part
        for part, found in zip(parent.parts, partitions, strict=True)
    )
    return str(Path(*parts))


def _alike(table: Table) -> tuple[str, ...]:
    """The same for files that are parts of one table."""
    apart = "" if table.role in ("events", "catalogue", None) and table.names else str(table.path)
    kind = kind_of(table.path)
    return (_place(table), table.role or "", kind, table.format or "", *table.names, apart)


def _numbered(tables: Sequence[Table]) -> tuple[str, ...] | None:
    """The same for files that are parts of one table, though some have columns that others lack:
    their names differ in digits alone, and what names users, items and times or titles is alike.
    None for other files, and for kinds of which `sidtune prepare` wants the same columns.
    """
    first = tables[0]
    forms = {re.sub(r"\d+", "0", table.path.name) for table in tables}
    if len(forms) > 1 or kind_of(first.path) not in (".parquet", *JSON_LINES):
        return None
    if first.format or first.role not in ("events", "catalogue"):
        return None
    roles = {"events": ("user", "item", "time"), "catalogue": ("id", "title")}[first.role]
    columns = (find_column(role, None, first.names, first.path.name, "") or "" for role in roles)
    return (_place(first), first.role, kind_of(first.path), *forms, *columns)


def _joined(tables: Sequence[Table]) -> list[Table]:
    """Parts of a table as one, by a pattern that matches no other file; each by itself where there
    is none.
    """
    paths = [table.path for table in tables]
    if len(paths) == 1:
        return list(tables)
    first = paths[0]
    ending = "".join(first.suffixes[-2 if first.suffix == ".gz" else -1 :])
    levels = list(zip(*(path.parts for path in paths), strict=True))
    same = len(list(takewhile(_equal, levels)))
    folder = Path(*first.parts[:same])
    choices = [_patterns(names) for names in levels[same:-1]]
    stems = [name.removesuffix(ending) for name in levels[-1]]
    choices.append([f"{pattern}{ending}" for pattern in _patterns(stems)])
    patterns = map("/".join, product(*choices))
    found = next((name for name in patterns if set(folder.glob(name)) == {*paths}), None)
    if found is None:
        return list(tables)
    return [replace(tables[0], path=folder / found, rows=sum(table.rows for table in tables))]


def _patterns(names: Sequence[str]) -> list[str]:
    """What matches all the names, the shortest first."""
    begin = "".join(same[0] for same in takewhile(_equal, zip(*names, strict=False)))
    return ["*", f"{glob.escape(begin)}*"]


def _equal(values: Sequence[str]) -> bool:
    return len(set(values)) == 1


def _recbole(file: Path) -> Table | None:
    kinds: dict[str, Role] = {".inter": "events", ".item": "catalogue"}
    if kind_of(file) not in kinds:
        return None
    names = _names(FORMATS["recbole"].events(file), file)
    return Table(file, kinds[kind_of(file)], "recbole", names)


def _names(tables: Iterator[pa.Table], file: Path) -> tuple[str, ...]:
    """The columns of what a reader gives."""
    first = next(tables, None)
    if first is None:
        raise UserError(f"{file.name} holds no row", "Write it again.")
    return tuple(first.column_names)


def _movielens(file: Path) -> Table | None:
    name = file.name.removesuffix(".gz")
    events = {"ratings.csv", "ratings.dat", "u.data"}
    if name not in events | {"movies.csv", "movies.dat", "u.item"}:
        return None
    if name.endswith(".csv") and "movieId" not in header_of(file, ".csv")[0]:
        return None
    reader = FORMATS["movielens"].events if name in events else FORMATS["movielens"].items
    names = _names(reader(file), file)
    return Table(file, "events" if name in events else "catalogue", "movielens", names)


def _amazon(file: Path) -> Table | None:
    if kind_of(file) not in (".json", *JSON_LINES):
        return None
    with opened(file) as stream:
        line = stream.readline(LONGEST_LINE).strip()
    if not (line.startswith(b"{") and line.endswith(b"}")):
        return None
    names = amazon.first_record(file).keys()
    if {"reviewerID", "asin"} <= names or {"user_id", "parent_asin"} <= names:
        return Table(file, "events", "amazon", tuple(names))
    if names & {"asin", "parent_asin"} and "title" in names:
        return Table(file, "catalogue", "amazon", tuple(names))
    return None


def _document(file: Path) -> Table | None:
    """A whole JSON object: item id → record, item id → SID, or user → item ids."""
    if kind_of(file) != ".json":
        return None
    if file.stat().st_size > LARGEST_DOCUMENT:
        raise UserError(
            f"{file.name}: a JSON document of more than {LARGEST_DOCUMENT:,} bytes",
            "Name it in the configuration yourself.",
        )
    content = read_json_object(file)
    values = list(content.values())
    if "attributes" in file.name.lower() and all(isinstance(value, list) for value in values):
        return Table(file, "catalogue", "sequences", ("id", "title"), len(values))
    if all(isinstance(value, dict) for value in values):
        return Table(file, "items", names=tuple(values[0]), rows=len(values))
    if not all(isinstance(value, list) and value for value in values):
        return None
    if ".inter" not in file.name and (".index" in file.name or _writes_sids(values)):
        return Table(file, "index", rows=len(values), shared=_shared(values))
    if all(id_list(value) is not None for value in values[:SEQUENCE_LINES]):
        # Leaving one out keeps all but three items of a user as targets; see data/leave_one_out.py.
        return Table(file, "interactions", rows=sum(max(len(value) - 3, 0) for value in values))
    return None


def _writes_sids(values: list[list[Any]]) -> bool:
    return all(isinstance(part, str) and part.startswith("<") for part in values[0])


def _shared(values: list[list[Any]]) -> int:
    return len(values) - len({tuple(map(str, value)) for value in values})


def _sequences(file: Path) -> Table | None:
    """Lines of a user and the items of this user, as in S3-Rec."""
    if kind_of(file) not in (".txt", ".inter"):
        return None
    lines = [line.split() for line in islice(read_lines(file), SEQUENCE_LINES)]
    if not all(len(line) > 1 and all(word.isdigit() for word in line) for line in lines):
        return None
    if file.stem.endswith(NEGATIVES) and _whole(file).exists():
        return Table(file, note="drawn items that S3-Rec evaluates with; not used")
    return Table(file, "events", "sequences", ("user", "item", "position"), about_events(file))


def _whole(file: Path) -> Path:
    return file.with_name(file.name.replace(f"{NEGATIVES}.", "."))


def _plain(file: Path) -> Table | None:
    """A table with a header: rows of a split, events or items, by its columns."""
    names = _columns(file)
    if names is None:
        return None
    if {"user_id", "item_id"} <= {*names} and {*names} & {GENERIC[1], MINIONEREC[1]}:
        return Table(file, _split_of(file), names=names)
    user, item, identity, title = (
        find_column(role, None, names, str(file), "events")
        for role in ("user", "item", "id", "title")
    )
    times = [find_column(role, None, names, str(file), "events") for role in ("time", "position")]
    if user and item and any(times):
        return Table(file, "events", names=names)
    if identity and title and not user:
        return Table(file, "catalogue", names=names)
    if any(name.strip().isdigit() for name in names):
        return Table(file, names=names, note="its first line has numbers, not names of columns")
    return Table(file, names=names, note=_lacking(user, item, times))


def _lacking(user: str | None, item: str | None, times: list[str | None]) -> str:
    """What a table that could be one of events lacks; nothing where it has none of it."""
    missing = [
        role
        for role, there in (("users", user), ("items", item), ("times", any(times)))
        if not there
    ]
    if len(missing) == 1:
        return f"a table without a column of {missing[0]} that is known"
    return f"a table; no columns of {' and '.join(missing)} are known" if len(missing) == 2 else ""


def _columns(file: Path) -> tuple[str, ...] | None:
    kind = kind_of(file)
    if kind == ".parquet" and file.suffix != ".gz":
        try:
            return tuple(pyarrow.parquet.read_schema(file).names)
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"{file.name}: not readable as Parquet: {str(error)[:100]}", "Write it again."
            ) from None
    return tuple(header_of(file, kind)[0]) if kind in (*DELIMITERS, *JSON_LINES) else None


def _split_of(file: Path) -> Role | None:
    """The split of a file of rows: by its name, or by its folder, as in MiniOneRec's data."""
    for name, whole in ((file.name.lower(), False), (file.absolute().parent.name.lower(), True)):
        for split, words in SPLITS.items():
            if any(word == name if whole else word in name for word in words):
                return split
    return None


# The first that knows a file decides.
RULES: tuple[Callable[[Path], Table | None], ...] = (
    _recbole,
    _movielens,
    _amazon,
    _document,
    _plain,
    _sequences,
)
