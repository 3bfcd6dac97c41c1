"""Template files: checked when they are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidtune.base.errors import UserError
from sidtune.templates import FORMS, load_templates


def test_ours_cover_every_form() -> None:
    templates = load_templates()
    assert templates.keys() == FORMS.keys()
    assert all(len(wordings) == 1 for wordings in templates.values())


def test_a_file_replaces_its_forms_alone(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(
        'sid_next: {prompt: ["{{x}} {history_sids}"], response: ["{target_sid}"], separator: ","}'
    )
    templates = load_templates(file)
    (wording,) = templates["sid_next"]
    assert wording.separator == ","
    assert wording.prompt[0].pieces == (("{x} ", "history_sids"),)
    assert wording.prompt[0].slot is None
    assert wording.response[0].slot == "target_sid"
    assert templates["fusion.title"] == load_templates()["fusion.title"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sid_nxt: {prompt: [a], response: [b]}",
            r"unknown template name 'sid_nxt'; did you mean sid_next\?",
        ),
        ("sid_next: {prompt: ['{history_sids}']}", r"needs `prompt` and `response`"),
        ("sid_next: []", r"sid_next has no template"),
        (
            "sid_next: {prompt: ['{history_sid}'], response: ['{target_sid}']}",
            r"unknown placeholder {history_sid}; did you",
        ),
        (
            "sid_next: {prompt: ['{history_item_ids}'], response: ['{target_sid}']}",
            r"unknown placeholder {history_item_ids}\nAllowed here: history_sids, history_titles",
        ),
        (
            "title_next: {prompt: ['{history_title}'], response: ['{target_title}']}",
            r"unknown placeholder {history_title}; did you mean history_titles\?",
        ),
        (
            "sid_next: {prompt: ['{history_sids}'], response: ['{target_title}']}",
            r"unknown placeholder {target_title}\nAllowed here: target_sid",
        ),
        (
            "sid_next: {prompt: [hello], response: ['{target_sid}']}",
            r"prompt: the placeholder {history_sids} is missing",
        ),
        (
            "sid_next: {prompt: ['{history_sids}{target_sid}'], response: ['{target_sid}']}",
            r"unknown placeholder {target_sid}",
        ),
        (
            "sid_next: {prompt: ['{history_sids.__class__}'], response: ['{target_sid}']}",
            r"is not a plain placeholder",
        ),
        (
            "sid_next: {prompt: ['{history_sids[0]}'], response: ['{target_sid}']}",
            r"is not a plain placeholder",
        ),
        (
            "sid_next: {prompt: ['{history_sids:>9}'], response: ['{target_sid}']}",
            r"is not a plain placeholder",
        ),
        (
            "sid_next: {prompt: ['{history_sids!r}'], response: ['{target_sid}']}",
            r"is not a plain placeholder",
        ),
        ("sid_next: {prompt: ['{history_sids'], response: ['{target_sid}']}", r"expected '}'.*"),
        (
            "sid_next: {prompt: '{history_sids}', response: ['{target_sid}']}",
            r"expected a list of non-empty texts",
        ),
        (
            "sid_next: {prompt: ['{history_sids}', ''], response: ['{target_sid}']}",
            r"expected a list of non-empty texts",
        ),
        (
            "sid_next: {prompt: ['{history_sids}'], response: ['{target_sid}'], sep: x}",
            r"unknown key 'sep'",
        ),
        (
            "sid_next: {prompt: ['{history_sids}'], response: ['{target_sid}'], separator: 3}",
            r"separator must be text",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_templates(file)
    assert "mine.yaml" in str(error.value)
