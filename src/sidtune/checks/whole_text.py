"""Checks that our token ids equal those of Transformers for the whole text, the prompt or the
conversation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np
from transformers import PreTrainedTokenizerFast

from sidtune.checks.finding import Finding
from sidtune.encoding.chat import conversation, reads_clock
from sidtune.encoding.frame import Frame
from sidtune.inputs import Inputs
from sidtune.tasks import TASKS
from sidtune.tasks.base import Part
from sidtune.tokenizer.faults import decode, refusing_faults

# Tokens shown per side, from the first difference.
SHOWN = 6


def clock(inputs: Inputs) -> Iterator[Finding]:
    """Chat templates that write the current date."""
    if inputs.config.template.format == "chat" and reads_clock(inputs.vocabulary.tokenizer):
        yield Finding(
            "note",
            "template.format",
            "the chat template writes the current time (strftime_now). The text written when a run"
            " starts is saved with the run and reused by resume, evaluate and recommend."
            " apply_chat_template gives a different prompt later",
        )


def chat_template(inputs: Inputs) -> Iterator[Finding]:
    """An example of each task must have the token ids of `apply_chat_template`, up to the end of
    the turn.
    """
    if inputs.config.template.format != "chat":
        return
    frame, tokenizer = inputs.mixture.frame, inputs.vocabulary.tokenizer
    for name, part in _examples(inputs):
        prompt, response = inputs.mixture.encoder.texts(part, 0)
        text = conversation(tokenizer, prompt, response)
        expected = _ids(tokenizer, text, special=False)
        encoder = inputs.mixture.encoder.framed_by(
            _of_this_moment(frame, text, prompt)
        ).without_limit()
        if frame.eos:
            expected.append(encoder.closing)
        # A template may write text after the end of the turn, such as a line break.
        ours = encoder.encode(part).input_ids[0].tolist()
        if ours != expected[: len(ours)]:
            yield Finding(
                "warning" if name == inputs.config.evaluation_task else "note",
                f"task {name}",
                "token ids differ from those of apply_chat_template:"
                f" {_difference(tokenizer, expected, ours)}",
                [f"row {part.rows[0] + 1}"],
                "Use `sidtune recommend` or Recommender, or end the segments of the template at"
                " SIDs, at line breaks or at tokens of the chat template.",
            )


def _of_this_moment(frame: Frame, text: str, prompt: str) -> Frame:
    """The frame with the text before the prompt taken from `text`, where the template may write the
    time.
    """
    front, back = frame.prompt_trim
    place = text.find(prompt.lstrip(front).rstrip(back))
    return frame if place < 0 else replace(frame, before=text[:place])


def whole_prompt(inputs: Inputs) -> Iterator[Finding]:
    """The prompt of the evaluation task must have the token ids of `tokenizer(prompt)`."""
    if inputs.config.template.format != "plain":
        return
    encoder, tokenizer = inputs.mixture.encoder.without_limit(), inputs.vocabulary.tokenizer
    for name, part in _examples(inputs):
        if name != inputs.config.evaluation_task:
            continue
        prompt, response = encoder.texts(part, 0)
        encoded = encoder.encode(part)
        ours = encoded.input_ids[0].tolist()
        if part.context is None:
            ours, response = ours[: encoded.label_spans[0][0]], ""
        expected = _ids(tokenizer, prompt + response, special=True)
        if ours != expected:
            yield Finding(
                "warning",
                inputs.config.model.base,
                "tokenizer(prompt) gives different token ids than training:"
                f" {_difference(tokenizer, expected, ours)}",
                [f"row {part.rows[0] + 1}"],
                "Use `sidtune recommend` or Recommender. Other programs must use prompt_ids of"
                " sid_recommender.json; the README.md of the trained model shows how.",
            )


def _examples(inputs: Inputs) -> Iterator[tuple[str, Part]]:
    """The first example per template name, the evaluation task first."""
    given, evaluated = inputs.config.task_options(), inputs.config.evaluation_task
    for name, options in ({evaluated: TASKS[evaluated].options()} | given).items():
        for part in inputs.mixture.parts(name, "train", options):
            if len(part):
                yield name, part.take(np.zeros(1, np.int64))


def _ids(tokenizer: PreTrainedTokenizerFast, text: str, special: bool) -> list[int]:
    with refusing_faults(tokenizer.name_or_path):
        ids: list[int] = tokenizer(text, add_special_tokens=special).input_ids
    return ids


def _difference(
    tokenizer: PreTrainedTokenizerFast, expected: Sequence[int], ours: Sequence[int]
) -> str:
    """The first difference between two lists of token ids, with the tokens that follow."""
    place = next(
        at for at, (left, right) in enumerate(zip_longest(expected, ours)) if left != right
    )
    shown = [list(ids[place : place + SHOWN]) for ids in (expected, ours)]
    theirs, mine = (
        f"{decode(tokenizer, ids)!r} {tokenizer.convert_ids_to_tokens(ids)}" for ids in shown
    )
    return f"from token {place + 1} on, Transformers gives {theirs} and training {mine}"
