"""Terminal output: a console that shows control characters, and progress bars on terminals only."""

from __future__ import annotations

import codecs
import io
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from sidtune.base.durations import rough_duration
from sidtune.base.errors import Interrupted, OneProcessError, UserError
from sidtune.base.keys import named

# Where nobody looks, lines are not folded at eighty characters: logs are read with other tools.
LOG_WIDTH = 120
# What every launcher tells each of its processes, all of it.
LAUNCHER = ("LOCAL_RANK", "RANK", "WORLD_SIZE")
# Set by `--processes` alone, which goes on once its processes are done.
OWN_LAUNCHER = "SIDTUNE_LAUNCHED"
# Our own signs, where a stream's encoding does not have them.
SIGNS = {
    "·": "|",
    "–": "-",
    "→": "->",
    "…": "...",
    "×": "x",
    "│": "|",
    "↵": "$",
    "⇥": "|",
    "“": '"',
    "”": '"',
    "’": "'",
}
# The name by which streams know `_replaced`.
REPLACING = "sidtune.replacing"
# How streams treat such characters unless the user chose something, by
# PYTHONIOENCODING=ascii:replace for example.
UNCHOSEN = ("strict", "surrogateescape", "backslashreplace")


class SafeConsole(Console):
    """A console for texts from anywhere: control characters and direction marks are shown, never
    obeyed.

    `warns`: whether warnings are shown even while it is quiet.
    """

    warns = False

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As `Console`; what Rich itself says to the terminal is left as it is."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)


def harmless(text: str) -> str:
    """Control characters, direction marks and the like as their code; line breaks stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


console = SafeConsole(
    highlight=False, emoji=False, width=None if sys.stdout.isatty() else LOG_WIDTH
)
_errors = SafeConsole(
    highlight=False, emoji=False, stderr=True, width=None if sys.stderr.isatty() else LOG_WIDTH
)
T = TypeVar("T")
# Seconds of a work after which the rest is foretold, and of a rest that is not worth a line.
ENOUGH, LITTLE = 2.0, 5.0
# Said before PyTorch and its like are imported.
STARTING = "Loading libraries: some seconds"


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """Our own signs in ASCII, every other character as its code."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return (
        "".join(SIGNS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text),
        error.end,
    )


def print_in_any_encoding() -> None:
    """Let standard output and standard error take every text, whatever their encoding has."""
    codecs.register_error(REPLACING, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in UNCHOSEN:
            stream.reconfigure(errors=REPLACING)


def warn(message: str) -> None:
    """Say something the user should know beside the results, which may be read by a program."""
    if not console.quiet or console.warns:
        _errors.print(f"warning: {visible(named(message))}", markup=False, style="yellow")


def starting(what: str) -> None:
    """Say what begins now and may take longer than two seconds; beside the results, as `warn`."""
    if not console.quiet and first_process():
        _errors.print(f"{visible(what)} …", markup=False, style="dim", soft_wrap=True)


@contextmanager
def quietly(asked: bool) -> Iterator[None]:
    """Print nothing but warnings and errors, if the user asked for that."""
    before = console.quiet, console.warns
    if asked and not console.quiet:
        console.quiet = console.warns = True
    try:
        yield
    finally:
        console.quiet, console.warns = before


def is_given(name: str) -> bool:
    """Whether a launcher's variable says anything; -1 is how some of them say that there is one
    process.
    """
    return os.environ.get(name, "") not in ("", "-1")


def launched() -> bool:
    """Whether torchrun, `--processes` or another launcher started this process.

    Operators of clusters set RANK and WORLD_SIZE for each container, though a single process may
    run in it.
    """
    return all(is_given(name) for name in LAUNCHER)


def first_process() -> bool:
    """Whether this is the first process of a run, which says what all would; a single process
    always is.
    """
    return not launched() or os.environ["RANK"] == "0"


def in_main_thread() -> bool:
    """Whether this is the thread that draws and takes signals."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def messages_for_errors() -> Iterator[None]:
    """End the program with a message and an exit status in place of a traceback, for what is no
    fault of ours.

    Whatever is printed meanwhile, a traceback too, can be encoded.
    """
    print_in_any_encoding()
    try:
        yield
    except Interrupted as stop:
        if first_process():
            print(harmless(str(stop)), file=sys.stderr)
        sys.exit(stop.STATUS)
    except UserError as error:
        if first_process() or isinstance(error, OneProcessError):
            _errors.print("error: ", end="", style="bold red")
            print(harmless(str(error)), file=sys.stderr)
        sys.exit(error.STATUS)


def quiet_libraries() -> None:
    """No progress bars and no chatter from libraries: what the user should know, we say."""
    from transformers.utils import logging as of_transformers

    of_transformers.set_verbosity_error()
    of_transformers.disable_progress_bar()
    # PEFT imports it for every adapter, and it tells what it does not find.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@contextmanager
def library_bars() -> Iterator[None]:
    """Let Transformers show its own bars for a while, on a terminal."""
    from transformers.utils import logging

    if not console.is_terminal:
        yield
        return
    logging.enable_progress_bar()
    try:
        yield
    finally:
        logging.disable_progress_bar()


def progress(
    items: Iterable[T], description: str, total: int, size: Callable[[T], int]
) -> Iterator[T]:
    """Yield the items while a bar advances by the size of each, as in `counting`."""
    with counting(description, total) as advance:
        for item in items:
            yield item
            advance(size(item))


@contextmanager
def counting(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar, which is gone when done, and what advances it. It is drawn on a terminal, by the main
    thread; elsewhere a line says once how long it takes, if that is long.
    """
    began, done, said = time.monotonic(), 0, False
    drawn = console.is_terminal and in_main_thread()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # Rich takes one bar at a time.
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not drawn
    ) as bar:
        task = bar.add_task(description, total=total)

        def advance(size: int) -> None:
            nonlocal done, said
            bar.advance(task, size)
            done += size
            spent = time.monotonic() - began
            if said or not done or spent < ENOUGH:
                return
            said, left = True, spent / done * (total - done)
            if bar.disable and left >= LITTLE and in_main_thread():
                starting(f"{description}: about {rough_duration(left)} more")

        yield advance


def visible(text: str) -> str:
    """Line breaks and tabs as signs, other control characters as their code."""
    return harmless(text.replace("\t", "⇥").replace("\n", "↵\n"))


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that a terminal only shows: the same value, with escapes for what does not print or
    cannot be encoded.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
