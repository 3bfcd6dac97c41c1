"""The loss from hidden states, with logits in memory for only one block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sidtune.model.tuning.frozen import SidHead
from sidtune.training.loss.variant import LossVariant

# Logits per block. Much smaller blocks are slower, since each reads and writes the matrix's whole
# gradient. docs/performance.md compares this with plain cross entropy and torch's
# linear_cross_entropy: as fast as either at a vocabulary of 8,576, and 1.2 to 1.7 times as fast at
# 152,064.
BLOCK_VALUES = 2**26


@torch.compiler.disable  # type: ignore[untyped-decorator]
def blockwise_loss(
    hidden: Tensor,
    head: Any,
    labels: Tensor,
    scale: float,
    variant: LossVariant | None = None,
    nodes: Tensor | None = None,
    terms: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss of labels from hidden states, for a model that returns its head's output unchanged.

    Args:
        hidden: `(labels, hidden)`.
        head: `nn.Linear`, or a frozen model's `SidHead`.
        labels: `(labels,)` token ids.
        scale: factor on the summed loss.
        variant: the loss per label, `-log p(label)` by default.
        nodes, terms: `(labels, …)`, as in `LossVariant.forward`.

    Returns:
        `scale` times the summed loss, differentiable, and the loss per label, `(labels,)`,
        detached.
    """
    own, ids, base = (
        (head.weight, head.sid_ids, head.base) if isinstance(head, SidHead) else (None, None, head)
    )
    device = hidden.device.type
    if own is not None:
        # Frozen weights keep their dtype: a cast would copy the matrix.
        hidden = hidden.to(base.weight.dtype)
    elif torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        loss, losses = _BlockwiseLoss.apply(  # type: ignore[no-untyped-call]
            *(hidden, base.weight, getattr(base, "bias", None), own, ids, labels, scale),
            *(torch.is_grad_enabled(), variant, nodes, terms),
        )
    return loss, losses


class _BlockwiseLoss(torch.autograd.Function):
    """Computes gradients in the forward pass, while the logits are in memory: recomputing them
    would need a fourth matmul.

    No tensor of labels × vocabulary is held, only one block of it, and with frozen tuning no tensor
    of vocabulary × hidden is allocated at all.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        own: Tensor | None,
        ids: Tensor | None,
        labels: Tensor,
        scale: float,
        differentiate: bool,
        variant: LossVariant | None,
        nodes: Tensor | None,
        terms: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """See `blockwise_loss`; `own` and `ids` are a frozen model's SID rows and their ids."""
        given = (hidden, weight, bias, own)
        wanted = [differentiate and needed for needed in ctx.needs_input_grad[: len(given)]]
        # The first block overwrites, later ones add; without labels there is no block.
        make = torch.empty_like if len(labels) else torch.zeros_like
        gradients = [
            make(t) if w and t is not None else None for t, w in zip(given, wanted, strict=True)
        ]
        matrix = weight.to(hidden.dtype)
        losses = torch.empty(
            len(labels),
            dtype=torch.promote_types(hidden.dtype, torch.float32),
            device=hidden.device,
        )
        for part, logits in _blocks(hidden, matrix, bias, own, ids):
            if variant is None:
                losses[part], slope = _likelihood(logits, labels[part], any(wanted))
            else:
                known = [None if values is None else values[part] for values in (nodes, terms)]
                losses[part], slope = _judged(variant, logits, labels[part], known, any(wanted))
            if slope is not None:
                _accumulate(gradients, slope, scale, hidden, matrix, own, ids, part)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(losses)
        return losses.sum() * scale, losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """The stored gradients times the incoming one."""
        # It is 1 if the loss itself is differentiated; on a GPU, the check would synchronise.
        unchanged = incoming.device.type == "cpu" and incoming.item() == 1.0
        made = [
            g if g is None or unchanged else g * incoming.to(g.dtype) for g in ctx.saved_tensors
        ]
        return (*made, None, None, None, None, None, None, None)


