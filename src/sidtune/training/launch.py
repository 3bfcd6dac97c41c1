"""One process for each GPU, or the first GPU alone: never one process that splits itself over several."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import torch

from sidtune.errors import UserError
from sidtune.terminal import warn


def launched() -> bool:
    """Whether torchrun (or another launcher) started this process."""
    return "LOCAL_RANK" in os.environ


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `sidtune` with the given arguments in several processes; the exit status of the whole.

    Args:
        processes: at most one for each visible GPU; without GPUs they share the CPU.
        arguments: the command line after `sidtune`.
    """
    gpus = torch.cuda.device_count()
    if gpus and processes > gpus:
        raise UserError(f"--processes {processes}, but {gpus} GPUs are visible", f"Use --processes {gpus} or fewer.")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.call([*command, "-m", "sidtune", *arguments])


def pin_first_gpu() -> None:
    """With several visible GPUs and one process, use the first and say how to use all.

    Trainer would otherwise wrap the model in DataParallel without a word.
    """
    gpus = torch.cuda.device_count()
    if launched() or gpus < 2:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus))))
    os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]
    warn(f"using the first of {gpus} GPUs; --processes {gpus} uses all of them")
