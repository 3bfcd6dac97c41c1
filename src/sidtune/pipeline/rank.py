"""`sidtune rank`: fit a ranker beside a finished model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import RenderableType
from rich.table import Table

from sidtune.base.errors import UserError
from sidtune.base.storage import write_text
from sidtune.base.terminal import console, starting
from sidtune.config.rank import RankConfig
from sidtune.config.search import RankOptions
from sidtune.data.catalogue import Catalogue
from sidtune.data.popularity import popularity
from sidtune.data.rows import drawn
from sidtune.decoding.recommender import Recommender
from sidtune.evaluation.compare import interval_of
from sidtune.evaluation.tables import plain_table
from sidtune.files.text import read_json_object
from sidtune.metrics.metrics import Estimate, gains, hits, mean, proportion
from sidtune.pipeline.later import Later, with_later
from sidtune.ranker.figures import Line, Ranked
from sidtune.ranker.file import FILE, is_readable, read_ranker, write_ranker
from sidtune.ranker.ranker import Fitted, fit_ranker
from sidtune.ranker.sources import FEATURES
from sidtune.ranker.sources.base import Known
from sidtune.ranker.texts import text_vectors
from sidtune.runs.bundle import read_bundle, refuse_other_folders
from sidtune.runs.files import CONFIG, RANKED
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import load_config, parse_config, read_tree
from sidtune.tasks.source import load_split

ROWS_SEED = 0
CUTOFF, FAR = 10, 50
SHOWN_FEATURES = 8


def rank_run(
    folder: Path, trust_remote_code: bool = False, options: RankConfig | None = None
) -> Ranked:
    """Fit the ranker of a finished run on its validation rows, and leave it beside the model.

    Args:
        options: in place of those of the run's configuration.

    Raises:
        UserError: for a folder without a model or without a configuration, and for everything that
            loading them raises.
    """
    refuse_other_folders(folder)
    config = _config(folder)
    options = options or config.rank
    starting(
        f"Fitting the ranker: the model ranks up to {options.rows:,} validation rows, and trees"
        " learn from them; about a minute, and more with a large model"
    )
    recommender = Recommender.load(folder, None, trust_remote_code, rank=False)
    catalogue = recommender.bundle.catalogue
    known = known_of(config, catalogue)
    assert known.valid
    rows = known.valid.take(drawn(len(known.valid.target), options.rows, ROWS_SEED))
    beams = None
    if "model" in options.used:
        search = RankOptions(options.beams)
        lists = recommender.lists(rows.history, search)
        beams = recommender.asked(rows.history, lists, search).beams
        known = replace(known, newest=recommender.newest())
    fitted = fit_ranker(known, rows, beams, options)
    write_ranker(fitted.ranker, catalogue, folder)
    ranked = summary(fitted, options)
    write_text(folder / RANKED, json.dumps(ranked.as_json(), indent=1) + "\n")
    return ranked


def count_later(
    folder: Path, events: Path, items: Path | None = None, trust_remote_code: bool = False
) -> Later:
    """Count events that came later into the sources of a fitted ranker, over the catalogue that the
    model has now; what was learned on validation rows stays.

    Args:
        events: files as `events.files` takes them.
        items: texts of all items; those of the run by default.

    Raises:
        UserError: for a folder without a ranker, and as its readers; the ranker stays as it was
            then.
    """
    refuse_other_folders(folder)
    ranker = read_ranker(folder, None)
    if ranker is None:
        raise UserError(
            f"{folder} has no ranker that events could be counted into",
            f"Fit it first: `sidtune rank {folder}`.",
        )
    config, bundle = _config(folder), read_bundle(folder)
    catalogue = bundle.catalogue
    known = known_of(config, catalogue, items)
    assert known.valid
    rows = [known.train, known.valid]
    if config.data.rows_file("test"):
        rows.append(load_split(config.data, catalogue, "test"))
    longest = config.data.longest_history
    later = with_later(events, config.events, catalogue, known.train, rows, longest)
    users = popularity(later.rows, len(catalogue.ids))
    newest = None
    # The model is loaded only if it can tell.
    if "model" in ranker.sources and bundle.reversed_template:
        newest = Recommender.load(folder, None, trust_remote_code, rank=False).newest()
    known = replace(known, train=later.rows, valid=None, users=users, newest=newest)
    renewed = ranker.recounted(known)
    write_ranker(renewed, catalogue, folder)
    return later


def known_of(config: Config, catalogue: Catalogue, items: Path | None = None) -> Known:
    """What sources are fitted on.

    Args:
        items: file with the items' texts, in place of the configuration's.
    """
    train = load_split(config.data, catalogue, "train")
    return Known(
        catalogue,
        train,
        load_split(config.data, catalogue, "valid"),
        popularity(train, len(catalogue.ids)),
        text_vectors(config.data.items, config.sids, catalogue, items),
    )


def rank_after(config: Config, trust_remote_code: bool = False) -> Ranked | None:
    """Fit the ranker of a run that has just been trained; None where the configuration does not ask
    for it.
    """
    if config.rank.fit == "never":
        return None
    return rank_run(config.output_dir, trust_remote_code, config.rank)


def rank_and_tell(config: Config, trust_remote_code: bool = False) -> None:
    """As `rank_after`, and print what comes of it."""
    found = rank_after(config, trust_remote_code)
    for part in render(found) if found else ():
        console.print(part)


def given_options(folder: Path, overrides: Sequence[str]) -> RankConfig:
    """The options of a run's configuration, with `rank.key=value` overrides.

    The run's `beams` are left out where the overrides leave them without effect: nobody gives them
    now.

    Raises:
        UserError: for a key of another section, and as `load_config`.
    """
    for override in overrides:
        if not override.startswith("rank."):
            raise UserError(
                f"{override}: only keys of the section rank can be changed here",
                "Example: sidtune rank runs/shop rank.beams=100.",
            )
    saved = _config(folder).rank
    if any(override.startswith("rank.beams=") for override in overrides):
        return load_config(_config_file(folder), overrides).rank
    tree = read_tree(_config_file(folder), overrides)
    (tree.get("rank") or {}).pop("beams", None)
    options = parse_config(tree, str(_config_file(folder))).rank
    return options.model_copy(update={"beams": saved.beams}) if "model" in options.used else options


def is_ranked(folder: Path, since: int, options: RankConfig) -> bool:
    """Whether a ranker of this version lies beside the model that was written after this time, in
    nanoseconds, and fitted with these options.
    """
    file, told = folder / FILE, folder / RANKED
    if not is_readable(file) or not told.is_file() or file.stat().st_mtime_ns < since:
        return False
    return read_json_object(told).get("options") == options.fitting


def summary(fitted: Fitted, options: RankConfig) -> Ranked:
    """The figures of a ranker that was fitted with these options."""
    whole = fitted.ranks["ranker"]
    lines = {
        name: _line(ranks, None if name == "ranker" else whole)
        for name, ranks in fitted.ranks.items()
    }
    scorer = fitted.ranker.scorer
    return Ranked(
        len(whole),
        lines,
        scorer.trees.importance() if scorer.trees else {},
        dict(scorer.mixture.weights),
        scorer.weight if scorer.trees else None,
        fitted.absent,
        options.fitting,
    )


def render(ranked: Ranked) -> Iterator[RenderableType]:
    """What the ranker, the ranker without each source, and each source alone reach on validation
    rows, and how much more HR@10 the ranker has.
    """
    how = "a weighted mean of sources"
    if ranked.mixture is not None:
        how = f"trees over all sources and, at weight {ranked.mixture:.2f}, {how}"
    yield f"[bold]ranker[/bold]: {how}, fitted on {ranked.rows:,} validation rows"
    if ranked.absent:
        yield f"no {', no '.join(ranked.absent)}: nothing is known of it here"
    table = plain_table("validation rows", "HR@10", "HR@50", "NDCG@10", "ranker leads", "95%")
    for name, line in ranked.lines.items():
        more = ["", ""] if line.change is None else [f"{line.change.value:+.4f}", _signed(line)]
        table.add_row(
            name,
            f"{line.hr.value:.4f}",
            f"{line.far.value:.4f}",
            f"{line.ndcg.value:.4f}",
            *more,
        )
    yield table
    if ranked.importance:
        yield _most_used(ranked.importance)
    told = ", ".join(f"{name} {weight:.1f}" for name, weight in ranked.weights.items())
    yield f"weights of the mean: {told}"


def _most_used(importance: dict[str, float]) -> Table:
    table = plain_table("features most used", "share of the gain")
    for name, share in list(importance.items())[:SHOWN_FEATURES]:
        table.add_row(FEATURES[name], f"{share:.0%}")
    return table


def _signed(line: Line) -> str:
    assert line.change
    return f"{line.change.low:+.4f} to {line.change.high:+.4f}"


def _line(ranks: NDArray[np.int64], whole: NDArray[np.int64] | None) -> Line:
    change = None
    if whole is not None:
        more = hits(whole, CUTOFF) - hits(ranks, CUTOFF)
        change = Estimate(float(more.mean()), *interval_of(more))
    return Line(
        proportion(hits(ranks, CUTOFF)),
        mean(gains(ranks, CUTOFF)),
        proportion(hits(ranks, FAR)),
        change,
    )


def _config(folder: Path) -> Config:
    return load_config(_config_file(folder))


def _config_file(folder: Path) -> Path:
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{folder} has no {CONFIG}, which names the rows", "Give a run's folder: output_dir."
        )
    return folder / CONFIG
