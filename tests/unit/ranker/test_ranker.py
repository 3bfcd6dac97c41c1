"""The ranker as a whole: what it learns, what it leaves out, and its file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy
from tests.unit.ranker.making import Row, asked, beams_of, catalogue, known, made_up, rows_of

from sidtune.base.errors import UserError
from sidtune.config.rank import RankConfig
from sidtune.data.catalogue import Catalogue
from sidtune.metrics.metrics import gains
from sidtune.ranker import pairs, scorers
from sidtune.ranker import ranker as room
from sidtune.ranker.file import FILE, read_ranker, write_ranker
from sidtune.ranker.ranker import Fitted, fit_ranker
from sidtune.ranker.scorers import Mixture, Scorer, Trees, import_lightgbm
from sidtune.ranker.sources.history import Recurrence
from sidtune.ranker.table import tabulate
from sidtune.ranker.tree_text import refuse_broken_trees

ITEMS = 40
TRAIN, VALID = made_up(700, ITEMS, 1, last=2)
_, TEST = made_up(300, ITEMS, 2)
BEAMS = beams_of(VALID, ITEMS)


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit_ranker(known(TRAIN, VALID, ITEMS), VALID, BEAMS, RankConfig(trees=12))


def test_it_ranks_better_than_each_source(fitted: Fitted) -> None:
    gained = {name: gains(ranks, 10).mean() for name, ranks in fitted.ranks.items()}
    for name in ("transitions", "co_occurrence", "text", "model"):
        assert gained["ranker"] > gained[name]
    assert fitted.ranker.scorer.trees
    assert not fitted.absent
    assert {f"without {name}" for name in fitted.ranker.sources} < set(gained)


def test_the_same_twice_and_whatever_the_rows_around(fitted: Fitted) -> None:
    again = fit_ranker(known(TRAIN, VALID, ITEMS), VALID, BEAMS, RankConfig(trees=12))
    for name, ranks in fitted.ranks.items():
        assert again.ranks[name].tolist() == ranks.tolist()
    whole = fitted.ranker.rank(asked(TEST, ITEMS, beams_of(TEST, ITEMS)), 10)
    some = np.array([3, 100, 7])
    part = fitted.ranker.rank(asked(TEST, ITEMS, beams_of(TEST, ITEMS)).take(some), 10)
    for place, row in enumerate(some):
        assert part[0][place].tolist() == whole[0][row].tolist()


def test_lists_made_in_parts_are_those_of_one_table(
    fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, ranker = asked(TEST, ITEMS, beams_of(TEST, ITEMS)), fitted.ranker
    table = tabulate(ranker.sources, wanted)
    rest = table.without("model")
    assert ranker.without_model
    expected = {
        "ranker": table.pairs.best(ranker.scorer.scores(table), 10),
        "ranker without model": rest.pairs.best(ranker.without_model.scores(rest), 10),
    }
    monkeypatch.setattr(pairs, "MOST_ROWS_AT_ONCE", 7)
    monkeypatch.setattr(room, "tabulate", lambda *_: pytest.fail("all rows at once"))
    found = ranker.rank_each(wanted, 10)
    items, scores, named = ranker.rank_named(wanted, 10)
    assert named == table.sources_of(items)
    for (own, theirs), lists in (
        (found["ranker"], expected["ranker"]),
        ((items, scores), expected["ranker"]),
        (found["ranker without model"], expected["ranker without model"]),
    ):
        assert own.values.tolist() == lists[0].values.tolist()
        assert own.offsets.tolist() == lists[0].offsets.tolist()
        assert theirs.tolist() == lists[1].tolist()


def test_lists_hold_what_may_be_listed(fitted: Fitted) -> None:
    wanted = asked(TEST, ITEMS, beams_of(TEST, ITEMS))
    allowed = np.arange(ITEMS) < 20
    for change in ({"allowed": allowed}, {"excluded": TEST.history}):
        lists, scores = fitted.ranker.rank(replace(wanted, **change), 10)
        assert lists.lengths.max() == 10
        for row in range(len(lists)):
            found = lists[row].tolist()
            assert len(set(found)) == len(found)
            if "allowed" in change:
                assert all(item < 20 for item in found)
            else:
                assert not set(found) & set(TEST.history[row].tolist())
        assert (np.diff(scores.reshape(len(lists), -1)) <= 0).all()


def test_without_the_model_its_lists_do_not_matter(fitted: Fitted) -> None:
    wanted = asked(TEST, ITEMS, beams_of(TEST, ITEMS, 1))
    other = asked(TEST, ITEMS, beams_of(TEST, ITEMS, 2))
    first, second = (fitted.ranker.rank_each(each, 10) for each in (wanted, other))
    name = "ranker without model"
    assert first[name][0].values.tolist() == second[name][0].values.tolist()
    assert first["ranker"][0].values.tolist() != second["ranker"][0].values.tolist()


def test_few_rows_are_mixed_by_weight() -> None:
    part = np.arange(scorers.LEAST_ROWS - 1)
    few = VALID.take(part)
    found = fit_ranker(known(TRAIN, few, ITEMS), few, BEAMS.take(part), RankConfig())
    assert found.ranker.scorer.trees is None
    weights = found.ranker.scorer.mixture.weights
    assert sum(weights.values()) == pytest.approx(1)
    gained = {name: gains(ranks, 10).mean() for name, ranks in found.ranks.items()}
    table = tabulate(found.ranker.sources, asked(few, ITEMS, BEAMS.take(part)))
    best = gains(table.pairs.ranks(found.ranker.scorer.scores(table), few.target), 10).mean()
    for name in weights:
        alone = Mixture({name: 1.0}).scores(table)
        assert best >= gains(table.pairs.ranks(alone, few.target), 10).mean()
    assert gained["ranker"] > 0


@pytest.mark.parametrize("rows", [50, 200])
def test_the_bar_counts_every_fit(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    seen, made = list[tuple[str, int]](), 0
    ordinary = Scorer.fit
    # Three folds of all sources, and without each of the eight; then two whole.
    fits = 3 * (1 + 8) + 2

    @contextmanager
    def counting(description: str, total: int) -> Iterator[Callable[[int], None]]:
        seen.append((description, total))
        yield lambda size: seen.append(("done", size))

    def counted(*args: Any) -> Any:
        nonlocal made
        made += 1
        return ordinary(*args)

    monkeypatch.setattr(room, "counting", counting)
    monkeypatch.setattr(Scorer, "fit", counted)
    part = np.arange(rows)
    few = VALID.take(part)
    fit_ranker(known(TRAIN, few, ITEMS), few, BEAMS.take(part), RankConfig(trees=2))
    assert seen == [("fitting the ranker", fits), *[("done", 1)] * fits]
    assert made == fits


def test_trees_and_mixture_are_added_by_hand(fitted: Fitted) -> None:
    table = tabulate(fitted.ranker.sources, asked(TEST, ITEMS, beams_of(TEST, ITEMS)))
    scorer = fitted.ranker.scorer
    assert scorer.trees
    assert scorer.weight in scorers.weights_for(len(VALID.target))
    trees, mixed, found = (one.scores(table) for one in (scorer.trees, scorer.mixture, scorer))
    for row in range(len(TEST.target)):
        own = table.pairs.row == row
        logs = np.log(np.maximum(mixed[own], 1e-6))
        expected = (trees[own] - trees[own].mean()) / trees[own].std()
        expected += scorer.weight * (logs - logs.mean()) / logs.std()
        assert found[own] == pytest.approx(expected, abs=1e-6)


def test_the_mixture_counts_the_more_the_fewer_rows_there_are() -> None:
    assert scorers.weights_for(100) == (2, 4, math.inf)
    assert scorers.weights_for(400) == (1.5, 4, math.inf)
    assert scorers.weights_for(6_000) == (0.1, 1, 4, math.inf)


def test_the_best_weight_is_chosen_on_rows_of_other_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 0, which is the trees alone, and of the mixture alone."""
    monkeypatch.setattr(room, "weights_for", lambda rows: (0.0, math.inf))
    learned = known(TRAIN, VALID, ITEMS)
    options = RankConfig(trees=12, sources=("transitions", "text"))
    ranks = fit_ranker(learned, VALID, None, options).ranks["ranker"]
    found = []
    for weight in (0.0, math.inf):
        monkeypatch.setattr(room, "weights_for", lambda rows, one=weight: (one,))
        made = fit_ranker(learned, VALID, None, options)
        assert (made.ranker.scorer.trees is None) is math.isinf(weight)
        found.append(made.ranks["ranker"])
    best = max(found, key=lambda one: gains(one, 10).mean())
    assert ranks.tolist() == best.tolist()
    assert found[0].tolist() != found[1].tolist()


