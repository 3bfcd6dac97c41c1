"""`sidtune sids`: make semantic IDs of a catalogue, look at those of any index, give them to new
items.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from sidtune.base.terminal import console, json_text, quiet_libraries, starting
from sidtune.commands.options import AsJson, ConfigFile, Overrides

if TYPE_CHECKING:
    from sidtune.sids.assign import Placed

DEFAULT = "fit"


class DefaultsToFit(TyperGroup):
    """`sidtune sids CONFIG.yaml` is short for `sidtune sids fit CONFIG.yaml`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command in front of what names none."""
        if args and args[0] not in self.commands and args[0] not in self.get_help_option_names(ctx):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


sids = typer.Typer(
    cls=DefaultsToFit,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=(
        "Make semantic IDs of a catalogue, report on those of any index, and give them to new"
        " items.\n\nExample: `sidtune sids shop.yaml`"
    ),
)


@sids.command(DEFAULT)
def fit(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Make SIDs as configured and print their report; `fit` may be left out. What is there already
    is not made again.

    Needs `sidtune[sids]` for texts. Writes OUTPUT_DIR/sids/FINGERPRINT/index.json, which data.index
    reads.

    Example: `sidtune sids fit shop.yaml sids.seed=1`
    """
    from sidtune.files.text import read_json_object
    from sidtune.pipeline.defaults import load_sids
    from sidtune.sids import fit as room
    from sidtune.sids.index import INDEX, REPORT
    from sidtune.sids.report.render import render

    quiet_libraries()
    made = room.make(load_sids(config, overrides or []))
    index = made.folder / INDEX
    if as_json:
        typer.echo(json_text({"index": str(index), "unchanged": made.unchanged}, indent=1))
        return
    if made.unchanged:
        console.print(
            f"Nothing to do: {escape(str(index))} was made of the same files and settings."
        )
        return
    for part in render(read_json_object(made.folder / REPORT)):
        console.print(part)
    console.print(
        f"SIDs: {escape(str(index))}, the default of data.index with this configuration.",
        soft_wrap=True,
    )


@sids.command()
def report(
    index: Annotated[
        Path,
        typer.Argument(
            metavar="INDEX",
            help="An .index.json from anywhere, or a folder that `sidtune sids` made.",
        ),
    ],
    items: Annotated[
        Path | None,
        typer.Option(help="The catalogue, for titles; one that `sidtune sids` made has them."),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(
            help="Vectors by which items are alike: .npy in the order of the catalogue, or Parquet."
        ),
    ] = None,
    quick: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG.yaml",
            help=(
                "Also train a small model for a minute or two on rows of this configuration, and"
                " show its HR@10 beside that with random SIDs."
            ),
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report on an index: use of the codes, collisions, and what common prefixes mean, beside
    random SIDs.

    Likeness is measured by the given vectors, else by those the index was made of, else by the
    texts of --items.

    Example: `sidtune sids report shop.index.json --items shop.item.json`
    """
    from sidtune.sids.index import INDEX
    from sidtune.sids.report import run as room
    from sidtune.sids.report.render import render

    quiet_libraries()
    starting("Measuring the codes, the collisions and what common prefixes mean")
    figures = room.report(index, items, vectors)
    if quick:
        from sidtune.pipeline.quick import quick as trained

        if not as_json:
            console.print("Training a small model twice, which takes a minute or two …")
        figures["quick"] = trained(index / INDEX if index.is_dir() else index, quick)
    if as_json:
        typer.echo(json_text(figures, indent=1))
        return
    for part in render(figures):
        console.print(part)


@sids.command()
def assign(
    fitted: Annotated[
        Path,
        typer.Argument(
            metavar="SIDS", help="A folder that `sidtune sids` made, or its index.json."
        ),
    ],
    items: Annotated[
        Path,
        typer.Option(
            help=(
                "Catalogue with the new items (.item.json, Parquet, CSV, TSV or JSON Lines); it may"
                " hold the old ones too."
            )
        ),
    ],
    vectors: Annotated[
        Path | None,
        typer.Option(help="Vectors of its items, where the SIDs were made of given vectors."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL_OR_RUN", help="Renew the catalogue in this model's folder too."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give new items SIDs from fitted codebooks; old items keep theirs.

    With --model, the model then recommends the new items without training, if it has all of their
    tokens.

    Example: `sidtune sids assign runs/shop/sids/0f3a… --items new.item.json --model runs/shop`
    """
    from sidtune.runs.renew import renew_catalogue, renewed
    from sidtune.sids.assign import assign as place
    from sidtune.sids.index import INDEX, read_index, write_index

    quiet_libraries()
    folder = fitted.parent if fitted.name == INDEX else fitted
    starting("Placing the new items among the fitted codebooks")
    placed = place(read_index(folder), folder, items, vectors)
    made = placed.fitted
    # Looked at before anything is written.
    bundle = renewed(model, made.ids, made.titles, made.sids) if model else None
    if placed.new:
        write_index(made, placed.folder)
    if model and bundle:
        renew_catalogue(model, bundle)
    index = placed.folder / INDEX
    if as_json:
        typer.echo(
            json_text({"index": str(index), "new": placed.new, "surplus": placed.surplus}, indent=1)
        )
        return
    console.print(_placed(placed, items))
    console.print(f"SIDs of all {len(made.ids):,} items: {escape(str(index))}")
    if bundle:
        console.print(
            f"{escape(str(model))}: its catalogue now has {len(bundle.catalogue.ids):,} items."
        )


def _placed(placed: Placed, items: Path) -> str:
    """What came of the items of a catalogue."""
    if not placed.new:
        return f"{escape(str(items))} has no new item, so the index stays as it is."
    return (
        f"{placed.new:,} new items have SIDs, {placed.surplus:,} of them under another prefix than"
        " the nearest."
    )
