"""`sidtune evaluate`: rank the rows of a split with a model and baselines, and write metrics and
lists.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray

from sidtune import __version__
from sidtune.base.errors import UserError
from sidtune.base.hashing import file_digest
from sidtune.base.ragged import Ragged
from sidtune.base.terminal import console, starting, warn
from sidtune.config.data import DataConfig
from sidtune.config.search import RankOptions
from sidtune.data.catalogue import Catalogue
from sidtune.data.rows import Rows, Split, drawn, load_rows
from sidtune.decoding.answers import read_candidates
from sidtune.decoding.recommender import Recommender, with_beams
from sidtune.distributed.environment import settle_environment
from sidtune.distributed.launch import warn_of_idle_gpus
from sidtune.evaluation.compare import SETTINGS
from sidtune.evaluation.details import agreement, examples, history_lengths
from sidtune.evaluation.lists import Listed, model_lists, predictions
from sidtune.evaluation.reach import reached
from sidtune.evaluation.report import Details, Report, make_report
from sidtune.evaluation.results import (
    make_folder,
    refuse_other_settings,
    write_on_card,
    write_results,
)
from sidtune.metrics.ranks import Ranking
from sidtune.metrics.repeats import repeating
from sidtune.opponents.baselines import Baselines
from sidtune.ranker.file import FILE, catalogue_digest, read_ranker
from sidtune.ranker.pairs import Floats
from sidtune.ranker.ranker import Ranker
from sidtune.ranker.sources.vectors import Text
from sidtune.ranker.texts import text_vectors
from sidtune.runs.bundle import read_bundle, refuse_other_folders
from sidtune.runs.files import CONFIG, EVALUATION
from sidtune.tasks.config_file import load_config
from sidtune.tasks.source import load_split

LIMIT_SEED = 0
# Settings of an evaluation that one with others does not replace.
KEPT = (*SETTINGS, "limit", "rows_sha256", "no_rank", "no_baselines")


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate.

    Args:
        model: a run's folder, or a checkpoint.
        split: which rows of the run's configuration; it also names the results.
        limit: at most this many rows, drawn by a fixed seed.
        candidates: a file with the ids of the items that may be answered.
        rows, train: files in place of those of the run's configuration.
        output: the folder for the results; `evaluation` in the model's folder by default.
        baselines: rank the rows with the baselines too; without them no training rows are read.
        rank: use the ranker beside the model, if there is one.
    """

    model: Path
    split: Split = "test"
    options: RankOptions = field(default_factory=RankOptions)
    limit: int | None = None
    candidates: Path | None = None
    rows: Path | None = None
    train: Path | None = None
    output: Path | None = None
    trust_remote_code: bool = False
    baselines: bool = True
    rank: bool = True


def evaluate(request: EvaluationRequest) -> Report | None:
    """Evaluate, write the results, and return them in the first process; the others get nothing.

    Raises:
        UserError: for anything the user can mend.
    """
    _refuse_idle_train(request)
    settle_environment()
    warn_of_idle_gpus()
    state = PartialState(cpu=not torch.cuda.is_available())
    console.quiet |= not state.is_main_process
    refuse_other_folders(request.model)
    data = _Data.of(request)
    # One of several processes has a device of its own; a single one takes the best there is.
    device = str(state.device) if state.num_processes > 1 else None
    recommender = Recommender.load(request.model, device, request.trust_remote_code, request.rank)
    _judge_ranker(request, recommender.ranker)
    options = recommender.settled(request.options, said=True)
    if request.candidates:
        recommender = recommender.among(read_candidates(request.candidates))
    every_row = data.rows.load(recommender.bundle.catalogue)
    chosen = drawn(len(every_row.target), request.limit, LIMIT_SEED)
    rows = every_row.take(chosen)
    # Before the model ranks, which may take hours: a file may be faulty.
    counted = data.read(recommender) if state.is_main_process else None
    folder = make_folder(results_folder(request), refuse_link=request.output is None)
    settings = _settings(
        request,
        options,
        data,
        recommender.bundle.catalogue,
        recommender.ranker,
        state.num_processes,
    )
    refuse_other_settings(folder / f"{request.split}.json", settings, KEPT)
    starting(f"Ranking {len(rows.target):,} rows with {options.width} beams")
    began = time.monotonic()
    lists = recommender.lists(rows.history, options, together=True)
    own = recommender.in_own_order(rows.history, lists, options, together=True)
    settings["ranking_seconds"] = round(time.monotonic() - began, 2)
    report = None
    if state.is_main_process:
        found = Listed(recommender, rows, chosen, lists, own, options)
        report = _report(found, counted, settings, folder, request)
    if state.num_processes > 1:
        # One that left early would tear the connection from under those that still close it.
        state.wait_for_everyone()
        state.destroy_process_group()
    return report


