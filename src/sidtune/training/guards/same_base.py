"""Whether a run's frozen weights are those of `model.base`, which an adapter is saved for."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from sidtune.base.errors import UserError
from sidtune.base.terminal import warn
from sidtune.training.guards.untouched import Untouched


class SameBase:
    """Remembers the frozen weights as they were loaded from `model.base`.

    Args:
        model: before other weights are loaded into it.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.expected = Untouched(model).checksums().cpu()

    def holds(self) -> bool:
        """Whether they are still the same."""
        return torch.equal(Untouched(self.model).checksums().cpu(), self.expected)

    def refuse_others(self, weights: Path | None) -> None:
        """Raises `UserError` where the weights that the run starts from have changed them."""
        if weights and not self.holds():
            raise UserError(
                f"model.lora.save_adapter: {weights} differs from model.base in more than the rows"
                " of the SID tokens, so an adapter could not describe the run",
                f"Remove it, or use {weights} as model.base.",
            )

    def holds_or_warns(self) -> bool:
        """The same at the end of a run, which is not worth losing."""
        same = self.holds()
        if not same:
            warn(
                "no adapter was written: model.base is no longer what the run began with. The model"
                " itself is complete"
            )
        return same
