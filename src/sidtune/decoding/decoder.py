"""Runs a language model over prompts and beams."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from sidtune.base.terminal import warn
from sidtune.decoding.token_scores import Head
from sidtune.model.attention import (
    Precision,
    added_mask,
    agree,
    attention_dtype,
    probed_ids,
    probed_in,
    takes_masks,
)
from sidtune.model.output_head import head_device
from sidtune.model.probe import attempt


@dataclass(frozen=True, eq=False)
class State:
    """One batch of prompts and the beams behind them; a decoder reads it, and holds nothing of a
    batch itself.

    Args:
        hidden: `(users × beams, …)`, what the head takes, at the last token of each beam.
        lengths: `(users,)`, tokens of each prompt.
    """

    hidden: Tensor
    lengths: Tensor


S = TypeVar("S", bound=State)


class Decoder(Protocol[S]):
    """Runs prompts, and beams that continue them; several threads may use one decoder at the same
    time.
    """

    head: Head
    device: torch.device

    def start(self, prompts: Sequence[NDArray[np.int32]]) -> S:
        """Run prompts; the state has one beam for each."""

    def extend(self, state: S, parents: Tensor, tokens: Tensor) -> S:
        """Add a token to every beam.

        Args:
            state: what the last call returned. It cannot be extended again: its cache grows in
                place, so that no second copy of it is held.
            parents: `(users, beams)`, the beam of `state` that each new beam continues.
            tokens: `(users, beams)` vocabulary ids.
        """

    def tokens(self, prompt: int, beams: int, depth: int) -> int:
        """Tokens held for one user at the most, for a prompt of this length and SIDs of
        this depth.
        """


def make_decoder(model: PreTrainedModel, precision: Precision = nullcontext) -> Decoder[Any]:
    """The fastest decoder that is exact for a model.

    Args:
        model: in evaluation mode.
        precision: the context that forward passes run in.
    """
    shared = SharedPrompts(model, precision)
    if shared.exact():
        return shared
    warn(
        f"{model.config.model_type}: beams cannot share their prompt, since the model does not"
        " support custom attention masks or keeps a state other than keys and values. Every beam"
        " runs its whole prompt, which is exact but slow."
    )
    return WholeSequences(model, precision)


class _Runner:
    """What both decoders are made of."""

    def __init__(self, model: PreTrainedModel, precision: Precision = nullcontext) -> None:
        self.model, self.precision = model, precision
        self.head = Head(model)
        self.device = head_device(self.head.module)

    def _hidden(self, input_ids: Tensor, rows: Tensor, columns: Tensor, **given: Any) -> Tensor:
        """Hidden states at some places of a forward pass, `(places, …)`."""
        with self.head.at(rows, columns), self.precision():
            hidden: Tensor = self.model(input_ids=input_ids, **given).logits[0]
        return hidden

    def _padded(self, prompts: Sequence[NDArray[np.int32]]) -> tuple[Tensor, Tensor]:
        """Prompts `(users, length)` and their lengths; padding stands on the right, where causality
        hides it.
        """
        lengths = [len(prompt) for prompt in prompts]
        ids = torch.zeros(len(prompts), max(lengths), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.from_numpy(prompt)
        return ids.to(self.device), torch.tensor(lengths, device=self.device)


@dataclass(frozen=True, eq=False)
class SharedState(State):
    """Keys and values of the prompts and, behind them, of the beams of all depths.

    Args:
        cache: of all layers.
        width: places that prompts take in the cache, padding included.
        ancestors: `(users, beams, beams of all depths)`, which of them each beam continues, itself
            included.
        depths: `(beams of all depths,)`, how many tokens behind the prompt each of them lies.
    """

    cache: DynamicCache
    width: int
    ancestors: Tensor
    depths: Tensor


class SharedPrompts(_Runner):
    """Runs each prompt once and holds it once, however many beams continue it; what all prompts
    open with runs once.

    The beams of a user are the tokens of one sequence behind the prompt: each sees the prompt, its
    own ancestors and no other beam. Choosing among beams then moves a mask, never keys and values.
    """

    def __init__(self, model: PreTrainedModel, precision: Precision = nullcontext) -> None:
        super().__init__(model, precision)
        # Transformers renamed the argument within version 5.
        names = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in names else "past_key_values"

    def start(self, prompts: Sequence[NDArray[np.int32]]) -> SharedState:
        """As `Decoder` says."""
        ids, lengths = self._padded(prompts)
        users, width = ids.shape
        cache = DynamicCache()
        rows, place = (
            torch.arange(users, device=self.device),
            torch.arange(width, device=self.device),
        )
        opening = _opening(prompts)
        if opening:
            self._cached(cache, ids[:1, :opening], rows[:1], rows[:1])
            cache.batch_repeat_interleave(users)
        positions = place[opening:].expand(users, -1)
        hidden = self._cached(
            cache, ids[:, opening:], rows, lengths - 1 - opening, position_ids=positions
        )
        ancestors = torch.zeros(users, 1, 0, dtype=torch.bool, device=self.device)
        return SharedState(hidden, lengths, cache, width, ancestors, place[:0])

    def extend(self, state: SharedState, parents: Tensor, tokens: Tensor) -> SharedState:
        """As `Decoder` says."""
        users, beams = tokens.shape
        older = state.ancestors.gather(
            1, parents[..., None].expand(-1, -1, state.ancestors.shape[2])
        )
        itself = torch.eye(beams, dtype=torch.bool, device=self.device).expand(users, -1, -1)
        ancestors = torch.cat([older, itself], dim=2)
        depth = int(state.depths[-1]) + 1 if len(state.depths) else 0
        depths = torch.cat([state.depths, torch.full((beams,), depth, device=self.device)])
        hidden = self._cached(
            state.cache,
            tokens,
            torch.arange(users, device=self.device).repeat_interleave(beams),
            torch.arange(beams, device=self.device).repeat(users),
            position_ids=(state.lengths + depth)[:, None].expand(users, beams),
            attention_mask=self._masks(state, ancestors, depths, depth),
        )
        return SharedState(hidden, state.lengths, state.cache, state.width, ancestors, depths)

    def tokens(self, prompt: int, beams: int, depth: int) -> int:
        """As `Decoder` says."""
        return prompt + beams * max(1, depth - 1)

    @torch.no_grad()
    def exact(self) -> bool:
        """Whether the model honours the masks and positions that are given to it, and keeps its
        state in our cache.

        Recurrent states, and positions that are counted off the mask, show in the results of a few
        beams. Windows that count places in the cache, and chunks, show on long prompts only, so the
        configuration has to rule them out.

        Raises:
            torch.OutOfMemoryError: where memory runs out, which says nothing of the model.
        """
        if not takes_masks(self.model):
            return False
        precision = probed_in(self.model, self.precision)
        expected = _probe(WholeSequences(self.model, precision)).hidden
        state = attempt(lambda: _probe(SharedPrompts(self.model, precision)))
        if state is None or not _holds_keys_and_values(state.cache):
            return False
        with precision():
            return agree(state.hidden, expected, attention_dtype(_dtype(state.cache), self.device))

    def _cached(
        self, cache: DynamicCache, input_ids: Tensor, rows: Tensor, columns: Tensor, **given: Any
    ) -> Tensor:
        """Hidden states of tokens that follow what the cache holds; it then holds them too."""
        return self._hidden(
            input_ids, rows, columns, use_cache=True, **{self._cache_argument: cache}, **given
        )

    def _masks(self, state: SharedState, ancestors: Tensor, depths: Tensor, depth: int) -> Any:
        """What each beam sees, `(users, 1, beams, prompt + all beams)`, to be added to attention
        scores.

        Layers that look back over a window see less, once the window is shorter than prompt and
        beam.
        """
        users, beams = ancestors.shape[:2]
        lengths, dtype = state.lengths, _dtype(state.cache)
        places = torch.arange(state.width, device=self.device)
        prompt = (places < lengths[:, None])[:, None].expand(-1, beams, -1)
        seen = torch.cat([prompt, ancestors], dim=2)
        window = getattr(self.model.config.get_text_config(), "sliding_window", None)
        if not window or int(lengths.max()) + depth < window:
            return added_mask(seen, dtype)
        place = torch.cat([places.expand(users, -1), lengths[:, None] + depths], dim=1)
        near = (lengths + depth)[:, None, None] - place[:, None] < window
        layers = getattr(self.model.config.get_text_config(), "layer_types", None)
        if layers is None:
            return added_mask(seen & near, dtype)
        return {
            "full_attention": added_mask(seen, dtype),
            "sliding_attention": added_mask(seen & near, dtype),
        }


@dataclass(frozen=True, eq=False)
class WholeState(State):
    """Prompts and beams as token ids.

    Args:
        ids: `(users, beams, length)`, padded on the right.
        depth: tokens of a beam behind its prompt.
    """

    ids: Tensor
    depth: int


class WholeSequences(_Runner):
    """Runs prompt and beam anew for every beam and token: slow, and right for any causal language
    model.
    """

    def start(self, prompts: Sequence[NDArray[np.int32]]) -> WholeState:
        """As `Decoder` says."""
        ids, lengths = self._padded(prompts)
        hidden = self._hidden(
            ids, torch.arange(len(ids), device=self.device), lengths - 1, use_cache=False
        )
        return WholeState(hidden, lengths, ids[:, None], 0)

    def extend(self, state: WholeState, parents: Tensor, tokens: Tensor) -> WholeState:
        """As `Decoder` says."""
        users, beams = tokens.shape
        chosen = state.ids.gather(1, parents[..., None].expand(-1, -1, state.ids.shape[2]))
        room = torch.zeros(users, beams, 1, dtype=torch.long, device=self.device)
        last = state.lengths + state.depth
        ids = torch.cat([chosen, room], dim=2).scatter(
            2, last[:, None, None].expand(-1, beams, 1), tokens[..., None]
        )
        rows = torch.arange(users * beams, device=self.device)
        hidden = self._hidden(
            ids.flatten(0, 1), rows, last.repeat_interleave(beams), use_cache=False
        )
        return WholeState(hidden, state.lengths, ids, state.depth + 1)

    def tokens(self, prompt: int, beams: int, depth: int) -> int:
        """As `Decoder` says."""
        return beams * (prompt + depth)


def _probe(decoder: Decoder[S]) -> S:
    """Three beams two tokens behind each of two short prompts that open alike, two of the beams
    from one parent.
    """
    ids = probed_ids(decoder.head.model, 11).cpu().numpy().astype(np.int32)
    state = decoder.start([ids[:5], ids[:3]])
    for parents, tokens in (([0, 0, 0], ids[5:8]), ([2, 0, 2], ids[8:])):
        chosen = (torch.tensor(np.stack([row] * 2), dtype=torch.long) for row in (parents, tokens))
        state = decoder.extend(state, *(each.to(decoder.device) for each in chosen))
    return state


def _holds_keys_and_values(cache: DynamicCache) -> bool:
    """Whether the model filled the cache that it was given, and with nothing else."""
    return len(cache.layers) > 0 and all(type(layer) is DynamicLayer for layer in cache.layers)


def _dtype(cache: DynamicCache) -> torch.dtype:
    """What attention computes in, whatever the precision of the weights."""
    first: Any = cache.layers[0]
    dtype: torch.dtype = first.keys.dtype
    return dtype


def _opening(prompts: Sequence[NDArray[np.int32]]) -> int:
    """How many tokens all prompts open with; at least one is left to each. 0 for a single prompt,
    which one pass reads whole.
    """
    if len(prompts) == 1:
        return 0
    most = min(len(prompt) for prompt in prompts) - 1
    same = np.all([prompt[:most] == prompts[0][:most] for prompt in prompts], axis=0)
    return int(np.argmin(np.append(same, False)))
