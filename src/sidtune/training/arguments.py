"""Translates the configuration into Trainer's arguments."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import TrainingArguments

from sidtune.base.errors import UserError
from sidtune.config.logging import PROJECT
from sidtune.config.training import TrainingConfig
from sidtune.model.optimizer.adamw import CompactAdamW
from sidtune.tasks.config import Config
from sidtune.training.precision import Precision, choose
from sidtune.training.records.trackers import require_trackers


def training_arguments(config: Config, precision: Precision | None = None) -> TrainingArguments:
    """Trainer's arguments; creating them also joins the process group that the launcher set up.

    Args:
        precision: of the run, once resolved; None resolves the configured one.

    Raises:
        UserError: for a batch smaller than the number of processes, bf16 without hardware for it, a
            missing tracker.
    """
    require_trackers(config)
    training, bf16 = config.training, (precision or choose(config.training)) == "bf16"
    by_loss = config.eval.metric == "loss"
    arguments = TrainingArguments(
        output_dir=str(config.output_dir),
        seed=config.seed,
        per_device_train_batch_size=1,
        learning_rate=training.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": training.min_lr_ratio},
        warmup_steps=training.warmup,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=bf16,
        use_cpu=not torch.cuda.is_available() and not torch.backends.mps.is_available(),
        eval_strategy="steps",
        eval_steps=config.eval.every,
        eval_on_start=True,
        save_strategy="steps",
        save_steps=config.eval.every,
        load_best_model_at_end=True,
        metric_for_best_model=(
            f"eval_{config.evaluation_task}_loss" if by_loss else f"eval_{config.eval.metric}"
        ),
        greater_is_better=not by_loss,
        logging_steps=config.logging.every,
        logging_nan_inf_filter=False,
        dataloader_num_workers=training.workers,
        # Our own callbacks hand metrics to trackers.
        report_to="none",
        project=config.logging.project or PROJECT,
        run_name=config.logging.run_name or config.output_dir.name,
        disable_tqdm=True,
        remove_unused_columns=False,
        restore_callback_states_from_checkpoint=True,
        ddp_find_unused_parameters=False,
        torch_compile=training.compile,
    )
    if arguments.n_gpu > 1:
        # As Trainer does for models that are divided: it would wrap the model in DataParallel.
        arguments._n_gpu = 1
    if training.batch_size < arguments.world_size:
        raise UserError(
            f"training.batch_size is {training.batch_size}, but there are {arguments.world_size}"
            " processes",
            "Every process needs at least one example per step: raise training.batch_size.",
        )
    return arguments


def settle_length(arguments: TrainingArguments, steps: int) -> None:
    """Set how many steps the run takes, and how many lie between evaluations where that is a share
    of the run: checkpoints hold the number, and Trainer warns where the arguments hold another.
    """
    arguments.max_steps = steps
    if arguments.eval_steps is not None and arguments.eval_steps < 1:
        arguments.eval_steps = math.ceil(steps * arguments.eval_steps)
        arguments.save_steps = arguments.eval_steps


def compact_optimizer(
    training: TrainingConfig, arguments: TrainingArguments
) -> tuple[type[CompactAdamW], dict[str, Any]] | None:
    """Class and options of an optimizer whose state is not held as PyTorch's would be; None where
    it is.
    """
    if training.optimizer_state == "fp32" and not training.offload_optimizer:
        return None
    return CompactAdamW, {
        "kind": training.optimizer_state,
        "offload": training.offload_optimizer,
        "seed": arguments.seed,
        "lr": arguments.learning_rate,
        "betas": (arguments.adam_beta1, arguments.adam_beta2),
        "eps": arguments.adam_epsilon,
    }
