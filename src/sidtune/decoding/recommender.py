"""The Recommender: loads a trained model and recommends items for histories."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sidtune.base.errors import UserError, some
from sidtune.base.ragged import Ragged, place_of, row_of
from sidtune.base.terminal import warn
from sidtune.config.rank import SourceName
from sidtune.config.search import Normalize, RankOptions
from sidtune.decoding.answers import Answers, allowed_items, make_answers
from sidtune.decoding.decoder import Decoder, make_decoder
from sidtune.decoding.lists import Lists, by_both_directions, rank_histories
from sidtune.decoding.prompts import Prompts
from sidtune.decoding.reverse import Reverse
from sidtune.model.load import load_trained
from sidtune.ranker.file import read_ranker
from sidtune.ranker.pairs import Asked, Beams
from sidtune.ranker.ranker import Ranker
from sidtune.runs.bundle import Bundle, read_bundle, refuse_other_folders
from sidtune.tokenizer.load import load_tokenizer


@dataclass(frozen=True)
class Recommendation:
    """A recommended item. Its score is the log-probability of its SID, or the ranker's score, which
    compares within a list only. `sources` are the ranker's sources that named the item; empty
    without a ranker.
    """

    item_id: str
    title: str
    sid: str
    score: float
    sources: tuple[SourceName, ...] = ()


class Recommender:
    """Recommends items for histories; thread-safe.

    Args:
        prompts: encodes histories as prompts.
        decoder: runs the model.
        bundle: the model's catalogue and prompt format.
        answers: the items that may be returned.
        ranker: puts the model's items and those of other sources in order; None for the model's
            own order.
        reverse: the same model from newest to oldest, where it learned that.
    """

    def __init__(
        self,
        prompts: Prompts,
        decoder: Decoder[Any],
        bundle: Bundle,
        answers: Answers,
        ranker: Ranker | None = None,
        reverse: Reverse | None = None,
    ) -> None:
        self.prompts, self.decoder, self.bundle, self.answers = prompts, decoder, bundle, answers
        self.ranker, self.reverse = ranker, reverse

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | None = None,
        trust_remote_code: bool = False,
        rank: bool = True,
    ) -> Recommender:
        """Load a run's folder, its `final_checkpoint`, or one of its checkpoints.

        Args:
            device: for example `cpu` or `cuda:1`; by default a GPU if there is one.
            trust_remote_code: allow Python code shipped with the model to run.
            rank: use the ranker that `sidtune rank` left in the folder, if there is one.

        Raises:
            UserError: for a folder without a model trained by sidtune, or with files of different
                models; for a ranker that is damaged or of another catalogue.
        """
        folder = Path(path)
        refuse_other_folders(folder)
        bundle = read_bundle(folder)
        prompts = Prompts(bundle, load_tokenizer(str(folder), trust_remote_code))
        model = load_trained(folder, torch.device(device or _best_device()), trust_remote_code)
        decoder = make_decoder(model)
        highest = max(prompts.token_ids.values())
        if highest >= decoder.head.vocabulary:
            raise UserError(
                f"{folder}: the model has {decoder.head.vocabulary:,} rows, but SID tokens have ids"
                f" up to {highest:,}",
                "Use model and tokenizer of the same run.",
            )
        ranker = read_ranker(folder, bundle.catalogue) if rank else None
        reverse = (
            Reverse(bundle, prompts.segments, decoder.head) if bundle.reversed_template else None
        )
        return cls(prompts, decoder, bundle, make_answers(bundle, prompts), ranker, reverse)

    def among(self, candidates: Iterable[str]) -> Recommender:
        """A recommender with the same model that returns only these items.

        A warning counts ids that are not in the catalogue.

        Raises:
            UserError: if none of them is in the catalogue.
        """
        return self.allowing(allowed_items(candidates, self.bundle.catalogue))

    def allowing(self, allowed: NDArray[np.bool_]) -> Recommender:
        """The same for a mask of items, `(items,)`, not all of them false."""
        answers = make_answers(self.bundle, self.prompts, allowed)
        return Recommender(
            self.prompts, self.decoder, self.bundle, answers, self.ranker, self.reverse
        )

    def unranked(self) -> Recommender:
        """The same model without its ranker."""
        return Recommender(
            self.prompts, self.decoder, self.bundle, self.answers, reverse=self.reverse
        )

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        beams: int | None = None,
        normalize: Normalize = "full",
        exclude_history: bool = False,
        both_directions: bool = False,
    ) -> list[list[Recommendation]]:
        """The best `k` items for each history, or fewer if the search finds no more.

        Args:
            histories: non-empty lists of item ids, oldest first.
            k: number of items per list, at most the number of beams.
            beams: beam width; by default as many as the ranker was fitted with (`rank.beams`), and
                50 without one.
            normalize: normalise over the full vocabulary (`full`), or over the tokens that the trie
                allows (`trie`).
            exclude_history: never return an item of the history.
            both_directions: order the list by both directions of reading a history, for a model
                that learned both (task `sid_sequence_reversed`) and has no ranker.

        Raises:
            UserError: for arguments other than these, for items that are not in the catalogue, and
                for histories that are empty or too long.
        """
        options = self.settled(
            RankOptions(beams, normalize, exclude_history, both_directions=both_directions)
        )
        check_size(k, options.width)
        # An array or a column of a table has no truth of its own.
        if not len(histories):
            return []
        answers = []
        for number, answer in enumerate(
            self.answer(self.positions(histories), k, options), start=1
        ):
            if answer is None:
                message = (
                    f"history {number}: the prompt exceeds cutoff_len={self.bundle.cutoff_len}"
                )
                raise UserError(message, "Train with a larger encoding.cutoff_len.")
            answers.append(answer)
        return answers

    def answer(
        self, history: Ragged, k: int, options: RankOptions
    ) -> list[list[Recommendation] | None]:
        """The best `k` items for histories of catalogue positions; None where the prompt does not
        fit, unless there is a ranker, which needs no prompt.
        """
        if self.ranker and options.both_directions:
            raise UserError(
                "--both-directions has no effect on lists that the ranker orders",
                "Add --no-rank for the model's own lists, or leave --both-directions out.",
            )
        lists = self.lists(history, options)
        if self.ranker:
            asked = self.asked(history, lists, options)
            return list(self._recommendations(*self.ranker.rank_named(asked, k)))
        asked = self.asked(history, self.in_own_order(history, lists, options), options)
        assert asked.beams
        items, scores = asked.beams
        first = place_of(items) < k
        named = self._recommendations(items.keep(first), scores[first], [()] * int(first.sum()))
        too_long = set(lists.too_long.tolist())
        return [None if row in too_long else answer for row, answer in enumerate(named)]

    def settled(self, options: RankOptions, said: bool = False) -> RankOptions:
        """The options with a number of beams: where none was asked for, that of the lists that the
        ranker was fitted on.

        Args:
            said: warn where another number was asked for.

        Raises:
            UserError: where both directions are asked of a model that learned one.
        """
        if options.both_directions and self.reverse is None:
            raise UserError(
                "--both-directions: the model learned histories from oldest to newest only",
                "Leave the option out, or train with the task sid_sequence_reversed, too.",
            )
        fitted = self.ranker.lists_of if self.ranker else None
        if said and fitted and options.beams not in (None, fitted):
            warn(
                f"the ranker was fitted on the model's lists of {fitted} beams (rank.beams), and"
                f" now gets lists of {options.beams}; without --beams it gets what it knows"
            )
        return with_beams(options, self.ranker)

    def lists(self, history: Ragged, options: RankOptions, together: bool = False) -> Lists:
        """The best SIDs for histories of catalogue positions; `together` as in `rank_histories`."""
        settled = self.settled(options)
        return rank_histories(
            self.decoder, self.prompts, self.answers, history, settled, together=together
        )

    def in_own_order(
        self, history: Ragged, lists: Lists, options: RankOptions, together: bool = False
    ) -> Lists:
        """The lists as the model alone shows them, by both directions where the options say so; a
        ranker reads them as they were found.
        """
        if not options.both_directions:
            return lists
        assert self.reverse
        return by_both_directions(lists, self.reverse, self.answers, history, together=together)

    def newest(self) -> NDArray[np.float32] | None:
        """See `Reverse.newest`, of the model's catalogue; None for a model that did not learn to
        read backwards.
        """
        return self.reverse.newest(len(self.bundle.catalogue.ids)) if self.reverse else None

    def asked(self, history: Ragged, lists: Lists, options: RankOptions) -> Asked:
        """The same histories as a ranker is asked them, with the model's lists.

        It reads as many of the latest items as the model does, since it learned from no longer
        histories; all items are excluded where the history is.
        """
        hidden = history if options.exclude_history else None
        items, columns = self.answers.shown(lists.sids, hidden)
        allowed = self.answers.sid_of >= 0
        return Asked(
            history.latest(self.bundle.longest_history),
            len(allowed),
            Beams(items, lists.scores[row_of(items), columns]),
            None if allowed.all() else allowed,
            hidden,
        )

    def positions(self, histories: Sequence[Sequence[str]]) -> Ragged:
        """Catalogue positions of item ids.

        Raises:
            UserError: for ids that are not in the catalogue, and for a history that is empty or no
                list.
        """
        for number, history in enumerate(histories, start=1):
            if isinstance(history, str) or not hasattr(history, "__len__"):
                what = "a string" if isinstance(history, str) else type(history).__name__
                raise UserError(
                    f"history {number} is {what}, not a list: {history!r:.60}",
                    "Give lists of item ids: [['12', '7']].",
                )
        lengths = np.array([len(history) for history in histories], np.int64)
        if not lengths.all():
            raise UserError(
                f"history {int(np.argmin(lengths)) + 1} is empty", "Give at least one item."
            )
        ids = [str(item) for history in histories for item in history]
        located = self.located([ids])
        unknown = list(
            dict.fromkeys(item for item, at in zip(ids, located.values, strict=True) if at < 0)
        )
        if unknown:
            raise UserError(
                f"not in the catalogue: {some([repr(item) for item in unknown])}",
                "Remove them; separate several ids by commas. `sidtune play MODEL` finds ids by"
                " words of titles.",
            )
        return Ragged.from_lengths(located.values, lengths)

    def located(self, histories: Sequence[Sequence[str]]) -> Ragged:
        """Catalogue positions of the items of histories, -1 for those that the catalogue does not
        have.
        """
        flat = [item for history in histories for item in history]
        lengths = np.array([len(history) for history in histories], np.int64)
        return Ragged.from_lengths(self.bundle.catalogue.find(flat), lengths)

    def _recommendations(
        self,
        items: Ragged,
        scores: NDArray[np.float32],
        sources: Sequence[tuple[SourceName, ...]],
    ) -> Iterator[list[Recommendation]]:
        """Lists of catalogue positions with scores and sources, as items with their titles."""
        catalogue = self.bundle.catalogue
        found = [
            Recommendation(
                catalogue.ids[item], catalogue.titles[item], "".join(catalogue.sids[item]), *rest
            )
            for item, *rest in zip(items.values.tolist(), scores.tolist(), sources, strict=True)
        ]
        for start, end in pairwise(items.offsets.tolist()):
            yield found[start:end]


def with_beams(options: RankOptions, ranker: Ranker | None) -> RankOptions:
    """With the number of beams that a search with this ranker has."""
    fitted = ranker.lists_of if ranker else None
    return replace(options, beams=options.beams or fitted or options.width)


def check_size(k: int, beams: int) -> None:
    """Refuse `k` larger than the number of beams."""
    if not 1 <= k <= beams:
        raise UserError(
            f"k is {k}, but the search has only {beams} beams",
            "Use at least as many beams as items.",
        )


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