def _likelihood(
    logits: Tensor, labels: Tensor, differentiate: bool
) -> tuple[Tensor, Tensor | None]:
    """The negative log likelihood per label, `(rows,)`, and its gradient by the logits, `(rows,
    vocabulary)`, which overwrites the logits.
    """
    of_label = labels[:, None]
    torch.log_softmax(logits, -1, out=logits)
    losses = -logits.gather(1, of_label)[:, 0]
    if not differentiate:
        return losses, None
    return losses, logits.exp_().scatter_add_(1, of_label, logits.new_full(of_label.shape, -1.0))


def _judged(
    variant: LossVariant,
    logits: Tensor,
    labels: Tensor,
    known: Sequence[Tensor | None],
    differentiate: bool,
) -> tuple[Tensor, Tensor | None]:
    """A variant's loss per label, `(rows,)`, and its gradient by logits, `(rows, vocabulary)`.

    Args:
        known: `nodes` and `terms` of these rows.
    """
    if not differentiate:
        return variant(logits, labels, *known), None
    with torch.enable_grad():
        given = logits.detach().requires_grad_()
        losses = variant(given, labels, *known)
        (slope,) = torch.autograd.grad(losses.sum(), given)
    return losses.detach(), slope


def _blocks(
    hidden: Tensor, matrix: Tensor, bias: Tensor | None, own: Tensor | None, ids: Tensor | None
) -> Iterator[tuple[slice, Tensor]]:
    """Logits block by block, in float32 or wider; each block is overwritten by the next one."""
    rows = max(1, min(len(hidden), BLOCK_VALUES // len(matrix)))
    product = hidden.new_empty(rows, len(matrix))
    for start in range(0, len(hidden), rows):
        part = slice(start, min(start + rows, len(hidden)))
        logits = torch.mm(hidden[part], matrix.T, out=product[: part.stop - start])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if bias is not None:
            logits += bias
        if own is not None and ids is not None:
            mine = F.linear(
                hidden[part].to(own.dtype), own, None if bias is None else bias[ids].to(own.dtype)
            )
            logits.index_copy_(1, ids, mine.to(logits.dtype))
        yield part, logits


def _accumulate(
    gradients: list[Tensor | None],
    slope: Tensor,
    scale: float,
    hidden: Tensor,
    matrix: Tensor,
    own: Tensor | None,
    ids: Tensor | None,
    part: slice,
) -> None:
    """Add one block's contribution to each gradient; the first block overwrites the buffer.

    Args:
        slope: `(rows, vocabulary)`, gradient of the loss by the logits, before `scale`, with which
            a narrow dtype would round it to zero; it is overwritten.
    """
    of_hidden, of_weight, of_bias, of_own = gradients
    kept = float(part.start > 0)
    if of_bias is not None:
        _add(of_bias, slope.sum(0).mul_(scale), kept)
    through_own = None
    if own is not None and ids is not None:
        mine = slope[:, ids].to(own.dtype)
        through_own = mine @ own
        if of_own is not None:
            of_own.addmm_(mine.T, hidden[part].to(own.dtype), beta=kept, alpha=scale)
        # The base's rows of these tokens did not contribute to the logits.
        slope.index_fill_(1, ids, 0.0)
    narrow = slope.to(matrix.dtype)
    if of_weight is not None:
        if of_weight.dtype == narrow.dtype:
            of_weight.addmm_(narrow.T, hidden[part], beta=kept, alpha=scale)
        else:
            _add(of_weight, (narrow.T @ hidden[part]).to(of_weight.dtype).mul_(scale), kept)
    if of_hidden is not None:
        torch.mm(narrow, matrix, out=of_hidden[part])
        if through_own is not None:
            of_hidden[part] += through_own.to(of_hidden.dtype)
        of_hidden[part] *= scale


def _add(total: Tensor, part: Tensor, kept: float) -> None:
    total.add_(part) if kept else total.copy_(part)
