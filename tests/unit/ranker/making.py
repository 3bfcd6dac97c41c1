"""A small shop for tests of the ranker, and slow plain references."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sidtune.base.ragged import Ragged
from sidtune.data.catalogue import Catalogue
from sidtune.data.popularity import popularity
from sidtune.data.rows import Rows
from sidtune.ranker.pairs import Asked, Beams
from sidtune.ranker.sources.base import Known

Row = tuple[str, Sequence[int], int]


def catalogue(items: int) -> Catalogue:
    """Items 0, 1, …; three in a row share the first token, and two the first two."""
    sids = [(f"<a_{item // 3}>", f"<b_{item // 2}>", f"<c_{item}>") for item in range(items)]
    names = [str(item) for item in range(items)]
    return Catalogue(names, names, names, sids)


def rows_of(rows: Sequence[Row]) -> Rows:
    """Rows from users, histories and targets."""
    users, histories, targets = zip(*rows, strict=True)
    lists = Ragged.from_lists([list(history) for history in histories])
    return Rows(pa.array(users), lists, np.array(targets, np.int32))


def made_up(users: int, items: int, seed: int, last: int = 1) -> tuple[Rows, Rows]:
    """Training and held-out rows of users who mostly walk from an item to the one after it."""
    random = np.random.default_rng(seed)
    train, held = list[Row](), list[Row]()
    for user in range(users):
        length = int(random.integers(3, 8))
        walk = [int(random.integers(items))]
        while len(walk) < length:
            step = 1 if random.random() < 0.7 else int(random.integers(1, items))
            walk.append((walk[-1] + step) % items)
        cut = length - last
        train += [(f"u{user}", walk[:end], walk[end]) for end in range(1, cut)]
        held.append((f"u{user}", walk[:-1], walk[-1]))
    return rows_of(train), rows_of(held)


def known(train: Rows, valid: Rows | None, items: int, texts: bool = True) -> Known:
    """What sources are fitted on; an item's text is like that of the items around it."""
    angles = np.arange(items) * (2 * np.pi / items)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    users = popularity(train, items)
    return Known(catalogue(items), train, valid, users, vectors if texts else None)


def beams_of(rows: Rows, items: int, seed: int = 0) -> Beams:
    """A model's lists: five items each, the target among them more often than not."""
    random = np.random.default_rng(seed)
    lists = []
    for target in rows.target.tolist():
        found = random.permutation(items)[:5].tolist()
        if target not in found and random.random() < 0.6:
            found[int(random.integers(5))] = target
        lists.append(found)
    flat = Ragged.from_lists(lists)
    scores = np.tile(-np.arange(1, 6, dtype=np.float32), len(lists))
    return Beams(flat, scores)


def asked(rows: Rows, items: int, beams: Beams | None = None) -> Asked:
    """The histories of rows."""
    return Asked(rows.history, items, beams)
