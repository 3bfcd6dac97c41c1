"""Draws flow.svg: from a shop's tables to a model, metrics and recommendations.

python docs/figures/flow.py
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

from sidtune.tasks import TASKS

WIDTH, HEIGHT, GAP, LANE, LEFT, TOP = 168, 62, 30, 104, 14, 14
COLOURS = {"file": "#dbe7f5", "step": "#f3f3f3", "result": "#d9efd9"}
FIGURE = Path(__file__).with_suffix(".svg")


@dataclass(frozen=True)
class Box:
    """One box: its place in the grid, its kind, and three lines of text."""

    column: int
    lane: int
    kind: str
    lines: tuple[str, str, str]

    @property
    def x(self) -> int:
        """Left edge in pixels."""
        return LEFT + self.column * (WIDTH + GAP)

    @property
    def y(self) -> int:
        """Upper edge in pixels."""
        return TOP + self.lane * LANE


BOXES = {
    "tables": Box(0, 0, "file", ("Your tables", "events and items,", "in files or a database")),
    "prepare": Box(1, 0, "step", ("Prepare", "filters, splits", "sidtune prepare")),
    "sids": Box(2, 0, "step", ("Semantic IDs", "text, behaviour", "sidtune sids")),
    "files": Box(3, 0, "file", ("Rows, items, SIDs", "or those of MiniOneRec", "and LC-Rec")),
    "encode": Box(3, 1, "step", ("Encode", f"{len(TASKS)} tasks, cached", "sidtune check")),
    "train": Box(2, 1, "step", ("Train", "Transformers' Trainer", "sidtune train")),
    "model": Box(1, 1, "file", ("Model folder", "Hugging Face format,", "with the catalogue")),
    "search": Box(0, 1, "step", ("Beam search", "only SIDs of", "the catalogue")),
    "metrics": Box(0, 2, "result", ("HR@K, NDCG@K", "beside baselines", "sidtune evaluate")),
    "lists": Box(1, 2, "result", ("Items by title", "for each user", "sidtune recommend")),
}


def main() -> None:
    """Write the figure beside this script."""
    FIGURE.write_text(draw(), encoding="utf-8")


def draw() -> str:
    """The figure as SVG."""
    right, left = ["tables", "prepare", "sids", "files"], ["encode", "train", "model", "search"]
    arrows = [rightwards(BOXES[a], BOXES[b]) for a, b in pairwise(right)]
    arrows += [leftwards(BOXES[a], BOXES[b]) for a, b in pairwise(left)]
    arrows += [
        downwards(BOXES["files"], BOXES["encode"]),
        downwards(BOXES["search"], BOXES["metrics"]),
        sideways(BOXES["search"], BOXES["lists"]),
    ]
    width, height = LEFT * 2 + 4 * WIDTH + 3 * GAP, TOP * 2 + 2 * LANE + HEIGHT
    view = f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {view}>'
    title = "<title>From a shop's tables to a model, metrics and recommendations</title>"
    tip = '<path d="M0 0 L8 4 L0 8 Z" fill="#555"/>'
    marker = (
        '<marker id="tip" markerWidth="8" markerHeight="8" refX="8" refY="4"'
        f' orient="auto">{tip}</marker>'
    )
    paper = f'<defs>{marker}</defs><rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([head, title, paper, *arrows, *map(drawn, BOXES.values()), "</svg>"]) + "\n"


def drawn(box: Box) -> str:
    """A box with its text: the first line in bold, commands in a fixed-width font."""
    rect = f'<rect x="{box.x}" y="{box.y}" width="{WIDTH}" height="{HEIGHT}" rx="5"'
    parts = [f'{rect} fill="{COLOURS[box.kind]}" stroke="#555"/>']
    for number, line in enumerate(box.lines):
        style = ' font-weight="bold"' if number == 0 else ""
        style = ' font-family="monospace"' if line.startswith("sidtune ") else style
        place = f'x="{box.x + WIDTH // 2}" y="{box.y + 18 + 18 * number}" text-anchor="middle"'
        parts.append(f"<text {place}{style}>{escape(line)}</text>")
    return "".join(parts)


def rightwards(start: Box, end: Box) -> str:
    """An arrow to the neighbour on the right."""
    return arrow(f"M{start.x + WIDTH} {start.y + HEIGHT // 2} H{end.x}")


def leftwards(start: Box, end: Box) -> str:
    """An arrow to the neighbour on the left."""
    return arrow(f"M{start.x} {start.y + HEIGHT // 2} H{end.x + WIDTH}")


def downwards(start: Box, end: Box) -> str:
    """An arrow to the box below."""
    return arrow(f"M{start.x + WIDTH // 2} {start.y + HEIGHT} V{end.y}")


def sideways(start: Box, end: Box) -> str:
    """An arrow from the lower edge of a box to the upper edge of its neighbour in the next lane."""
    middle = (start.y + HEIGHT + end.y) // 2
    return arrow(
        f"M{start.x + WIDTH // 2} {start.y + HEIGHT} V{middle} H{end.x + WIDTH // 2} V{end.y}"
    )


def arrow(path: str) -> str:
    """A line with a tip at its end."""
    return f'<path d="{path}" fill="none" stroke="#555" marker-end="url(#tip)"/>'


if __name__ == "__main__":
    main()