def test_candidates_that_are_all_alike_are_no_fault(fitted: Fitted) -> None:
    wanted = asked(TEST, ITEMS, beams_of(TEST, ITEMS))
    one = np.arange(ITEMS) == 3
    lists, scores = fitted.ranker.rank(replace(wanted, allowed=one), 10)
    assert set(lists.values.tolist()) <= {3}
    assert (scores == 0).all()


def test_where_most_have_the_same_the_ranker_is_not_behind_popularity() -> None:
    # Nothing tells what follows but how often items are bought: trees learn noise.
    random = np.random.default_rng(5)
    chances = 1 / np.arange(1, ITEMS + 1)

    def bought(users: int, begin: int) -> list[Row]:
        walks = random.choice(ITEMS, (users, 5), p=chances / chances.sum())
        return [
            (f"u{begin + n}", walk[:-1].tolist(), int(walk[-1])) for n, walk in enumerate(walks)
        ]

    train, valid, test = (rows_of(bought(count, count)) for count in (1_500, 600, 2_000))
    sources = ("transitions", "co_occurrence", "popularity")
    options = RankConfig(sources=sources)
    found = fit_ranker(known(train, valid, ITEMS, texts=False), valid, None, options)
    wanted = asked(test, ITEMS)
    lists, _ = found.ranker.rank(wanted, ITEMS)
    popular = np.argsort(-found.ranker.sources["popularity"].tensors()["users"], kind="stable")
    places = np.empty(ITEMS, int)
    places[popular] = np.arange(1, ITEMS + 1)
    own = [lists[row].tolist().index(item) + 1 for row, item in enumerate(test.target)]
    assert gains(np.array(own), 10).mean() >= gains(places[test.target], 10).mean() - 0.005


