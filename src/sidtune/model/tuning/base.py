"""The interface of a way to tune a model, and what all ways share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sidtune.config.model import LoraConfig


class Tuning(ABC):
    """A way to tune a model; its methods take a model that it was applied to.

    Attributes:
        keeps_base: whether the base's weights never change, so that only added weights are trained.
    """

    keeps_base: ClassVar[bool]

    @abstractmethod
    def apply(self, model: PreTrainedModel, sid_ids: Tensor) -> None:
        """Prepare a base model for training.

        Args:
            sid_ids: `(SID tokens,)` ids, ascending.
        """

    @abstractmethod
    def adapt(self, model: PreTrainedModel, lora: LoraConfig, seed: int) -> None:
        """Add what is trained beside the base's layers, if anything; called after `apply`, once the
        base's own dropout is settled.

        Raises:
            UserError: for layers that the model does not have.
        """

    @abstractmethod
    def plain_modules(self, model: PreTrainedModel) -> tuple[Any, Any]:
        """The base's own embedding and output head."""

    @abstractmethod
    def merged_state(self, model: PreTrainedModel, computed: torch.dtype) -> dict[str, Tensor]:
        """All weights under the plain model's names, with trained rows and adapters merged in;
        includes a tied head.

        Args:
            computed: the dtype of the weights that adapters are merged into and of those that were
                quantised, which are computed in float32 one after another; others keep their own.
        """

    @abstractmethod
    def load_merged(self, model: PreTrainedModel, weights: dict[str, Tensor]) -> None:
        """Load weights that have the plain model's names and shapes."""

    @abstractmethod
    def unchanged_names(self, model: PreTrainedModel) -> set[str]:
        """Plain names of the weights that no training step changes."""

    @abstractmethod
    def trained_state(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """Trained weights that are held in more precision than the merged weights; empty if there
        are none.
        """

    @abstractmethod
    def load_trained(self, model: PreTrainedModel, state: dict[str, Tensor]) -> None:
        """Load what `trained_state` returned.

        Raises:
            UserError: for a state of other SID tokens or another model.
        """

    def adapters(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """Trained weights beside the base's layers, which the merged weights contain but do not
        show.
        """
        return {}

    def hidden_weights(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """The base's weights under the adapters, by their plain names: no training step changes
        them, and the merged weights do not show them. Of quantised ones, checksums.
        """
        return {}

    def load_adapters(
        self, model: PreTrainedModel, adapters: dict[str, Tensor], hidden: dict[str, Tensor]
    ) -> None:
        """Load what `adapters` and `hidden_weights` returned.

        Raises:
            UserError: for adapters of other shapes or another model.
        """
        assert not adapters | hidden, "there are none"

    @abstractmethod
    def adopt_rows(self, model: PreTrainedModel, rows: dict[str, Tensor], sid_ids: Tensor) -> None:
        """Start from the float32 rows of the SID tokens that a frozen run trained.

        Args:
            rows: `(SID tokens, hidden)` each: `input`, and `output` unless tied.
            sid_ids: as in `apply`.

        Raises:
            UserError: for rows of other SID tokens or another model.
        """

    @abstractmethod
    def replaced_rows(self, model: PreTrainedModel) -> dict[int, Tensor]:
        """By `id()` of a base weight, its rows that are replaced by others, and unused by the
        model.
        """

    def tied(self, model: PreTrainedModel) -> bool:
        """Whether input and output rows are one matrix."""
        embedding, head = self.plain_modules(model)
        return bool(embedding.weight is head.weight)

    def parameter_counts(self, model: PreTrainedModel) -> tuple[int, int]:
        """Trained parameters, and all parameters as the plain model counts them."""
        trained = sum(
            parameter.numel() for parameter in model.parameters() if parameter.requires_grad
        )
        total = sum(parameter.numel() for parameter in model.parameters())
        return trained, total - trained if self.keeps_base else total


def text_decoder(model: PreTrainedModel) -> nn.Module:
    """The part of a model between embedding and head that reads text: all of it, except where it
    also reads images or sounds.
    """
    if model.config.get_text_config() is model.config:
        return model
    decoder: nn.Module = model.get_decoder()
    return decoder


def freeze_beside_text(model: PreTrainedModel) -> None:
    """Freeze what no text passes, such as layers that read images: it would get no gradient."""
    parts = (text_decoder(model), model.get_input_embeddings(), model.get_output_embeddings())
    passed = {id(weight) for part in parts for weight in part.parameters()}
    for weight in model.parameters():
        if id(weight) not in passed:
            weight.requires_grad_(False)


def module_name(model: nn.Module, wanted: nn.Module) -> str:
    """The name that a module of the model is registered under."""
    names: list[str] = [name for name, module in model.named_modules() if module is wanted]
    return names[0]


def matrix_names(model: PreTrainedModel) -> tuple[str, str]:
    """Plain names of the modules that hold the input rows and the output rows."""
    return module_name(model, model.get_input_embeddings()), module_name(
        model, model.get_output_embeddings()
    )
