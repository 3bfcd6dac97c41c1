"""Checks of the encoded examples: templates, reversibility and length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sidtune.checks.finding import SHOWN, Finding
from sidtune.encoding.encoder import Encoder
from sidtune.inputs import Inputs
from sidtune.tasks import TASKS
from sidtune.tasks.base import Items, Part, Texts
from sidtune.tasks.instruction import InstructionOptions
from sidtune.templates import SEQUENCE

SAMPLED = 50


def templates(inputs: Inputs) -> Iterator[Finding]:
    given = inputs.config.template.file
    if given:
        yield Finding(
            "note",
            str(given),
            f"{len(inputs.mixture.templates)} templates; those of this file replace the built-in"
            " ones",
        )


def encoding(inputs: Inputs) -> Iterator[Finding]:
    """Decoding the token ids of a sample of examples must return their text."""
    mixture, tokenizer = inputs.mixture, inputs.vocabulary.tokenizer
    for name, options in inputs.config.task_options().items():
        for part in mixture.parts(name, "train", options):
            lost = [
                row
                for row in range(min(SAMPLED, len(part)))
                if not mixture.encoder.reversible(part, row, tokenizer)
            ]
            if lost:
                yield Finding(
                    "warning",
                    f"task {name}",
                    f"{len(lost)} of {min(SAMPLED, len(part))} sampled examples do not decode to"
                    " the text they encode",
                    [f"row {part.rows[row] + 1}" for row in lost[:SHOWN]],
                    "The tokenizer changes this text (lower case, unknown characters); `sidtune"
                    " preview` shows how.",
                )


def instructions(inputs: Inputs) -> Iterator[Finding]:
    """SID tokens in instruction data, which are read as text unless the configuration says
    otherwise.
    """
    options = inputs.config.task_options().get("instruction")
    if not isinstance(options, InstructionOptions):
        return
    (part,) = inputs.mixture.parts("instruction", "train", options)
    found = [
        (int(row) + 1, sids)
        for row, sids in zip(part.rows, _sids_by_row(inputs, part), strict=True)
        if sids
    ]
    if not found:
        return
    shown = [f"record {row}: {''.join(sids):.60}" for row, sids in found[:SHOWN]]
    message = f"{len(found):,} of {len(part):,} instructions contain SID tokens, which are read as "
    if options.sid_tokens is None:
        remedy = (
            "tasks.instruction.sid_tokens: true reads them as tokens, false as text without this"
            " warning."
        )
        yield Finding(
            "warning", str(inputs.config.data.instructions), f"{message}text", shown, remedy
        )
    else:
        how = "tokens" if options.sid_tokens else "text"
        yield Finding("note", str(inputs.config.data.instructions), message + how, shown)


def _sids_by_row(inputs: Inputs, part: Part) -> Iterator[list[str]]:
    """The SID tokens in the prompt and response of each instruction."""
    texts = [
        column.values.to_pylist() for column in part.columns.values() if isinstance(column, Texts)
    ]
    spelled = inputs.mixture.encoder.segments.sids_in
    return ([sid for text in row for sid in spelled(text)] for row in zip(*texts, strict=True))


def sequences(inputs: Inputs) -> Iterator[Finding]:
    """Sequences cut at the length limit: the items they lose are targets, unlike those of a
    history.
    """
    mixture, given = inputs.mixture, inputs.config.task_options()
    whole = [task for task in given if TASKS[task].is_sequence]
    parts = [(task, part) for task in whole for part in mixture.parts(task, "train", given[task])]
    for name, part in parts:
        longest = part.take(np.argmax(_sequence_tokens(mixture.encoder, part), keepdims=True))
        if mixture.encoder.encode(longest).truncated:
            items = int(longest.history_lengths[0]) + 1
            message = (
                f"{name}: sequences of {items} items lose their oldest items, which are also"
                " targets"
            )
            remedy = "Raise encoding.cutoff_len, or shorten the histories."
            yield Finding("warning", "encoding.cutoff_len", message, [], remedy)


def _sequence_tokens(encoder: Encoder, part: Part) -> NDArray[np.int64]:
    """Number of SID tokens of each sequence, `(n,)`."""
    column = part.columns[SEQUENCE]
    assert isinstance(column, Items)
    total = np.cumsum(encoder.item_tokens("sid", False).lengths[column.positions.values])
    return np.diff(np.append(0, total)[column.positions.offsets])
