"""Folders that hold shards of a run instead of a model."""

from __future__ import annotations

from pathlib import Path

# The folder of a checkpoint that holds the shards of a run.
SHARDS = "shards"


def sharded(folder: Path | str) -> tuple[str, str]:
    """Why a checkpoint of a sharded run is no model, and a hint."""
    return (
        f"{folder} holds shards of a run with training.distributed: fsdp2, which only this run can"
        " read",
        "Let the run finish: its output_dir is then an ordinary model.",
    )
