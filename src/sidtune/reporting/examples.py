"""Single users: history, what came next, and the list, by title."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sidtune.evaluation.report import Example
from sidtune.metrics.metrics import GROUP_CUTOFF
from sidtune.reporting.page import Card, Cards, Item, Section
from sidtune.reporting.ranking import main
from sidtune.reporting.record import Record

TARGET, OWNED = "target", "in the history"


def examples(record: Record) -> Section | None:
    """The rows that the evaluation drew, right ones first."""
    details = record.report.details if record.report else None
    if not record.report or not details or not details.examples:
        return None
    cards = [_card(example, record.titles) for example in details.examples]
    name, summary = next(iter(record.report.rankers.items()))
    near = main(summary, "HR").value
    intro = (
        f"Rows drawn by a fixed seed: some where the {name} has the target first"
        f" ({summary.item['HR@1'].value:.1%} of all rows), some where it is among the first"
        f" {GROUP_CUTOFF} ({near:.1%}), and some where it is not."
    )
    return Section("examples", "Examples", intro, [Cards(cards)])


def _card(example: Example, titles: Mapping[str, str]) -> Card:
    owned = set(example.history)

    def item(name: str, mark: str = "") -> Item:
        return Item(titles.get(name) or name, name, mark)

    def listed(name: str) -> Item:
        mark = TARGET if name == example.target else OWNED if name in owned else ""
        return item(name, mark)

    return Card(
        f"User {example.user}, row {example.row:,}: {_place(example.rank)}",
        _verdict(example.rank),
        [item(name) for name in example.history],
        example.earlier,
        item(example.target, OWNED if example.target in owned else ""),
        [listed(name) for name in example.items],
    )


def _place(rank: int) -> str:
    return f"target at place {rank}" if rank else "target not listed"


def _verdict(rank: int) -> Literal["first", "near", "missed"]:
    if rank == 1:
        return "first"
    return "near" if 1 < rank <= GROUP_CUTOFF else "missed"
