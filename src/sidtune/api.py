"""The Python interface: functions equivalent to the commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sidtune.config.search import MAX_TOKENS, Normalize, RankOptions, refuse_below_one, refuse_other
from sidtune.tasks.config import Config

if TYPE_CHECKING:
    from sidtune.checks.finding import Finding
    from sidtune.data.rows import Split
    from sidtune.evaluation.report import Report
    from sidtune.training.records.result import Result


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML configuration.

    What it does not say of `data` and `model` is what `sidtune prepare`, `sidtune sids` and
    `sidtune run` left under `output_dir`.

    Args:
        path: the file.
        overrides: `section.key=value` texts that replace keys of the file, such as
            `training.epochs=3`.

    Raises:
        UserError: for a missing or broken file, unknown keys and wrong values, all faults at once;
            and for a stage that has not been run with these settings.
    """
    from sidtune.pipeline.defaults import load_run

    return load_run(Path(path), overrides)


def check(config: Config, trust_remote_code: bool = False) -> list[Finding]:
    """Check configuration, data, tokenizer and model without training.

    Args:
        config: as `load_config` gives it.
        trust_remote_code: allow Python code shipped with the base to run.

    Returns:
        Findings, errors first. Each has `severity` (`error`, `warning` or `note`), `where`,
        `message`, `examples` and `remedy`.
    """
    from sidtune.checks.run import run_checks
    from sidtune.inputs import Inputs

    return run_checks(Inputs(config, trust_remote_code))


def train(
    config: Config,
    resume: str = "auto",
    dry_run: bool = False,
    trust_remote_code: bool = False,
    other_processes: bool = False,
) -> Result | None:
    """Fine-tune as configured, save a plain Hugging Face checkpoint in `output_dir`, and fit the
    ranker beside it (`rank.fit`).

    Args:
        config: as `load_config` gives it.
        resume: `auto` resumes from the newest complete checkpoint of the run; `never` starts a new
            run; `extend` trains a finished run on, whose configuration has become longer; a path
            names a checkpoint to resume from, or weights to start from.
        dry_run: do everything up to the first step, and print the plan.
        trust_remote_code: allow Python code shipped with the base to run.
        other_processes: resume even if a different number of processes wrote the checkpoint.

    Returns:
        Folder, steps, and validation losses of the run; None for a dry run.

    Raises:
        UserError: for any mistake in configuration, data or model.
        Interrupted: after SIGTERM or SIGINT, once the checkpoint is saved.
    """
    from sidtune.base.terminal import launched
    from sidtune.training.train import train as run

    result = run(config, resume, dry_run, trust_remote_code, other_processes)
    if result and not launched():
        from sidtune.pipeline.rank import rank_after

        rank_after(config, trust_remote_code)
    return result


def evaluate(
    model: str | Path,
    split: Split = "test",
    *,
    beams: int | None = None,
    normalize: Normalize = "full",
    exclude_history: bool = False,
    limit: int | None = None,
    candidates: str | Path | None = None,
    output: str | Path | None = None,
    max_tokens: int = MAX_TOKENS,
    baselines: bool = True,
    rank: bool = True,
    both_directions: bool = False,
    trust_remote_code: bool = False,
) -> Report | None:
    """Rank the rows of a split over the whole catalogue with the ranker beside the model, the model
    alone and simple baselines, and write the results.

    Args:
        model: a run's folder, or one of its checkpoints.
        split: `test`, `valid` or `train`.
        beams: beam width; also the maximum list length. By default as many as the ranker was fitted
            with (`rank.beams`), and 50 without one.
        normalize: normalise over the full vocabulary (`full`), or over the tokens that the trie
            allows (`trie`).
        exclude_history: never return an item of the history.
        limit: rank at most this many rows, sampled with a fixed seed.
        candidates: a file with the ids of the items that may be returned, one id per line.
        output: results folder; `evaluation` in the model's folder by default.
        max_tokens: tokens per forward pass; limits memory.
        baselines: also rank the rows with the simple baselines.
        rank: use the ranker beside the model, if there is one.
        both_directions: order the model's own lists by both directions of reading a history, for a
            model that learned both (task `sid_sequence_reversed`).
        trust_remote_code: allow Python code shipped with the model to run.

    Returns:
        HR@K, NDCG@K and MRR by SID and by item with 95% intervals, of each ranker. With several
        processes, only the first returns it; the others return None.

    Raises:
        UserError: for any mistake in arguments, configuration, data or model.
    """
    from sidtune.data.rows import Split as Splits
    from sidtune.evaluation import evaluate as room

    refuse_other("split", split, get_args(Splits))
    if limit is not None:
        refuse_below_one("limit", limit)
    options = RankOptions(beams, normalize, exclude_history, max_tokens, both_directions)
    request = room.EvaluationRequest(
        Path(model),
        split,
        options,
        limit,
        Path(candidates) if candidates else None,
        output=Path(output) if output else None,
        baselines=baselines,
        rank=rank,
        trust_remote_code=trust_remote_code,
    )
    return room.evaluate(request)