def _report(
    found: Listed,
    counted: _Counted | None,
    settings: dict[str, Any],
    folder: Path,
    request: EvaluationRequest,
) -> Report:
    """Rank with ranker and baselines too, and leave the results."""
    recommender, rows, lists = found.recommender, found.rows, found.lists
    catalogue = recommender.bundle.catalogue
    own = model_lists(found)
    rankings = {name: each.ranking for name, each in own.items()}
    first, reach, repeats = next(iter(own.values())), None, None
    histories: dict[str, Ragged] = {request.split: rows.history}
    if counted:
        simple, reach, settings["chosen"] = _opponents(recommender, rows, counted, found.options)
        rankings |= simple
        train, valid = counted.train, counted.valid
        repeats = repeating(valid if valid and len(valid.target) else train)
        histories = {"train": train.history, **histories}
    elif request.baselines:
        warn("no training rows are known, so baselines are skipped; give them with --train FILE")
    report = make_report(
        settings,
        rows,
        recommender.answers.sid_of,
        recommender.bundle.users,
        len(lists.too_long),
        rankings,
        reach,
    )
    details = Details(
        agreement(recommender.answers, catalogue, lists, rows.target),
        examples(catalogue, rows, found.chosen, first.ranking),
        history_lengths(histories),
        repeats,
    )
    report = replace(report, details=details)
    table = predictions(found, first, reach)
    write_results(folder, request.split, report, table)
    if request.output is None:
        write_on_card(request.model, request.split, report)
    return report


def _judge_ranker(request: EvaluationRequest, ranker: Ranker | None) -> None:
    """Refuse rows of the run whose targets the ranker has counted, and warn of those that it was
    fitted on.
    """
    if ranker is None or request.rows:
        return
    if ranker.later:
        raise UserError(
            f"{request.model}: `sidtune rank --events` counted the {request.split} rows into the"
            " ranker, so it would be measured on what it knows",
            "Give later rows with --rows, add --no-rank for the model alone, or fit the ranker on"
            f" training rows again: `sidtune rank {request.model}`.",
        )
    if request.split == "valid":
        warn(
            "the ranker was fitted on validation rows, so its figures here are too high; for rows"
            " that it was not fitted on, see the table of `sidtune rank` or --split test"
        )


def _refuse_idle_train(request: EvaluationRequest) -> None:
    if request.train and not request.baselines:
        raise UserError(
            "--train has no effect with --no-baselines: only baselines read it",
            "Remove one of them.",
        )


@dataclass(frozen=True)
class _Place:
    """Where rows are, and how they are read from there.

    Args:
        history: the most items a history keeps; None where it keeps what its row says.
    """

    path: Path
    load: Callable[[Catalogue], Rows]
    history: int | None = None

    @classmethod
    def of_rows(cls, path: Path | None) -> _Place | None:
        """A file of rows, if one is given."""
        return _Place(path, partial(load_rows, path)) if path else None

    @classmethod
    def of_split(cls, data: DataConfig, split: Split) -> _Place | None:
        """A split of a configuration, if it has that split."""
        path = data.rows_file(split)
        return (
            _Place(path, partial(load_split, data, split=split), data.longest_history)
            if path
            else None
        )


@dataclass(frozen=True)
class _Counted:
    """What the baselines are counted on.

    Args:
        valid: unknown where no configuration says it.
        texts: vectors of the items' texts, where there are any.
    """

    train: Rows
    valid: Rows | None
    texts: Floats | None


