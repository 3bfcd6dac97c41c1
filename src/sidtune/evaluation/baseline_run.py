"""`sidtune baselines`: rank the rows of a split with SASRec and the simple baselines; no model
is needed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from rich.console import RenderableType
from rich.table import Table

from sidtune import __version__
from sidtune.base.errors import UserError
from sidtune.base.hashing import file_digest
from sidtune.base.ragged import Ragged
from sidtune.base.terminal import warn
from sidtune.config.search import BEAMS
from sidtune.data.catalogue import Catalogue
from sidtune.data.popularity import popularity
from sidtune.data.rows import Rows, Split, drawn
from sidtune.decoding.answers import allowed_items, read_candidates
from sidtune.encoding.build import load_catalogue
from sidtune.evaluation import tables
from sidtune.evaluation.compare import SETTINGS
from sidtune.evaluation.evaluate import LIMIT_SEED
from sidtune.evaluation.reach import reached
from sidtune.evaluation.report import Report, make_report
from sidtune.evaluation.results import (
    make_folder,
    refuse_other_settings,
    write_report,
    write_results,
)
from sidtune.files.ids import as_texts
from sidtune.metrics.ranks import Ranking
from sidtune.opponents import sasrec
from sidtune.opponents.baselines import Baselines, Listing, rank_rows
from sidtune.ranker.file import catalogue_digest
from sidtune.ranker.texts import text_vectors
from sidtune.runs.files import beside
from sidtune.tasks.config import Config
from sidtune.tasks.source import load_source

SASREC = "SASRec"
KEPT = (*SETTINGS, "limit", "rows_sha256", "train_sha256", "valid_sha256", "seed", "simple")


@dataclass(frozen=True)
class BaselineRequest:
    """What to rank, and how.

    Args:
        config: whose `data` is read; nothing else of it counts but `seed` and `output_dir`.
        split: which rows; it also names the results.
        simple: leave SASRec out.
        seed: of SASRec; the configuration's by default.
        limit, candidates, exclude_history: as in `sidtune evaluate`.
        output: the folder for the results; beside `output_dir` by default, since training wants
            that one empty.
    """

    config: Config
    split: Split = "test"
    simple: bool = False
    seed: int | None = None
    limit: int | None = None
    candidates: Path | None = None
    exclude_history: bool = False
    output: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the results lie."""
        return self.output or beside(self.config.output_dir, "baselines")


def run_baselines(request: BaselineRequest) -> Report:
    """Rank, write the results of each ranker into a folder of its own, and return those of all.

    Raises:
        UserError: for anything the user can mend.
    """
    _refuse_idle(request)
    if not request.simple:
        sasrec.require_library()
    folder = make_folder(request.folder)
    catalogue = load_catalogue(request.config)
    every_row, train = (
        _rows(request.config, catalogue, request.split),
        _rows(request.config, catalogue, "train"),
    )
    settings = _settings(request, catalogue)
    refuse_other_settings(folder / f"{request.split}.json", settings, KEPT)
    chosen = drawn(len(every_row.target), request.limit, LIMIT_SEED)
    rows, sid_of = every_row.take(chosen), _sid_numbers(request, catalogue)
    users = popularity(train, len(sid_of))
    began = time.monotonic()
    rankings: dict[str, Ranking] = {}
    if not request.simple:
        listing = Listing.of(
            users, sid_of, BEAMS, allowed=sid_of >= 0, exclude_history=request.exclude_history
        )
        rankings[SASREC], settings["sasrec"] = _rank_sasrec(
            request, catalogue, train, rows, listing
        )
    restriction: dict[str, Any] = {
        "allowed": sid_of >= 0,
        "exclude_history": request.exclude_history,
    }
    baselines = Baselines.fit(
        train,
        _rows(request.config, catalogue, "valid"),
        len(sid_of),
        texts=text_vectors(request.config.data.items, request.config.sids, catalogue),
        **restriction,
    )
    settings["chosen"] = baselines.as_json()
    rankings |= baselines.rank(rows.history, rows.target, sid_of, BEAMS, **restriction)
    settings["ranking_seconds"] = round(time.monotonic() - began, 2)
    reach = reached(rows, baselines)
    report = make_report(settings, rows, sid_of, users, 0, rankings, reach)
    for name, ranking in rankings.items():
        alone = replace(report, rankers={name: report.rankers[name]})
        own = make_folder(folder / name.lower().replace(" ", "-"))
        write_results(own, request.split, alone, _predictions(catalogue, rows, chosen, ranking))
    write_report(folder, request.split, report)
    return report


def render(report: Report) -> Iterator[RenderableType]:
    """The grid that SASRec was chosen from, then what `sidtune evaluate` shows."""
    found = report.settings.get("sasrec")
    if found:
        yield _grid(found["grid"])
    yield from tables.render(report)


