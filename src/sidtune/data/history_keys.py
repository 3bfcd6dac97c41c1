"""Keys of examples whose prompts start with the same user's history."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

NO_HISTORY = -1
KEY_BITS = 63
# Maximum names held as Python objects, which take several times their memory.
NAMES_AT_ONCE = 65_536


def history_keys(users: pa.Array, placeholder: str) -> NDArray[np.int64]:
    """A non-negative key per user and history placeholder, `(n,)`.

    It is a hash, so that separately read files agree without a shared table.

    Args:
        users: `(n,)` user ids.
        placeholder: placeholder of the history, such as `history_sids`; at most 16 bytes.
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
