"""Reading and validating templates, which are data and never executed."""

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

HINT = "docs/templates.md shows what a template looks like."


@dataclass(frozen=True)
class Segment:
    """One unit of tokenisation in a template.

    Args:
        pieces: alternating literal text and placeholder name; the name is None after the last text.
    """

    pieces: tuple[tuple[str, str | None], ...]

    @property
    def names(self) -> list[str]:
        """The placeholders, in order."""
        return [name for _, name in self.pieces if name is not None]

    @property
    def text(self) -> str:
        """The segment as written in a template file."""
        escaped = ((text.replace("{", "{{").replace("}", "}}"), name) for text, name in self.pieces)
        return "".join(text + (f"{{{name}}}" if name else "") for text, name in escaped)

    @property
    def slot(self) -> str | None:
        """The placeholder's name if the segment is exactly one placeholder, else None."""
        return self.pieces[0][1] if len(self.pieces) == 1 and self.pieces[0][0] == "" else None


@dataclass(frozen=True)
class Template:
    """Prompt segments, response segments, and the separator between items of a list."""

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


Templates = dict[str, tuple[Template, ...]]

FORMS: dict[str, Placeholders] = {
    form: needs for task in TASKS.values() for form, needs in task.forms.items()
}
# Placeholders that a prompt may use in addition to the required ones; a response may not use
# others.
HISTORY_EXTRAS = ("history_sids", "history_titles")
# Every item of this placeholder is a target, so the response can contain nothing else.
SEQUENCE = "sequence_sids"


def load_templates(file: Path | None = None) -> Templates:
    """The built-in templates, with those of `file` replacing the ones of the same name.

    Raises:
        UserError: for an unknown template name, or a placeholder that is missing, unknown or in the
            wrong place.
    """
    ours = yaml.safe_load(resources.files(__package__).joinpath("en.yaml").read_text("utf-8"))
    theirs = read_yaml(file) if file else {}
    templates = {form: _templates_of(form, given, "en.yaml") for form, given in ours.items()}
    return templates | {
        form: _templates_of(form, given, str(file)) for form, given in theirs.items()
    }


def template_texts() -> list[str]:
    """The literal texts of the built-in templates, to train a tokenizer on."""
    return [
        text
        for templates in load_templates().values()
        for template in templates
        for text in template.literals
    ]


def parse_template(form: str, entry: Any, where: str) -> Template:
    """Parse one template, given as in a template file.

    Raises:
        UserError: as `load_templates`.
    """
    return _template(entry, FORMS[form], where)


def as_tree(template: Template) -> dict[str, Any]:
    """A template as in a template file; the inverse of `parse_template`."""
    return {
        "prompt": [segment.text for segment in template.prompt],
        "response": [segment.text for segment in template.response],
        "separator": template.separator,
    }


def _templates_of(form: str, given: Any, where: str) -> tuple[Template, ...]:
    if form not in FORMS:
        near = did_you_mean(str(form), FORMS)
        raise UserError(
            f"{where}: unknown template name {form!r}{near}", f"Known: {', '.join(FORMS)}."
        )
    entries = given if isinstance(given, list) else [given]
    if not entries:
        raise UserError(
            f"{where}: {form} has no template",
            HINT,
        )
    return tuple(_template(entry, FORMS[form], f"{where}: {form}") for entry in entries)


def _template(entry: Any, needs: Placeholders, where: str) -> Template:
    if not isinstance(entry, Mapping) or not {"prompt", "response"} <= set(entry):
        raise UserError(
            f"{where}: a template needs `prompt` and `response`, each a list of segments",
            HINT,
        )
    if unknown := set(entry) - {"prompt", "response", "separator"}:
        raise UserError(
            f"{where}: unknown key {sorted(map(str, unknown))[0]!r}",
            "Known: prompt, response, separator.",
        )
    separator = entry.get("separator", "")
    if not isinstance(separator, str):
        raise UserError(
            f"{where}: separator must be text, found {separator!r}",
            HINT,
        )
    prompt = _segments(entry["prompt"], f"{where}: prompt")
    response = _segments(entry["response"], f"{where}: response")
    extras = HISTORY_EXTRAS if set(HISTORY_EXTRAS) & set(needs.prompt) else ()
    _check(prompt, needs.prompt, tuple(dict.fromkeys((*needs.prompt, *extras))), f"{where}: prompt")
    _check(response, needs.response, needs.response, f"{where}: response")
    if SEQUENCE in needs.response and [segment.slot for segment in response] != [SEQUENCE]:
        raise UserError(
            f"{where}: response: {{{SEQUENCE}}} must be the whole response",
            "Move the text before it to the prompt.",
        )
    return Template(prompt, response, separator)


def _segments(given: Any, where: str) -> tuple[Segment, ...]:
    if (
        not isinstance(given, list)
        or not given
        or not all(isinstance(text, str) and text for text in given)
    ):
        raise UserError(
            f"{where}: expected a list of non-empty texts, found {given!r:.80}",
            HINT,
        )
    return tuple(Segment(tuple(_pieces(text, where))) for text in given)


def _pieces(text: str, where: str) -> Iterator[tuple[str, str | None]]:
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise UserError(
            f"{where}: {error} in {text!r:.80}", "Write literal braces as {{ and }}."
        ) from None
    literal = ""
    for before, name, spec, conversion in parsed:
        literal += before
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            raise UserError(
                f"{where}: {{{name}}} is not a plain placeholder in {text!r:.80}",
                HINT,
            )
        yield literal, name
        literal = ""
    if literal:
        yield literal, None


def _check(
    segments: tuple[Segment, ...], needed: tuple[str, ...], allowed: tuple[str, ...], where: str
) -> None:
    names = [name for segment in segments for name in segment.names]
    for name in names:
        if name not in allowed:
            hint = f"Allowed here: {', '.join(allowed)}."
            raise UserError(
                f"{where}: unknown placeholder {{{name}}}{did_you_mean(name, allowed)}", hint
            )
    for name in needed:
        if name not in names:
            raise UserError(
                f"{where}: the placeholder {{{name}}} is missing",
                HINT,
            )
