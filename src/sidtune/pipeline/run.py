"""`sidtune run`: every stage that is not yet done, in order, and the evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.markup import escape

from sidtune.base.errors import UserError
from sidtune.base.hashing import file_digest
from sidtune.base.terminal import console
from sidtune.config.events import PrepareConfig
from sidtune.data.rows import Split
from sidtune.distributed.launch import launch
from sidtune.evaluation.compare import read_settings
from sidtune.evaluation.evaluate import (
    KEPT,
    EvaluationRequest,
    evaluate,
    results_folder,
    settings_of,
)
from sidtune.evaluation.report import Report
from sidtune.evaluation.results import read_report, refuse_unlike, unlike
from sidtune.events.prepare import prepare
from sidtune.files.text import read_json_object
from sidtune.pipeline.defaults import (
    Request,
    recipe_of,
    sids_run,
    wants_index,
    wants_model,
    wants_rows,
    with_index,
    with_model,
    with_prepared,
)
from sidtune.pipeline.rank import is_ranked, rank_and_tell
from sidtune.ranker.file import FILE
from sidtune.runs.bundle import CATALOGUE
from sidtune.runs.checkpoints import FINAL
from sidtune.runs.files import CONFIG
from sidtune.runs.output import FinishedError
from sidtune.sids.fit import make
from sidtune.sids.index import INDEX, REPORT
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import load_config, parse_config, parse_part
from sidtune.training.train import train

# Settings of an evaluation that are equal where its figures are, besides `KEPT`.
FIGURES = (*KEPT, "train_sha256", "valid_sha256", "ranker_sha256")


def run(request: Request, processes: int = 1, trust_remote_code: bool = False) -> Report:
    """Do every stage that is not yet done, and return the evaluation of the test rows (of the
    validation rows where there are none).

    The stages: prepare `events`; make SIDs, where `data.index` is not given; make a base model,
    where `model.base` is not given; train; fit the ranker; evaluate.

    Args:
        processes: of training and evaluation.

    Raises:
        UserError: for anything the user can mend; what earlier stages left stays.
        SystemExit: where one of several processes failed, with its status.
    """
    if wants_rows(request):
        request = _prepared(request)
    if wants_index(request):
        request = _indexed(request)
    if wants_model(request):
        request = _with_base(request)
    config = parse_config(request.tree, str(request.path))
    _train(request, config, processes, trust_remote_code)
    _rank(config, trust_remote_code)
    return _evaluate(config, processes, trust_remote_code)


def _prepared(request: Request) -> Request:
    made = prepare(parse_part(request.tree, PrepareConfig, str(request.path)))
    result = made.summary["result"]
    what = (
        f"{result['events']:,} of {made.summary['read']:,} events, {result['users']:,} users,"
        f" {result['items']:,} items"
    )
    _tell("prepare", what, made.folder, made.again)
    return with_prepared(request, made)


def _indexed(request: Request) -> Request:
    made = make(sids_run(request))
    report: dict[str, Any] = read_json_object(made.folder / REPORT)
    shape = " × ".join(str(level["used"]) for level in report["levels"])
    what = (
        f"{report['items']:,} items, {shape} codes in use,"
        f" {report['collisions']['items_sharing']:,} items share a SID"
    )
    _tell("sids", what, made.folder / INDEX, made.unchanged)
    return with_index(request)


def _with_base(request: Request) -> Request:
    recipe = recipe_of(request)
    there = recipe.base.is_dir()
    complete = with_model(request)
    _tell("model", f"to train from scratch, hidden size {recipe.hidden}", recipe.base, there)
    return complete


def _train(request: Request, config: Config, processes: int, trust_remote_code: bool) -> None:
    # In this process a finished run is found to be this very one, or another.
    if processes > 1 and not (config.output_dir / FINAL).exists():
        arguments = ["train", str(request.path), *request.overrides]
        _launch(processes, arguments + ["--quiet"] * console.quiet, trust_remote_code)
        return
    try:
        result = train(config, trust_remote_code=trust_remote_code)
    except FinishedError:
        _tell("train", "", config.output_dir, again=True)
        return
    assert result is not None
    console.print(f"[bold]train[/bold]: {escape(result.text)}", soft_wrap=True)


def _rank(config: Config, trust_remote_code: bool) -> None:
    folder = config.output_dir
    if is_ranked(folder, _written(folder), config.rank):
        _tell("rank", "", folder / FILE, again=True)
        return
    rank_and_tell(config, trust_remote_code)


def _evaluate(config: Config, processes: int, trust_remote_code: bool) -> Report:
    split: Split = "test" if config.data.rows_file("test") else "valid"
    _refuse_other_rows(config, split)
    request = EvaluationRequest(config.output_dir, split, trust_remote_code=trust_remote_code)
    file = results_folder(request) / f"{split}.json"
    if (report := _evaluated(request, file)) is None:
        if processes > 1:
            arguments = ["evaluate", str(config.output_dir), "--split", split]
            _launch(processes, arguments + ["--quiet"] * console.quiet, trust_remote_code)
            report = read_report(file)
        else:
            report = evaluate(request)
    assert report is not None
    return report


def _refuse_other_rows(config: Config, split: Split) -> None:
    """Refuse rows other than those that the finished run names, which would be ranked."""
    folder = config.output_dir
    given, saved = (one.data.rows_file(split) for one in (config, load_config(folder / CONFIG)))
    if given and given != saved and not (saved and file_digest(given) == file_digest(saved)):
        raise UserError(
            f"{folder} was trained with the {split} rows of {saved or 'no file'}, and now they are"
            f" those of {given}",
            f"Rank them by `sidtune evaluate {folder} --rows {given} --output DIR`, or train anew"
            " with another output_dir.",
        )


def _evaluated(request: EvaluationRequest, file: Path) -> Report | None:
    """The evaluation that is there already, if it is the one that would be made; one that was made
    of other files is removed.

    Raises:
        UserError: for one that somebody made with other options.
    """
    if not file.is_file():
        return None
    earlier, now, ranker = read_settings(file), settings_of(request), request.model / FILE
    made = max(_written(request.model), ranker.stat().st_mtime_ns if ranker.is_file() else 0)
    older = file.stat().st_mtime_ns < made
    # What follows from files; the number of beams follows from the ranker.
    follows = ["history", "sids_sha256"] + ["beams"] * older
    follows += ["rows_sha256"] * (earlier.get("rows") == now["rows"])
    different = unlike(earlier, now, KEPT)
    refuse_unlike(
        file,
        [name for name in different if name not in follows],
        f"Move that file away, and run again. `sidtune evaluate {request.model} --output DIR`"
        " leaves an evaluation with other options elsewhere.",
    )
    if different:
        file.unlink()
    report = None if older or unlike(earlier, now, FIGURES) else read_report(file)
    if report:
        _tell("evaluate", f"{report.rows:,} rows", file, again=True)
    return report


def _written(model: Path) -> int:
    """When the model and its catalogue were written, in nanoseconds."""
    return max((model / name).stat().st_mtime_ns for name in (FINAL, CATALOGUE))


def _launch(processes: int, arguments: list[str], trust_remote_code: bool) -> None:
    status = launch(processes, arguments + ["--trust-remote-code"] * trust_remote_code)
    if status:
        raise SystemExit(status)


def _tell(stage: str, what: str, place: Path, again: bool) -> None:
    """One line of a stage that is done."""
    parts = ["done before" if again else "", what]
    text = f"{', '.join(filter(None, parts))} → {place}"
    console.print(f"[bold]{stage}[/bold]: {escape(text)}", soft_wrap=True)
