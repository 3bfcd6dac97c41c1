"""The text around prompt and response, and templates that include it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sidtune.templates import SEQUENCE, Segment, Template


@dataclass(frozen=True)
class Frame:
    """The text that a chat template writes around a prompt and its response; without arguments, the
    format `plain`.

    Args:
        chat: whether it comes from a chat template. BOS is then part of `before`, and examples are
            tokenised as by `apply_chat_template`.
        before: text before the prompt.
        between: text after the prompt, up to the end of the generation prompt.
        opening: text that the model writes before the response itself, such as a blank.
        after: text after the response, including the end of the turn.
        eos: whether EOS ends the response, after `after`.
        prompt_trim, response_trim: characters stripped at the start and at the end.
    """

    chat: bool = False
    before: str = ""
    between: str = ""
    opening: str = ""
    after: str = ""
    eos: bool = True
    prompt_trim: tuple[str, str] = ("", "")
    response_trim: tuple[str, str] = ("", "")


PLAIN = Frame()


@dataclass(frozen=True)
class FramedTemplate(Template):
    """A template as separately tokenised segments, including the text around prompt and response.

    Args:
        trims: by placeholder, characters stripped at the start and at the end of a text that starts
            or ends a message.
    """

    trims: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def framed(template: Template, frame: Frame) -> FramedTemplate:
    """Add the frame's texts to a template.

    Adjacent texts become one segment, since the text of a chat template is tokenised as a whole. A
    placeholder that is a segment by itself stays one.
    """
    if not frame.chat:
        return FramedTemplate(template.prompt, template.response, template.separator)
    prompt = _trimmed(template.prompt, *frame.prompt_trim)
    response = _trimmed(template.response, *frame.response_trim)
    between, opening, after = frame.between, frame.opening, frame.after
    if SEQUENCE in template.names:
        # The items are the only labels, and there is no closing token.
        between, opening, after = between + opening, "", ""
    return FramedTemplate(
        _joined([_text(frame.before), *prompt, _text(between)]),
        _joined([_text(opening), *response, _text(after)]),
        template.separator,
        {**_edges(prompt, *frame.prompt_trim), **_edges(response, *frame.response_trim)},
    )


def _text(text: str) -> Segment:
    return Segment(((text, None),))


def _joined(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Segments without empty ones; adjacent segments that are not single placeholders
    are merged.
    """
    joined: list[Segment] = []
    for segment in segments:
        if segment == _text(""):
            continue
        if joined and not joined[-1].slot and not segment.slot:
            segment = _one(joined.pop(), segment)
        joined.append(segment)
    return tuple(joined)


def _one(left: Segment, right: Segment) -> Segment:
    *pieces, last = left.pieces
    (text, name), *others = right.pieces
    middle = [(last[0] + text, name)] if last[1] is None else [last, (text, name)]
    return Segment((*pieces, *middle, *others))


def _trimmed(segments: Sequence[Segment], front: str, back: str) -> list[Segment]:
    """Segments with these characters stripped at the start of the first text and the end of the
    last.
    """
    kept = list(segments)
    while kept:
        (text, name), *others = kept[0].pieces
        kept[0] = Segment(((text.lstrip(front), name), *others))
        if kept[0] != _text(""):
            break
        kept.pop(0)
    while kept:
        *others, (text, name) = kept[-1].pieces
        if name is not None:
            break
        last = [(text.rstrip(back), None)] if text.rstrip(back) else []
        if others or last:
            kept[-1] = Segment((*others, *last))
            break
        kept.pop()
    return kept


def _edges(segments: Sequence[Segment], front: str, back: str) -> dict[str, tuple[str, str]]:
    """Placeholders at the start and at the end, with the characters stripped there."""
    edges: dict[str, tuple[str, str]] = {}
    if not segments:
        return edges
    text, name = segments[0].pieces[0]
    if name and not text and front:
        edges[name] = (front, "")
    _, name = segments[-1].pieces[-1]
    if name and back:
        edges[name] = (edges.get(name, ("", ""))[0], back)
    return edges
