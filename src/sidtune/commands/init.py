"""`sidtune init`: a first configuration for the files of a folder."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.markup import escape

from sidtune.base.errors import UserError
from sidtune.base.terminal import console

if TYPE_CHECKING:
    from sidtune.setup.choose import Chosen
    from sidtune.setup.look import Role, Table

Folder = Annotated[Path, typer.Argument(metavar="[DIR]", help="The folder of your files.")]
Output = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The file to write; DIR.yaml by default.")
]
Events = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="The table of events, if it is not recognised: a file or a pattern."
    ),
]
User = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column of user ids in the events.")
]
Item = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column of item ids in the events.")
]
Time = Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of times in the events.")]
# What a file is, and what it holds so many of.
ROLES: dict[Role, tuple[str, str]] = {
    "events": ("events", "rows"),
    "catalogue": ("a catalogue", "items"),
    "train": ("training rows", ""),
    "valid": ("validation rows", ""),
    "test": ("test rows", ""),
    "interactions": ("whole histories", "training targets"),
    "items": ("a catalogue", "items"),
    "index": ("semantic IDs", "items"),
}
# Of the files that are left aside.
SHOWN = 12
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Ask nothing: take the flags and the defaults.")
]


def init(
    folder: Folder = Path(),
    output: Output = None,
    events: Events = None,
    user: User = None,
    item: Item = None,
    time: Time = None,
    k_core: Annotated[
        int | None,
        typer.Option(
            min=0, help="Leave out users and items with fewer events than this; 0 keeps all."
        ),
    ] = None,
    split: Annotated[
        Literal["leave_one_out", "global_time"] | None,
        typer.Option(help="How the events are split; leave_one_out by default."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Fine-tune this model; by default a small one from scratch."),
    ] = None,
    yes: Yes = False,
) -> None:
    """Look at the files of a folder and at this machine, and write a commented configuration that
    `sidtune run` takes.

    Knows events and catalogues as tables, and the files of MiniOneRec, LC-Rec, LETTER, RecBole,
    MovieLens, Amazon Reviews and S3-Rec. Overwrites nothing.

    Example: `sidtune init data/shop`
    """
    from sidtune.setup.choose import choose, with_catalogue, with_events
    from sidtune.setup.core import with_core
    from sidtune.setup.look import look

    # As a name of files: `$` would be a variable in a configuration.
    name = re.sub(r"[^\w.-]+", "-", folder.resolve().name).strip("-") or "shop"
    file = output or Path(f"{name}.yaml")
    if file.exists():
        raise UserError(f"{file} is there already", "Give another name: --output FILE.")
    console.print(f"Looking at the files of {escape(str(folder))} and at this machine …")
    tables = look(folder)
    for line in _told(tables, folder):
        console.print(f"  {escape(line)}", soft_wrap=True)
    chosen = with_events(events, tables) if events else choose(tables)
    given = {"user": user, "item": item, "time": time}
    chosen = replace(chosen, columns={role: name for role, name in given.items() if name})
    asked = _asked(chosen, base, k_core, split, yes)
    chosen = with_catalogue(asked, tables)
    if chosen is not asked:
        place = chosen.tables["catalogue"].path.relative_to(folder)
        console.print(
            f"  {escape(str(place))} has the events' column of items: the catalogue", soft_wrap=True
        )
    _tell_left_aside(chosen, folder)
    _tell_untitled(chosen, tables, folder)
    counted = with_core(chosen, given=k_core is not None)
    if counted.k_core < chosen.k_core:
        console.print(f"  k_core: {chosen.k_core} leaves no event, so it is {counted.k_core}")
    chosen = counted
    if chosen.left:
        rows = chosen.tables["events"].rows
        console.print(f"  k_core: {chosen.k_core} leaves {chosen.left:,} of {rows:,} events")
    _write(chosen, name, file)


def _tell_left_aside(chosen: Chosen, folder: Path) -> None:
    if chosen.others:
        names = ", ".join(str(table.path.relative_to(folder)) for table in chosen.others[:SHOWN])
        console.print(
            f"  left aside: {escape(names)}. To use them instead, give them a folder of their own",
            soft_wrap=True,
        )


def _tell_untitled(chosen: Chosen, tables: Sequence[Table], folder: Path) -> None:
    from sidtune.setup.choose import untitled

    if table := untitled(chosen, tables):
        console.print(
            f"  {escape(str(table.path.relative_to(folder)))} has the events' column of items, and"
            " no column that is known as the title. If it is the catalogue, add to the file that is"
            f" written: catalogue: {{file: {escape(str(table.path))}, title: COLUMN}}, and remove"
            " sids",
            soft_wrap=True,
        )


def _told(tables: Sequence[Table], folder: Path) -> list[str]:
    """A line for each file of a folder."""
    lines = []
    for table in tables:
        unit = ""
        what = table.note or "a table; no columns of users, items and times are known"
        if table.role:
            what, unit = ROLES[table.role]
        known = f" of {table.format}" if table.format else ""
        rows = f", about {table.rows:,} {unit}".rstrip() if table.role and table.rows else ""
        columns = f" ({', '.join(table.names)[:100]})" if not table.role and table.names else ""
        lines.append(f"{table.path.relative_to(folder)}: {what}{known}{rows}{columns}")
    return lines


def _asked(
    chosen: Chosen, base: str | None, k_core: int | None, split: str | None, yes: bool
) -> Chosen:
    """The same with what the flags say, and with the answers to what they leave open."""
    from sidtune.setup.choose import Split, missing_columns

    table = chosen.tables.get("events")
    if table is None and (k_core is not None or split is not None or chosen.columns):
        raise UserError(
            "--k-core, --split and the columns are about events, and these are rows",
            "Leave these flags out.",
        )
    for role in missing_columns(chosen):
        assert table
        if yes:
            raise UserError(
                f"{table.path.name}: no column is known as the {role}; found"
                f" {', '.join(table.names)[:500]}",
                f"Name it: --{role} COLUMN.",
            )
        console.print(f"Columns: {escape(', '.join(table.names))}", soft_wrap=True)
        answer = typer.prompt(f"Which column is the {role}?")
        chosen = replace(chosen, columns={**chosen.columns, role: answer})
        missing_columns(chosen)
    if table and k_core is None and not yes:
        k_core = typer.prompt(
            "Fewest events of a user and of an item (0 keeps all)", default=chosen.k_core, type=int
        )
    if table and split is None and not yes and table.format != "sequences":
        split = typer.prompt(
            "Split: leave_one_out (each user's last event is the test) or global_time (by date)",
            default=chosen.split,
        )
        if split not in ("leave_one_out", "global_time"):
            raise UserError(f"no split is called {split}", "Answer leave_one_out or global_time.")
    if base is None and not yes:
        base = typer.prompt(
            "Pretrained model to fine-tune, a folder or a hub name (empty: a small one from"
            " scratch)",
            default="",
            show_default=False,
        )
    return replace(
        chosen,
        k_core=chosen.k_core if k_core is None else k_core,
        split=cast(Split, split or chosen.split),
        base=base or None,
    )


def _write(chosen: Chosen, name: str, file: Path) -> None:
    from sidtune.base.storage import refusing_failed_writes, write_text
    from sidtune.files.yaml_files import parse_yaml
    from sidtune.pipeline.defaults import refuse_faults
    from sidtune.setup.estimate import estimate
    from sidtune.setup.machine import this_machine
    from sidtune.setup.write import EPOCHS, text_of

    machine = this_machine()
    console.print(f"  this machine: {machine.text}")
    takes = estimate(chosen, machine, EPOCHS)
    command = shlex.join(["sidtune", *sys.argv[1:]])
    text = text_of(chosen, name, command, machine, takes, file)
    tree = parse_yaml(text, str(file))
    refuse_faults(tree, str(file))
    with refusing_failed_writes(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    console.print(f"\nWrote [bold]{escape(str(file))}[/bold].")
    console.print(f"All stages will take {takes.text}, under runs/{escape(name)}.")
    if chosen.base and not machine.gpus:
        console.print(
            "Fine-tuning a pretrained model without a GPU is slow; without --base a small one is"
            " trained from scratch."
        )
    _say_next(file, len(machine.gpus), "events" in chosen)


def _say_next(file: Path, gpus: int, from_events: bool) -> None:
    from importlib.util import find_spec

    needed = {"rank": "lightgbm", "sids": "sklearn", **({"prepare": "ibis"} if from_events else {})}
    extras = [extra for extra, package in needed.items() if find_spec(package) is None]
    console.print("Next:")
    if extras:
        console.print(f"  pip install 'sidtune\\[{','.join(sorted(extras))}]'")
    processes = f" --processes {gpus}" if gpus > 1 else ""
    console.print(f"  sidtune run {escape(shlex.quote(str(file)))}{processes}", soft_wrap=True)
