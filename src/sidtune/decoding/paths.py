"""How a model comes to an item: the SID tokens that lead to it, and what competed with each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.config.search import Normalize
from sidtune.decoding.decoder import Decoder
from sidtune.decoding.recommender import Recommender
from sidtune.decoding.trie import Level

# Name of the token that closes a SID which is the beginning of another.
END = "end of SID"


@dataclass(frozen=True)
class Branch:
    """A token that may follow a prefix, and its log-probability behind it."""

    token: str
    log_probability: float


@dataclass(frozen=True)
class Step:
    """One token of an item's SID.

    Args:
        token: its name.
        log_probability: behind prompt and prefix. Their sum over the steps is the SID's score.
        place: its place among the tokens that the trie allows here, from 1.
        allowed: how many tokens the trie allows here.
        best: the most probable of these, at most as many as were asked for.
    """

    token: str
    log_probability: float
    place: int
    allowed: int
    best: list[Branch]


def sid_path(
    recommender: Recommender,
    history: Ragged,
    item: int,
    normalize: Normalize = "full",
    shown: int = 5,
) -> list[Step]:
    """The steps to an item's SID behind a history.

    Args:
        history: one list of catalogue positions.
        item: catalogue position; one that `recommender` may return.
        normalize: as in the search.
        shown: branches of each step.

    Raises:
        UserError: if the prompt does not fit the model.
    """
    prompts, _ = recommender.prompts.encode(history)
    if not len(prompts):
        raise UserError(
            f"the prompt of this history exceeds cutoff_len={recommender.bundle.cutoff_len}",
            "Give a shorter history.",
        )
    names = {number: token for token, number in recommender.prompts.token_ids.items()}
    names[recommender.prompts.closing] = END
    return [
        _step(level, child, node, scores, names, shown)
        for level, child, node, scores in _walk(recommender, prompts, item, normalize)
    ]


@torch.no_grad()
def _walk(
    recommender: Recommender, prompts: Ragged, item: int, normalize: Normalize
) -> list[tuple[Level, int, int, Tensor]]:
    """For each level: the child that leads to the item, its parent, and the log-probabilities of
    all children of that parent.
    """
    decoder: Decoder[Any] = recommender.decoder
    trie = recommender.answers.trie.to(decoder.device)
    sid = int(recommender.answers.sid_of[item])
    assert sid >= 0
    state = decoder.start([prompts[0]])
    found: list[tuple[Level, int, int, Tensor]] = []
    node, only = 0, torch.zeros(1, 1, dtype=torch.long, device=decoder.device)
    for level, following in zip(trie.levels, [*trie.levels[1:], None], strict=True):
        child = int(level.child_of[sid])
        columns = level.columns[level.starts[node] : level.starts[node + 1]]
        logits = decoder.head.logits(state.hidden, level.tokens)[0, columns]
        whole = normalize == "full"
        total = decoder.head.normaliser(state.hidden)[0] if whole else logits.logsumexp(-1)
        found.append((level, child, node, logits - total))
        if following is None or following.child_of[sid] < 0:
            break
        state = decoder.extend(state, only, only + level.tokens[level.columns[child]])
        node = child
    return found


def _step(
    level: Level, child: int, node: int, scores: Tensor, names: dict[int, str], shown: int
) -> Step:
    start = int(level.starts[node])
    columns = level.columns[start : start + len(scores)]
    tokens = [names[number] for number in level.tokens[columns].tolist()]
    values = scores.cpu().double().numpy()
    order = np.argsort(-values, kind="stable")
    chosen = child - start
    return Step(
        token=tokens[chosen],
        log_probability=float(values[chosen]),
        place=int(np.flatnonzero(order == chosen)[0]) + 1,
        allowed=len(tokens),
        best=[Branch(tokens[place], float(values[place])) for place in order[:shown].tolist()],
    )