def _refuse_idle(request: BaselineRequest) -> None:
    if request.simple and request.seed is not None:
        raise UserError(
            "--seed has no effect with --simple: the simple baselines are deterministic",
            "Remove one of them.",
        )


def _rows(config: Config, catalogue: Catalogue, split: Split) -> Rows:
    """All rows of a split, as `sidtune evaluate` takes them: `data.dedup` is about what a language
    model trains on.
    """
    if config.data.rows_file(split) is None:
        raise UserError(
            f"the configuration has no data.{split}",
            f"Set data.{split}=FILE, or choose another --split.",
        )
    rows_alone = {"dedup": False, "preferences": None, "instructions": None}
    return load_source(config.data.model_copy(update=rows_alone), catalogue, split).rows


def _sid_numbers(request: BaselineRequest, catalogue: Catalogue) -> NDArray[np.int64]:
    """A number for each item's SID, `(items,)`; -1 for items that are no candidates."""
    numbers = {sid: number for number, sid in enumerate(catalogue.items_of)}
    sid_of = np.array([numbers[sid] for sid in catalogue.sids], np.int64)
    if request.candidates is None:
        return sid_of
    return np.where(allowed_items(read_candidates(request.candidates), catalogue), sid_of, -1)


def _rank_sasrec(
    request: BaselineRequest, catalogue: Catalogue, train: Rows, rows: Rows, listing: Listing
) -> tuple[Ranking, dict[str, Any]]:
    """SASRec's ranking, and everything that gave the model."""
    if request.split == "valid":
        warn("SASRec is tuned on the validation rows, so its metrics on them are optimistic")
    valid = _rows(request.config, catalogue, "valid")
    scorer, trials = sasrec.tune(train, valid, listing, len(catalogue.ids), _seed(request))
    return rank_rows(SASREC, scorer, rows.history, rows.target, listing), sasrec.describe(trials)


def _seed(request: BaselineRequest) -> int:
    return request.config.seed if request.seed is None else request.seed


def _settings(request: BaselineRequest, catalogue: Catalogue) -> dict[str, Any]:
    """Everything that gave the figures; `beams` is the length of the lists, by the name that
    `compare` knows.
    """
    data = request.config.data
    files: Mapping[str, Path | None] = {
        "rows": data.rows_file(request.split),
        "train": data.rows_file("train"),
        "valid": data.rows_file("valid"),
        "candidates": request.candidates,
    }
    return {
        "split": request.split,
        **{name: file and str(file) for name, file in files.items()},
        **{f"{name}_sha256": file_digest(file) for name, file in files.items() if file},
        "sids_sha256": catalogue_digest(catalogue),
        **({} if data.longest_history is None else {"history": data.longest_history}),
        "limit": request.limit,
        "beams": BEAMS,
        "exclude_history": request.exclude_history,
        "simple": request.simple,
        "seed": None if request.simple else _seed(request),
        "versions": {"sidtune": __version__, "torch": torch.__version__},
    }


def _predictions(
    catalogue: Catalogue, rows: Rows, chosen: NDArray[np.int64], ranking: Ranking
) -> pa.Table:
    """A row each, with the columns of `sidtune evaluate` but the scores; a rank beyond the list is
    a miss.
    """
    ids = pa.array(catalogue.ids, pa.string())
    listed = ranking.items >= 0
    lists = Ragged.from_lengths(ranking.items[listed], listed.sum(axis=1))
    offsets = pa.array(lists.offsets.astype(np.int32))
    return pa.table(
        {
            "row": chosen + 1,
            "user_id": as_texts(rows.users),
            "target": ids.take(pa.array(rows.target)),
            "sid_rank": np.where(ranking.sid_ranks <= BEAMS, ranking.sid_ranks, 0),
            "item_rank": np.where(ranking.item_ranks <= BEAMS, ranking.item_ranks, 0),
            "items": pa.ListArray.from_arrays(offsets, ids.take(pa.array(lists.values))),
        }
    )


def _grid(trials: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    for heading in (
        "SASRec: hidden",
        "dropout",
        "best epoch",
        "validation NDCG@10",
        "HR@10",
        "seconds",
        "",
    ):
        table.add_column(heading, justify="right")
    best = max(trials, key=lambda trial: float(trial["ndcg"]))
    for trial in trials:
        figures = (f"{trial[name]:.4f}" for name in ("ndcg", "hr"))
        mark = "best" if trial is best else ""
        shape = (str(trial[name]) for name in ("hidden", "dropout", "epoch"))
        table.add_row(*shape, *figures, f"{trial['seconds']:.0f}", mark)
    return table
