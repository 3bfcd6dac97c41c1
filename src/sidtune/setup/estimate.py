"""About how long all stages take, and how much disk: from figures that were measured elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sidtune.base.durations import rough_duration
from sidtune.base.storage import GIB
from sidtune.setup.choose import Chosen
from sidtune.setup.machine import Machine

# Small models from scratch on one core (the recipes of docs/quality.md): seconds a label at hidden
# size 128, and a ranked row.
LABEL_SECONDS, ROW_SECONDS = 4e-4, 0.02
LEVELS, DIRECTIONS, RANKED = 3, 2, 8_000
# Preparing, SIDs, loading and the ranker.
FIXED_SECONDS = 90
# How far a machine may be from the measured one.
FASTER, SLOWER = 0.7, 2.0
PARAMETERS = {128: 1_000_000, 256: 3_500_000}
# A pretrained base: 6 operations a parameter and token; tokens of the default mixture for each
# target after sharing prefixes; operations a second that are reached.
TOKENS, GPU_SPEED, CORE_SPEED = 150, 5e13, 3e10
# Weights, gradients and AdamW's state in float32; weights on disk in 16 bits.
TRAINED_BYTES, SAVED_BYTES = 16, 2
USABLE = 0.7
NAMED_SIZE = re.compile(r"(\d+(?:\.\d+)?)([BbMm])(?![a-zA-Z])")


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Args:
        low, high: seconds.
        disk: bytes under `output_dir`.
        parameters: of the model; 0 where they are not known.
        less: `k_core` leaves out events, nobody knows how many.
    """

    low: float
    high: float
    disk: float
    parameters: int
    less: bool = False

    @property
    def text(self) -> str:
        """In a line."""
        if not self.high:
            return "how long it takes, `sidtune train --dry-run` and the first steps will tell"
        disk = f"{max(self.disk / GIB, 0.1):.1f} GiB of disk"
        low, high = rough_duration(self.low), rough_duration(self.high)
        number, _, unit = low.partition(" ")
        less = ", or less by what k_core leaves out" if self.less else ""
        return f"roughly {number if high.endswith(unit) else low} to {high}, and {disk}{less}"


def estimate(chosen: Chosen, machine: Machine, epochs: int) -> Estimate:
    """What all stages will take on a machine.

    Args:
        epochs: of a pretrained base; those of a model from scratch follow from the data.
    """
    read = sum(table.path.stat().st_size for table in chosen.tables.values() if table.path.exists())
    size = chosen.size
    if chosen.base is None:
        parameters = PARAMETERS[size.hidden]
        labels = chosen.targets * LEVELS * DIRECTIONS * size.epochs
        rows = RANKED + chosen.targets / 10
        seconds = labels * LABEL_SECONDS * (size.hidden / 128) ** 0.5 + rows * ROW_SECONDS
        seconds = FIXED_SECONDS + seconds / min(machine.cores, 4) ** 0.7
    else:
        parameters = base_parameters(chosen.base)
        speed = len(machine.gpus) * GPU_SPEED or machine.cores * CORE_SPEED
        seconds = 6 * parameters * chosen.targets * TOKENS * epochs / speed
        seconds += FIXED_SECONDS if parameters else 0
    disk = 2 * read + parameters * TRAINED_BYTES * 3
    less = bool("events" in chosen and chosen.k_core and chosen.left is None)
    return Estimate(seconds * FASTER, seconds * SLOWER, disk, parameters, less)


def base_parameters(base: str) -> int:
    """The parameters of a base: by the size of its weights, or by its name; 0 if neither tells."""
    folder = Path(base)
    if folder.is_dir():
        weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        return weights // SAVED_BYTES
    found = NAMED_SIZE.search(base.rpartition("/")[2])
    return int(float(found[1]) * (1e9 if found[2] in "bB" else 1e6)) if found else 0


def fits(parameters: int, machine: Machine) -> bool:
    """Whether all parameters can be trained in the memory of one GPU, or of the machine."""
    memory = min(machine.gpus, default=0) or machine.memory
    return not memory or parameters * TRAINED_BYTES <= memory * USABLE
