"""A catalogue as token ids, and as a grammar over them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models

from sidtune.base.errors import UserError
from sidtune.data.catalogue import Catalogue
from sidtune.exports.grammar import lark_grammar
from sidtune.exports.token_trie import item_paths, token_trie

PATHS = [(5, 9, 11), (4, 8, 10), (5, 9, 12), (4, 9, 12), (5, 9, 11), (4, 8, 12)]


def test_children_are_numbered_in_the_order_of_paths() -> None:
    trie = token_trie(PATHS)
    assert [level.tolist() for level in trie.tokens] == [[4, 5], [8, 9, 9], [10, 12, 12, 11, 12]]
    assert [level.tolist() for level in trie.starts] == [[0, 2], [0, 2, 3], [0, 2, 3, 5]]
    assert trie.levels == [[4, 5], [8, 9], [10, 11, 12]]
    assert (trie.depth, trie.count) == (3, 5)
    assert sorted(trie.tensors()) == [
        f"{name}.{level}" for name in ("starts", "tokens") for level in range(3)
    ]


def test_a_grammar_shares_equal_rules_and_writes_ranges() -> None:
    """Worked by hand: nodes (4, 8) and (5, 9) lead to different leaves, and (4, 9) to one."""
    assert lark_grammar(token_trie(PATHS)).splitlines() == [
        "%llguidance {}",
        "start: <[4]> l1n0 | <[5]> l1n1",
        "l1n1: <[9]> l2n2",
        "l1n0: <[8]> l2n0 | <[9]> l2n1",
        "l2n2: <[11-12]>",
        "l2n1: <[12]>",
        "l2n0: <[10,12]>",
    ]
    assert lark_grammar(token_trie([(1, 7), (2, 7), (3, 8), (5, 7)])).splitlines() == [
        "%llguidance {}",
        "start: <[1-2,5]> l1n0 | <[3]> l1n1",
        "l1n1: <[8]>",
        "l1n0: <[7]>",
    ]
    assert lark_grammar(token_trie([(1,), (3,)])) == "%llguidance {}\nstart: <[1,3]>\n"


def test_depths_that_differ_are_refused() -> None:
    catalogue = Catalogue(["a", "b"], ["", ""], ["", ""], [("<x>",), ("<x>", "<y>")])
    with pytest.raises(UserError, match="the SIDs have 1, 2 tokens"):
        item_paths(catalogue, {"<x>": 1, "<y>": 2})


def test_the_engines_own_reader_allows_what_the_trie_allows() -> None:
    """llguidance reads the grammar in vLLM, behind `structured_outputs_config.backend`."""
    llguidance = pytest.importorskip("llguidance")
    chance, offsets = np.random.default_rng(0), np.array([4, 12, 20])
    paths = sorted({tuple(row) for row in (chance.integers(6, size=(60, 3)) + offsets).tolist()})
    following = defaultdict(set)
    for path in paths:
        for depth in range(3):
            following[path[:depth]].add(path[depth])
    eos, count = 1, 32
    reader = llguidance.LLTokenizer(_words(count), n_vocab=count, eos_token=eos)
    grammar = llguidance.grammar_from("grammar", lark_grammar(token_trie(paths)))
    assert not llguidance.LLMatcher.validate_grammar(grammar, reader)
    for prefix in [*following, *paths]:
        matcher = llguidance.LLMatcher(reader, grammar)
        assert matcher.consume_tokens(list(prefix))
        mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        allowed = set(np.flatnonzero(np.unpackbits(mask, bitorder="little")[:count]).tolist())
        assert allowed == (following.get(prefix) or {eos})


def _words(count: int) -> str:
    """A tokenizer of single words, as JSON."""
    vocabulary = {f"t{number}": number for number in range(count)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    words.decoder = decoders.ByteLevel()
    return words.to_str()


def test_nothing_of_ours_is_imported_by_the_script() -> None:
    from sidtune.exports import client

    text = Path(client.__file__).read_text(encoding="utf-8")
    assert not {line for line in text.splitlines() if "import" in line and "sidtune" in line}
