"""What a run was trained on what, and in which settings several runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from sidtune.base.durations import measured_duration
from sidtune.reporting.page import Block, Facts, Section, Table
from sidtune.reporting.record import Record, section_of

FILES = ("interactions", "train", "valid", "test", "items", "index", "preferences", "instructions")
# They name places, which say nothing of a result.
LEFT_OUT = ("output_dir", "encoding.cache_dir", "logging.")
MOST_DIFFERENCES = 60


def about(record: Record) -> Section | None:
    """Model, training and data of one run."""
    if not record.config:
        return None
    blocks: list[Block] = [
        Facts(list(_model(record)), "Model"),
        Facts(list(_training(record)), "Training"),
        Facts(list(_data(record)), "Data"),
    ]
    return Section("run", "What was trained on what", "", blocks)


def differences(records: Sequence[Record]) -> Section | None:
    """Keys of the configuration whose values are not the same in all runs."""
    trees = [dict(_flat(record.config)) for record in records]
    keys = list(dict.fromkeys(key for tree in trees for key in tree))
    rows = [
        [key, *(_value(tree.get(key)) for tree in trees)]
        for key in keys
        if not key.startswith(LEFT_OUT) and len({_value(tree.get(key)) for tree in trees}) > 1
    ]
    if not any(trees):
        return None
    head = ["key", *(record.name for record in records)]
    if not rows:
        intro = "The configurations are the same but for places of files."
        return Section("settings", "Settings that differ", intro)
    more = len(rows) - MOST_DIFFERENCES
    note = f"{more} more" if more > 0 else ""
    table = Table(head, rows[:MOST_DIFFERENCES], note=note)
    return Section("settings", "Settings that differ", "", [table])


def short(path: object) -> str:
    """A file by its name and that of its folder: where the rest lies is nobody's business."""
    return "/".join(PurePath(str(path)).parts[-2:])


def _model(record: Record) -> Iterator[tuple[str, str]]:
    model = section_of(record.config, "model")
    base = PurePath(str(model.get("base", "–")))
    yield "base", base.name if base.is_absolute() else str(base)
    if model.get("from_scratch"):
        yield "weights", "random: trained from scratch"
    for plan in record.plans[-1:]:
        yield "type", plan.model
        yield "parameters", f"{plan.parameters:,}"
        yield "of these trained", f"{plan.trained_parameters:,}"
    stages = record.config.get("stages")
    stages = stages if isinstance(stages, list) else []
    tunings = [stage.get("tuning") for stage in stages if isinstance(stage, dict)]
    yield "tuning", ", then ".join(map(str, tunings or [model.get("tuning", "–")]))


def _training(record: Record) -> Iterator[tuple[str, str]]:
    training = section_of(record.config, "training")
    if record.plans:
        steps = sum(plan.steps for plan in record.plans)
        epochs = steps / max(1, record.plans[-1].steps_per_epoch)
        yield "steps", f"{steps:,}, epochs: {epochs:.3g}"
    yield "examples per step", _count(training.get("batch_size"))
    yield (
        "learning rate",
        f"{training.get('learning_rate', '–')}, warmup {training.get('warmup', '–')}",
    )
    yield "seed", str(record.config.get("seed", "–"))
    for plan in record.plans[-1:]:
        several = f", {plan.processes} processes" if plan.processes != 1 else ""
        yield "device", f"{plan.device}, {plan.precision}{several}"
    if seconds := sum(value for _, value in record.series("train_runtime")):
        yield "time", measured_duration(seconds)


def _data(record: Record) -> Iterator[tuple[str, str]]:
    data = section_of(record.config, "data")
    for name in FILES:
        if data.get(name):
            yield name, PurePath(str(data[name])).name
    if record.catalogue:
        sids = record.catalogue.sids
        yield "catalogue", f"{len(sids):,} items, {len(set(sids)):,} SIDs of {_depths(sids)} tokens"
    if report := record.report:
        yield "evaluated", f"{report.rows:,} {report.settings.get('split', '')} rows"


def _depths(sids: Sequence[tuple[str, ...]]) -> str:
    depths = {len(sid) for sid in sids}
    return "–".join(str(depth) for depth in sorted({min(depths), max(depths)}))


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "–"


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _value(value: Any) -> str:
    if isinstance(value, str):
        return short(value) if PurePath(value).is_absolute() else value
    return "–" if value is None else str(value)
