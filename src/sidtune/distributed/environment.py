"""Environment variables: only those of launchers are accepted; the configuration sets everything
else.
"""

from __future__ import annotations

import os

import torch

from sidtune.base.errors import OneProcessError, UserError
from sidtune.base.terminal import LAUNCHER, first_process, is_given, launched, warn

# Read by accelerate: these select another engine, which Trainer would use instead of ours.
ENGINES = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "accelerate's FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor, context or sequence parallelism",
    "ACCELERATE_USE_SAGEMAKER": "SageMaker's data parallelism",
}
# These change what a run computes, or where. Values: the setting to use instead, and the harmless
# values that `accelerate launch` always sets.
DECIDED = {
    "ACCELERATE_MIXED_PRECISION": ("training.precision", ("no",)),
    "ACCELERATE_DYNAMO_BACKEND": ("training.compile", ("no",)),
    "ACCELERATE_DYNAMO_MODE": ("training.compile", ("default",)),
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": ("training.compile", ("false",)),
    "ACCELERATE_DYNAMO_USE_DYNAMIC": ("training.compile", ("false", "none")),
    "ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION": ("training.compile", ("false",)),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("training.batch_size", ("1",)),
    "ACCELERATE_GRADIENT_CLIPPING": ("training.max_grad_norm", ()),
    "ACCELERATE_TORCH_DEVICE": ("CUDA_VISIBLE_DEVICES", ()),
}
CPU = "ACCELERATE_USE_CPU"
# These change neither, but accelerate raises if they are not booleans.
SWITCHES = ("ACCELERATE_DEBUG_MODE", "ACCELERATE_CPU_AFFINITY", "FORK_LAUNCHED")
# World sizes set by MPI and Slurm. Accelerate reads them if there is no GPU.
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
TRUE, FALSE = ("1", "true", "yes", "y", "t", "on"), ("0", "false", "no", "n", "f", "off")
OTHERWISE = "`sidtune train --processes N` and torchrun start several processes."


def settle_environment() -> None:
    """Refuse, or remove with a warning, every variable through which accelerate would change what a
    run computes.

    Raises:
        UserError: if variables select something unsupported, or those of a launcher are incomplete.
    """
    _settle_launcher()
    for name, engine in ENGINES.items():
        if _switch(name):
            raise UserError(
                f"{name}={os.environ[name]} selects {engine}, which sidtune does not support",
                f"Unset {name}. {OTHERWISE} training.distributed: fsdp2 divides a model among"
                " them.",
            )
        os.environ.pop(name, None)
    for name, (decides, harmless) in DECIDED.items():
        value = os.environ.pop(name, "")
        if value and value.lower() not in harmless and first_process():
            warn(f"{name}={value} has no effect: use {decides}")
    if _switch(CPU) and torch.cuda.is_available():
        raise UserError(
            f"{CPU}={os.environ[CPU]}, but a GPU is visible",
            f'Unset {CPU}; CUDA_VISIBLE_DEVICES="" hides it.',
        )
    os.environ.pop(CPU, None)
    for name in SWITCHES:
        if not _switch(name):
            os.environ.pop(name, None)


def _switch(name: str) -> bool:
    """Whether a variable is true."""
    value = os.environ.get(name, "")
    if value.lower() not in (*TRUE, *FALSE, ""):
        raise UserError(f"{name}: expected true or false, found {value!r:.60}", f"Unset {name}.")
    return value.lower() in TRUE


def _settle_launcher() -> None:
    """Require that a launcher's variables are complete and consistent; without them, run as a
    single process.
    """
    given = [name for name in LAUNCHER if is_given(name)]
    if launched():
        _refuse_misfits()
    elif "LOCAL_RANK" in given:
        missing = " and ".join(name for name in LAUNCHER if name not in given)
        raise OneProcessError(
            f"LOCAL_RANK={os.environ['LOCAL_RANK']} is set without {missing}, so it was not set by"
            " a launcher",
            f"Unset LOCAL_RANK to run as a single process. {OTHERWISE}",
        )
    else:
        sizes = {name: os.environ.pop(name, "") for name in ("WORLD_SIZE", *SIZES)}
        for name in LAUNCHER:
            os.environ.pop(name, None)
        several = next(
            (f"{name}={size}" for name, size in sizes.items() if size not in ("", "0", "1", "-1")),
            None,
        )
        if several:
            warn(f"{several} is set without LOCAL_RANK, so this is a single process. {OTHERWISE}")


def _refuse_misfits() -> None:
    local, rank, size = (_number(name) for name in LAUNCHER)
    if not (0 <= local <= rank < size):
        found = " ".join(f"{name}={os.environ[name]}" for name in LAUNCHER)
        raise OneProcessError(
            f"{found} are inconsistent",
            "RANK counts the processes of all machines from 0 to WORLD_SIZE - 1, LOCAL_RANK those"
            " of this machine.",
        )
    if not os.environ.get("MASTER_ADDR"):
        raise OneProcessError(
            f"{', '.join(LAUNCHER)} are set without MASTER_ADDR, the host of the first process",
            "Set MASTER_ADDR and MASTER_PORT, or unset all of them to run as a single process."
            f" {OTHERWISE}",
        )


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise OneProcessError(
            f"{name}: expected a whole number, found {os.environ[name]!r:.60}",
            f"Unset {name} to run as a single process. {OTHERWISE}",
        ) from None
