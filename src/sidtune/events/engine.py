"""Where expressions run: DuckDB inside this process, or Spark."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.parquet

from sidtune.base.errors import UserError
from sidtune.base.resources import cores, memory
from sidtune.config.events import SparkEngine
from sidtune.events.files import text_fault, text_table

if TYPE_CHECKING:
    import ibis.expr.types as ir

ROWS_AT_ONCE = 1_000_000
# Of the machine's memory, before DuckDB writes to disk.
MEMORY_SHARE = 0.5
NEEDED = {"prepare": ("ibis", "duckdb"), "spark": ("ibis", "duckdb", "pyspark")}


class Engine(Protocol):
    """What the steps ask of an engine."""

    def read(self, files: Sequence[Path]) -> ir.Table:
        """Parquet files of one schema as a table."""

    def read_text(self, files: Sequence[Path], kind: str) -> ir.Table:
        """CSV, TSV or JSON Lines with the same columns as a table of text."""

    def keep(self, table: ir.Table) -> ir.Table:
        """Compute a table now, so that what follows does not compute it again."""

    def once(self, table: ir.Table) -> ir.Table:
        """The same table, whose columns are computed once for each row, however often what follows
        reads them.
        """

    def groups(self, text: ir.StringValue, pattern: str, count: int) -> ir.StructValue:
        """The groups of the pattern's first match, `1` to `count`: empty where they match
        nothing, null where the text is null.
        """

    def forget(self, table: ir.Table) -> None:
        """Let go of a table that `keep` gave; nothing may be computed from it any more."""

    def fetch(self, table: ir.Table) -> pa.Table:
        """A small table."""

    def stream(self, table: ir.Table) -> Iterator[pa.Table]:
        """A sorted table of any size, in its order, a piece at a time."""

    def micros(self, moment: ir.Value) -> ir.Value:
        """Microseconds since 1970 of a point in time; without a zone it is taken as UTC."""


class DuckDB:
    """DuckDB in this process: all cores, and files in `folder` for what does not fit
    into memory.
    """

    def __init__(self, folder: Path) -> None:
        import ibis

        limit = int(memory() * MEMORY_SHARE)
        self.connection = ibis.duckdb.connect(
            temp_directory=str(folder),
            threads=cores(),
            **({"memory_limit": f"{limit // 2**20}MiB"} if limit else {}),
            preserve_insertion_order=False,
            # Nothing is fetched from anywhere.
            autoinstall_known_extensions=False,
        )
        # It would stand among what programs read.
        self.connection.raw_sql("SET enable_progress_bar = false")

    def read(self, files: Sequence[Path]) -> ir.Table:
        """As `Engine`."""
        return _parquet_table(self.connection, files)

    def read_text(self, files: Sequence[Path], kind: str) -> ir.Table:
        """As `Engine`."""
        return text_table(self.connection, files, kind)

    def keep(self, table: ir.Table) -> ir.Table:
        """As `Engine`."""
        import ibis

        return self.connection.create_table(ibis.util.gen_name("kept"), table)

    def once(self, table: ir.Table) -> ir.Table:
        """As `Engine`: Ibis repeats in each place what a view has computed."""
        import ibis

        return self.connection.create_view(ibis.util.gen_name("once"), table)

    def groups(self, text: ir.StringValue, pattern: str, count: int) -> ir.StructValue:
        """As `Engine`: one match for all of them, which Ibis does not know."""
        import ibis

        def regexp_extract(text: Any, pattern: Any, names: Any) -> Any: ...

        names = [str(number) for number in range(1, count + 1)]
        found = f"struct<{', '.join(f'{name}: string' for name in names)}>"
        kinds = (("string", "string", "array<string>"), found)
        return ibis.udf.scalar.builtin(regexp_extract, signature=kinds)(text, pattern, names)

    def forget(self, table: ir.Table) -> None:
        """As `Engine`."""
        self.connection.drop_table(table.op().name)

    def fetch(self, table: ir.Table) -> pa.Table:
        """As `Engine`."""
        return self.connection.to_pyarrow(table)

    def stream(self, table: ir.Table) -> Iterator[pa.Table]:
        """As `Engine`."""
        for batch in self.connection.to_pyarrow_batches(table, chunk_size=ROWS_AT_ONCE):
            yield pa.Table.from_batches([batch])

    def micros(self, moment: ir.Value) -> ir.Value:
        """As `Engine`."""
        return _called("epoch_us", moment.cast("timestamp") if moment.type().is_date() else moment)

    def close(self) -> None:
        """Let go of memory and files."""
        self.connection.disconnect()


class Spark:
    """Spark, on this machine or on a cluster that sees the same files."""

    def __init__(self, master: str, folder: Path) -> None:
        import ibis
        from pyspark.sql import SparkSession

        # Python of the workers is not used, but has to be found.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        log = folder / "log4j2.properties"
        log.write_text("rootLogger.level = off\n", encoding="utf-8")
        settings = {
            "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={log}",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.legacy.parquet.nanosAsLong": "true",
            "spark.sql.parquet.binaryAsString": "true",
            "spark.sql.warehouse.dir": str(folder / "warehouse"),
            "spark.local.dir": str(folder),
        }
        if master.startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            settings |= {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
            settings |= {"spark.sql.shuffle.partitions": "4", "spark.driver.memory": "2g"}
        builder = SparkSession.builder.master(master).appName("sidtune prepare")
        self.session = builder.config(map=settings).getOrCreate()
        self.session.sparkContext.setLogLevel("OFF")
        self.connection = ibis.pyspark.connect(self.session)
        self.folder, self.written = folder, 0

    def read(self, files: Sequence[Path]) -> ir.Table:
        """As `Engine`."""
        import ibis

        if any(isinstance(field.type, pa.UuidType) for field in _schema(files[0])):
            # Spark has no such type.
            files = [self._copied(lambda connection: _parquet_table(connection, files))]
        name = ibis.util.gen_name("events")
        frame = self.session.read.parquet(*map(_literal, files))
        for column, zoned in _in_nanoseconds(files[0]):
            # Spark has no such type, and was told to read a number.
            kind = "timestamp" if zoned else "timestamp_ntz"
            value = frame.selectExpr(
                "*", f"cast(timestamp_micros(`{column}` div 1000) as {kind}) as `_`"
            )
            frame = value.drop(column).withColumnRenamed("_", column)
        frame.createOrReplaceTempView(name)
        return self.connection.table(name)

    def read_text(self, files: Sequence[Path], kind: str) -> ir.Table:
        """As `Engine`: written as Parquet by DuckDB, since each reads the corners of CSV in its own
        way.
        """
        return self.read([self._copied(lambda connection: text_table(connection, files, kind))])

    def keep(self, table: ir.Table) -> ir.Table:
        """As `Engine`; in a file, so that no failing machine has it computed again."""
        return self.read([self._written(table)])

    def once(self, table: ir.Table) -> ir.Table:
        """As `Engine`: Spark by itself repeats nothing that is dear."""
        import ibis

        name = ibis.util.gen_name("once")
        self.session.sql(self.connection.compile(table)).createOrReplaceTempView(name)
        return self.connection.table(name)

    def groups(self, text: ir.StringValue, pattern: str, count: int) -> ir.StructValue:
        """As `Engine`."""
        import ibis

        return ibis.struct(
            {str(number): text.re_extract(pattern, number) for number in range(1, count + 1)}
        )

    def forget(self, table: ir.Table) -> None:
        """As `Engine`; its file goes with the others."""
        self.session.catalog.dropTempView(table.op().name)

    def fetch(self, table: ir.Table) -> pa.Table:
        """As `Engine`."""
        return self.connection.to_pyarrow(table)

    def stream(self, table: ir.Table) -> Iterator[pa.Table]:
        """As `Engine`."""
        # The parts of a sorted table are numbered in its order.
        for part in sorted(self._written(table).glob("part-*.parquet")):
            with pyarrow.parquet.ParquetFile(part) as file:
                for batch in file.iter_batches(ROWS_AT_ONCE):
                    yield pa.Table.from_batches([batch])

    def micros(self, moment: ir.Value) -> ir.Value:
        """As `Engine`."""
        return _called("unix_micros", moment.cast("timestamp('UTC')"))

    def close(self) -> None:
        """Stop the session."""
        self.connection.disconnect()

    def _copied(self, table_of: Callable[[Any], ir.Table]) -> Path:
        """A table of DuckDB as Parquet.

        Args:
            table_of: the table through a connection.
        """
        import ibis

        self.written += 1
        path = self.folder / f"copy-{self.written}.parquet"
        connection = ibis.duckdb.connect(temp_directory=str(self.folder))
        connection.to_parquet(table_of(connection), path)
        connection.disconnect()
        return path

    def _written(self, table: ir.Table) -> Path:
        self.written += 1
        path = self.folder / f"table-{self.written}"
        self.session.sql(self.connection.compile(table)).write.parquet(str(path))
        return path


def _parquet_table(connection: Any, files: Sequence[Path]) -> ir.Table:
    """Parquet files of one schema through DuckDB, UUIDs as text.

    Args:
        connection: Ibis's, to DuckDB.
    """
    # A folder `item=7` of the path is no column: it would replace the file's own. Binary columns
    # are texts of writers that do not say so.
    table = connection.read_parquet(
        [str(file) for file in files], hive_partitioning=False, binary_as_string=True
    )
    names = [name for name, kind in table.schema().items() if kind.is_uuid()]
    return table.mutate(**{name: table[name].cast("string") for name in names}) if names else table


def _called(name: str, moment: ir.Value) -> ir.IntegerValue:
    """A function of the engine's own, which Ibis does not know, from a point in time to a whole
    number.
    """
    import ibis

    def micros(moment: Any) -> Any: ...

    return ibis.udf.scalar.builtin(micros, name=name, signature=((str(moment.type()),), "int64"))(
        moment
    )


@contextmanager
def opened_engine(chosen: str | SparkEngine, folder: Path, source: str) -> Iterator[DuckDB | Spark]:
    """The engine of a configuration.

    Args:
        folder: an existing one, for what the engine writes aside.
        source: what it reads, for messages.

    Raises:
        UserError: where its packages, Java or its cluster are missing, and for what it says of
            files it cannot read.
    """
    require("spark" if isinstance(chosen, SparkEngine) else "prepare")
    with refusing_failures(source):
        engine = Spark(chosen.spark, folder) if isinstance(chosen, SparkEngine) else DuckDB(folder)
        try:
            yield engine
        finally:
            engine.close()


def require(extra: str) -> None:
    """Refuse to go on without the packages of an extra."""
    missing = [name for name in NEEDED[extra] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)} not installed", f"Run: pip install 'sidtune[{extra}]'"
        )


@contextmanager
def refusing_failures(source: str) -> Iterator[None]:
    """Turn what an engine says of its input, its memory or its machines into a `UserError`."""
    import duckdb

    try:
        yield
    except (duckdb.Error, pa.ArrowException) as error:
        if fault := text_fault(str(error)):
            raise fault from error
        raise UserError(f"{source}: DuckDB: {_first_lines(error)}", _remedy(error)) from error
    except Exception as error:
        if not type(error).__module__.startswith(("pyspark.", "py4j.")):
            raise
        raise UserError(
            f"{source}: Spark: {_first_lines(error)}",
            "Spark needs Java 17, and a cluster that answers.",
        ) from error


def _remedy(error: Exception) -> str:
    if type(error).__name__ == "OutOfMemoryException":
        return "Give the machine more memory or disk, or use events.engine: {spark: …}."
    return "Is the file whole, and of the kind that its name says?"


def _first_lines(error: Exception) -> str:
    text = " ".join(" ".join(str(error).splitlines()[:4]).split())
    # What follows is about options of DuckDB's own.
    return text.partition("Possible fixes")[0].strip()[:400]


def _in_nanoseconds(path: Path) -> list[tuple[str, bool]]:
    """The columns of a Parquet file, or folder of them, that are times in nanoseconds, and whether
    they have a zone.
    """
    times = [
        field
        for field in _schema(path)
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns"
    ]
    return [(field.name, field.type.tz is not None) for field in times]


def _schema(path: Path) -> pa.Schema:
    file = path if path.is_file() else next(path.glob("*.parquet"), None)
    return pyarrow.parquet.read_schema(file) if file else pa.schema([])


def _literal(path: Path) -> str:
    """A path in which Spark sees no pattern."""
    return "".join(f"\\{c}" if c in "{}[]*?\\" else c for c in str(path.absolute()))
