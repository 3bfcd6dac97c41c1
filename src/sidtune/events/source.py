"""Events as they are given, in one shape: files of any kind, public data sets, or a table of a
database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from sidtune.base.errors import UserError
from sidtune.base.hashing import file_digest
from sidtune.config.events import EventsConfig
from sidtune.events.columns import find_column, needed_column
from sidtune.events.engine import Engine, refusing_failures
from sidtune.events.files import digests, matching_files, one_kind, other_columns, refuse_alike
from sidtune.events.moments import trimmed, with_parts
from sidtune.events.readers import FORMATS
from sidtune.events.readers.format import Format
from sidtune.events.times import numbers, rounded, time_columns
from sidtune.files.ids import canonical

if TYPE_CHECKING:
    import ibis.expr.types as ir

ROLES = ("user", "item", "time", "position", "rating", "type")
LARGEST_WHOLE = {"float16": 2**11, "float32": 2**24, "float64": 2**53}


@dataclass
class Source:
    """Where events come from.

    Args:
        files: those of `events.files`; none for a database.
        staged: a Parquet file that was written of what no engine reads, if one was.
        digests: what the events are, whatever they are called.
    """

    files: list[Path]
    staged: Path | None
    digests: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Given:
    """All events, one a row: `user` and `item` (text), what `time_columns` gives, `position`,
    `rating`, `type`.

    Args:
        table: the events; what a table does not have is null, and a rating that is no number NaN.
        columns: role → the column that has it; a role that no column has is left out.
        text: whether reading the table parses text.
    """

    table: ir.Table
    columns: dict[str, str]
    text: bool

    def kept(self, engine: Engine) -> Given:
        """The same, where text is parsed now and only once."""
        return replace(self, table=engine.keep(self.table)) if self.text else self


def find_source(config: EventsConfig, folder: Path) -> Source:
    """The files of a configuration; a database is read now, into `folder`.

    Raises:
        UserError: where there is nothing to read, or nothing that can be read.
    """
    if config.database is None:
        files = event_files(config)
        if config.format is None:
            one_kind(files, "events.files")
        return Source(files, None, list(digests(files)))
    staged = folder / "database.parquet"
    write_parquet(_of_database(config.database, config.table or ""), staged)
    return Source([], staged, [file_digest(staged)])


def event_files(config: EventsConfig) -> list[Path]:
    """The files of `events.files`; raises as `matching_files`."""
    assert config.files is not None
    names = FORMATS[config.format].event_names if config.format else None
    return matching_files(config.files, "events.files", names)


def place_of(config: EventsConfig) -> str:
    """Where the events are, for messages."""
    return str(config.files or f"events.table {config.table}")


def given_events(config: EventsConfig, source: Source, engine: Engine, folder: Path) -> Given:
    """The events of a source through an engine.

    Args:
        folder: for what has to be written as Parquet first.

    Raises:
        UserError: for columns that are missing or of a type that cannot be.
    """
    where = place_of(config)
    tables = list(_tables(config, source, engine, folder))
    found = [_columns(config, table.columns, where) for table in tables]
    shaped = [
        _shaped(engine, table, columns, where) for table, columns in zip(tables, found, strict=True)
    ]
    joined = shaped[0].union(*shaped[1:]) if len(shaped) > 1 else shaped[0]
    read_as_text = bool(config.format) or (
        bool(source.files) and one_kind(source.files, "events.files") != ".parquet"
    )
    text = read_as_text or any(
        table[columns["time"]].type().is_string()
        for table, columns in zip(tables, found, strict=True)
        if "time" in columns
    )
    columns = {role: name for columns in reversed(found) for role, name in columns.items()}
    return Given(joined, columns, text)


def write_parquet(tables: Iterable[pa.Table], path: Path) -> None:
    """Write tables of one schema, one after another.

    Raises:
        UserError: where there is no row.
    """
    writer = None
    try:
        for table in tables:
            writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer:
            writer.close()
    if writer is None:
        raise UserError(
            "the events hold no row", "Look at the files, or at the table of the database."
        )


def _of_database(address: str, table: str) -> Iterator[pa.Table]:
    import ibis

    address = address if "://" in address else f"duckdb://{address}?read_only=true"
    with refusing_failures(f"events.table {table}"):
        try:
            connection = ibis.connect(address)
        except Exception as error:
            # Each driver has errors of its own.
            raise UserError(
                f"events.database: {str(error)[:200]}",
                "Give the address as Ibis takes it, such as duckdb:///data/shop.duckdb or"
                " sqlite:///data/shop.sqlite, and install its driver.",
            ) from None
        try:
            if table not in (known := connection.list_tables()):
                raise UserError(
                    f"events.database has no table {table!r}; found {', '.join(known)[:300]}",
                    "Name one of these: events.table=TABLE.",
                )
            for batch in connection.to_pyarrow_batches(connection.table(table)):
                yield pa.Table.from_batches([batch])
        finally:
            connection.disconnect()


def _tables(
    config: EventsConfig, source: Source, engine: Engine, folder: Path
) -> Iterator[ir.Table]:
    """What the source holds, in its own columns: one table for each schema."""
    if source.staged:
        yield engine.read([source.staged])
    elif config.format:
        staged = folder / "events.parquet"
        write_parquet(_of_format(FORMATS[config.format], source.files), staged)
        yield engine.read([staged])
    elif (kind := one_kind(source.files, "events.files")) == ".parquet":
        for _, same in groupby(sorted(source.files, key=_schema), key=_schema):
            yield engine.read(list(same))
    else:
        yield engine.read_text(source.files, kind)


def _of_format(data_set: Format, files: Sequence[Path]) -> Iterator[pa.Table]:
    """The tables of all files of a public data set.

    Raises:
        UserError: for files of other columns, and for a user with lists in two files, since their
            order is not known.
    """
    names: list[str] = []
    owners: dict[str, Path] = {}
    for file in files:
        for table in data_set.events(file):
            if not names:
                names = table.column_names
                refuse_alike(file, names)
            if table.column_names != names:
                raise other_columns(file, table.column_names, files[0], names)
            if data_set.lists and len(files) > 1:
                for user in canonical(pc.unique(table["user"])).to_pylist():
                    if (owner := owners.setdefault(user, file)) != file:
                        raise UserError(
                            f"user {user} stands in {owner} and in {file}",
                            "Join the two lists in time order, in one file.",
                        )
            yield table


def _schema(file: Path) -> str:
    """The schema of a Parquet file: ids may be numbers in one file and text in another."""
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            schema = opened.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{file}: not a readable Parquet file: {str(error)[:200]}", "Write it again."
        ) from None
    refuse_alike(file, schema.names)
    return str([(one.name, str(one.type)) for one in schema])


def _columns(config: EventsConfig, names: Sequence[str], where: str) -> dict[str, str]:
    found = {
        role: needed_column(role, getattr(config, role), names, where, "events")
        for role in (
            "user",
            "item",
            *(["type"] if config.types else []),
            *(["rating"] if config.min_rating is not None else []),
        )
    }
    for role in ROLES:
        if role not in found and (
            name := find_column(role, getattr(config, role), names, where, "events")
        ):
            found[role] = name
    if "time" not in found and "position" not in found:
        raise UserError(
            f"{where}: events without time: no column is known as the time; found"
            f" {', '.join(names)[:500]}",
            "Name it: events.time=COLUMN, or events.position=COLUMN for the order within a user's"
            " events.",
        )
    return found


def _shaped(engine: Engine, table: ir.Table, columns: dict[str, str], where: str) -> ir.Table:
    import ibis

    time = columns.get("time")
    if time and table[time].type().is_string():
        table = with_parts(engine, table, time)

    def column(role: str, kind: str) -> ir.Value:
        return table[columns[role]] if role in columns else ibis.null(kind)

    whole, real = numbers(column("position", "int64"))
    return table.select(
        user=_id(table[columns["user"]], f"{where}, column {columns['user']}"),
        item=_id(table[columns["item"]], f"{where}, column {columns['item']}"),
        **time_columns(engine, table, time, f"{where}, column {time}"),
        position=whole.coalesce(rounded(real)),
        position_real=real,
        rating=_rating(column("rating", "float64")),
        type=column("type", "string").cast("string"),
    )


def _rating(column: ir.Value) -> ir.FloatingValue:
    """A rating; null where there is none, and NaN for a text that is no number."""
    import ibis

    written = trimmed(column) if column.type().is_string() else column
    number = written.try_cast("float64")
    # Not a number is how floating-point columns write that there is none.
    number = number.isnan().ifelse(ibis.null("float64"), number)
    if not column.type().is_string():
        return number
    return (number.isnull() & (written != "")).ifelse(ibis.literal(float("nan")), number)


def _id(column: ir.Value, where: str) -> ir.StringValue:
    """An id as text; null for a number that is not whole, or too large to tell its neighbours
    apart.
    """
    import ibis

    kind = column.type()
    whole = kind.is_integer() or (kind.is_decimal() and kind.scale == 0)
    if whole or kind.is_string():
        return column.cast("string")
    if kind.is_floating():
        exact = (column.cast("float64").round() == column.cast("float64")) & (
            column.cast("float64").abs() <= LARGEST_WHOLE[str(kind).removesuffix("!")]
        )
        return exact.ifelse(column, ibis.null(kind)).cast("int64").cast("string")
    raise UserError(
        f"{where}: expected ids, found values of type {kind}", "Ids are text or whole numbers."
    )
