"""Extending a tokenizer by the SID tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from transformers import AddedToken, PreTrainedTokenizerFast

from sidtune.errors import UserError
from sidtune.model.tokenizer_faults import refusing_faults

SHOWN = 5


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer that knows the SID tokens.

    Args:
        tokenizer: the extended tokenizer.
        sid_ids: ids of the catalogue's SID tokens, ascending, int64.
        new_ids: those of them that the base did not have.
        known: number of tokens before the extension.
    """

    tokenizer: PreTrainedTokenizerFast
    sid_ids: NDArray[np.int64]
    new_ids: NDArray[np.int64]
    known: int


def extend_vocabulary(tokenizer: PreTrainedTokenizerFast, sid_tokens: Sequence[str]) -> Vocabulary:
    """Add the SID tokens as hard boundaries; those that the tokenizer already has as added tokens keep their ids.

    Raises:
        UserError: names tokens that hold white space, begin another, are ordinary text or special tokens, or cannot
            have an id of their own.
    """
    tokens = sorted(set(sid_tokens))
    _refuse(
        (t for t in tokens if not t or any(c.isspace() for c in t)), "are empty or hold white space", "Rename them."
    )
    _refuse(
        # Sorted, so whatever a token begins stands right behind it.
        (f"{a} of {b}" for a, b in pairwise(tokens) if b.startswith(a)),
        "are the beginning of another",
        "Close every token, as in <a_1>.",
    )
    added = tokenizer.get_added_vocab()
    refuse_special(tokenizer, tokens)
    vocabulary = tokenizer.get_vocab()
    _refuse(
        (t for t in tokens if t in vocabulary and t not in added),
        "are ordinary text to the tokenizer already",
        "Rename them, for example to <a_1>.",
    )
    known = len(tokenizer)
    new = [token for token in tokens if token not in added]
    with refusing_faults(tokenizer.name_or_path):
        tokenizer.add_tokens(
            [AddedToken(t, normalized=False, lstrip=False, rstrip=False, single_word=False, special=False) for t in new]
        )
    taken = set(vocabulary.values())
    _refuse(
        (t for t in new if tokenizer.convert_tokens_to_ids(t) in taken),
        "get the ids of other tokens, because the tokenizer's own ids have gaps",
        "Use a base whose tokenizer numbers its tokens without gaps.",
    )
    return Vocabulary(tokenizer, _ids(tokenizer, tokens), _ids(tokenizer, new), known)


def refuse_special(tokenizer: PreTrainedTokenizerFast, sid_tokens: Iterable[str]) -> None:
    """Refuse SID tokens such as EOS, which mean something else already.

    Raises:
        UserError: names them.
    """
    # A token can be special without a role, and then is not among `all_special_tokens`.
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    special.update(map(str, tokenizer.all_special_tokens))
    _refuse((t for t in sid_tokens if t in special), "are special tokens of the tokenizer", "Rename them.")


def _ids(tokenizer: PreTrainedTokenizerFast, tokens: list[str]) -> NDArray[np.int64]:
    ids = tokenizer.convert_tokens_to_ids(tokens) if tokens else []
    return np.sort(np.array(ids, np.int64))


def _refuse(tokens: Iterable[str], why: str, remedy: str) -> None:
    found = list(tokens)
    if found:
        shown = ", ".join(map(repr, found[:SHOWN])) + (" …" if len(found) > SHOWN else "")
        raise UserError(f"{len(found):,} SID tokens {why}: {shown}", remedy)
