"""Frozen tuning: the base stays as it is, and the SID tokens' rows are parameters of their own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sidtune.base.errors import UserError


class SidEmbedding(nn.Module):
    """The base's embedding, with rows of its own for the SID tokens.

    Args:
        base: the original module, frozen.
        sid_ids: `(SID tokens,)` ids, ascending.
    """

    row_of: Tensor

    def __init__(self, base: nn.Embedding, sid_ids: Tensor) -> None:
        super().__init__()
        self.base = base
        # A copy, not a plain nn.Embedding: some models scale inside theirs.
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
    """The base's output head, with the SID tokens' logits from rows of their own.

    Args:
        base: the original module, frozen.
        sid_ids: `(SID tokens,)` ids, ascending.
        weight: `(SID tokens, hidden)` float32; the embedding's own where the base ties them.
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
    """Tell the model which of its weights are one now: `tie_weights` would look for those it had."""
    ties = {f"{head}.base.weight": f"{embedding}.base.weight", f"{head}.weight": f"{embedding}.rows.weight"}
    model._tied_weights_keys = ties
    model.all_tied_weights_keys = dict(ties)


def module_name(model: nn.Module, wanted: nn.Module) -> str:
    """The name that a module of the model is registered under."""
    names: list[str] = [name for name, module in model.named_modules() if module is wanted]
    return names[0]


def is_frozen(model: PreTrainedModel) -> bool:
    """Whether `freeze` was called on the model."""
    return isinstance(model.get_input_embeddings(), SidEmbedding)


def parameter_counts(model: PreTrainedModel) -> tuple[int, int]:
    """Trained parameters, and all parameters as the plain model counts them."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    return trained, total - trained if is_frozen(model) else total


def sid_rows(model: PreTrainedModel) -> dict[str, Tensor]:
    """The trained rows of a frozen model, `(SID tokens, hidden)` float32: `input`, and `output` unless tied."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(embedding, SidEmbedding)
    assert isinstance(head, SidHead)
    rows = {"input": embedding.rows.weight}
    return rows if head.weight is embedding.rows.weight else rows | {"output": head.weight}


@torch.no_grad()
def load_sid_rows(model: PreTrainedModel, rows: dict[str, Tensor]) -> None:
    """Put saved rows back.

    Args:
        rows: as `sid_rows` gives them.

    Raises:
        UserError: for rows of other SID tokens or another model.
    """
    own = sid_rows(model)
    given = {name: tuple(value.shape) for name, value in rows.items()}
    expected = {name: tuple(value.shape) for name, value in own.items()}
    if given != expected:
        raise UserError(
            f"saved SID rows do not fit the model: {given}, expected {expected}",
            "Resume with the base and the SID tokens of the run that saved them.",
        )
    for name, parameter in own.items():
        parameter.copy_(rows[name])
