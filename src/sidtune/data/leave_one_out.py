"""Whole histories and leave-one-out splits: files of LC-Rec, TIGER, LETTER, and
`sidtune prepare`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sidtune.base.errors import UserError, some
from sidtune.base.ragged import Ragged, place_of, row_of
from sidtune.data.catalogue import Catalogue
from sidtune.data.rows import Rows, Split, need_room
from sidtune.files.ids import as_id, as_users, id_list
from sidtune.files.row_files import id_list_columns, kind_of
from sidtune.files.text import read_json_object

# Users are split only if one interaction is left for training, as in SASRec (Kang and McAuley,
# 2018).
FEWEST = 3
NO_ROWS: Mapping[Split, str] = {
    "train": "gives no training row: every user has three interactions or only one",
    "valid": "gives no validation row: no user has three interactions",
    "test": "gives no test row: no user has three interactions",
}
FEWER = (
    "Set data.history to fewer items, or leave out the older events of such users: events.latest."
)


@dataclass(frozen=True)
class Interactions:
    """The interactions of each user, in time order.

    Args:
        users: `(users,)` ids, as in `Rows`.
        items: a non-empty list of catalogue positions per user, oldest first.
    """

    users: pa.Array
    items: Ragged


def load_leave_one_out(path: Path, catalogue: Catalogue, split: Split, longest: int) -> Rows:
    """The rows of one split of an `.inter.json`; raises as `read_interactions`, and if the split
    has no row.
    """
    rows = leave_one_out(read_interactions(path, catalogue), split, longest)
    if not len(rows.target):
        raise UserError(
            f"{path} {NO_ROWS[split]}",
            "Add longer histories, split events by time (events.split: global_time), or use"
            " data.train and data.valid instead.",
        )
    return rows


def leave_one_out(interactions: Interactions, split: Split, longest: int) -> Rows:
    """Leave-one-out split: the last item of a user is the test target, the one before it the
    validation target.

    There is one training row for every remaining item but the first, user by user, oldest first.
    Users with fewer than `FEWEST` interactions are used for training only.

    Args:
        longest: histories are cut to this many latest items.

    Raises:
        UserError: where the rows would not fit into memory.
    """
    items = interactions.items
    user, place = row_of(items), place_of(items)
    after = items.lengths[user] - place - 1
    held_out = (items.lengths >= FEWEST)[user]
    chosen = {
        "train": (place > 0) & ((after >= 2) | ~held_out),
        "valid": (after == 1) & held_out,
        "test": (after == 0) & held_out,
    }
    targets = np.flatnonzero(chosen[split])
    lengths = np.minimum(place[targets], longest)
    need_room(lengths, user[targets], interactions.users, FEWER)
    users = interactions.users.take(pa.array(user[targets]))
    return Rows(users, items.cut(targets - lengths, lengths), items.values[targets])


def whole_split(interactions: Interactions, split: Split) -> Interactions:
    """The uncut histories of a split: each user's training items, or all items up to the held-out
    target.
    """
    lengths = interactions.items.lengths
    held_out = lengths >= FEWEST
    users = np.arange(len(lengths)) if split == "train" else np.flatnonzero(held_out)
    later = {"train": 2, "valid": 1, "test": 0}[split] * held_out[users]
    return Interactions(
        interactions.users.take(pa.array(users)), interactions.items.take(users).drop_back(later)
    )


def read_interactions(path: Path, catalogue: Catalogue) -> Interactions:
    """Read whole histories, oldest item first: `{user: [item ids]}`, or Parquet with the columns
    `user_id` and `items`.

    Item ids are text or whole numbers, such as 17 or 17.0.

    Raises:
        UserError: names the user of an invalid entry, a user that occurs twice (`7` and `7.0` are
            the same user), or a user with an item that is not in the catalogue.
    """
    written, ids, lengths = _histories(path)
    items = Ragged.from_lengths(catalogue.positions(ids), lengths)
    users = as_users(written)
    _refuse_repeated(users, written, path)
    _refuse_unknown(items, ids, users, path)
    return Interactions(users, items)


def interacted(path: Path) -> pa.Array:
    """The items of whole histories, one after another, as `large_string`; raises as
    `read_interactions` for entries that are not valid.
    """
    return _histories(path)[1]


Histories = tuple[pa.Array, pa.Array, NDArray[np.int64]]


def _histories(path: Path) -> Histories:
    return _of_parquet(path) if kind_of(path) == ".parquet" else _of_object(path)


def _of_object(path: Path) -> Histories:
    """Users, the items of all of them, and how many each has."""
    given = read_json_object(path)
    _refuse_other_shapes(given, path)
    ids = pa.array([as_id(item) for item in chain.from_iterable(given.values())], pa.large_string())
    return (
        pa.array(list(given), pa.large_string()),
        ids,
        np.fromiter(map(len, given.values()), np.int64, len(given)),
    )


def _of_parquet(path: Path) -> Histories:
    """As `_of_object`, of a table."""
    users, items, lengths = [], [], []
    for row_users, row_items in id_list_columns(path, "user_id", "items"):
        users.append(row_users)
        items.append(row_items.flatten())
        lengths.append(row_items.value_lengths().to_numpy())
    return (
        pa.concat_arrays(users),
        pa.concat_arrays(items),
        np.concatenate(lengths).astype(np.int64),
    )


def _refuse_other_shapes(given: Mapping[str, Any], path: Path) -> None:
    for user, items in given.items():
        if not user:
            raise UserError(f"{path}: a user has an empty id", "Add an id, or remove the user.")
        if not isinstance(items, list) or not items:
            message = (
                f"{path}: user {user}: expected a list of item ids, oldest first, found"
                f" {items!r:.60}"
            )
            raise UserError(message, "Remove users without interactions.")
        if id_list(items) is None:
            place, item = next(
                (at, item) for at, item in enumerate(items, start=1) if as_id(item) is None
            )
            raise UserError(
                f"{path}: user {user}, item {place}: expected an item id, found {item!r:.60}",
                "Item ids are text or whole numbers, the keys of data.index.",
            )


def _refuse_repeated(users: pa.Array, given: pa.Array, path: Path) -> None:
    codes = users.indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    if len(first) < len(codes):
        again = int(np.setdiff1d(np.arange(len(codes)), first)[0])
        before = int(np.flatnonzero(codes == codes[again])[0])
        message = (
            f"{path}: {given[before].as_py()!r:.80} and {given[again].as_py()!r:.80} are the same"
            " user, which occurs twice"
        )
        raise UserError(
            message, "Merge the two histories in time order, or change the id of one of the users."
        )


def _refuse_unknown(items: Ragged, ids: pa.Array, users: pa.Array, path: Path) -> None:
    unknown = items.values < 0
    if unknown.any():
        bad = np.unique(row_of(items)[unknown])
        names = sorted(set(ids.filter(pa.array(unknown)).to_pylist()))
        raise UserError(
            f"{path}: {len(bad):,} users have items without a SID: {some(names)} (first user"
            f" {users[bad[0]]})",
            "Add them to data.index (and data.items), or remove these interactions.",
        )
