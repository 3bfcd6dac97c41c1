"""The stages of a run: each is trained like a run of its own, from the previous stage's weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sidtune.batching.plan import Plan
from sidtune.config.training import TrainingConfig
from sidtune.tasks.config import Config

SHORTER_WARMUP = "Shorten it: a fraction of the run, such as 0.05, suits any length."


def total_steps(training: TrainingConfig, plan: Plan) -> int:
    """Optimizer updates of the whole run."""
    return training.max_steps or plan.steps_per_epoch * training.epochs


def long_warmup(training: TrainingConfig, steps: int) -> str:
    """The warning for a warmup that lasts as long as its run, or longer; otherwise empty.

    Args:
        steps: optimizer updates of the run, or of its stage.
    """
    if not steps or training.warmup < steps:
        return ""
    reached = (steps - 1) / training.warmup
    return (
        f"warmup takes {training.warmup:,} steps and training {steps:,}, so the learning rate never"
        f" reaches its peak: it ends at {reached:.0%} of the peak"
    )


def stage_runs(config: Config) -> list[Config]:
    """Each stage as a run of its own, or the run itself where there are no stages.

    The last stage writes into the run's folder, the others into `stage-1`, `stage-2`, … beneath it.
    """
    runs = []
    for number, stage in enumerate(config.stages, start=1):
        last = number == len(config.stages)
        training: dict[str, Any] = {
            "learning_rate": stage.learning_rate or config.training.learning_rate
        }
        if stage.steps or stage.epochs:
            training |= {"max_steps": stage.steps, "epochs": stage.epochs or config.training.epochs}
        if stage.tuning == "frozen" and not config.training.decay_embeddings:
            # Such a stage has nothing to decay, and a configuration that sets weight decay is
            # refused.
            training["weight_decay"] = 0.0
        changes = {
            "output_dir": config.output_dir if last else config.output_dir / f"stage-{number}",
            "model": config.model.model_copy(update={"tuning": stage.tuning}),
            "training": config.training.model_copy(update=training),
            "stages": (),
        }
        runs.append(config.model_copy(update=changes))
    return runs or [config]


def following(plan: Plan, earlier: Sequence[Config]) -> Plan:
    """The plan continued after earlier stages, so that together they follow the order of one long
    run.
    """
    return replace(plan, first=sum(total_steps(run.training, plan) for run in earlier))
