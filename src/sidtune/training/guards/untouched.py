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
from sidtune.model.tuning.checksums import checksum


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