@pytest.mark.parametrize("count", [50, 600])
def test_where_users_have_the_same_again_the_ranker_finds_it(count: int) -> None:
    # Of 60 items each user has five favourites, and nothing follows from anything.
    items, random = 60, np.random.default_rng(7)

    def bought(users: int, begin: int) -> list[Row]:
        walks = [random.choice(random.choice(items, 5, False), 15) for _ in range(users)]
        return [
            (f"u{begin + n}", walk[:-1].tolist(), int(walk[-1])) for n, walk in enumerate(walks)
        ]

    train, valid, test = (rows_of(bought(n, 1_000 * n)) for n in (900, count, 1_000))
    found = fit_ranker(known(train, valid, items, texts=False), valid, None, RankConfig(trees=40))
    assert found.ranker.scorer.mixture.weights["history"] >= 0.5
    lists, _ = found.ranker.rank(asked(test, items), 3)
    alone = Recurrence(0.0).order(test.history, items)
    held, most = (
        np.mean([target in each[row][:3] for row, target in enumerate(test.target)])
        for each in (lists, alone)
    )
    assert most > 0.55, "the three that the user had most often"
    assert held >= most - 0.03


def test_weights_are_tried_in_fifths_and_then_beside_the_best() -> None:
    assert sorted(scorers._summing(2, 2)) == [(0, 2), (1, 1), (2, 0)]
    assert set(scorers._next_to((0, 4, 6))) == {
        *((0, 4, 6), (0, 3, 7), (0, 5, 5), (1, 3, 6), (1, 4, 5)),
    }


