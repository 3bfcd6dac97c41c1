"""What a run takes between two log entries: time, tokens and memory."""

from __future__ import annotations

import resource
import sys
import time

import torch

from sidtune.base.storage import GIB
from sidtune.batching.steps import Step

# In what `ru_maxrss` counts.
RSS_BYTES = 1 if sys.platform == "darwin" else 1024


class Throughput:
    """Counts since the last log entry.

    `waited` and `evaluated` are seconds of waiting for data, and of evaluating.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Count from here on."""
        self.examples, self.tokens, self.places = 0, 0, 0
        self.waited, self.evaluated, self.since = 0.0, 0.0, time.monotonic()

    def add(self, step: Step) -> None:
        """Count a step: its examples over all ranks, and this rank's tokens."""
        self.examples += step["examples"]
        for batch in step["micro_batches"]:
            self.tokens += batch.tokens
            self.places += batch.input_ids.size

    def entry(self, tokens: float, places: float) -> dict[str, float]:
        """The figures of a log entry.

        Args:
            tokens: computed over all ranks, those of shared prefixes once, without padding.
            places: the same with padding.
        """
        seconds = time.monotonic() - self.since - self.evaluated
        return {
            "examples_per_second": self.examples / seconds,
            "tokens_per_second": tokens / seconds,
            "useful_tokens": tokens / max(1.0, places),
            "waiting": self.waited / seconds,
        }


def peak_gib(device: torch.device) -> float:
    """Most memory held so far in GiB: by PyTorch on a GPU, by this process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_BYTES / GIB
