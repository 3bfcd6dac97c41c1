"""What this machine has to train with."""

from __future__ import annotations

from dataclasses import dataclass

from sidtune.base.resources import cores, memory
from sidtune.base.storage import GIB


@dataclass(frozen=True)
class Machine:
    """A machine.

    Args:
        cores: CPU cores that this process may use.
        memory: bytes of main memory; 0 where it is not known.
        gpus: the memory of each visible GPU, in bytes.
        gpu: the name of the first.
    """

    cores: int
    memory: int
    gpus: tuple[int, ...] = ()
    gpu: str = ""

    @property
    def text(self) -> str:
        """In a line."""
        cores = f"{self.cores} CPU core{'s' if self.cores > 1 else ''}"
        memory = [f"{self.memory / GIB:.0f} GiB of memory"] if self.memory else []
        gpus = "no GPU"
        if self.gpus:
            count = f"{len(self.gpus)} × " if len(self.gpus) > 1 else ""
            each = f" ({self.gpus[0] / GIB:.0f} GiB{' each' if count else ''})"
            gpus = f"{count}{self.gpu}{each if self.gpus[0] else ''}"
        return ", ".join([cores, *memory, gpus])


def this_machine() -> Machine:
    """What is visible to this process; imports torch, which knows the GPUs."""
    import torch

    gpus: tuple[int, ...] = ()
    name = ""
    if torch.cuda.is_available():
        found = [
            torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())
        ]
        gpus, name = tuple(int(one.total_memory) for one in found), str(found[0].name)
    elif torch.backends.mps.is_available():
        gpus, name = (0,), "Apple GPU"
    return Machine(cores(), memory(), gpus, name)
