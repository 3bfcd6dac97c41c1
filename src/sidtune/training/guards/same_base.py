"""The adapter of a run, which fits frozen weights that are those of `model.base`."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from sidtune.base.errors import UserError
from sidtune.base.terminal import warn
from sidtune.inputs import Inputs
from sidtune.runs.adapters import write_adapter
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import with_absolute_paths
from sidtune.training.guards.untouched import Untouched


class SameBase:
    """Remembers the frozen weights as they were loaded from `model.base`.

    Args:
        model: before other weights are loaded into it.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.expected = Untouched(model).checksums().cpu()

    def holds(self, model: PreTrainedModel) -> bool:
        """Whether they are still the same."""
        return torch.equal(Untouched(model).checksums().cpu(), self.expected)

    def refuse_others(self, model: PreTrainedModel, weights: Path | None) -> None:
        """Raises `UserError` where the weights that the run starts from have changed them."""
        if weights and not self.holds(model):
            raise UserError(
                f"model.lora.save_adapter: {weights} differs from model.base in more than the rows"
                " of the SID tokens, so an adapter could not describe the run",
                f"Remove it, or use {weights} as model.base.",
            )

    def leave_adapter(self, model: PreTrainedModel, config: Config, inputs: Inputs) -> None:
        """Write the adapter, with the rows of the SID tokens and all that the base does not have;
        where the base has changed, warn instead, since a finished run is not worth losing.

        Args:
            model: in one piece.
        """
        if not self.holds(model):
            warn(
                "no adapter was written: model.base is no longer what the run began with. The model"
                " itself is complete"
            )
            return
        vocabulary, base = inputs.vocabulary, with_absolute_paths(config.model).base
        had = inputs.model_config.get_text_config().vocab_size
        rows = model.config.get_text_config().vocab_size
        tokens = {*vocabulary.sid_ids.tolist(), *vocabulary.new_ids.tolist(), *range(had, rows)}
        write_adapter(
            model,
            vocabulary.tokenizer,
            inputs.bundle,
            base,
            sorted(tokens),
            config.output_dir,
        )
