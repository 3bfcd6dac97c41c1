"""`sidtune evaluate`: rank the rows of a split with a model and baselines, and write metrics and
lists.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from accelerate import PartialState
from numpy.typing import NDArray

from sidtune import __version__
from sidtune.base.errors import UserError
from sidtune.base.hashing import digest, file_digest
from sidtune.base.ragged import Ragged, row_of
from sidtune.base.terminal import console, warn
from sidtune.config.data import DataConfig
from sidtune.config.search import RankOptions
from sidtune.data.catalogue import Catalogue
from sidtune.data.rows import Rows, Split, drawn, load_rows
from sidtune.decoding.answers import read_candidates
from sidtune.decoding.lists import Lists
from sidtune.decoding.recommender import Recommender, refuse_other_folders
from sidtune.distributed.environment import settle_environment
from sidtune.distributed.launch import pin_first_gpu
from sidtune.evaluation.compare import SETTINGS
from sidtune.evaluation.report import Report, make_report
from sidtune.evaluation.results import make_folder, refuse_other_settings, write_results
from sidtune.files.ids import as_texts
from sidtune.metrics.ranks import Ranking
from sidtune.opponents.baselines import rank_baselines
from sidtune.opponents.transitions import tuned_transitions
from sidtune.runs.output import CONFIG
from sidtune.tasks.config_file import load_config
from sidtune.tasks.source import load_split

FOLDER = "evaluation"
LIMIT_SEED = 0


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


def evaluate(request: EvaluationRequest) -> Report | None:
    """Evaluate, write the results, and return them in the first process; the others get nothing.

    Raises:
        UserError: for anything the user can mend.
    """
    _refuse_idle_train(request)
    settle_environment()
    pin_first_gpu()
    state = PartialState(cpu=not torch.cuda.is_available())
    console.quiet = not state.is_main_process
    refuse_other_folders(request.model)
    place, train_place, valid_place = _places(request)
    train_place = train_place if request.baselines else None
    # One of several processes has a device of its own; a single one takes the best there is.
    device = str(state.device) if state.num_processes > 1 else None
    recommender = Recommender.load(request.model, device, request.trust_remote_code)
    if request.candidates:
        recommender = recommender.among(read_candidates(request.candidates))
    every_row = place.load(recommender.bundle.catalogue)
    chosen = drawn(len(every_row.target), request.limit, LIMIT_SEED)
    rows = every_row.take(chosen)
    folder = make_folder(results_folder(request), refuse_link=request.output is None)
    settings = _settings(
        request, place, train_place, recommender.bundle.catalogue, state.num_processes
    )
    refuse_other_settings(
        folder / f"{request.split}.json", settings, (*SETTINGS, "limit", "rows_sha256")
    )
    began = time.monotonic()
    lists = recommender.lists(rows.history, request.options, together=True)
    seconds = time.monotonic() - began
    report = None
    if state.is_main_process:
        settings["ranking_seconds"] = round(seconds, 2)
        rankings = {
            "model": recommender.answers.rank(
                lists.sids, rows.target, _hidden(rows, request.options)
            )
        }
        if train_place:
            found, settings["transitions"] = _baseline_rankings(
                recommender, rows, train_place, valid_place, request.options
            )
            rankings |= found
        elif request.baselines:
            warn(
                "no training rows are known, so baselines are skipped; give them with --train FILE"
            )
        report = make_report(
            settings,
            rows,
            recommender.answers.sid_of,
            recommender.bundle.users,
            len(lists.too_long),
            rankings,
        )
        table = _predictions(
            recommender, rows, chosen, lists, rankings["model"], _hidden(rows, request.options)
        )
        write_results(folder, request.split, report, table)
    if state.num_processes > 1:
        # One that left early would tear the connection from under those that still close it.
        state.wait_for_everyone()
        state.destroy_process_group()
    return report


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


def _places(request: EvaluationRequest) -> tuple[_Place, _Place | None, _Place | None]:
    """The rows to rank, the training and the validation rows; the latter two may be unknown."""
    rows, train = _Place.of_rows(request.rows), _Place.of_rows(request.train)
    if rows and (train or not request.baselines):
        return rows, train, None
    found = [
        folder / CONFIG
        for folder in (request.model, request.model.resolve().parent)
        if (folder / CONFIG).is_file()
    ]
    if not found:
        if rows:
            return rows, None, None
        raise UserError(
            f"{request.model} has no {CONFIG}, which names the rows",
            "Give them with --rows FILE --train FILE.",
        )
    data = load_config(found[0]).data
    rows = rows or _Place.of_split(data, request.split)
    if rows is None:
        raise UserError(
            f"{found[0]} has no data.{request.split}", "Give the rows with --rows FILE."
        )
    if train:
        return rows, train, None
    return rows, _Place.of_split(data, "train"), _Place.of_split(data, "valid")


def results_folder(request: EvaluationRequest) -> Path:
    """Where the results lie."""
    return request.output or request.model / FOLDER


def _hidden(rows: Rows, options: RankOptions) -> Ragged | None:
    """The items that no list of a row may hold."""
    return rows.history if options.exclude_history else None


def _baseline_rankings(
    recommender: Recommender,
    rows: Rows,
    train_place: _Place,
    valid_place: _Place | None,
    options: RankOptions,
) -> tuple[dict[str, Ranking], dict[str, Any]]:
    """The baselines' rankings, and the settings that item transitions were given."""
    sid_of, catalogue = recommender.answers.sid_of, recommender.bundle.catalogue
    train = train_place.load(catalogue)
    valid = valid_place.load(catalogue) if valid_place else None
    restriction: dict[str, Any] = {
        "allowed": sid_of >= 0,
        "exclude_history": options.exclude_history,
    }
    transitions = tuned_transitions(train, valid, len(sid_of), **restriction)
    rankings = rank_baselines(
        train,
        rows.history,
        rows.target,
        sid_of,
        options.beams,
        transitions=transitions,
        **restriction,
    )
    return rankings, transitions.as_json()


