"""`metrics.jsonl`, which reports read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from transformers import TrainerState

from sidtune.files.text import read_jsonl
from sidtune.runs.files import METRICS
from sidtune.training.display.callbacks import MetricsFile


def test_it_stays_json_where_a_figure_is_not_finite(tmp_path: Path) -> None:
    """Before the first step the loss of a base may be: training goes on."""
    nothing: Any = None
    written, state = MetricsFile(tmp_path), TrainerState(is_world_process_zero=True)
    state.log_history = [{"eval_loss": math.nan, "epoch": 0, "step": 0}]  # type: ignore[list-item]
    written.on_train_begin(nothing, state, nothing)
    state.global_step = 1
    written.on_log(nothing, state, nothing, {"loss": 2.5, "eval_loss": math.inf})
    entries = [entry for _, entry in read_jsonl(tmp_path / METRICS)]
    assert entries == [
        {"step": 0, "eval_loss": "nan", "epoch": 0},
        {"step": 1, "loss": 2.5, "eval_loss": "inf"},
    ]
