"""Which examples tell of one user in one way: their prompts open alike."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

NO_HISTORY = -1
KEY_BITS = 63
# As Python objects names take several times their memory: never more of them than this at once.
NAMES_AT_ONCE = 65_536


def history_keys(users: pa.Array, placeholder: str) -> NDArray[np.int64]:
    """A key for each user and way to write a history, `(n,)`, not negative.

    A hash, so that files read apart agree without a shared table.

    Args:
        users: `(n,)` user ids.
        placeholder: what the history is written with, such as `history_sids`; 16 bytes at most.
    """
    coded, way = users.dictionary_encode(), placeholder.encode()
    names = coded.dictionary
    digests = bytearray()
    for start in range(0, len(names), NAMES_AT_ONCE):
        for name in names.slice(start, NAMES_AT_ONCE).to_pylist():
            digests += hashlib.blake2b(name.encode(), digest_size=8, person=way).digest()
    keys = (np.frombuffer(digests, np.uint64) & np.uint64(2**KEY_BITS - 1)).astype(np.int64)
    chosen: NDArray[np.int64] = keys[coded.indices.to_numpy()]
    return chosen
