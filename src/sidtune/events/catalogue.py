"""The catalogue: items and their texts, cleaned, each with the reason for which it is left out."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.config.events import CatalogueConfig
from sidtune.data.html import ENTITY, TAG, html_in, is_entity
from sidtune.events.columns import like_named, needed_column
from sidtune.events.engine import refusing_failures
from sidtune.events.files import matching_files, one_kind, text_table
from sidtune.events.readers import FORMATS
from sidtune.events.readers.amazon import plain_text
from sidtune.files.ids import as_ids, canonical
from sidtune.files.parquet import read_parquet

ID, TITLE = "item_id", "title"
# What a browser shows nothing of.
HIDDEN = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
TAGS = re.compile(TAG, re.IGNORECASE)
ENTITIES = re.compile(ENTITY)
BLANKS = re.compile(r"\s+")
# Texts; writers of some files say no more than that they are bytes.
TEXTUAL = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
)
SUSPECT = r"[<&]|\s\s|[\t\r\n\f\v\x00-\x1f]|^\s|\s$"
# Written twice and three times over by web shops; more often it is meant.
MOST_ESCAPES = 3


@dataclass(frozen=True)
class Items:
    """A catalogue.

    Args:
        table: `item_id`, `title` and other columns, all of them texts and none null; ids are
            distinct and ascending.
        verdicts: `(n,)` texts, null for sound items: a step and what is wrong, such as
            `catalogue.title: no title`.
        columns: role → the column of the file that has it.
        counts: what was found in the file.
    """

    table: pa.Table
    verdicts: pa.Array
    columns: dict[str, str]
    counts: dict[str, int]


def read_items(config: CatalogueConfig, named: str | None = None) -> Items:
    """Read and clean a catalogue.

    Args:
        named: the column of items in the events: where the catalogue has a column of that name,
            and `catalogue.id` names no other one, it is the id.

    Raises:
        UserError: for files and columns that are missing, and where every item has the same title.
    """
    files = item_files(config)
    where = str(config.file)
    tables = _tables(config, files)
    try:
        given = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise UserError(f"{where}: {error}", "Give each column one type in all files.") from None
    names = given.column_names
    named_id = config.id or (like_named(named, names) if named else None)
    columns = {
        role: needed_column(role, given, names, where, "catalogue")
        for role, given in (("id", named_id), ("title", config.title))
    }
    texts = _text_columns(config, names, columns, where)
    ids, nameless = _ids(given[columns["id"]], where, columns["id"])
    first, repeated, different = _first_of_each(ids, given)
    table = {ID: ids.take(first)}
    for name in texts:
        texts_of = _texts(given[name], config.html, f"{where}, column {name}")
        table[TITLE if name == columns["title"] else name] = texts_of.take(first)
    cleaned = pa.table(table)
    counts = {
        "read": given.num_rows,
        "without_id": nameless,
        "repeated_ids": repeated,
        "repeated_ids_with_other_texts": different,
    }
    _refuse_one_title(cleaned, where, columns["title"])
    return Items(cleaned, _verdicts(cleaned, config), columns, counts)


def item_files(config: CatalogueConfig) -> list[Path]:
    """The files of `catalogue.file`; raises as `matching_files`."""
    names = FORMATS[config.format].item_names if config.format else None
    return matching_files(config.file, "catalogue.file", names)


def write_verdicts(items: Items, folder: Path) -> Path:
    """Write `name` and `verdict` of all items, for an engine to read."""
    path = folder / "verdicts.parquet"
    table = {"name": items.table[ID].cast(pa.string()), "verdict": items.verdicts}
    pyarrow.parquet.write_table(pa.table(table), path)
    return path


def write_items(items: Items, kept: NDArray[np.bool_], path: Path) -> None:
    """Write those items that are marked, `(n,)`."""
    pyarrow.parquet.write_table(items.table.filter(pa.array(kept)), path, compression="zstd")


def clean(text: str) -> str:
    """A text of a web page as plain text: without tags, entities as what they stand for, single
    blanks.

    Args:
        text: also one whose entities were escaped again.
    """
    for _ in range(MOST_ESCAPES):
        # Only what ends in a semicolon: `&notes` is none, though browsers read `¬es`.
        plain = ENTITIES.sub(_unescaped, TAGS.sub(" ", HIDDEN.sub(" ", text)))
        if plain == text:
            break
        text = plain
    shown = "".join(c if c.isprintable() or c.isspace() else " " for c in TAGS.sub(" ", text))
    return BLANKS.sub(" ", shown).strip()


def _unescaped(entity: re.Match[str]) -> str:
    """What an entity stands for; one that is none stays, as in `&notit;`."""
    written = entity.group()
    return html.unescape(written) if is_entity(written) else written


def _tables(config: CatalogueConfig, files: Sequence[Path]) -> list[pa.Table]:
    if config.format:
        reader = FORMATS[config.format].items
        found = [table for file in files for table in reader(file)]
    elif files[0].name.removesuffix(".gz").endswith(".json"):
        # Item id → record, as `data.items` has it.
        found = [table for file in files for table in FORMATS["sequences"].items(file)]
    elif (kind := one_kind(files, "catalogue.file")) == ".parquet":
        found = [read_parquet(file, "Write it again.") for file in files]
    else:
        found = [text_items(files, kind)]
    if not sum(table.num_rows for table in found):
        raise UserError(
            f"catalogue.file: {config.file} holds no item",
            "Is it the right file? catalogue.file names it.",
        )
    return found


def text_items(files: Sequence[Path], kind: str) -> pa.Table:
    """CSV, TSV or JSON Lines as a table of texts, in the order of the files."""
    import ibis

    with refusing_failures(str(files[0])):
        connection = ibis.duckdb.connect()
        try:
            return connection.to_pyarrow(text_table(connection, files, kind))
        finally:
            connection.disconnect()


def _text_columns(
    config: CatalogueConfig, names: Sequence[str], columns: dict[str, str], where: str
) -> list[str]:
    """The title's column and those of other texts; all that the file has by default."""
    others = list(names) if config.text is None else list(config.text)
    for name in others:
        if name not in names:
            raise UserError(
                f"{where}: no column {name!r} of catalogue.text; found {', '.join(names)[:500]}",
                "Name columns of the file, or leave catalogue.text out to keep all.",
            )
    chosen = [name for name in others if name not in columns.values()]
    for name in chosen:
        if name in (ID, TITLE):
            raise UserError(
                f"{where}: the column {name!r} is neither the id nor the title, and has the name"
                " that it gets",
                "List the other texts by catalogue.text, or rename the column.",
            )
    return [columns["title"], *chosen]


