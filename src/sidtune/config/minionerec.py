"""Translates MiniOneRec's command-line flags into a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sidtune.base.errors import UserError


def boolean(text: str) -> bool:
    """Parse `True` or `False` as MiniOneRec's scripts do."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise UserError(f"expected True or False, found {text!r}", "Write True or False.")
    return values[text.lower()]


def resume(text: str) -> str:
    """The `--resume` value for MiniOneRec's `--resume_from_checkpoint`, whose default, None, starts
    a new run.

    MiniOneRec passes it to Trainer, which treats False like None and resumes from the newest
    checkpoint if True.
    """
    words = {"none": "never", "false": "never", "": "never", "true": "auto"}
    return words.get(text.strip().lower(), text)


def to_config(
    *,
    base_model: str,
    train_file: Path,
    eval_file: Path,
    output_dir: Path,
    sid_index_path: Path,
    item_meta_path: Path,
    sample: int,
    seed: int,
    batch_size: int,
    micro_batch_size: int,
    num_epochs: int,
    learning_rate: float,
    cutoff_len: int,
    freeze_llm: str,
    train_from_scratch: str,
    wandb_project: str,
    wandb_run_name: str,
    **_elsewhere: Any,
) -> dict[str, Any]:
    """The configuration tree equivalent to MiniOneRec's flags.

    `micro_batch_size` limits memory in MiniOneRec; the equivalent limit here is `micro_batch_size ×
    cutoff_len` tokens. Flags without a configuration key (`category`, `group_by_length`, resuming,
    launching) are ignored.
    """
    return {
        "output_dir": str(output_dir),
        "seed": seed,
        "model": {
            "base": base_model,
            "from_scratch": boolean(train_from_scratch),
            "tuning": "frozen" if boolean(freeze_llm) else "full",
        },
        "data": {
            "items": str(item_meta_path),
            "index": str(sid_index_path),
            "train": str(train_file),
            "valid": str(eval_file),
            "sample": sample if sample > 0 else None,
        },
        "encoding": {"cutoff_len": cutoff_len},
        "training": {
            "epochs": num_epochs,
            "batch_size": batch_size,
            "max_tokens": micro_batch_size * cutoff_len,
            "learning_rate": learning_rate,
            "warmup": 20,
        },
        "eval": {"every": 0.05, "patience": 3, "save_total_limit": 1},
        "logging": _logging(wandb_project, wandb_run_name),
    }


def _logging(project: str, run_name: str) -> dict[str, Any]:
    if not project:
        return {"every": 1}
    return {
        "every": 1,
        "trackers": ["wandb"],
        "project": project,
        "run_name": run_name or None,
    }
