"""Running a language model over prompts and, from there, over beams."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from sidtune.evaluation.head import Head
from sidtune.model.attention import added_mask, agree, attention_dtype, takes_masks
from sidtune.model.head import head_device
from sidtune.terminal import warn

Precision = Callable[[], AbstractContextManager[Any]]


class Decoder(Protocol):
    """Computes the states behind prompts, and behind beams that continue them."""

    head: Head
    device: torch.device

    def start(self, prompts: Sequence[NDArray[np.int32]]) -> Tensor:
        """Run prompts; the states of their last tokens, `(users, …)`."""

    def extend(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """Add a token to every beam; the states behind it, `(users × beams, …)`.

        Args:
            parents: `(users, beams)`, the beam of the last call that each one continues.
            tokens: `(users, beams)` vocabulary ids.
        """

    def tokens(self, prompt: int, beams: int, depth: int) -> int:
        """Tokens held for one user at the most, for a prompt of this length and SIDs of this depth."""


def make_decoder(model: PreTrainedModel, precision: Precision = nullcontext) -> Decoder:
    """The fastest decoder that is exact for a model.

    Args:
        model: in evaluation mode.
        precision: the context that forward passes run in.
    """
    shared = SharedPrompts(model, precision)
    if shared.exact():
        return shared
    warn(f"{model.config.model_type}: its attention takes no mask of ours, so every beam runs its whole prompt: slow")
    return WholeSequences(model, precision)


class _Runner:
    """What both decoders are made of."""

    def __init__(self, model: PreTrainedModel, precision: Precision = nullcontext) -> None:
        self.model, self.precision = model, precision
        self.head = Head(model)
        self.device = head_device(self.head.module)

    def _states(self, input_ids: Tensor, rows: Tensor, columns: Tensor, **given: Any) -> Tensor:
        """States at some places of a forward pass, `(places, …)`."""
        with self.head.at(rows, columns), self.precision():
            states: Tensor = self.model(input_ids=input_ids, **given).logits[0]
        return states

    def _padded(self, prompts: Sequence[NDArray[np.int32]]) -> tuple[Tensor, Tensor]:
        """Prompts `(users, length)` and their lengths; padding stands on the right, where causality hides it."""
        lengths = [len(prompt) for prompt in prompts]
        ids = torch.zeros(len(prompts), max(lengths), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.from_numpy(prompt)
        return ids.to(self.device), torch.tensor(lengths, device=self.device)


class SharedPrompts(_Runner):
    """Runs each prompt once and holds it once, however many beams continue it; what all prompts open with runs once.

    The beams of a user are the tokens of one sequence behind the prompt: each sees the prompt, its own ancestors and no
    other beam. Choosing among beams then moves a mask, never keys and values.
    """

    def __init__(self, model: PreTrainedModel, precision: Precision = nullcontext) -> None:
        super().__init__(model, precision)
        # Transformers renamed the argument within version 5.
        names = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in names else "past_key_values"

    def start(self, prompts: Sequence[NDArray[np.int32]]) -> Tensor:
        """As `Decoder` says."""
        ids, self._lengths = self._padded(prompts)
        self._cache = DynamicCache()
        self._prompt = torch.arange(ids.shape[1], device=self.device)
        self._ancestors = torch.zeros(len(ids), 1, 0, dtype=torch.bool, device=self.device)
        self._beam_positions = torch.zeros(0, dtype=torch.long, device=self.device)
        rows = torch.arange(len(ids), device=self.device)
        opening = _opening(prompts)
        if opening:
            self._cached(ids[:1, :opening], rows[:1], rows[:1])
            self._cache.batch_repeat_interleave(len(ids))
        positions = self._prompt[opening:].expand(len(ids), -1)
        return self._cached(ids[:, opening:], rows, self._lengths - 1 - opening, position_ids=positions)

    def extend(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """As `Decoder` says."""
        users, beams = tokens.shape
        older = self._ancestors.gather(1, parents[..., None].expand(-1, -1, self._ancestors.shape[2]))
        itself = torch.eye(beams, dtype=torch.bool, device=self.device).expand(users, -1, -1)
        self._ancestors = torch.cat([older, itself], dim=2)
        depth = int(self._beam_positions[-1]) + 1 if len(self._beam_positions) else 0
        self._beam_positions = torch.cat([self._beam_positions, torch.full((beams,), depth, device=self.device)])
        return self._cached(
            tokens,
            torch.arange(users, device=self.device).repeat_interleave(beams),
            torch.arange(beams, device=self.device).repeat(users),
            position_ids=(self._lengths + depth)[:, None].expand(users, beams),
            attention_mask=self._masks(depth),
        )

    def tokens(self, prompt: int, beams: int, depth: int) -> int:
        """As `Decoder` says."""
        return prompt + beams * max(1, depth - 1)

    @torch.no_grad()
    def exact(self) -> bool:
        """Whether the model honours the masks and positions that are given to it.

        Recurrent states, and positions that are counted off the mask, do not: seen on a few beams. Windows that count
        places in the cache, and chunks, show on long prompts only, so the configuration has to rule them out.
        """
        if not takes_masks(self.model):
            return False
        try:
            seen = _probe(self)
        except (TypeError, ValueError, RuntimeError, AttributeError):
            return False
        expected = _probe(WholeSequences(self.model, self.precision))
        with self.precision():
            return agree(seen, expected, attention_dtype(self._dtype, self.device))

    def _cached(self, input_ids: Tensor, rows: Tensor, columns: Tensor, **given: Any) -> Tensor:
        """States behind tokens that follow what the cache holds; it then holds them too."""
        return self._states(input_ids, rows, columns, use_cache=True, **{self._cache_argument: self._cache}, **given)

    def _masks(self, depth: int) -> Any:
        """What each beam sees, `(users, 1, beams, prompt + all beams)`, to be added to attention scores.

        Layers that look back over a window see less, once the window is shorter than prompt and beam.
        """
        users, beams = self._ancestors.shape[:2]
        prompt = (self._prompt < self._lengths[:, None])[:, None].expand(-1, beams, -1)
        seen = torch.cat([prompt, self._ancestors], dim=2)
        window = getattr(self.model.config.get_text_config(), "sliding_window", None)
        if not window or int(self._lengths.max()) + depth < window:
            return self._added(seen)
        place = torch.cat([self._prompt.expand(users, -1), self._lengths[:, None] + self._beam_positions], dim=1)
        near = (self._lengths + depth)[:, None, None] - place[:, None] < window
        layers = getattr(self.model.config.get_text_config(), "layer_types", None)
        if layers is None:
            return self._added(seen & near)
        return {"full_attention": self._added(seen), "sliding_attention": self._added(seen & near)}

    def _added(self, seen: Tensor) -> Tensor:
        """Zero where seen, the least number where not."""
        return added_mask(seen, self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        """What attention computes in, whatever the precision of the weights."""
        first: Any = self._cache.layers[0]
        dtype: torch.dtype = first.keys.dtype
        return dtype


class WholeSequences(_Runner):
    """Runs prompt and beam anew for every beam and token: slow, and right for any causal language model."""

    def start(self, prompts: Sequence[NDArray[np.int32]]) -> Tensor:
        """As `Decoder` says."""
        ids, self._lengths = self._padded(prompts)
        self._ids = ids[:, None]
        return self._states(ids, torch.arange(len(ids), device=self.device), self._lengths - 1, use_cache=False)

    def extend(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """As `Decoder` says."""
        users, beams = tokens.shape
        chosen = self._ids.gather(1, parents[..., None].expand(-1, -1, self._ids.shape[2]))
        room = torch.zeros(users, beams, 1, dtype=torch.long, device=self.device)
        place = self._lengths[:, None, None].expand(users, beams, 1)
        self._ids = torch.cat([chosen, room], dim=2).scatter(2, place, tokens[..., None])
        self._lengths = self._lengths + 1
        rows = torch.arange(users * beams, device=self.device)
        columns = (self._lengths - 1).repeat_interleave(beams)
        return self._states(self._ids.flatten(0, 1), rows, columns, use_cache=False)

    def tokens(self, prompt: int, beams: int, depth: int) -> int:
        """As `Decoder` says."""
        return beams * (prompt + depth)


def _probe(decoder: SharedPrompts | WholeSequences) -> Tensor:
    """States of three beams two tokens behind a short prompt, two of them from one parent."""
    decoder.start([np.array([1, 2, 3, 4, 5], np.int32)])
    for parents, tokens in (([0, 0, 0], [6, 7, 8]), ([2, 0, 2], [9, 10, 11])):
        states = decoder.extend(*(torch.tensor([row], device=decoder.device) for row in (parents, tokens)))
    return states


def _opening(prompts: Sequence[NDArray[np.int32]]) -> int:
    """How many tokens all prompts open with; at least one is left to each."""
    most = min(len(prompt) for prompt in prompts) - 1
    same = np.all([prompt[:most] == prompts[0][:most] for prompt in prompts], axis=0)
    return int(np.argmin(np.append(same, False)))