def test_without_lightgbm_sources_are_mixed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise UserError("not installed", scorers.INSTALL)

    monkeypatch.setattr(scorers, "import_lightgbm", missing)
    found = fit_ranker(known(TRAIN, VALID, ITEMS), VALID, None, RankConfig())
    assert found.ranker.scorer.trees is None
    assert "pip install 'sidtune[rank]'" in capsys.readouterr().err.replace("\n", " ")


def test_shares_of_a_mixture_by_hand() -> None:
    few = VALID.take(np.arange(5))
    table = tabulate(
        fit_ranker(known(TRAIN, few, ITEMS), few, None, RankConfig()).ranker.sources,
        asked(few, ITEMS),
    )
    mixed = Mixture({"transitions": 0.3, "text": 0.7}).scores(table)
    follow, near = table.of("transitions")[:, 0], table.of("text")[:, 0]
    for row in range(5):
        own = table.pairs.row == row
        raised = np.exp((near[own] - 1) / 0.1)
        expected = 0.3 * follow[own] / follow[own].sum() + 0.7 * raised / raised.sum()
        assert mixed[own] == pytest.approx(expected, rel=1e-4)


def test_a_source_with_nothing_to_say_drops_out() -> None:
    few = VALID.take(np.arange(50))
    found = fit_ranker(known(TRAIN, few, ITEMS, texts=False), few, None, RankConfig())
    assert found.absent == ("text",)
    assert "model" not in found.ranker.sources


@pytest.mark.parametrize("count", [50, 600])
@pytest.mark.parametrize("first", ["transitions", "model"])
def test_only_one_source_ranks_alone(count: int, first: str) -> None:
    rows, beams = VALID.take(np.arange(count)), BEAMS.take(np.arange(count))
    options = RankConfig(sources=(first, "sids"), trees=5)
    found = fit_ranker(known(TRAIN, rows, ITEMS), rows, beams, options)
    assert f"without {first}" not in found.ranks
    assert "without sids" in found.ranks
    assert found.ranker.without_model is None, "no model, or nothing beside it that ranks alone"


def test_no_source_ranks_alone() -> None:
    options = RankConfig(sources=("text", "sids"))
    with pytest.raises(UserError, match="nothing is known here of text"):
        fit_ranker(known(TRAIN, VALID, ITEMS, texts=False), VALID, None, options)


def test_trees_need_targets_among_the_candidates() -> None:
    """All rows are of one user, whom a fold leaves nobody to learn from."""
    rows = replace(VALID, users=pa.array(["one"] * len(VALID.users)))
    options = RankConfig(sources=("transitions", "co_occurrence"), trees=5)
    found = fit_ranker(known(TRAIN, rows, ITEMS), rows, None, options)
    assert found.ranker.scorer.trees
    assert set(found.ranks) >= {"ranker", "transitions"}


def test_no_user_is_ranked_by_trees_that_have_seen_them() -> None:
    rows = VALID.take(np.repeat(np.arange(200), 2))
    folds = room.folds_of(rows)
    assert (folds[::2] == folds[1::2]).all()
    assert set(folds.tolist()) == set(range(room.FOLDS))
    assert room.folds_of(rows, 1).tolist() != folds.tolist()


