"""The memory of a forward and backward pass, found without allocating it."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from sidtune.batching.layouts import MicroBatch
from sidtune.training.loss.label_loss import LabelLoss


@dataclass(frozen=True)
class PassMemory:
    """Bytes that one pass holds at its peak, besides weights and their gradients.

    Args:
        peak: all of them.
        logits: what the output head and the loss add to what is held when they are called.
    """

    peak: int
    logits: int


def trace_pass(
    model: PreTrainedModel, batch: MicroBatch, bf16: bool, checkpointing: bool
) -> PassMemory:
    """Run a pass on tensors that have shapes but no values, and follow what is alive.

    The pass is that of a step after its first: gradients exist and are added to.

    Args:
        model: on the meta device; it cannot be used afterwards.
        batch: of token ids that the model has rows for.
        bf16: whether the forward pass runs under bfloat16 autocast.
        checkpointing: whether layers are recomputed in the backward pass.
    """
    device = torch.device("cpu")
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device=device)
        model.train()
        if checkpointing:
            with warnings.catch_warnings(action="ignore"):
                model.gradient_checkpointing_enable(
                    gradient_checkpointing_kwargs={"use_reentrant": False}
                )
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        for weight in trained:
            weight.grad = torch.empty_like(weight)
        given = {
            name: None if value is None else torch.empty_like(value)
            for name, value in batch.to(device).items()
        }
        gradients = [weight.grad for weight in trained if weight.grad is not None]
        inputs = [value for value in given.values() if value is not None]
        live = _Live([*model.parameters(), *model.buffers(), *gradients, *inputs])
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss_module: Any = LabelLoss(model, int(batch.tasks.max(initial=0)) + 1)
        at_head: list[int] = []
        watch = model.get_output_embeddings().register_forward_pre_hook(
            lambda *_: at_head.append(live.restart_peak())
        )
        with live:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss, _ = loss_module(**given)
            before_head, in_loss = live.restarted, live.peak
            loss.backward()
        watch.remove()
    return PassMemory(max(before_head, live.peak), in_loss - at_head[0] if at_head else 0)


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that operations make, until they are released.

    Args:
        known: tensors that are not counted, nor views of them.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}
        self.now = self.peak = self.restarted = 0

    def restart_peak(self) -> int:
        """Begin a new peak, and keep the old one as `restarted`; returns what is alive."""
        self.restarted, self.peak = max(self.restarted, self.peak), self.now
        return self.now

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            # The only value that a pass reads: the gradient of the loss by itself.
            return 1.0
        output = func(*args, **(kwargs or {}))
        for value in tree_leaves(output):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return output

    def _count(self, storage: torch.UntypedStorage) -> None:
        key: int = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size
