"""A trie as a grammar over token ids, in the Lark variant that llguidance reads.

Its documentation gives `<[7]>` for the token with id 7 and `<[7,10-12]>` for a choice of tokens.
Text would not do: the characters of a SID token can also be written by tokens of the base.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from sidtune.exports.token_trie import TokenTrie


def lark_grammar(trie: TokenTrie) -> str:
    """The grammar whose only sentences are the trie's paths; nodes with equal children share a
    rule.
    """
    rules: list[str] = []
    names = [""] * trie.count
    for level in reversed(range(trie.depth)):
        starts, tokens = trie.starts[level].tolist(), trie.tokens[level].tolist()
        known: dict[str, str] = {}
        below = names
        names = []
        for begin, end in pairwise(starts):
            body = _choice(tokens[begin:end], below[begin:end])
            name = known.setdefault(body, f"l{level}n{len(known)}" if level else "start")
            names.append(name)
        rules += [f"{name}: {body}" for body, name in known.items()]
    return "\n".join(["%llguidance {}", *reversed(rules)]) + "\n"


def _choice(tokens: Sequence[int], rules: Sequence[str]) -> str:
    """One of the tokens, each followed by its rule, as in `<[3,5-9]> l1n0 | <[4]> l1n1`."""
    followed: dict[str, list[int]] = {}
    for token, rule in zip(tokens, rules, strict=True):
        followed.setdefault(rule, []).append(token)
    return " | ".join(f"<[{_ranges(of)}]> {rule}".rstrip() for rule, of in followed.items())


def _ranges(tokens: Iterable[int]) -> str:
    """Ascending ids as ranges: `3,5-9`."""
    ranges: list[list[int]] = []
    for token in tokens:
        if ranges and token == ranges[-1][1] + 1:
            ranges[-1][1] = token
        else:
            ranges.append([token, token])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
