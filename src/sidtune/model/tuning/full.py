"""Full tuning: every weight is trained, in float32."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sidtune.base.errors import UserError
from sidtune.config.model import LoraConfig
from sidtune.model.tuning.base import Tuning


class Full(Tuning):
    """Trains all weights of the plain model; nothing else needs to be saved."""

    keeps_base: ClassVar[bool] = False

    def apply(self, model: PreTrainedModel, sid_ids: Tensor) -> None:
        """Cast to float32, since AdamW on pure bfloat16 parameters learns visibly worse."""
        model.float()

    def adapt(self, model: PreTrainedModel, lora: LoraConfig, seed: int) -> None:
        """See `Tuning`: nothing is added."""

    def plain_modules(self, model: PreTrainedModel) -> tuple[Any, Any]:
        """See `Tuning`."""
        return model.get_input_embeddings(), model.get_output_embeddings()

    def merged_state(self, model: PreTrainedModel, computed: torch.dtype) -> dict[str, Tensor]:
        """See `Tuning`."""
        return {name: value.detach() for name, value in model.state_dict().items()}

    def load_merged(self, model: PreTrainedModel, weights: dict[str, Tensor]) -> None:
        """See `Tuning`."""
        model.load_state_dict(weights, strict=False)

    def unchanged_names(self, model: PreTrainedModel) -> set[str]:
        """See `Tuning`: every weight may change."""
        return set()

    def trained_state(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """See `Tuning`: the merged weights are the trained ones."""
        return {}

    def load_trained(self, model: PreTrainedModel, state: dict[str, Tensor]) -> None:
        """See `Tuning`: there is no such state."""

    @torch.no_grad()
    def adopt_rows(self, model: PreTrainedModel, rows: dict[str, Tensor], sid_ids: Tensor) -> None:
        """See `Tuning`: they are written into the matrices."""
        embedding, head = self.plain_modules(model)
        weights: dict[str, Any] = {"input": embedding.weight} | (
            {} if self.tied(model) else {"output": head.weight}
        )
        given = {name: tuple(saved.shape) for name, saved in rows.items()}
        expected = {name: (len(sid_ids), weight.shape[1]) for name, weight in weights.items()}
        if given != expected:
            raise UserError(
                f"the saved SID rows do not match the model: {given!s:.200}, expected {expected}",
                "Use weights of the same base with the same SID tokens.",
            )
        for name, weight in weights.items():
            weight[sid_ids] = rows[name].to(weight.device)

    def replaced_rows(self, model: PreTrainedModel) -> dict[int, Tensor]:
        """See `Tuning`."""
        return {}