def test_other_draws_give_other_trees(fitted: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorers, "OTHERS", 5)
    table = tabulate(fitted.ranker.sources, asked(VALID, ITEMS, BEAMS))
    one, same, other = (
        Trees.fit(table, VALID.target, RankConfig(trees=12), seed) for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


# --- the file ---


def test_the_file_gives_the_same_lists(fitted: Fitted, tmp_path: Path) -> None:
    write_ranker(fitted.ranker, catalogue(ITEMS), tmp_path)
    again = read_ranker(tmp_path, catalogue(ITEMS))
    assert again is not None
    wanted = asked(TEST, ITEMS, beams_of(TEST, ITEMS))
    for name, (items, scores) in fitted.ranker.rank_each(wanted, 10).items():
        read = again.rank_each(wanted, 10)[name]
        assert read[0].values.tolist() == items.values.tolist()
        assert read[1] == pytest.approx(scores)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert read_ranker(tmp_path / "elsewhere", catalogue(ITEMS)) is None


def test_another_catalogue_is_refused(fitted: Fitted, tmp_path: Path) -> None:
    write_ranker(fitted.ranker, catalogue(ITEMS), tmp_path)
    other = catalogue(ITEMS)
    with pytest.raises(UserError, match="another catalogue"):
        read_ranker(tmp_path, Catalogue(other.ids[::-1], other.titles, other.titles, other.sids))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("left_child=", "left_child=9 ", "left_child"),
        ("split_feature=", "split_feature=1000 ", "split_feature"),
        ("num_leaves=", "num_leaves=1", "split_feature"),
        ("num_cat=0", "num_cat=1", "by category"),
        ("\nend of trees", "", "cut off"),
        ("feature_names=", "feature_names=other ", "other features"),
        ("leaf_value=", "leaf_value=nan ", "leaf_value"),
        ("leaf_value=", "leaf_value=inf ", "leaf_value"),
        ("threshold=", "threshold=nan ", "threshold"),
    ],
)
def test_broken_trees_do_not_reach_lightgbm(fitted: Fitted, old: str, new: str, said: str) -> None:
    assert fitted.ranker.scorer.trees
    text, columns = fitted.ranker.scorer.trees.text, fitted.ranker.scorer.trees.columns
    refuse_broken_trees(text, columns)
    with pytest.raises(ValueError, match=said):
        refuse_broken_trees(text.replace(old, new, 2), columns)


def test_a_split_of_what_is_there_from_what_is_missing() -> None:
    lightgbm = import_lightgbm()
    there = np.array([[0.0], [1.0], [np.nan]] * 40)
    data = lightgbm.Dataset(there, np.isnan(there[:, 0]).astype(float), feature_name=["flag"])
    text = lightgbm.train({"verbose": -1}, data, 1).model_to_string()
    assert "\nthreshold=inf" in text
    refuse_broken_trees(text, ["flag"])


def test_a_walk_through_trees_ends(fitted: Fitted) -> None:
    assert fitted.ranker.scorer.trees
    text, columns = fitted.ranker.scorer.trees.text, fitted.ranker.scorer.trees.columns
    lines = text.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("left_child="))
    rest = lines[at].partition("=")[2].split()[1:]
    lines[at] = f"left_child={' '.join(['0', *rest])}"
    with pytest.raises(ValueError, match="astray"):
        refuse_broken_trees("\n".join(lines), columns)


@pytest.mark.parametrize("damage", ["cut", "text", "tensor", "indices", "missing"])
def test_a_damaged_file_is_refused(fitted: Fitted, tmp_path: Path, damage: str) -> None:
    path = write_ranker(fitted.ranker, catalogue(ITEMS), tmp_path)
    with safetensors.safe_open(path, framework="numpy") as file:
        told, tensors = (
            file.metadata(),
            {name: file.get_tensor(name) for name in file.offset_keys()},
        )
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        safetensors.numpy.save_file(tensors, path, {"sidtune": '{"version": 1}'})
    elif damage == "tensor":
        tensors["text/vectors"] = tensors["text/vectors"][1:]
        safetensors.numpy.save_file(tensors, path, told)
    elif damage == "indices":
        tensors["transitions/direct.indices"] = tensors["transitions/direct.indices"] + ITEMS
        safetensors.numpy.save_file(tensors, path, told)
    else:
        del tensors["popularity/users"]
        safetensors.numpy.save_file(tensors, path, told)
    with pytest.raises(UserError, match=r"ranker\.safetensors") as caught:
        read_ranker(tmp_path, catalogue(ITEMS))
    assert "sidtune rank" in caught.value.hint


def test_a_failed_write_leaves_the_old_file(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_ranker(fitted.ranker, catalogue(ITEMS), tmp_path)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sidtune.ranker.file.safetensors.numpy.save_file", full)
    with pytest.raises(UserError, match="could not be written"):
        write_ranker(fitted.ranker, catalogue(ITEMS), tmp_path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [FILE]
