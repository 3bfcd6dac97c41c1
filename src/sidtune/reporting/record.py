"""What a run's folder says of the run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from sidtune.base.errors import UserError
from sidtune.data.catalogue import Catalogue
from sidtune.data.rows import Split
from sidtune.evaluation.compare import read_settings
from sidtune.evaluation.report import Report
from sidtune.evaluation.results import read_report
from sidtune.files.text import read_json_model, read_jsonl
from sidtune.files.yaml_files import read_yaml
from sidtune.metrics.metrics import metric_names
from sidtune.ranker.figures import Ranked
from sidtune.runs.bundle import CATALOGUE, read_bundle
from sidtune.runs.files import CONFIG, EVALUATION, METRICS, PLAN, RANKED, TrainingPlan

SPLITS: tuple[Split, ...] = ("test", "valid", "train")
Entry = dict[str, float]
# Whole numbers of a log may be larger than any float.
LARGEST = 1e300
DELETE = "Delete the file: the report then leaves out what it holds."


@dataclass(frozen=True)
class Record:
    """A run; what its folder does not hold is None or empty.

    Args:
        name: how the report calls it.
        config: the resolved configuration, as plain values.
        plans: of each stage.
        entries: of `metrics.jsonl`, steps counted over all stages.
        report: the evaluation that is shown.
        ranked: what fitting the ranker found.
        catalogue: of the model.
    """

    folder: Path
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    plans: list[TrainingPlan] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    report: Report | None = None
    ranked: Ranked | None = None
    catalogue: Catalogue | None = None

    @cached_property
    def titles(self) -> dict[str, str]:
        """Titles by item id."""
        known = self.catalogue
        return dict(zip(known.ids, known.titles, strict=True)) if known else {}

    def series(self, name: str) -> list[tuple[float, float]]:
        """Step and value of the entries that have this figure."""
        return [(entry["step"], entry[name]) for entry in self.entries if _is_number(entry, name)]


def read_records(folders: Sequence[Path], split: Split | None = None) -> list[Record]:
    """The runs of these folders, each by its folder's name, with parents where names are equal.

    Args:
        split: whose evaluation is shown; by default test, or what there is.

    Raises:
        UserError: for a folder that holds no run, for one without the asked evaluation, and for
            files that are damaged.
    """
    names = _names([folder.resolve() for folder in folders])
    split = split or _common(folders)
    return [_record(folder, name, split) for folder, name in zip(folders, names, strict=True)]


def section_of(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of a configuration; empty where there is none."""
    found = tree.get(name)
    return found if isinstance(found, dict) else {}


def _names(folders: Sequence[Path]) -> list[str]:
    """What tells the folders apart: as few of their last parts as will do."""
    if len(set(folders)) < len(folders):
        raise UserError("a run is given twice", "Give each run once.")
    for parts in count(1):
        names = ["/".join(folder.parts[-parts:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names


def _record(folder: Path, name: str, split: Split | None) -> Record:
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}", "Give a run's folder: output_dir.")
    stages = [
        stage
        for stage in (*sorted(folder.glob("stage-*"), key=_number), folder)
        if (stage / METRICS).is_file()
    ]
    evaluation = _evaluation(folder, split)
    if not stages and evaluation is None:
        raise UserError(
            f"{folder} holds neither {METRICS} nor an evaluation",
            "Give a run's folder (output_dir), or the --output folder of an evaluation.",
        )
    return Record(
        folder,
        name,
        read_yaml(folder / CONFIG) if (folder / CONFIG).is_file() else {},
        [_plan(stage / PLAN) for stage in stages if (stage / PLAN).is_file()],
        list(_joined([[entry for _, entry in read_jsonl(stage / METRICS)] for stage in stages])),
        evaluation,
        read_json_model(folder / RANKED, Ranked, DELETE) if (folder / RANKED).is_file() else None,
        read_bundle(folder).catalogue if (folder / CATALOGUE).is_file() else None,
    )


def _common(folders: Sequence[Path]) -> Split | None:
    """The first split that all runs were evaluated on; None where there is none."""
    return next((split for split in SPLITS if all(_files(f, split) for f in folders)), None)


def _files(folder: Path, split: Split) -> list[Path]:
    """The evaluation of a split in a run's folder, or in the folder of an evaluation."""
    places = (folder / EVALUATION, folder)
    return [file for place in places if (file := place / f"{split}.json").is_file()]


def _evaluation(folder: Path, split: Split | None) -> Report | None:
    """The evaluation of a split, or of the first that there is."""
    for name in [split] if split else SPLITS:
        for file in _files(folder, name):
            return _report(file, name)
    if split:
        raise UserError(
            f"{folder} has no evaluation of {split}",
            f"Run: sidtune evaluate {folder} --split {split}",
        )
    return None


def _report(file: Path, split: Split) -> Report:
    """An evaluation of this split whose rankers all have the metrics of its lists."""
    found, names = read_report(file), set(metric_names(read_settings(file)["beams"]))
    whole = found is not None and all(
        set(summary.sid) == set(summary.item) == names for summary in found.rankers.values()
    )
    if not found or not whole or not found.rankers or found.settings.get("split") != split:
        raise UserError(
            f"{file} is not an evaluation of this version", "Delete it, and evaluate again."
        )
    return found


def _plan(file: Path) -> TrainingPlan:
    found = read_json_model(file, TrainingPlan, DELETE)
    bins = len(found.length_edges) - 1
    if any(len(task.by_length) != bins for task in found.tasks.values()):
        raise UserError(f"{file}: by_length and length_edges do not match", DELETE)
    return found


def _number(stage: Path) -> int:
    digits = stage.name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() and len(digits) < 10 else 0


def _joined(stages: Iterable[list[Entry]]) -> Iterable[Entry]:
    """Entries of all stages, each stage's steps counted on from the last."""
    before = 0.0
    for entries in stages:
        known = [entry for entry in entries if _is_number(entry, "step")]
        yield from ({**entry, "step": entry["step"] + before} for entry in known)
        before += max((entry["step"] for entry in known), default=0)


def _is_number(entry: Entry, name: str) -> bool:
    value = entry.get(name)
    return isinstance(value, int | float) and abs(value) < LARGEST
