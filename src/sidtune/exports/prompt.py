"""How prompts are written, for programs that do not read templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.decoding.prompts import Prompts
from sidtune.runs.bundle import Bundle, PromptIds

PROMPT = "prompt.json"
# Histories that are tokenised as text to compare with training's ids.
COMPARED = 200


def prompt_parts(bundle: Bundle, prompts: Prompts, tokenizer: Any) -> dict[str, Any]:
    """Texts and ids before, between and after the SIDs of a history, the token behind a SID, and
    the longest history.

    Raises:
        UserError: for prompts that hold more than SIDs.
    """
    around = bundle.prompt_ids
    if around is None:
        raise UserError(
            "the prompts hold more of a history than its SIDs, such as titles",
            "Train with a template whose prompt is {history_sids} and text of its own.",
        )
    texts = {
        name: tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for name, ids in asdict(around).items()
    }
    return {
        **texts,
        "token_ids": asdict(around),
        "end_of_sid": prompts.closing,
        "longest_history": _longest(bundle, prompts, around),
    }


def refuse_other_texts(
    bundle: Bundle, prompts: Prompts, tokenizer: Any, parts: Mapping[str, Any]
) -> None:
    """Refuse prompts whose text is tokenised otherwise than its parts were in training."""
    catalogue, chance = bundle.catalogue, np.random.default_rng(0)
    length = min(bundle.longest_history, 5)
    drawn = chance.integers(len(catalogue.ids), size=(COMPARED, length))
    expected, rows = prompts.encode(Ragged.from_lists(drawn.tolist()))
    for place, row in enumerate(rows.tolist()):
        sids = ["".join(catalogue.sids[item]) for item in drawn[row]]
        text = parts["before"] + parts["separator"].join(sids) + parts["after"]
        if tokenizer.encode(text, add_special_tokens=False) != expected[place].tolist():
            raise UserError(
                f"as one text, the prompts are tokenised differently than in training: {text:.200}",
                "Train with a template that stands in one segment.",
            )


def _longest(bundle: Bundle, prompts: Prompts, around: PromptIds) -> int:
    """Items of the longest history that a prompt holds: at most training's, and no more than fit
    `cutoff_len`.
    """
    catalogue = bundle.catalogue
    deepest = max(range(len(catalogue.sids)), key=lambda item: len(catalogue.sids[item]))
    ids, _ = prompts.encode(Ragged.from_lists([[deepest] * bundle.longest_history]))
    sids = len(ids[0]) - len(around.before) - len(around.after) + len(around.separator)
    return sids // (len(catalogue.sids[deepest]) + len(around.separator))
