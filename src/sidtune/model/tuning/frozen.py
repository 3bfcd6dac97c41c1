"""Frozen tuning: the base stays as it is, and the SID tokens' rows are parameters of their own."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sidtune.base.errors import UserError
from sidtune.config.model import LoraConfig
from sidtune.model.tuning.base import Tuning, matrix_names, module_name


class SidEmbedding(nn.Module):
    """The base's embedding, with separate trained rows for the SID tokens.

    Args:
        base: the original module, frozen.
        sid_ids: `(SID tokens,)` ids, ascending.
    """

    row_of: Tensor

    def __init__(self, base: nn.Embedding, sid_ids: Tensor) -> None:
        super().__init__()
        self.base = base
        # A copy, not a plain nn.Embedding: some models' embeddings scale their output.
        self.rows = copy.copy(base)
        self.rows._parameters = {"weight": nn.Parameter(base.weight.detach()[sid_ids].float())}
        self.rows.padding_idx = None
        row_of = torch.full((len(base.weight),), -1, device=sid_ids.device)
        row_of[sid_ids] = torch.arange(len(sid_ids), device=sid_ids.device)
        self.register_buffer("row_of", row_of, persistent=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """`(batch, length)` ids → `(batch, length, hidden)`."""
        rows = self.row_of[input_ids]
        base = self.base(input_ids)
        # Looked up everywhere, so that the parameter is in every graph: DDP waits for its gradient.
        own = self.rows(rows.clamp(min=0)).to(base.dtype)
        return torch.where((rows >= 0)[..., None], own, base)


class SidHead(nn.Module):
    """The base's output head, with the SID tokens' logits from separate trained rows.

    Args:
        base: the original module, frozen.
        sid_ids: `(SID tokens,)` ids, ascending.
        weight: `(SID tokens, hidden)` float32; the embedding's rows if the base ties them.
    """

    sid_ids: Tensor

    def __init__(self, base: nn.Linear, sid_ids: Tensor, weight: nn.Parameter) -> None:
        super().__init__()
        self.base, self.weight = base, weight
        self.register_buffer("sid_ids", sid_ids, persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """`(…, hidden)` → `(…, vocabulary)` logits."""
        logits = self.base(hidden)
        own = nn.functional.linear(hidden.to(self.weight.dtype), self.weight)
        bias = getattr(self.base, "bias", None)
        if bias is not None:
            own = own + bias[self.sid_ids]
        combined: Tensor = logits.index_copy(-1, self.sid_ids, own.to(logits.dtype))
        return combined


def freeze(model: PreTrainedModel, sid_ids: Tensor) -> None:
    """Freeze every parameter and give the SID tokens float32 rows, one set if tied and two if not.

    Args:
        model: its embedding and head modules are replaced.
        sid_ids: ids of the SID tokens, ascending.
    """
    model.requires_grad_(False)
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    tied = embedding.weight is head.weight
    sid_ids = sid_ids.to(embedding.weight.device)
    own = SidEmbedding(embedding, sid_ids)
    rows: Any = own.rows.weight if tied else nn.Parameter(head.weight.detach()[sid_ids].float())
    names = (module_name(model, embedding), module_name(model, head))
    model.set_input_embeddings(own)
    model.set_output_embeddings(SidHead(head, sid_ids, rows))
    if tied:
        _tell_ties(model, *names)


def _tell_ties(model: PreTrainedModel, embedding: str, head: str) -> None:
    """Update the model's tied weight names, since `tie_weights` would look for the original
    ones.
    """
    ties = {
        f"{head}.base.weight": f"{embedding}.base.weight",
        f"{head}.weight": f"{embedding}.rows.weight",
    }
    model._tied_weights_keys = ties
    model.all_tied_weights_keys = dict(ties)


def sid_rows(model: PreTrainedModel) -> dict[str, Tensor]:
    """The trained rows of a frozen model, `(SID tokens, hidden)` float32: `input`, and `output`
    unless tied.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(embedding, SidEmbedding)
    assert isinstance(head, SidHead)
    rows = {"input": embedding.rows.weight}
    return rows if head.weight is embedding.rows.weight else rows | {"output": head.weight}


