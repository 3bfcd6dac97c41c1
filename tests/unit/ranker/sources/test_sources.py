"""What each source says of a candidate, against slow plain loops over the histories."""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from tests.unit.ranker.making import asked, beams_of, known, made_up, rows_of

from sidtune.ranker.pairs import Asked, Beams, Pairs
from sidtune.ranker.sources import FEATURES, SOURCES
from sidtune.ranker.sources.base import Source
from sidtune.ranker.sources.co_occurrence import CoOccurrence
from sidtune.ranker.sources.history import History, Recurrence
from sidtune.ranker.sources.model import Model
from sidtune.ranker.sources.popularity import Popularity
from sidtune.ranker.sources.sids import SidPrefixes
from sidtune.ranker.sources.transitions import TransitionSource
from sidtune.ranker.sources.vectors import DECAYS, USUAL_DECAY, Behaviour, Neighbours, Text

ITEMS = 12
TRAIN, HELD = made_up(60, ITEMS, 0)
NEWEST = np.linspace(-9, -1, ITEMS, dtype=np.float32)
KNOWN = replace(known(TRAIN, HELD, ITEMS), newest=NEWEST)
BEAMS = beams_of(HELD, ITEMS)
ASKED = asked(HELD, ITEMS, BEAMS)
ALL = Pairs(
    np.repeat(np.arange(len(HELD.target)), ITEMS),
    np.tile(np.arange(ITEMS), len(HELD.target)),
    len(HELD.target),
    ITEMS,
)
HISTORIES = [HELD.history[row].tolist() for row in range(len(HELD.target))]


def columns(source: Source) -> dict[str, np.ndarray]:
    """Each feature of all pairs, `(rows, items)`."""
    features = source.features(ASKED, ALL)
    assert features.shape == (len(ALL), len(source.columns))
    return {
        name: features[:, place].reshape(len(HISTORIES), ITEMS)
        for place, name in enumerate(source.columns)
    }


def test_every_feature_has_a_name_and_words_of_its_own() -> None:
    assert len(FEATURES) == sum(len(source.columns) for source in SOURCES.values())
    assert len(set(FEATURES.values())) == len(FEATURES)
    assert all(len(words) <= 62 for words in FEATURES.values()), "for a terminal of 80 columns"


def fitted(kind: type[Source]) -> Source:
    source = kind.fit(KNOWN)
    assert source is not None
    return source


def sequences() -> list[list[int]]:
    """The longest training sequence of each user."""
    found: dict[str, list[int]] = {}
    for row, user in enumerate(TRAIN.users.to_pylist()):
        whole = [*TRAIN.history[row].tolist(), int(TRAIN.target[row])]
        found[user] = max(found.get(user, []), whole, key=len)
    return list(found.values())


def test_transitions() -> None:
    source = fitted(TransitionSource)
    assert isinstance(source, TransitionSource)
    counts: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for sequence in sequences():
        for before, after in pairwise(sequence):
            counts[before][after] += 1
    direct = np.zeros((ITEMS, ITEMS))
    for before, followed in counts.items():
        for after, count in followed.items():
            direct[before, after] = count / sum(followed.values())
    decay = source.chosen.settings.decay
    found = columns(source)
    for row, history in enumerate(HISTORIES):
        weights = np.zeros(ITEMS)
        for age, item in enumerate(reversed(history)):
            weights[item] += decay**age
        assert found["from_last"][row] == pytest.approx(direct[history[-1]], abs=1e-6)
        assert found["two_hops"][row] == pytest.approx(weights @ direct @ direct, abs=1e-6)
        chosen = weights @ source.chosen.matrix.toarray()
        assert found["transitions"][row] == pytest.approx(chosen, abs=1e-6)


def test_co_occurrence() -> None:
    has: dict[int, set[int]] = defaultdict(set)
    for user, sequence in enumerate(sequences()):
        for item in sequence:
            has[item].add(user)
    share = np.array(
        [
            [len(has[i] & has[j]) / len(has[i]) if has[i] else float(i == j) for j in range(ITEMS)]
            for i in range(ITEMS)
        ]
    )
    found = columns(fitted(CoOccurrence))
    for row, history in enumerate(HISTORIES):
        ages = list(enumerate(reversed(history)))
        weighted = sum(0.5**age * share[item] for age, item in ages)
        assert found["co_occurrence"][row] == pytest.approx(weighted, abs=1e-5)
        plain = sum(share[item] for _, item in ages)
        assert found["co_occurrence_unweighted"][row] == pytest.approx(plain, abs=1e-5)
        assert found["co_occurrence_last"][row] == pytest.approx(share[history[-1]], abs=1e-5)


