"""Which examples tell of one user in one way: their prompts open alike."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

NO_HISTORY = -1
KEY_BITS = 63


def history_keys(users: pa.Array, placeholder: str) -> NDArray[np.int64]:
    """A key for each user and way to write a history, `(n,)`, not negative.

    A hash, so that files read apart agree without a shared table.

    Args:
        users: `(n,)` user ids.
        placeholder: what the history is written with, such as `history_sids`; 16 bytes at most.
    """
    coded, way = users.dictionary_encode(), placeholder.encode()
    hashes = [hashlib.blake2b(name.encode(), digest_size=8, person=way) for name in coded.dictionary.to_pylist()]
    digests = b"".join(hashed.digest() for hashed in hashes)
    keys = (np.frombuffer(digests, np.uint64) & np.uint64(2**KEY_BITS - 1)).astype(np.int64)
    chosen: NDArray[np.int64] = keys[coded.indices.to_numpy()]
    return chosen