def _settings(
    request: EvaluationRequest,
    place: _Place,
    train_place: _Place | None,
    catalogue: Catalogue,
    processes: int,
) -> dict[str, Any]:
    """Everything that gave the figures."""
    named = {
        "rows": place.path,
        "train": train_place and train_place.path,
        "candidates": request.candidates,
    }
    digests = {f"{name}_sha256": file_digest(file) for name, file in named.items() if file}
    options = asdict(request.options)
    return {
        "model": str(request.model),
        "split": request.split,
        **{name: file and str(file) for name, file in named.items()},
        **digests,
        "sids_sha256": digest([catalogue.ids, catalogue.sids]),
        **({} if place.history is None else {"history": place.history}),
        "limit": request.limit,
        **options,
        "processes": processes,
        "versions": {"sidtune": __version__, "torch": torch.__version__},
    }


def _predictions(
    recommender: Recommender,
    rows: Rows,
    chosen: NDArray[np.int64],
    lists: Lists,
    ranking: Ranking,
    hidden: Ragged | None,
) -> pa.Table:
    """A row each: who, what was wanted, where it stands, and the list with its scores."""
    ids = pa.array(recommender.bundle.catalogue.ids, pa.string())
    items, columns = recommender.answers.shown(lists.sids, hidden)
    offsets, scores = pa.array(items.offsets.astype(np.int32)), lists.scores[row_of(items), columns]
    return pa.table(
        {
            "row": chosen + 1,
            "user_id": as_texts(rows.users),
            "target": ids.take(pa.array(rows.target)),
            "sid_rank": ranking.sid_ranks,
            "item_rank": ranking.item_ranks,
            "items": pa.ListArray.from_arrays(offsets, ids.take(pa.array(items.values))),
            "scores": pa.ListArray.from_arrays(offsets, pa.array(scores)),
        }
    )
