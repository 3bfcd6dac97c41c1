"""Checks of our ids against those that Transformers gives for a whole text: the prompt, or the conversation."""

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

# Tokens of each side that are shown from where they differ.
SHOWN = 6


def clock(inputs: Inputs) -> Iterator[Finding]:
    """A template that reads the clock writes another prompt each day."""
    if inputs.config.template.format == "chat" and reads_clock(inputs.vocabulary.tokenizer):
        yield Finding(
            "note",
            "template.format",
            "the chat template reads the clock (strftime_now). What it writes when a run starts is kept with the run, "
            "and resume, evaluate and recommend use it again. apply_chat_template gives another prompt at another time",
        )


def chat_template(inputs: Inputs) -> Iterator[Finding]:
    """An example of each task must have the ids of `apply_chat_template`, up to the end of the turn."""
    if inputs.config.template.format != "chat":
        return
    frame, tokenizer = inputs.mixture.frame, inputs.vocabulary.tokenizer
    for name, part in _examples(inputs):
        prompt, response = inputs.mixture.encoder.texts(part, 0)
        text = conversation(tokenizer, prompt, response)
        expected = _ids(tokenizer, text, special=False)
        encoder = inputs.mixture.encoder.framed_by(_of_this_moment(frame, text, prompt)).without_limit()
        if frame.eos:
            expected.append(encoder.closing)
        # A template may write something behind the end of the turn, such as a line break.
        ours = encoder.encode(part).input_ids[0].tolist()
        if ours != expected[: len(ours)]:
            yield Finding(
                "warning" if name == inputs.config.evaluation_task else "note",
                f"task {name}",
                f"an example has other ids than apply_chat_template gives: {_difference(tokenizer, expected, ours)}",
                [f"row {part.rows[0] + 1}"],
                "Ask with `sidtune recommend` or Recommender, or let the segments of the wording end at SIDs, at line "
                "breaks or at tokens of the chat template.",
            )


def _of_this_moment(frame: Frame, text: str, prompt: str) -> Frame:
    """The frame with what stands in front of the prompt in a text: the template may write the time there."""
    front, back = frame.prompt_trim
    place = text.find(prompt.lstrip(front).rstrip(back))
    return frame if place < 0 else replace(frame, before=text[:place])


def whole_prompt(inputs: Inputs) -> Iterator[Finding]:
    """The prompt of the task that recommends, against `tokenizer(prompt)`."""
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
                f"tokenizer(prompt) gives other ids than training reads: {_difference(tokenizer, expected, ours)}",
                [f"row {part.rows[0] + 1}"],
                "Ask with `sidtune recommend` or Recommender. Other programs take prompt_ids of sid_recommender.json: "
                "the README.md of the trained model shows how.",
            )


def _examples(inputs: Inputs) -> Iterator[tuple[str, Part]]:
    """The first example of every form, the task that recommends first."""
    given, question = inputs.config.task_options(), inputs.config.evaluation_task
    for name, options in ({question: TASKS[question].options()} | given).items():
        for part in inputs.mixture.parts(name, "train", options):
            if len(part):
                yield name, part.take(np.zeros(1, np.int64))


def _ids(tokenizer: PreTrainedTokenizerFast, text: str, special: bool) -> list[int]:
    with refusing_faults(tokenizer.name_or_path):
        ids: list[int] = tokenizer(text, add_special_tokens=special).input_ids
    return ids


def _difference(tokenizer: PreTrainedTokenizerFast, expected: Sequence[int], ours: Sequence[int]) -> str:
    """Where two lists of ids part, and how they go on."""
    place = next(at for at, (left, right) in enumerate(zip_longest(expected, ours)) if left != right)
    shown = [list(ids[place : place + SHOWN]) for ids in (expected, ours)]
    theirs, mine = (f"{decode(tokenizer, ids)!r} {tokenizer.convert_ids_to_tokens(ids)}" for ids in shown)
    return f"from token {place + 1} on it is {theirs}, and in training {mine}"
