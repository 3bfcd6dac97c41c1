"""Reading and checking wordings: data, never code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from sidtune.base.errors import UserError, did_you_mean
from sidtune.files.yaml_files import read_yaml
from sidtune.tasks import TASKS
from sidtune.tasks.base import Placeholders


@dataclass(frozen=True)
class Segment:
    """One unit of tokenisation.

    Args:
        pieces: literal text and placeholder name in turn; the name is None after the last text.
    """

    pieces: tuple[tuple[str, str | None], ...]

    @property
    def names(self) -> list[str]:
        """The placeholders, in order."""
        return [name for _, name in self.pieces if name is not None]

    @property
    def text(self) -> str:
        """The segment as it is written in a template."""
        escaped = ((text.replace("{", "{{").replace("}", "}}"), name) for text, name in self.pieces)
        return "".join(text + (f"{{{name}}}" if name else "") for text, name in escaped)

    @property
    def slot(self) -> str | None:
        """The placeholder's name where the segment is exactly one placeholder."""
        return self.pieces[0][1] if len(self.pieces) == 1 and self.pieces[0][0] == "" else None


@dataclass(frozen=True)
class Wording:
    """One way to ask a form: prompt segments, response segments, and what stands between items of a list."""

    prompt: tuple[Segment, ...]
    response: tuple[Segment, ...]
    separator: str = ""

    @property
    def names(self) -> list[str]:
        """The placeholders of prompt and response, in order."""
        return [name for segment in (*self.prompt, *self.response) for name in segment.names]

    @property
    def literals(self) -> list[str]:
        """The texts between the placeholders."""
        texts = [text for segment in (*self.prompt, *self.response) for text, _ in segment.pieces]
        return [text for text in (*texts, self.separator) if text]


Templates = dict[str, tuple[Wording, ...]]

FORMS: dict[str, Placeholders] = {form: needs for task in TASKS.values() for form, needs in task.forms.items()}
# What a prompt may mention besides what its form must hold; a response may mention nothing else.
HISTORY_EXTRAS = ("history_sids", "history_titles")
# Its items are targets one by one, so nothing else can be a label beside them.
SEQUENCE = "sequence_sids"


def load_templates(file: Path | None = None) -> Templates:
    """Our wordings, with those of `file` in place of their namesakes.

    Raises:
        UserError: for a form that does not exist, a placeholder that is missing, unknown or in the wrong place.
    """
    ours = yaml.safe_load(resources.files(__package__).joinpath("en.yaml").read_text("utf-8"))
    theirs = read_yaml(file) if file else {}
    templates = {form: _wordings(form, given, "en.yaml") for form, given in ours.items()}
    return templates | {form: _wordings(form, given, str(file)) for form, given in theirs.items()}


def wording_texts() -> list[str]:
    """What our own wordings say besides their placeholders, to train a tokenizer on."""
    return [text for wordings in load_templates().values() for wording in wordings for text in wording.literals]


def parse_wording(form: str, entry: Any, where: str) -> Wording:
    """One wording of a form, given as a template file gives it.

    Raises:
        UserError: as `load_templates`.
    """
    return _wording(entry, FORMS[form], where)


def as_tree(wording: Wording) -> dict[str, Any]:
    """A wording as a template file gives it: `parse_wording` reads it back."""
    return {
        "prompt": [segment.text for segment in wording.prompt],
        "response": [segment.text for segment in wording.response],
        "separator": wording.separator,
    }


def _wordings(form: str, given: Any, where: str) -> tuple[Wording, ...]:
    if form not in FORMS:
        near = did_you_mean(str(form), FORMS)
        raise UserError(f"{where}: there is no form {form!r}{near}", f"Forms: {', '.join(FORMS)}.")
    entries = given if isinstance(given, list) else [given]
    if not entries:
        raise UserError(f"{where}: {form} has no wording")
    return tuple(_wording(entry, FORMS[form], f"{where}: {form}") for entry in entries)


def _wording(entry: Any, needs: Placeholders, where: str) -> Wording:
    if not isinstance(entry, Mapping) or not {"prompt", "response"} <= set(entry):
        raise UserError(f"{where}: a wording needs `prompt` and `response`, each a list of segments")
    if unknown := set(entry) - {"prompt", "response", "separator"}:
        raise UserError(f"{where}: unknown key {sorted(map(str, unknown))[0]!r}", "Known: prompt, response, separator.")
    separator = entry.get("separator", "")
    if not isinstance(separator, str):
        raise UserError(f"{where}: separator must be text, found {separator!r}")
    prompt = _segments(entry["prompt"], f"{where}: prompt")
    response = _segments(entry["response"], f"{where}: response")
    extras = HISTORY_EXTRAS if set(HISTORY_EXTRAS) & set(needs.prompt) else ()
    _check(prompt, needs.prompt, tuple(dict.fromkeys((*needs.prompt, *extras))), f"{where}: prompt")
    _check(response, needs.response, needs.response, f"{where}: response")
    if SEQUENCE in needs.response and [segment.slot for segment in response] != [SEQUENCE]:
        raise UserError(
            f"{where}: response: {{{SEQUENCE}}} must be all of it", "Write what stands before it as prompt."
        )
    return Wording(prompt, response, separator)


def _segments(given: Any, where: str) -> tuple[Segment, ...]:
    if not isinstance(given, list) or not given or not all(isinstance(text, str) and text for text in given):
        raise UserError(f"{where}: expected a list of non-empty texts, found {given!r:.80}")
    return tuple(Segment(tuple(_pieces(text, where))) for text in given)


def _pieces(text: str, where: str) -> Iterator[tuple[str, str | None]]:
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise UserError(f"{where}: {error} in {text!r:.80}", "Write {{ and }} for braces that are text.") from None
    literal = ""
    for before, name, spec, conversion in parsed:
        literal += before
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            raise UserError(f"{where}: {{{name}}} is not a plain placeholder in {text!r:.80}")
        yield literal, name
        literal = ""
    if literal:
        yield literal, None


def _check(segments: tuple[Segment, ...], needed: tuple[str, ...], allowed: tuple[str, ...], where: str) -> None:
    names = [name for segment in segments for name in segment.names]
    for name in names:
        if name not in allowed:
            hint = f"Allowed here: {', '.join(allowed)}."
            raise UserError(f"{where}: unknown placeholder {{{name}}}{did_you_mean(name, allowed)}", hint)
    for name in needed:
        if name not in names:
            raise UserError(f"{where}: the placeholder {{{name}}} is missing")
