"""Callbacks that print and log training progress."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.table import Table
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sidtune.base.storage import refusing_failed_writes, write_text
from sidtune.base.terminal import console
from sidtune.runs import best
from sidtune.runs.files import METRICS, json_line

# Wide enough for a loss with four decimals, or for a million steps.
NARROWEST = 7
# The columns of throughput and of the word "best".
RATE, MARK = "examples per s", ""
# Entries of the training log that the console shows, by title.
LOSS_SHOWN: Mapping[str, str] = MappingProxyType({"train loss": "loss"})


class LastStepEvaluation(TrainerCallback):
    """Evaluates and saves after the last step too, so that it can become the best checkpoint."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Called by Trainer."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
        return control


class MetricsFile(TrainerCallback):
    """Appends every log entry to `metrics.jsonl`, which a resumed run first rewrites from its
    checkpoint's log history.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer, with `state.global_step` at the checkpoint."""
        if state.is_world_process_zero:
            entries = [{"step": entry["step"], **entry} for entry in state.log_history]
            write_text(self.path, "".join(map(json_line, entries)))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Called by Trainer."""
        if state.is_world_process_zero:
            with refusing_failed_writes(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json_line({"step": state.global_step, **(logs or {})}))


class ConsoleTable(TrainerCallback):
    """Prints one row per evaluation.

    Args:
        valid: names of the validation tasks, the evaluation task first.
        ranking: names of the ranking metrics that are shown.
        shown: entries of the training log that are shown, by title.
    """

    def __init__(
        self, valid: list[str], ranking: list[str], shown: Mapping[str, str] = LOSS_SHOWN
    ) -> None:
        self.valid, self.ranking, self.shown = valid, ranking, shown
        self.titles: list[str] = []
        self.recent: list[dict[str, float]] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer."""
        if not state.is_world_process_zero:
            return
        titles = ["step", "epoch", *self.shown, *self.valid, *self.ranking, RATE, MARK]
        # On a narrow terminal; `metrics.jsonl` has all of them.
        spare = [RATE, "epoch", *reversed(self.valid[1:])]
        self.titles = fitting(titles, spare, console.width)
        ranked = f"; {' and '.join(self.ranking)} by item, on a sample" if self.ranking else ""
        console.print(f"[dim]validation loss by task, in nats per label{ranked}[/dim]")
        for line in zip(*folded(self.titles), strict=True):
            console.print(_row(line, self.titles), style="bold")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Called by Trainer; training entries are averaged until the next evaluation."""
        if logs and "loss" in logs:
            self.recent.append(logs)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Called by Trainer."""
        if not state.is_world_process_zero or metrics is None:
            return
        cells = {"step": str(state.global_step), "epoch": f"{state.epoch or 0:.2f}"}
        cells |= {title: _mean(self.recent, key, ".4f") for title, key in self.shown.items()}
        cells |= {name: f"{metrics[f'eval_{name}_loss']:.4f}" for name in self.valid}
        ranked = {name: metrics.get(f"eval_{name}") for name in self.ranking}
        cells |= {name: "–" if value is None else f"{value:.4f}" for name, value in ranked.items()}
        cells[RATE] = _mean(self.recent, "examples_per_second", ".0f")
        # The evaluation before the first step does not count.
        is_best = state.global_step and best.is_best(metrics, state.best_metric, args)
        cells[MARK] = "best" if is_best else ""
        console.print(_row([cells[title] for title in self.titles], self.titles))
        self.recent.clear()


def _mean(entries: list[dict[str, float]], key: str, form: str) -> str:
    values = [entry[key] for entry in entries if key in entry]
    return format(sum(values) / len(values), form) if values else "–"


def fitting(titles: Sequence[str], spare: Sequence[str], width: int) -> list[str]:
    """The titles of a row's columns, without the first of the spare ones where it is too wide."""
    kept = list(titles)
    for title in spare:
        if sum(_width(title) + 1 for title in kept) <= width:
            break
        kept.remove(title)
    return kept


def folded(titles: Sequence[str]) -> list[list[str]]:
    """Each title on as many lines as the longest of them needs, the last one filled."""
    parts = [_parts(title) for title in titles]
    lines = max(map(len, parts))
    return [[""] * (lines - len(part)) + part for part in parts]


def _parts(title: str) -> list[str]:
    """Lines of the column's width: `title_to_sid` as `title_`, `to_sid`."""
    lines: list[str] = []
    for part in re.findall(r"[^_ ]+[_ ]?", title):
        if lines and len((lines[-1] + part).rstrip()) <= _width(title):
            lines[-1] += part
        else:
            lines.append(part)
    return [line.rstrip() for line in lines] or [""]


def _width(title: str) -> int:
    parts = title.replace("_", "_ ").split()
    return len("best") if title == MARK else max(NARROWEST, *map(len, parts))


def _row(cells: Sequence[str], titles: Sequence[str]) -> Table:
    """One row of a table that is printed row by row, hence with fixed column widths."""
    table = Table.grid(padding=(0, 1))
    for title in titles:
        table.add_column(justify="right", width=_width(title), no_wrap=True)
    table.add_row(*cells)
    return table
