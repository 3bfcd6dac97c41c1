"""Events that came after a model was trained, as training rows of the ranker's sources."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged, concatenate, place_of, row_of
from sidtune.config.events import EventsConfig, PrepareConfig
from sidtune.data.catalogue import Catalogue
from sidtune.data.rows import Rows, stacked
from sidtune.events.prepare import prepare
from sidtune.events.rows import INTERACTIONS
from sidtune.files.ids import as_users

# Of the run's section `events`: what the columns mean, and which kinds of events count. Steps that
# look at several events, the time window and splits are not applied to later ones.
COLUMNS = ("format", "user", "item", "time", "position", "rating", "type", "time_unit")
KINDS = ("types", "min_rating")


class Later(NamedTuple):
    """Rows with what came later, and how many of the later events were of unknown items."""

    rows: Rows
    events: int
    unknown: int


def with_later(
    files: Path,
    mapping: EventsConfig | None,
    catalogue: Catalogue,
    train: Rows,
    known: Sequence[Rows],
    longest: int | None,
) -> Later:
    """Training rows and, as more of them, the events of files.

    Args:
        files: events as `events.files` takes them.
        mapping: the run's section `events`, for its columns, types and lowest rating.
        catalogue: whose items count.
        train: the run's training rows.
        known: all rows of the run; a user's later events follow what is known of them.
        longest: the most items that a history keeps, as in the rows of the run.

    Raises:
        UserError: as `prepare`; where no event is of a known item.
    """
    users, items, unknown = _sequences(files, mapping, catalogue)
    if not len(items.values):
        raise UserError(
            f"{files}: no event is of an item that the model's catalogue has",
            "New items get SIDs first: `sidtune sids assign --model MODEL`.",
        )
    rows = _rows(users, items, _latest(known, users), longest)
    return Later(stacked([train, rows]), len(items.values), unknown)


def _sequences(
    files: Path, mapping: EventsConfig | None, catalogue: Catalogue
) -> tuple[pa.Array, Ragged, int]:
    """Users, their items in order of time, and the number of events of unknown items."""
    given = {name: getattr(mapping, name) for name in (*COLUMNS, *KINDS)} if mapping else {}
    with tempfile.TemporaryDirectory() as folder:
        config = PrepareConfig(
            output_dir=Path(folder),
            events=EventsConfig(files=files, **given),
        )
        table = pyarrow.parquet.read_table(prepare(config).folder / INTERACTIONS)
    lists = table["items"].combine_chunks()
    offsets = lists.offsets.to_numpy()
    positions = catalogue.positions(lists.flatten())
    whole = Ragged(positions, (offsets - offsets[0]).astype(np.int64))
    found = whole.keep(whole.values >= 0)
    return as_users(table["user_id"].combine_chunks()), found, int((positions < 0).sum())


def _latest(known: Sequence[Rows], users: pa.Array) -> Ragged:
    """The longest row known of each user, with its target, of equally long ones the last; an empty
    list for users of whom nothing is known.
    """
    rows = stacked(known)
    codes = rows.users.dictionary_encode().indices.to_numpy()
    order = np.lexsort((rows.history.lengths, codes))
    longest = rows.take(order[np.diff(codes[order], append=-1) != 0])
    lists = concatenate([longest.history, Ragged.column(longest.target)])
    with_empty = Ragged(lists.values, np.append(lists.offsets, lists.offsets[-1]))
    places = {user: place for place, user in enumerate(longest.users.to_pylist())}
    nothing = len(places)
    return with_empty.take(np.array([places.get(user, nothing) for user in users.to_pylist()]))


def _rows(users: pa.Array, items: Ragged, before: Ragged, longest: int | None) -> Rows:
    """A row for each later event that something precedes."""
    whole = concatenate([before, items])
    user, place = row_of(whole), place_of(whole)
    targets = np.flatnonzero(place >= np.maximum(before.lengths, 1)[user])
    rows = user[targets]
    lengths = targets - whole.offsets[rows]
    lengths = lengths if longest is None else np.minimum(lengths, longest)
    history = whole.cut(targets - lengths, lengths)
    return Rows(users.take(pa.array(rows)), history, whole.values[targets])
