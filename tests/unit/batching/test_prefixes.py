"""Which SID prefix a label continues, against walking each span one label at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.slow_search import Path, closed

from sidtune.base.ragged import Ragged
from sidtune.batching.layouts import Example, Layout
from sidtune.batching.prefixes import Prefixes
from sidtune.decoding.trie import build_trie
from sidtune.training.loss.variant import prefixes_of

CLOSING, PAD = 1, 2
TOKENS = st.sampled_from([CLOSING, 5, 7, 10, 11, 12, 13])
SIDS = st.sets(
    st.lists(st.integers(10, 13), min_size=1, max_size=3).map(tuple), min_size=1, max_size=12
)
SPANS = st.lists(st.lists(TOKENS, min_size=1, max_size=9), min_size=1, max_size=6)


def prefixes_for(sids: list[Path]) -> Prefixes:
    return prefixes_of(build_trie(Ragged.from_lists(sorted(sids)), CLOSING))


def named(prefixes: Prefixes) -> list[Path]:
    """The tokens of every node."""
    names: list[Path] = [()]
    for node in range(len(prefixes.starts) - 1):
        names += [
            (*names[node], int(t))
            for t in prefixes.tokens[prefixes.starts[node] : prefixes.starts[node + 1]]
        ]
    return names


def slow_walk(span: list[int], paths: list[Path]) -> list[Path | None]:
    """The prefix that each label of one span continues."""
    found: list[Path | None] = []
    at: Path = ()
    for token in span:
        for start in (at, ()):
            if any(path[: len(start) + 1] == (*start, token) for path in paths):
                found.append(start)
                at = () if (*start, token) in paths else (*start, token)
                break
        else:
            found.append(None)
            at = ()
    return found


@given(SIDS)
def test_nodes_are_the_prefixes_of_the_catalogue(sids: set[Path]) -> None:
    prefixes, paths = prefixes_for(list(sids)), closed(sorted(sids), CLOSING)
    names = named(prefixes)
    assert len(set(names)) == len(names)
    assert set(names) == {path[:n] for path in paths for n in range(len(path) + 1)}


@given(SIDS, SPANS)
def test_walking_side_by_side_is_walking_one_by_one(
    sids: set[Path], spans: list[list[int]]
) -> None:
    prefixes, paths = prefixes_for(list(sids)), closed(sorted(sids), CLOSING)
    labels = np.array([token for span in spans for token in span])
    opens = np.concatenate([np.arange(len(span)) == 0 for span in spans])
    names = named(prefixes)
    found = [None if node < 0 else names[node] for node in prefixes.walk(labels, opens)]
    assert found == [prefix for span in spans for prefix in slow_walk(span, paths)]


def test_by_hand() -> None:
    """Text before a SID, items back to back, a SID that begins another, and a span that ends in the
    middle.
    """
    prefixes = prefixes_for([(10, 12), (10, 13), (11,), (11, 12)])
    names = named(prefixes)
    assert names == [(), (10,), (11,), (10, 12), (10, 13), (11, CLOSING), (11, 12)]
    spans = [
        [5, 10, 13, CLOSING],
        [10, 12, 10, 12, 11, CLOSING],
        [10],
        [12, 11, 10, 12],
        [11, 12, CLOSING],
    ]
    expected = [[-1, 0, 1, -1], [0, 1, 0, 1, 0, 2], [0], [-1, 0, 0, 1], [0, 2, -1]]
    opens = np.concatenate([np.arange(len(span)) == 0 for span in spans])
    walked = prefixes.walk(np.concatenate(spans), opens)
    assert walked.tolist() == [node for nodes in expected for node in nodes]


@given(SIDS, SPANS)
def test_every_layout_gives_each_label_its_node(
    sids: set[Path], responses: list[list[int]]
) -> None:
    """A prompt of SID tokens changes nothing, nor does the span or the example before."""
    prefixes, paths = prefixes_for(list(sids)), closed(sorted(sids), CLOSING)
    examples: list[Example] = []
    expected = []
    for task, response in enumerate(responses):
        ids = np.array([6, 10, 11, *response, 10, *response], np.int32)
        spans = np.array([[3, 3 + len(response)], [4 + len(response), len(ids)]], np.int32)
        examples.append((ids, spans, task))
        nodes = [-1 if p is None else named(prefixes).index(p) for p in slow_walk(response, paths)]
        expected += sorted(
            (task, token, node) for token, node in zip(response * 2, nodes * 2, strict=True)
        )
    for layout in (
        Layout("padded", 2, PAD),
        Layout("bucketed", 30, PAD),
        Layout("tree", 40, PAD, 5, 20),
    ):
        assert all(batch.nodes is None for batch in layout.micro_batches(examples)), "nobody asked"
        asked = Layout(**{**vars(layout), "prefixes": prefixes})
        found = []
        for batch in asked.micro_batches(examples):
            assert batch.nodes is not None
            found += list(
                zip(batch.tasks.tolist(), batch.labels.tolist(), batch.nodes.tolist(), strict=True)
            )
        assert sorted(found) == sorted(expected)
