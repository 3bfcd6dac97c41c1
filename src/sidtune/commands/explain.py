"""`sidtune explain`: what a key of the configuration means."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from sidtune.base.terminal import console, json_text
from sidtune.commands.options import AsJson, complete_key

if TYPE_CHECKING:
    from sidtune.tasks.keys import Key


def explain(
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY]",
            help="A key or a section, such as training.group_by. Without it: all keys.",
            autocompletion=complete_key,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a key of the configuration means, which values it takes and what its default is.

    Example: `sidtune explain training.group_by`
    """
    from sidtune.tasks.keys import all_keys, find_key

    keys = all_keys()
    chosen = find_key(key) if key else None
    below = [one for name, one in keys.items() if chosen and name.startswith(f"{chosen.name}.")]
    if as_json:
        told = [chosen, *below] if chosen else list(keys.values())
        typer.echo(json_text([asdict(one) for one in told], indent=1))
    elif chosen is None:
        _list_all(list(keys.values()))
    else:
        _tell(chosen)
        for one in below:
            console.print()
            _tell(one)


def _tell(key: Key) -> None:
    console.print(key.name, style="bold", markup=False)
    lines = [key.help]
    if not key.is_section:
        lines += [f"values: {key.type}", f"default: {key.default}"]
    for line in lines:
        console.print(Padding(Text(line), (0, 0, 0, 2)))


def _list_all(keys: list[Key]) -> None:
    sections: dict[str, list[str]] = {}
    for key in keys:
        if not key.is_section:
            section, _, name = key.name.rpartition(".")
            sections.setdefault(section, []).append(name)
    for section, names in sections.items():
        console.print(f"{section or 'top level'}: {', '.join(names)}", markup=False)
    console.print("\nOne key, or one section: sidtune explain training.group_by", style="dim")
