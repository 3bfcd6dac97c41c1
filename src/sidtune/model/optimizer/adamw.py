"""AdamW with moments in few bits or in main memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.adamw import adamw

from sidtune.config.training import StateKind
from sidtune.model.optimizer.moments import MOMENTS, begin, pack, unpacked
from sidtune.model.sharding.shards import own_part

# Values of a weight that are in float32 at a time; a multiple of every block.
AT_ONCE = 2**24


class CompactAdamW(torch.optim.AdamW):
    """AdamW whose moments are held in few bits, in main memory, or both.

    They are unpacked where the weight is, a part at a time, and updated by PyTorch's fused AdamW in
    float32. A weight that is divided among processes is updated shard by shard.

    Args:
        params: groups, as of any optimizer.
        kind: how moments are held.
        offload: whether in main memory.
        seed: of rounding to bfloat16, beside the number of the step and of the weight: a resumed
            run rounds as it would have, and processes that hold the same weight round it alike.
        options: of `torch.optim.AdamW`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        kind: StateKind,
        offload: bool,
        seed: int,
        **options: Any,
    ) -> None:
        super().__init__(params, fused=True, **options)
        self.kind, self.offload, self.seed = kind, offload, seed

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all weights that have a gradient; `closure` is not supported."""
        assert closure is None
        for number, (group, weight) in enumerate(self._weights()):
            if weight.grad is not None:
                self._update(number, group, weight, self.begun(weight))
        if self.offload and torch.cuda.is_available():
            # Copies to main memory have arrived when the state is read.
            torch.cuda.current_stream().synchronize()

    def begun(self, weight: Tensor) -> dict[str, Tensor]:
        """The state of a weight, made if there is none."""
        if weight not in self.state:
            self.state[weight] = begin(weight, self.kind, self.offload)
        state: dict[str, Tensor] = self.state[weight]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; PyTorch's own method would convert it to the type of the weight."""
        super().load_state_dict({**state_dict, "state": {}})
        for number, (_, weight) in enumerate(self._weights()):
            if number in state_dict["state"]:
                held = self.begun(weight)
                saved = state_dict["state"][number]
                if held.keys() != saved.keys():
                    raise ValueError("the state has other entries than this optimizer's")
                for name, value in saved.items():
                    held[name].copy_(value)

    def _weights(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        for group in self.param_groups:
            for weight in group["params"]:
                yield group, weight

    def _update(
        self, number: int, group: dict[str, Any], weight: Tensor, state: dict[str, Tensor]
    ) -> None:
        assert weight.grad is not None
        own, gradient = _flat(weight), _flat(weight.grad)
        flat = {name: _flat(value) for name, value in state.items()}
        before, (first, second) = state["step"].to(own.device), MOMENTS
        generator = torch.Generator(own.device).manual_seed(self._drawn(state["step"], number))
        beta1, beta2 = group["betas"]
        for start in range(0, own.numel(), AT_ONCE):
            part = slice(start, min(start + AT_ONCE, own.numel()))
            moments = [unpacked(flat, name, part, own.device) for name in MOMENTS]
            adamw(
                [own[part]],
                [gradient[part]],
                [moments[0]],
                [moments[1]],
                [],
                [before.clone()],
                fused=True,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )
            pack(moments[0], flat, first, part, generator)
            pack(moments[1], flat, second, part, generator)
        if not own_part(weight).is_contiguous():
            own_part(weight).copy_(own.view_as(own_part(weight)))
        state["step"] += 1

    def _drawn(self, step: Tensor, number: int) -> int:
        return int(np.random.SeedSequence([self.seed, int(step), number]).generate_state(1)[0])


def _flat(tensor: Tensor) -> Tensor:
    """The values that this process holds, `(values,)`: a view where they are contiguous."""
    return own_part(tensor).reshape(-1)
