"""`sidtune recommend` for many histories: reads lines and writes answers in batches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sidtune.base.errors import UserError
from sidtune.base.terminal import visible
from sidtune.config.search import RankOptions
from sidtune.decoding.answers import read_candidates
from sidtune.decoding.recommender import Recommendation, Recommender, check_size
from sidtune.files.ids import as_id, id_list, split_ids
from sidtune.files.text import LONGEST_RECORD, decoded_lines, parse_json, read_lines

# Lines per batch: enough for full forward passes, few enough to answer soon.
LINES_AT_ONCE = 1024
# Titles of a history that are shown beside its list.
TITLES_SHOWN = 3


@dataclass(frozen=True)
class Answer:
    """The recommendations for one history.

    Args:
        user_id: the user id of the line, if given.
        unknown: items of the history that are not in the catalogue; they are ignored.
        items: best first; empty if no item of the history is known, or the prompt is too long.
        fits: whether the prompt fits the model's `cutoff_len`.
        latest: titles of the latest items of the history, oldest first; ids where there are none.
    """

    user_id: Any
    unknown: list[str]
    items: list[Recommendation]
    fits: bool = True
    latest: tuple[str, ...] = ()


def load(
    folder: Path, candidates: Path | None, trust_remote_code: bool, rank: bool = True
) -> Recommender:
    """The recommender of a folder, restricted to the items of a file if one is given."""
    recommender = Recommender.load(folder, trust_remote_code=trust_remote_code, rank=rank)
    return recommender.among(read_candidates(candidates)) if candidates else recommender


def histories(
    recommender: Recommender, history: str | None, source: Path | None
) -> Iterator[tuple[Any, list[str]]]:
    """The one history given as text, or those of a file or of standard input (`-`), line by line.

    Raises:
        UserError: for items of the one history that the catalogue does not have, and for lines of
            another shape.
    """
    if history is not None:
        items = split_ids(history)
        recommender.positions([items])
        yield None, items
    elif str(source) == "-":
        yield from read_histories(_standard_input(), "standard input")
    else:
        assert source is not None
        yield from read_histories(read_lines(source, LONGEST_RECORD), str(source))


def _standard_input() -> Iterator[str]:
    """Line by line, so that a pipe is answered while it is written."""
    lines = decoded_lines(sys.stdin.buffer, "standard input", LONGEST_RECORD)
    try:
        for line in islice(lines, 1):
            yield line.removeprefix("\ufeff")
        yield from lines
    except OSError as error:
        raise UserError(
            f"standard input cannot be read: {error.strerror}", "Redirect a file or a pipe to it."
        ) from None


def read_histories(lines: Iterable[str], where: str) -> Iterator[tuple[Any, list[str]]]:
    """User and history of JSON lines such as `{"user_id": "u1", "history": ["17", "4"]}`.

    Raises:
        UserError: names the line that is something else.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            value = parse_json(line, f"{where}, line {number}")
            items, user = (
                value.get(name) if isinstance(value, dict) else None
                for name in ("history", "user_id")
            )
            history = id_list(items)
            if history is None:
                raise UserError(
                    f"{where}, line {number}: expected an object with a history, a list of item"
                    f" ids, found {line:.80}",
                    'Example: {"user_id": "u1", "history": ["17", "4"]}.',
                )
            if user is not None and as_id(user) is None:
                raise UserError(
                    f"{where}, line {number}: user_id: expected text or a whole number, found"
                    f" {user!r:.60}",
                    "Write user_id as text or as a whole number, or leave it out.",
                )
            yield user, history


def answer(
    recommender: Recommender,
    histories: Iterable[tuple[Any, Sequence[str]]],
    k: int,
    options: RankOptions,
) -> Iterator[Answer]:
    """Answer histories in the order they come, in bounded memory; items that nobody knows are
    passed over.
    """
    options = recommender.settled(options, said=True)
    check_size(k, options.width)
    catalogue = recommender.bundle.catalogue
    waiting = iter(histories)
    while batch := list(islice(waiting, LINES_AT_ONCE)):
        located = recommender.located([history for _, history in batch])
        known = located.keep(located.values >= 0)
        asked = np.flatnonzero(known.lengths)
        found = iter(recommender.answer(known.take(asked), k, options) if len(asked) else [])
        for row, (user, history) in enumerate(batch):
            unknown = [item for item, place in zip(history, located[row], strict=True) if place < 0]
            items = next(found) if known.lengths[row] else []
            latest = tuple(
                catalogue.titles[place] or catalogue.ids[place]
                for place in known[row][-TITLES_SHOWN:]
            )
            yield Answer(user, unknown, items or [], items is not None, latest)


def as_json(answer: Answer) -> dict[str, Any]:
    """The answer as JSON values; what the line did not give is left out."""
    tree = asdict(answer) | {"items": items_json(answer.items)}
    del tree["latest"]
    silent: dict[str, Any] = {"user_id": None, "unknown": [], "fits": True}
    return {
        name: value for name, value in tree.items() if name not in silent or value != silent[name]
    }


def items_json(items: Iterable[Recommendation]) -> list[dict[str, Any]]:
    """Items as JSON values; without a ranker there are no sources."""
    trees = [dict(vars(item)) for item in items]
    for tree in trees:
        tree["sources"] = list(tree["sources"])
        if not tree["sources"]:
            del tree["sources"]
    return trees


def render(answer: Answer) -> Iterator[RenderableType]:
    """Who is answered and what is to be said of it, if anything, and a table of items."""
    said = _remarks(answer)
    if said:
        yield Text(visible(" · ".join(said)))
    if answer.items:
        yield _table(answer)


def _table(answer: Answer) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", justify="right")
    table.add_column("title")
    table.add_column("SID")
    table.add_column("item")
    table.add_column("score", justify="right")
    for place, item in enumerate(answer.items, start=1):
        cells = (Text(visible(text)) for text in (item.title, item.sid, item.item_id))
        table.add_row(str(place), *cells, f"{item.score:.2f}")
    return table


def _remarks(answer: Answer) -> list[str]:
    said = [] if answer.user_id is None else [str(answer.user_id)]
    if answer.latest:
        said.append(f"after {'; '.join(answer.latest)}")
    if not answer.fits:
        said.append("the prompt of this history is too long for the model")
    if answer.unknown:
        said.append(f"not in the catalogue: {', '.join(answer.unknown)}")
    return said
