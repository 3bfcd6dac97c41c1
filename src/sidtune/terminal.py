"""What the user sees: one console, and progress bars that are silent where nobody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(highlight=False)
T = TypeVar("T")


def progress_bar() -> Progress:
    """A bar that is gone when done, and draws nothing unless the console is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def progress(items: Iterable[T], description: str, total: int, size: Callable[[T], int] = lambda _: 1) -> Iterator[T]:
    """Yield the items while a bar advances by the size of each."""
    with progress_bar() as bar:
        task = bar.add_task(description, total=total)
        for item in items:
            yield item
            bar.advance(task, size(item))
