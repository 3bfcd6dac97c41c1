"""Text from anywhere on the screen: shown as it is, harmless, and never obeyed."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from tests.fuzz.readers import SHOP

from sidtune.base import terminal
from sidtune.base.errors import UserError
from sidtune.base.terminal import SafeConsole, harmless, json_text, visible
from sidtune.checks.finding import Finding
from sidtune.checks.finding import render as render_findings
from sidtune.checks.preview import PreviewExample, PreviewSegment
from sidtune.checks.preview import render as render_example
from sidtune.commands import main as cli
from sidtune.decoding import stream
from sidtune.decoding.recommender import Recommendation
from sidtune.evaluation import compare

# A title for the window, a cleared screen, C1's escape, a text that is read backwards, a bell, a
# line written over.
STEERS = (
    "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\u2066\r\b\x00<b onclick='x'>[bold]:bomb:[/bold]"
)
# Rich takes some control characters, such as the bell, away by itself.
SHOWN = [r"\x1b]0;owned", r"\x1b[2J\x9b31m\x202egnp.exe\x2066"]


def printed(*parts: RenderableType) -> str:
    """What a terminal in colour gets."""
    file = io.StringIO()
    console = SafeConsole(
        file=file, width=400, force_terminal=True, color_system=None, emoji=False, highlight=False
    )
    for part in parts:
        console.print(part)
    return file.getvalue()


def answer() -> list[RenderableType]:
    item = Recommendation(STEERS, STEERS, STEERS, -1.0)
    return list(stream.render(stream.Answer(STEERS, [STEERS], [item])))


def compared() -> list[RenderableType]:
    difference = compare.Difference("SID", "HR@1", 0.1, 0.2, 0.1, 0.0, 0.2, True)
    return list(
        compare.render(
            compare.Comparison(
                STEERS,
                STEERS,
                10,
                3,
                1,
                1,
                ["beams"],
                [difference],
                [compare.Group(STEERS, 3, [difference])],
            )
        )
    )


SCREENS: dict[str, list[RenderableType]] = {
    "recommend": answer(),
    "compare": compared(),
    "check": list(render_findings([Finding("error", STEERS, STEERS, [STEERS], STEERS)])),
    "preview": [
        render_example(PreviewExample("t", STEERS, 1, 1, 1, [PreviewSegment(STEERS, [1], True)]))
    ],
    "text": [Text(STEERS)],
    "markup": [f"[bold]{escape(STEERS)}[/bold]"],
}


@pytest.mark.parametrize("name", SCREENS)
def test_no_screen_is_steered(name: str) -> None:
    shown = printed(*SCREENS[name])
    assert all(c.isprintable() or c == "\n" for c in shown), repr(shown)
    assert all(part in shown.replace("\n", "") for part in SHOWN)
    assert "<b onclick='x'>" in shown, "text that only a browser would obey"
    assert "[bold]:bomb:[/bold]" in shown, "and text that only Rich would"


def test_tables_in_tables_are_not_steered() -> None:
    table = Table(title=STEERS)
    table.add_column(escape(STEERS))
    table.add_row(Text(STEERS))
    assert all(c.isprintable() or c == "\n" for c in printed(table))


def test_our_own_colours_still_reach_the_terminal() -> None:
    file = io.StringIO()
    SafeConsole(file=file, force_terminal=True, color_system="standard").print("[red]x[/red]")
    assert file.getvalue() == "\x1b[31mx\x1b[0m\n"
    assert isinstance(terminal.console, SafeConsole)


def test_warnings_are_not_steered(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.warn(STEERS)
    said = capsys.readouterr().err
    assert "\x1b" not in said.removeprefix("\x1b[33m").removesuffix("\x1b[0m\n")
    assert "gnp.exe" in said


def test_what_begins_is_said_once_beside_the_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.starting("Reading a\nb")
    said = capsys.readouterr()
    assert not said.out
    assert "Reading a↵" in said.err
    for name, value in {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    terminal.starting("Reading")
    assert not capsys.readouterr().err, "another process says it"


def test_errors_are_not_steered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a real file, through the entry point."""

    def app() -> None:
        raise UserError(f"item {STEERS}\nsecond line", f"hint {STEERS}")

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().err
    assert all(part in said for part in SHOWN)
    assert all(
        c.isprintable() or c == "\n"
        for c in said.replace("\x1b[31m\x1b[1m", "").replace("\x1b[0m", "")
    )


def test_an_error_over_a_hostile_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "i.json").write_text(json.dumps({STEERS: {"title": [5]}}))
    monkeypatch.setattr(
        sys,
        "argv",
        ["sidtune", "new-model", str(tmp_path / "m"), "--items", str(tmp_path / "i.json")],
    )
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().err
    assert "has no title" in said
    assert "\x1b]" not in said


@given(st.text(st.characters(codec=None), max_size=30))
def test_harmless_text_prints(text: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in harmless(text) + visible(text))
    assert harmless("".join(c for c in text if c.isprintable())) == "".join(
        c for c in text if c.isprintable()
    )


@given(
    st.recursive(
        st.text(max_size=9) | st.integers() | st.none(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
    )
)
def test_json_for_the_screen_is_the_same_json(value: Any) -> None:
    for indent in (None, 1):
        text = json_text(value, indent)
        assert json.loads(text) == value
        assert all(c.isprintable() or c == "\n" for c in text)


def test_json_keeps_what_was_written() -> None:
    assert (
        json.loads(json_text({"title": STEERS + "😀\U000e0001"}))["title"]
        == STEERS + "😀\U000e0001"
    )
    assert "😀" in json_text("😀"), "whatever prints stays as it is"


def test_titles_of_the_fixture_are_hostile_enough() -> None:
    assert any("[" in title for title in SHOP.titles)
    assert any(title.startswith("=") for title in SHOP.titles)


@pytest.mark.parametrize(
    ("seconds", "said"), [(3.0, "reading: about 25 seconds more …\n"), (0.5, "")]
)
def test_where_no_bar_is_drawn_a_line_says_once_how_long_it_takes(
    seconds: float,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    for number in terminal.progress(range(10), "reading", 10, lambda _: 1):
        now[0] = seconds * (number + 1)
    assert capsys.readouterr().err == said


def test_a_bar_is_line_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, lines = SafeConsole(file=io.StringIO(), force_terminal=True), list[str]()
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(terminal, "console", drawn)
    monkeypatch.setattr(terminal, "starting", lines.append)
    for number in terminal.progress(range(10), "reading", 10, lambda _: 1):
        now[0] = 3.0 * (number + 1)
    assert not lines


def test_libraries_tell_nothing_but_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("bitsandbytes"), "level", logging.NOTSET)
    packed = logging.getLogger("bitsandbytes.backends.cpu.ops")
    terminal.quiet_libraries()
    assert not packed.isEnabledFor(logging.WARNING)
    assert packed.isEnabledFor(logging.ERROR)
