"""How an encoder's states become one vector, as the files of sentence-transformers say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sidtune.base.errors import UserError
from sidtune.files.text import read_json, read_json_object

LONGEST = 512
# Modules by the last part of their type; those that leave the direction of a vector as it is.
POOLING, NEUTRAL = "Pooling", ("Transformer", "Normalize")
GIVE_VECTORS = "Compute the vectors with sentence-transformers, and give them by sids.file."


def mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens of a text."""
    weights = mask.unsqueeze(-1).float()
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


def first(states: Tensor, mask: Tensor) -> Tensor:
    """The first token that is not padding, such as BERT's `[CLS]`."""
    return _at(states, mask.int().argmax(1)) * mask.any(1, keepdim=True)


def last(states: Tensor, mask: Tensor) -> Tensor:
    """The last token that is not padding."""
    places = torch.arange(mask.shape[1], device=mask.device)
    return _at(states, (mask.int() * places).argmax(1)) * mask.any(1, keepdim=True)


def _at(states: Tensor, places: Tensor) -> Tensor:
    return states[torch.arange(len(states), device=states.device), places]


class Pooling(NamedTuple):
    """How states are pooled.

    Args:
        pool: hidden states `(texts, tokens, hidden)` and mask `(texts, tokens)` to `(texts,
            hidden)`.
        longest: tokens of a text at most.
    """

    pool: Callable[[Tensor, Tensor], Tensor]
    longest: int


# By the key of older files (`pooling_mode_…: true`), and by the value of newer ones.
MODES = {
    "mean_tokens": mean,
    "cls_token": first,
    "lasttoken": last,
    "mean": mean,
    "cls": first,
}


def read_pooling(folder: Path) -> Pooling:
    """What the files of sentence-transformers say; without them, the mean over at most 512 tokens.

    Raises:
        UserError: for modules and modes that are not supported.
    """
    longest = LONGEST
    lengths = folder / "sentence_bert_config.json"
    if lengths.is_file():
        given = read_json_object(lengths).get("max_seq_length")
        longest = given if type(given) is int and given > 0 else LONGEST
    modules = folder / "modules.json"
    if not modules.is_file():
        return Pooling(mean, longest)
    pools: list[Callable[[Tensor, Tensor], Tensor]] = [mean]
    for module in _listed(read_json(modules), modules):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == POOLING:
            pools.append(_mode(folder / str(module.get("path", "")) / "config.json"))
        elif kind not in NEUTRAL:
            raise UserError(f"{modules}: the module {kind!r:.80} is not supported", GIVE_VECTORS)
    return Pooling(pools[-1], longest)


def _listed(given: Any, path: Path) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not all(isinstance(module, dict) for module in given):
        raise UserError(f"{path}: expected a list of modules, found {given!r:.60}", GIVE_VECTORS)
    return given


def _mode(config: Path) -> Callable[[Tensor, Tensor], Tensor]:
    given = read_json_object(config)
    prefix = "pooling_mode_"
    switched_on = [name for name, value in given.items() if value is True and prefix in name]
    modes = [name.removeprefix(prefix) for name in switched_on]
    modes += [str(given["pooling_mode"])] if "pooling_mode" in given else []
    if len(modes) != 1 or modes[0] not in MODES:
        raise UserError(
            f"{config}: the pooling {' and '.join(modes) or 'without a mode'} is not supported",
            GIVE_VECTORS,
        )
    return MODES[modes[0]]
