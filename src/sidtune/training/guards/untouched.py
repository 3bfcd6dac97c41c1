"""Verifies frozen weights by checksums whenever something is saved."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from sidtune.base.errors import OneProcessError
from sidtune.model.tuning import tuning_of

WORD_BYTES = 8
NARROW = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Untouched(TrainerCallback):
    """Verifies by checksums that a model's frozen weights have not changed.

    The SID tokens' rows in the frozen matrices are left out: the model does not use them, and
    loading a checkpoint overwrites them.

    Args:
        model: on its device.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.frozen = {
            name: weight for name, weight in model.named_parameters() if not weight.requires_grad
        }
        self.replaced = tuning_of(model).replaced_rows(model)
        self.known: Tensor | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called by Trainer, after the checkpoint to resume from is loaded."""
        self.known = self.checksums()

    def verify(self, step: int) -> None:
        """Compare with the checksums from the start of training; called before anything is saved.

        Raises:
            OneProcessError: names the weights that have changed.
        """
        assert self.known is not None
        changed = (self.checksums() != self.known).tolist()
        names = [name for name, differs in zip(self.frozen, changed, strict=True) if differs]
        if names:
            raise OneProcessError(
                f"step {step}: {len(names)} of {len(changed)} frozen weights have changed since"
                f" training began, such as {names[0]}; nothing was saved at this step",
                "Code in this process wrote to them, or the machine's memory is faulty. Earlier"
                " checkpoints are intact: run the command again to resume. See “A frozen weight has"
                " changed” in docs/troubleshooting.md.",
            )

    @torch.no_grad()
    def checksums(self) -> Tensor:
        """One number for each frozen weight, `(weights,)` int64."""
        return torch.stack(
            [checksum(weight, self.replaced.get(id(weight))) for weight in self.frozen.values()]
        )


def checksum(values: Tensor, left_out: Tensor | None = None) -> Tensor:
    """A checksum that changes with any single bit, or when rows are swapped: a weighted sum of the
    rows' word sums, modulo 2⁶⁴.

    Args:
        values: `(rows, …)` of any type.
        left_out: `(n,)` rows to leave out.

    Returns:
        `()`, int64.
    """
    rows = values.detach().reshape(max(1, len(values)) if values.dim() else 1, -1).contiguous()
    # Words of the tensor's own size would be widened before summing: a copy of eight bytes per
    # value.
    wide = rows.shape[1] * rows.element_size() % WORD_BYTES == 0
    if wide and rows.storage_offset() * rows.element_size() % WORD_BYTES:
        rows = rows.clone()
    words = rows.view(torch.int64 if wide else NARROW[rows.element_size()])
    sums = words.sum(1, dtype=torch.int64)
    if left_out is not None:
        sums[left_out] = 0
    # Odd factors are invertible modulo 2⁶⁴, so a change in any one row changes the sum.
    return (sums * torch.arange(1, 2 * len(sums), 2, device=sums.device)).sum()
