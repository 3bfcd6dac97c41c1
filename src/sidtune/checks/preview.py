"""`sidtune preview`: examples as the model reads them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rich.text import Text

from sidtune.base.errors import UserError, did_you_mean
from sidtune.base.terminal import visible
from sidtune.inputs import Inputs
from sidtune.tokenizer.faults import decode

LABEL, MASKED, BORDER = "bold green", "default", "│"


@dataclass(frozen=True)
class PreviewSegment:
    """One segment: its text, its token ids, and whether its tokens are labels."""

    text: str
    ids: list[int]
    label: bool


@dataclass(frozen=True)
class PreviewExample:
    """One example, segment by segment; `form` is the template name, `row` the source row, counted
    from 1.
    """

    task: str
    form: str
    row: int
    length: int
    labels: int
    segments: list[PreviewSegment]


def preview(inputs: Inputs, task: str | None, n: int) -> list[PreviewExample]:
    """The first `n` examples per template name, of all tasks or of one.

    Raises:
        UserError: if the configuration has no such task.
    """
    mixture, vocabulary, options = inputs.mixture, inputs.vocabulary, inputs.config.task_options()
    if task is not None and task not in options:
        raise UserError(
            f"the configuration has no task {task!r}{did_you_mean(task, options)}",
            f"Its tasks are {', '.join(options)}.",
        )
    shown = []
    for name in [task] if task else options:
        for part in mixture.parts(name, "train", options[name]):
            for index in range(min(n, len(part))):
                pieces = mixture.encoder.explain(part, index)
                segments = [
                    PreviewSegment(decode(vocabulary.tokenizer, p.ids), p.ids, p.label)
                    for p in pieces
                ]
                length, labels = (
                    sum(len(p.ids) for p in pieces if p.label or every) for every in (True, False)
                )
                shown.append(
                    PreviewExample(
                        name, part.form, int(part.rows[index]) + 1, length, labels, segments
                    )
                )
    return shown


def render(example: PreviewExample) -> Text:
    """Rich text of one example: label tokens in green, a bar after each segment, white space made
    visible.
    """
    heading = (
        f"{example.form} · row {example.row} · {example.length} tokens, {example.labels} labels\n"
    )
    text = Text(heading, style="dim")
    for segment in example.segments:
        text.append(visible(segment.text), style=LABEL if segment.label else MASKED)
        text.append(BORDER, style="bold red")
    return text.append("\n")


def as_json(examples: list[PreviewExample]) -> list[dict[str, object]]:
    """The examples as JSON-serialisable values."""
    return [asdict(example) for example in examples]