@torch.no_grad()
def load_sid_rows(model: PreTrainedModel, rows: dict[str, Tensor]) -> None:
    """Load saved rows.

    Args:
        rows: as `sid_rows` returns them.

    Raises:
        UserError: for rows of other SID tokens or another model.
    """
    own = sid_rows(model)
    given = {name: tuple(value.shape) for name, value in rows.items()}
    expected = {name: tuple(value.shape) for name, value in own.items()}
    if given != expected:
        raise UserError(
            f"the saved SID rows do not match the model: {given}, expected {expected}",
            "Resume with the base and the SID tokens of the run that saved them.",
        )
    for name, parameter in own.items():
        parameter.copy_(rows[name])


class Frozen(Tuning):
    """Trains only the rows of the SID tokens; every weight of the base stays bit-identical."""

    keeps_base: ClassVar[bool] = True

    def apply(self, model: PreTrainedModel, sid_ids: Tensor) -> None:
        """See `Tuning`.

        Raises:
            UserError: where there is no SID token.
        """
        if not len(sid_ids):
            raise UserError(
                "model.tuning is frozen or lora, which train the rows of the SID tokens, but the"
                " index contains no SID token",
                "Set model.tuning: full, or give an index with SIDs.",
            )
        freeze(model, sid_ids)

    def adapt(self, model: PreTrainedModel, lora: LoraConfig, seed: int) -> None:
        """See `Tuning`: nothing is added."""

    def plain_modules(self, model: PreTrainedModel) -> tuple[Any, Any]:
        """See `Tuning`."""
        return model.get_input_embeddings().base, model.get_output_embeddings().base

    def merged_state(self, model: PreTrainedModel, computed: torch.dtype) -> dict[str, Tensor]:
        """See `Tuning`: names without our modules, SID rows in their matrices."""
        embedding, head = matrix_names(model)
        ids, rows = model.get_output_embeddings().sid_ids, sid_rows(model)
        own = {embedding: rows["input"], head: rows.get("output", rows["input"])}
        merged = {}
        for name, value in model.state_dict().items():
            module = next((prefix for prefix in own if name.startswith(f"{prefix}.")), None)
            if module is None:
                merged[name] = value.detach()
            elif name.startswith(f"{module}.base."):
                is_matrix = name == f"{module}.base.weight"
                trained = own[module].detach().to(value.dtype)
                plain = value.detach()
                merged[_plain_name(name)] = (
                    plain.index_copy(0, ids, trained) if is_matrix else plain
                )
        return merged

    def load_merged(self, model: PreTrainedModel, weights: dict[str, Tensor]) -> None:
        """See `Tuning`: the SID rows are read from the matrices."""
        modules = matrix_names(model)
        own = {_own_name(name, modules): value for name, value in weights.items()}
        model.load_state_dict(own, strict=False)
        ids = model.get_output_embeddings().sid_ids.cpu()
        matrices = dict(zip(("input", "output"), modules, strict=True))
        load_sid_rows(
            model, {name: weights[f"{matrices[name]}.weight"][ids] for name in sid_rows(model)}
        )

    def unchanged_names(self, model: PreTrainedModel) -> set[str]:
        """See `Tuning`: all but the two matrices, which SID rows are merged into."""
        matrices = {f"{name}.weight" for name in matrix_names(model)}
        frozen = {
            _plain_name(name)
            for name, weight in model.named_parameters()
            if not weight.requires_grad
        }
        return frozen - matrices

    def trained_state(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """See `Tuning`: the rows in float32."""
        return {name: row.detach().contiguous() for name, row in sid_rows(model).items()}

    def load_trained(self, model: PreTrainedModel, state: dict[str, Tensor]) -> None:
        """See `Tuning`."""
        load_sid_rows(model, state)

    def adopt_rows(self, model: PreTrainedModel, rows: dict[str, Tensor], sid_ids: Tensor) -> None:
        """See `Tuning`."""
        load_sid_rows(model, rows)

    def replaced_rows(self, model: PreTrainedModel) -> dict[int, Tensor]:
        """See `Tuning`."""
        return {
            id(module.weight): model.get_output_embeddings().sid_ids
            for module in self.plain_modules(model)
        }


def _plain_name(name: str) -> str:
    return name.replace(".base.", ".", 1)


def _own_name(name: str, modules: tuple[str, str]) -> str:
    """The frozen model's name of a weight, from its plain name."""
    module = next((module for module in modules if name.startswith(f"{module}.")), None)
    return f"{module}.base.{name.removeprefix(f'{module}.')}" if module else name
