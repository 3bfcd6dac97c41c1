"""Users as numbers that mean the same in every file."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

NO_USER = -1
KEY_BITS = 63


def user_keys(users: pa.Array) -> NDArray[np.int64]:
    """A key for each user id, `(n,)`, not negative: a hash, so that files read apart agree without a shared table."""
    coded = users.dictionary_encode()
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in coded.dictionary.to_pylist())
    keys = (np.frombuffer(digests, np.uint64) & np.uint64(2**KEY_BITS - 1)).astype(np.int64)
    chosen: NDArray[np.int64] = keys[coded.indices.to_numpy()]
    return chosen
