"""The identity of a run: settings saved with each checkpoint and compared when the run
is resumed.
"""

from __future__ import annotations

from typing import Any

from sidtune.config.loss import LossConfig
from sidtune.inputs import Inputs
from sidtune.model.dropout import RATES
from sidtune.runs.checkpoints import CHANGEABLE, PRECISION, PROCESSES


def run_identity(inputs: Inputs, world_size: int) -> dict[str, Any]:
    """The settings compared when a run is resumed; only those in `CHANGEABLE` may differ."""
    config, training, evaluation = inputs.config, inputs.config.training, inputs.config.eval
    # Settings of the metric that the best checkpoint is selected by.
    ranked = {
        f"eval.ranking.{name}": getattr(config.eval.ranking, name)
        for name in ("sample", "beams", "normalize", "exclude_history")
    }
    state = training.optimizer_state
    stages = [stage.model_dump() for stage in config.stages]
    # Which files are written at the end may change.
    lora = config.model.lora.model_dump(mode="json", exclude={"save_adapter"})
    return {
        **inputs.mixture.identity(),
        **{f"weight of {name}": options.weight for name, options in config.task_options().items()},
        **{f"model.{name}": getattr(config.model, name) for name in RATES},
        **({"stages": stages} if stages else {"model.tuning": config.model.tuning}),
        **({"model.quantize": config.model.quantize} if config.model.quantize else {}),
        **({"model.lora": lora} if "lora" in config.tunings else {}),
        **({"training.distributed": "fsdp2"} if training.distributed == "fsdp2" else {}),
        **({} if config.model.new_rows == "mean" else {"model.new_rows": config.model.new_rows}),
        "model.from_scratch": config.model.from_scratch,
        "seed": config.seed,
        **({} if config.evaluation_task == "sid_next" else {"eval.task": config.evaluation_task}),
        "training.batch_size": training.batch_size,
        "training.group_by": training.group_by,
        "training.learning_rate": training.learning_rate,
        "training.weight_decay": training.weight_decay,
        **({} if config.loss == LossConfig() else {"loss": config.loss.model_dump(mode="json")}),
        **({} if training.decay_embeddings else {"training.decay_embeddings": False}),
        **({} if state == "fp32" else {"training.optimizer_state": state}),
        **({} if config.eval.metric == "loss" else {"eval.metric": config.eval.metric} | ranked),
        **{
            f"training.{name}": getattr(training, name)
            for name in ("epochs", "max_steps", "min_lr_ratio")
        },
        **{
            f"eval.{name}": getattr(evaluation, name)
            for name in ("every", "max_rows", "task_rows", "patience")
        },
        # The precision is added once `auto` is resolved, which needs the checkpoint to resume from.
        **{
            name: getattr(training, name.removeprefix("training."))
            for name in sorted(CHANGEABLE - {PRECISION})
        },
        PROCESSES: world_size,
    }
