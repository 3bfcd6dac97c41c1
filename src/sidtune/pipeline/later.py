"""Events that came after a model was trained, as training rows of the ranker's sources."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

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
# Items of a user's known history that later events may follow.
CONTEXT = 4


class Later(NamedTuple):
    """Rows with what came later, and how many of the later events were of unknown items."""

    rows: Rows
    events: int
    unknown: int


def with_later(
    files: Path, mapping: EventsConfig | None, catalogue: Catalogue, train: Rows, known: list[Rows]
) -> Later:
    """Training rows and, as more of them, the events of files.

    Args:
        files: events as `events.files` takes them.
        mapping: the run's section `events`, for its columns, types and lowest rating.
        catalogue: whose items count.
        train: the run's training rows.
        known: all rows of the run; a user's later events follow the latest item known of them.

    Raises:
        UserError: as `prepare`; where no event is of a known item.
    """
    users, items, unknown = _sequences(files, mapping, catalogue)
    if not len(items.values):
        raise UserError(
            f"{files}: no event is of an item that the model's catalogue has",
            "New items get SIDs first: `sidtune sids assign --model MODEL`.",
        )
    rows = _rows(users, items, _latest(known))
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


def _latest(known: list[Rows]) -> dict[str, NDArray[np.int32]]:
    """The last items known of each user, oldest first."""
    found: dict[str, tuple[int, NDArray[np.int32]]] = {}
    for rows in known:
        for row, user in enumerate(rows.users.to_pylist()):
            length = int(rows.history.lengths[row])
            if length >= found.get(user, (0, None))[0]:
                last = np.append(rows.history[row], rows.target[row])[-CONTEXT:]
                found[user] = (length, last.astype(np.int32))
    return {user: last for user, (_, last) in found.items()}


def _rows(users: pa.Array, items: Ragged, latest: dict[str, NDArray[np.int32]]) -> Rows:
    """A row for each later event that something precedes."""
    names = users.to_pylist()
    before = Ragged.from_lists([latest.get(name, np.zeros(0, np.int32)).tolist() for name in names])
    whole = concatenate([before, items])
    user, place = row_of(whole), place_of(whole)
    targets = np.flatnonzero(place >= np.maximum(before.lengths, 1)[user])
    rows = user[targets]
    starts = whole.offsets[rows]
    history = whole.cut(starts, targets - starts)
    return Rows(users.take(pa.array(rows)), history, whole.values[targets])