@pytest.mark.parametrize("kind", [Text, Behaviour])
def test_vectors(kind: type[Text | Behaviour]) -> None:
    source = fitted(kind)
    assert isinstance(source, Text | Behaviour)
    vectors, decay = source.near.vectors, source.near.decay
    weighted, plain, last, nearest = columns(source).values()
    for row, history in enumerate(HISTORIES):
        ages = list(enumerate(reversed(history)))
        mean = sum(decay**age * vectors[item] for age, item in ages)
        assert weighted[row] == pytest.approx(cosines(vectors, mean), abs=1e-5)
        mean = sum(vectors[item] for _, item in ages)
        assert plain[row] == pytest.approx(cosines(vectors, mean), abs=1e-5)
        assert last[row] == pytest.approx(vectors @ vectors[history[-1]], abs=1e-5)
        each = np.stack([vectors @ vectors[item] for item in history])
        assert nearest[row] == pytest.approx(each.max(axis=0), abs=1e-5)


def cosines(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    found: np.ndarray = vectors @ mean / max(float(np.linalg.norm(mean)), 1e-12)
    return found


def test_the_decay_is_the_one_that_ranks_validation_rows_best() -> None:
    vectors = np.eye(4, dtype=np.float32)
    vectors[3] = vectors[0]
    # The target is like the newest item and unlike those that repeat before it.
    valid = rows_of([("u", [1, 1, 2, 2, 1, 2, 0], 3)])
    places = {}
    for decay in DECAYS:
        mean = sum(decay**age * vectors[item] for age, item in enumerate([0, 2, 1, 2, 2, 1, 1]))
        scores = cosines(vectors, mean)
        places[decay] = int((scores > scores[3]).sum())
    best = min(places.values())
    assert best < max(places.values())
    chosen = Neighbours.tuned(vectors, valid).decay
    assert chosen == next(decay for decay, place in places.items() if place == best)
    assert Neighbours.tuned(vectors, None).decay == USUAL_DECAY


def test_shared_tokens_of_sids() -> None:
    one, two, three = columns(fitted(SidPrefixes)).values()
    sids = KNOWN.catalogue.sids
    for row, history in enumerate(HISTORIES):
        for item in range(ITEMS):
            for depth, found in enumerate((one, two, three), start=1):
                expected = sum(
                    0.5**age
                    for age, other in enumerate(reversed(history))
                    if sids[other][:depth] == sids[item][:depth]
                )
                assert found[row, item] == pytest.approx(expected, abs=1e-6)


def test_popularity_and_history() -> None:
    users, mean_places = columns(fitted(Popularity)).values()
    places: dict[int, list[float]] = defaultdict(list)
    for sequence in sequences():
        for place, item in enumerate(sequence):
            places[item].append((place + 0.5) / len(sequence))
    late = [np.mean(places[item]) if item in places else np.nan for item in range(ITEMS)]
    source = fitted(History)
    assert isinstance(source, History)
    recurrence, ago, times, length = columns(source).values()
    for row, history in enumerate(HISTORIES):
        assert users[row].tolist() == KNOWN.users.tolist()
        assert mean_places[row] == pytest.approx(late, abs=1e-6, nan_ok=True)
        for item in range(ITEMS):
            newest_first = history[::-1]
            where = newest_first.index(item) if item in history else np.nan
            assert ago[row, item] == pytest.approx(where, nan_ok=True)
            assert times[row, item] == history.count(item)
            ages = [age for age, other in enumerate(newest_first) if other == item]
            summed = sum((1 + age) ** -source.recurrence.fade for age in ages)
            assert recurrence[row, item] == pytest.approx(summed, abs=1e-5)
            assert length[row, item] == len(history)


def test_the_models_list() -> None:
    logs, places, one, two, newest = columns(fitted(Model)).values()
    sids = KNOWN.catalogue.sids
    starts = BEAMS.items.offsets
    for row in range(len(HISTORIES)):
        listed = BEAMS.items[row].tolist()
        scores = BEAMS.scores[starts[row] : starts[row + 1]]
        for item in range(ITEMS):
            place = listed.index(item) if item in listed else np.nan
            score = scores[listed.index(item)] if item in listed else np.nan
            assert places[row, item] == pytest.approx(place, nan_ok=True)
            assert logs[row, item] == pytest.approx(score, nan_ok=True)
            for depth, found in ((1, one), (2, two)):
                expected = sum(
                    np.exp(score)
                    for other, score in zip(listed, scores, strict=True)
                    if sids[other][:depth] == sids[item][:depth]
                )
                assert found[row, item] == pytest.approx(expected, rel=1e-5)
            assert newest[row, item] == NEWEST[item]


def test_a_model_that_lists_nothing_is_no_fault() -> None:
    nothing = asked(HELD, ITEMS)
    source = fitted(Model)
    assert source.candidates(nothing).lengths.tolist() == [0] * len(HISTORIES)
    features = source.features(nothing, ALL)
    assert np.isnan(features[:, :2]).all()
    assert (features[:, 2:4] == 0).all()


def test_a_model_that_cannot_tell_the_newest_item_leaves_it_open() -> None:
    source = Model.fit(replace(KNOWN, newest=None))
    assert np.isnan(source.features(ASKED, ALL)[:, 4]).all()


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_is_the_same_after_loading(name: str) -> None:
    kind = SOURCES[name]  # type: ignore[index]
    source = fitted(kind)
    again = kind.load(source.tensors())
    first, second = source.features(ASKED, ALL), again.features(ASKED, ALL)
    assert second == pytest.approx(first, abs=1e-6, nan_ok=True)


def test_how_fast_the_weight_of_earlier_times_fades_follows_from_the_targets() -> None:
    often_first = [(f"u{n}", [1, 1, 1, 2, 3, 4, 5, 6], 1) for n in range(9)]
    latest_first = [(f"u{n}", [1, 1, 1, 2, 3, 4, 5, 6], 6) for n in range(9)]
    neither = [(f"u{n}", [1, 1, 1, 2, 3, 4, 5, 6], 7) for n in range(9)]
    chosen = [Recurrence.tuned(rows_of(rows), ITEMS) for rows in (often_first, latest_first)]
    orders = [one.order(rows_of(often_first).history, ITEMS)[0].tolist() for one in chosen]
    assert [order[0] for order in orders] == [1, 6]
    assert chosen[0].fade < chosen[1].fade
    assert Recurrence.tuned(rows_of(neither), ITEMS) == Recurrence() == Recurrence.tuned(None, 9)


@pytest.mark.parametrize("name", SOURCES)
def test_candidates_are_those_that_may_be_listed(name: str) -> None:
    source = fitted(SOURCES[name])  # type: ignore[index]
    allowed = np.arange(ITEMS) % 2 == 0
    some = Asked(HELD.history, ITEMS, BEAMS, allowed, HELD.history)
    pairs = Pairs.union([source.candidates(some)], some)
    assert allowed[pairs.item].all()
    for row, item in zip(pairs.row.tolist(), pairs.item.tolist(), strict=True):
        assert item not in HISTORIES[row]


@pytest.mark.parametrize(
    "name", ["transitions", "co_occurrence", "text", "behaviour", "popularity"]
)
@pytest.mark.parametrize("restricted", ["allowed", "excluded", "both"])
def test_what_may_not_be_listed_takes_no_candidates_place(
    name: str, restricted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fitted(SOURCES[name])  # type: ignore[index]
    some = Asked(
        HELD.history,
        ITEMS,
        allowed=None if restricted == "excluded" else np.arange(ITEMS) % 2 == 0,
        excluded=None if restricted == "allowed" else HELD.history,
    )
    module = sys.modules[type(source).candidates.__module__]
    if name == "transitions":
        monkeypatch.setattr(module, "FAR_CANDIDATES", 0)
    monkeypatch.setattr(module, "CANDIDATES", ITEMS)
    every = Pairs.union([source.candidates(some)], some)
    assert len(every)
    monkeypatch.setattr(module, "CANDIDATES", 2)
    few = Pairs.union([source.candidates(some)], some)
    assert np.array_equal(few.counts, np.minimum(every.counts, 2))


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_is_known_of_held_out_events(name: str) -> None:
    """Other targets, another order and other users of the held-out rows: the same features."""
    shuffled = np.random.default_rng(0).permutation(len(HELD.target))
    other = rows_of([(f"x{n}", HISTORIES[n], int(HELD.target[shuffled[n]])) for n in shuffled])
    kind = SOURCES[name]  # type: ignore[index]
    # The validation rows choose settings, but are counted nowhere.
    first, second = (kind.fit(known(TRAIN, None, ITEMS)) for _ in range(2))
    assert first is not None
    assert second is not None
    unseen = asked(HELD, ITEMS, Beams(BEAMS.items, BEAMS.scores))
    before = first.features(unseen, ALL)
    # A row's features depend on its own history only.
    turned = Asked(other.history, ITEMS, BEAMS.take(shuffled))
    after = second.features(turned, ALL).reshape(len(shuffled), ITEMS, -1)
    expected = before.reshape(len(shuffled), ITEMS, -1)[shuffled]
    assert after == pytest.approx(expected, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("name", SOURCES)
def test_validation_rows_choose_settings_and_are_not_counted(name: str) -> None:
    kind = SOURCES[name]  # type: ignore[index]
    chosen = kind.fit(known(TRAIN, HELD, ITEMS))
    assert chosen is not None
    counted = chosen.recount(known(TRAIN, None, ITEMS))
    assert counted is not None
    for part, tensor in chosen.tensors().items():
        assert np.array_equal(counted.tensors()[part], tensor, equal_nan=tensor.dtype.kind == "f")