@dataclass(frozen=True)
class _Data:
    """Where everything is that an evaluation reads besides the model.

    Args:
        rows: the rows to rank.
        train, valid: unknown where no configuration says it.
        texts: reads vectors of the items' texts, where there are any.
    """

    rows: _Place
    train: _Place | None = None
    valid: _Place | None = None
    texts: Callable[[Catalogue], Floats | None] = lambda catalogue: None

    @classmethod
    def of(cls, request: EvaluationRequest) -> _Data:
        """What the request names, and what the run's configuration says of the rest."""
        rows, train = _Place.of_rows(request.rows), _Place.of_rows(request.train)
        if rows and (train or not request.baselines):
            return cls(rows, train if request.baselines else None)
        found = [
            folder / CONFIG
            for folder in (request.model, request.model.resolve().parent)
            if (folder / CONFIG).is_file()
        ]
        if not found:
            if rows:
                return cls(rows)
            raise UserError(
                f"{request.model} has no {CONFIG}, which names the rows",
                "Give them with --rows FILE --train FILE.",
            )
        config = load_config(found[0])
        rows = rows or _Place.of_split(config.data, request.split)
        if rows is None:
            raise UserError(
                f"{found[0]} has no data.{request.split}", "Give the rows with --rows FILE."
            )
        if not request.baselines:
            return cls(rows)
        texts = partial(text_vectors, config.data.items, config.sids)
        if train:
            return cls(rows, train, None, texts)
        train, valid = (
            _Place.of_split(config.data, "train"),
            _Place.of_split(config.data, "valid"),
        )
        return cls(rows, train, valid, texts)

    def read(self, recommender: Recommender) -> _Counted | None:
        """What the baselines are counted on; None where no training rows are known.

        Vectors of texts are those of the ranker, where there is one.
        """
        if self.train is None:
            return None
        catalogue = recommender.bundle.catalogue
        text = recommender.ranker.sources.get("text") if recommender.ranker else None
        return _Counted(
            self.train.load(catalogue),
            self.valid.load(catalogue) if self.valid else None,
            text.near.vectors if isinstance(text, Text) else self.texts(catalogue),
        )


def results_folder(request: EvaluationRequest) -> Path:
    """Where the results lie."""
    return request.output or request.model / EVALUATION


def _opponents(
    recommender: Recommender, rows: Rows, counted: _Counted, options: RankOptions
) -> tuple[dict[str, Ranking], NDArray[np.int64], dict[str, Any]]:
    """The baselines' rankings, how each target can be reached, and the settings that were
    chosen.
    """
    sid_of = recommender.answers.sid_of
    restriction: dict[str, Any] = {
        "allowed": sid_of >= 0,
        "exclude_history": options.exclude_history,
    }
    baselines = Baselines.fit(
        counted.train, counted.valid, len(sid_of), texts=counted.texts, **restriction
    )
    rankings = baselines.rank(rows.history, rows.target, sid_of, options.width, **restriction)
    return rankings, reached(rows, baselines), baselines.as_json()


def settings_of(request: EvaluationRequest) -> dict[str, Any]:
    """Everything that would give the figures of an evaluation now; the model is not loaded.

    Raises:
        UserError: as `evaluate`, for rows and rankers.
    """
    catalogue = read_bundle(request.model).catalogue
    ranker = read_ranker(request.model, catalogue) if request.rank else None
    options = with_beams(request.options, ranker)
    return _settings(request, options, _Data.of(request), catalogue, ranker, 1)


def _settings(
    request: EvaluationRequest,
    options: RankOptions,
    data: _Data,
    catalogue: Catalogue,
    ranker: Ranker | None,
    processes: int,
) -> dict[str, Any]:
    """Everything that gave the figures."""
    named = {
        "rows": data.rows.path,
        "train": data.train and data.train.path,
        "valid": data.valid and data.valid.path,
        "candidates": request.candidates,
    }
    digests = {f"{name}_sha256": file_digest(file) for name, file in named.items() if file}
    ranked = {"ranker_sha256": file_digest(request.model / FILE)} if ranker else {}
    return {
        "model": str(request.model),
        "split": request.split,
        **{name: file and str(file) for name, file in named.items()},
        **digests,
        **ranked,
        "sids_sha256": catalogue_digest(catalogue),
        **({} if data.rows.history is None else {"history": data.rows.history}),
        "limit": request.limit,
        **asdict(options),
        "no_rank": not request.rank,
        "no_baselines": not request.baselines,
        "processes": processes,
        "versions": {"sidtune": __version__, "torch": torch.__version__},
    }
