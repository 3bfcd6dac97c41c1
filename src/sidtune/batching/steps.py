"""Steps as a data set: one item is this rank's micro-batches of one optimizer update."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from sidtune.base.signals import outlive_signals
from sidtune.batching.layouts import Layout, MicroBatch, idle_micro_batch
from sidtune.batching.plan import Plan
from sidtune.encoding.corpus import Corpus


class Step(TypedDict):
    """One optimizer update, as one rank sees it."""

    micro_batches: list[MicroBatch]
    label_count: int  # over all ranks
    examples: int  # over all ranks


class Steps(Dataset[Step]):
    """The steps of a plan for one rank; item `i` is step `i` counted over all epochs."""

    def __init__(
        self, corpus: Corpus, plan: Plan, layout: Layout, rank: int, world_size: int
    ) -> None:
        self.corpus, self.plan, self.layout = corpus, plan, layout
        self.rank, self.world_size = rank, world_size

    def share(self, number: int) -> NDArray[np.int64]:
        """This rank's examples of a step."""
        return shared_out(self.plan.step(number), self.corpus.lengths, self.rank, self.world_size)

    def __getitem__(self, number: int) -> Step:
        examples = self.plan.step(number)
        micro_batches = self.layout.micro_batches([self.corpus[int(i)] for i in self.share(number)])
        return Step(
            micro_batches=micro_batches
            or [idle_micro_batch(self.corpus[int(examples[0])], self.layout)],
            label_count=int(self.corpus.label_counts[examples].sum()),
            examples=len(examples),
        )


def shared_out(
    examples: NDArray[np.int64], lengths: NDArray[np.int64], rank: int, world_size: int
) -> NDArray[np.int64]:
    """This rank's examples: a contiguous slice, so that neighbours stay together, with about equal
    tokens per rank.
    """
    behind = np.cumsum(lengths[examples])
    # An example belongs to the rank whose range of tokens contains its middle.
    middle = behind - lengths[examples] / 2
    share: NDArray[np.int64] = examples[
        (middle * world_size // behind[-1]).astype(np.int64) == rank
    ]
    return share


class StepSampler(Sampler[list[int]]):
    """Step numbers of one epoch, each a batch of its own.

    Ends at the run's last step: Trainer checks `max_steps` only after a step, and would take one
    too many when it resumes a run that had reached it.
    """

    def __init__(self, steps_per_epoch: int, last: int) -> None:
        self.steps_per_epoch, self.last, self.epoch = steps_per_epoch, last, 0

    def set_epoch(self, epoch: int) -> None:
        """Yield the steps of this epoch from the next iteration on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        start = self.epoch * self.steps_per_epoch
        return ([number] for number in range(start, min(start + self.steps_per_epoch, self.last)))


class StepLoader(DataLoader[Step]):
    """The loader Trainer iterates over; it passes `set_epoch` on to its sampler, which a plain
    DataLoader does not.

    Args:
        last: the first step that is no longer taken.
        workers: processes that prepare steps ahead; with 0, each step is prepared on demand.
    """

    def __init__(self, steps: Steps, last: int, workers: int) -> None:
        # A separate generator: by default, worker seeds are drawn from the global one, which
        # changes dropout.
        super().__init__(
            steps,
            batch_sampler=StepSampler(steps.plan.steps_per_epoch, last),
            collate_fn=_only,
            generator=torch.Generator(),
            num_workers=workers,
            worker_init_fn=outlive_signals,
            persistent_workers=workers > 0,
        )

    def end_at(self, step: int) -> None:
        """Yield no step from this one on."""
        assert isinstance(self.batch_sampler, StepSampler)
        self.batch_sampler.last = step

    def close(self) -> None:
        """End the workers, if there are any.

        Left to the garbage collector they are waited for in vain, for five seconds: it ends the
        queue by which they are told before it ends the loader.
        """
        iterator: Any = self._iterator
        self._iterator = None
        if iterator is not None:
            iterator._shutdown_workers()

    def set_epoch(self, epoch: int) -> None:
        """Called by Trainer at the start of every epoch."""
        assert isinstance(self.batch_sampler, StepSampler)
        self.batch_sampler.set_epoch(epoch)


def _only(steps: list[Step]) -> Step:
    return steps[0]