def _ids(column: pa.ChunkedArray, where: str, name: str) -> tuple[pa.Array, int]:
    """Ids as they are compared, null where there is none, and how many are null."""
    values = column.combine_chunks()
    try:
        texts, broken = as_ids(values)
    except pa.ArrowException:
        raise UserError(
            f"{where}, column {name}: expected ids, found {values.type}",
            "Ids are text or whole numbers. Is it the right column? catalogue.id names it.",
        ) from None
    trimmed = canonical(pc.utf8_trim_whitespace(texts))
    unwritable = pc.fill_null(pc.match_substring_regex(trimmed, r"[\x00-\x1f]"), False)
    bad = np.asarray(broken) | unwritable.to_numpy(zero_copy_only=False)
    bad |= pc.fill_null(pc.equal(trimmed, ""), True).to_numpy(zero_copy_only=False)
    return pc.if_else(pa.array(bad), pa.scalar(None, trimmed.type), trimmed), int(bad.sum())


def _first_of_each(ids: pa.Array, given: pa.Table) -> tuple[pa.Array, int, int]:
    """The first row of each id, in the order of ids; how many rows repeat one, and how many say
    something else.
    """
    # What has no id comes last.
    order = pc.sort_indices(ids).to_numpy()[: len(ids) - ids.null_count]
    codes = ids.dictionary_encode().indices.fill_null(-1).to_numpy()[order]
    opens = np.flatnonzero(np.diff(codes, prepend=-2))
    # The sort is not stable: of the rows of one id the first in the file is the least.
    first = np.minimum.reduceat(order, opens) if len(order) else order
    repeats = np.setdiff1d(order, first)
    owner = dict(zip(ids.take(pa.array(first)).to_pylist(), first.tolist(), strict=True))
    owners = pa.array([owner[name] for name in ids.take(pa.array(repeats)).to_pylist()], pa.int64())
    pairs = zip(
        given.take(pa.array(repeats)).to_pylist(), given.take(owners).to_pylist(), strict=True
    )
    different = sum(row != other for row, other in pairs)
    return pa.array(first), len(repeats), different


def _texts(column: pa.ChunkedArray, rule: str, where: str) -> pa.Array:
    """A column of anything as texts, cleaned where the rule is to clean; what is missing is an
    empty text.
    """
    values = column.combine_chunks()
    if not any(suits(values.type) for suits in TEXTUAL):
        values = pa.array([plain_text(value) for value in values.to_pylist()], pa.large_string())
    try:
        texts = pc.fill_null(values.cast(pa.large_string()), "")
    except pa.ArrowException:
        raise UserError(
            f"{where}: the bytes are no text in UTF-8",
            "Name the columns of texts: catalogue.text=[COLUMN, …].",
        ) from None
    if rule != "clean":
        return texts
    found = pc.match_substring_regex(texts, SUSPECT)
    cleaned = [clean(text) for text in texts.filter(found).to_pylist()]
    return pc.replace_with_mask(texts, found, pa.array(cleaned, pa.large_string()))


def _refuse_one_title(table: pa.Table, where: str, column: str) -> None:
    distinct = pc.unique(table[TITLE])
    if table.num_rows > 1 and len(distinct) == 1 and distinct[0].as_py():
        raise UserError(
            f"{where}, column {column}: every item has the same title: {distinct[0].as_py()!r:.80}",
            "Is it the right column? catalogue.title names it.",
        )


def _verdicts(table: pa.Table, config: CatalogueConfig) -> pa.Array:
    rules: list[tuple[str, Callable[[str], bool]]] = [
        ("catalogue.title: item has no title", lambda text: not text.strip())
    ]
    if config.html == "drop":
        rules.append(("catalogue.html: title holds HTML", lambda text: html_in(text) is not None))
    if (most := config.max_title_words) is not None:
        rules.append(
            (
                f"catalogue.max_title_words: title of more than {most} words",
                lambda t: len(t.split()) > most,
            )
        )
    return pa.array(_judged(table[TITLE].to_pylist(), rules), pa.string())


def _judged(
    titles: Sequence[Any], rules: Sequence[tuple[str, Callable[[str], bool]]]
) -> Iterator[str | None]:
    for title in titles:
        yield next((verdict for verdict, breaks in rules if breaks(title)), None)
