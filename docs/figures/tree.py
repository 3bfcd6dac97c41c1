"""Draws tree.svg: four examples of one user as the prefix tree that layout `tree` computes.

python docs/figures/tree.py
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np

from sidtune.batching.forest import Forest, grow, lexicographic

# A SID is drawn as one token, and so is every piece of wording.
EXAMPLES = [
    ["opening", "mug", "next?", "tent", "end"],
    ["opening", "mug", "tent", "next?", "stove", "end"],
    ["opening", "mug", "tent", "stove", "next?", "sock", "end"],
    ["opening", "mug", "tent", "stove", "title?", "Wool", "Sock", "end"],
]
ANSWER_LENGTHS = [2, 2, 2, 3]
WIDTH, HEIGHT, GAP, LANE, LEFT, TOP = 74, 26, 14, 44, 14, 16
COLOURS = {"shared": "#dbe7f5", "own": "#f3f3f3", "answer": "#d9efd9", "last": "white"}
NOTES = [
    ("shared", "computed once for several examples", LEFT),
    ("own", "one example's own", LEFT + 260),
    ("answer", "label, and read", LEFT + 420),
    ("last", "label, never read", LEFT + 560),
]
FIGURE = Path(__file__).with_suffix(".svg")


def main() -> None:
    """Write the figure beside this script."""
    FIGURE.write_text(draw())


def draw() -> str:
    """The figure as SVG."""
    words = sorted({word for example in EXAMPLES for word in example})
    read = [
        np.array([words.index(word) for word in example[:-1]], np.int32) for example in EXAMPLES
    ]
    order = lexicographic(read)
    forest = grow([read[i] for i in order], token_cost=1e9, widest=100)
    lanes = lanes_of(forest)
    parts = [
        part for index in range(len(order)) for part in branch(forest, lanes, index, order[index])
    ]
    total, held = sum(map(len, EXAMPLES)), int(forest.widths[0])
    parts.append(
        legend(len(EXAMPLES), f"{total} tokens in {len(EXAMPLES)} examples, {held} computed")
    )
    width, height = LEFT * 2 + 8 * (WIDTH + GAP), TOP + len(EXAMPLES) * LANE + 40
    view = f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {view}>'
    title = "<title>Four examples of one user as a prefix tree</title>"
    return (
        "\n".join(
            [
                head,
                title,
                f'<rect width="{width}" height="{height}" fill="white"/>',
                *parts,
                "</svg>",
            ]
        )
        + "\n"
    )


def lanes_of(forest: Forest) -> dict[int, int]:
    """The line that each node is drawn on: that of the first example that reads it."""
    lanes: dict[int, int] = {}
    for index, nodes in enumerate(forest.node.tolist()):
        for node in nodes:
            lanes.setdefault(node, index)
    return lanes


def branch(forest: Forest, lanes: dict[int, int], index: int, example: int) -> list[str]:
    """The nodes that an example adds, and its last label, which nothing reads."""
    words = EXAMPLES[example]
    nodes = [node for node in forest.node[index].tolist() if node >= 0]
    answers = len(words) - ANSWER_LENGTHS[example]
    readers = [sum(node in other for other in forest.node.tolist()) for node in nodes]
    parts = []
    for depth, node in enumerate(nodes):
        if lanes[node] == index:
            kind = "answer" if depth >= answers else "shared" if readers[depth] > 1 else "own"
            parts.append(edge(depth, lanes[nodes[depth - 1]] if depth else index, index))
            parts.append(box(depth, index, words[depth], COLOURS[kind], dashed=False))
    parts.append(edge(len(nodes), index, index))
    parts.append(box(len(nodes), index, words[-1], COLOURS["last"], dashed=True))
    return parts


def box(depth: int, lane: int, word: str, colour: str, dashed: bool) -> str:
    """One token."""
    x, y = LEFT + depth * (WIDTH + GAP), TOP + lane * LANE
    style = ' stroke-dasharray="4 3"' if dashed else ""
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5" fill="{colour}"'
        f' stroke="#555"{style}/><text x="{x + WIDTH // 2}" y="{y + 17}"'
        f' text-anchor="middle">{escape(word)}</text>'
    )


def edge(depth: int, above: int, lane: int) -> str:
    """From a token to the one that follows it."""
    if depth == 0:
        return ""
    x, start, end = (
        LEFT + depth * (WIDTH + GAP),
        TOP + above * LANE + HEIGHT // 2,
        TOP + lane * LANE + HEIGHT // 2,
    )
    middle = x - GAP // 2
    return f'<path d="M{x - GAP} {start} H{middle} V{end} H{x}" fill="none" stroke="#555"/>'


def legend(lanes: int, sentence: str) -> str:
    """What the colours mean, and the count."""
    y = TOP + lanes * LANE + 6
    parts = [swatch(x, y, COLOURS[kind], words, dashed=kind == "last") for kind, words, x in NOTES]
    parts.append(f'<text x="{LEFT}" y="{y + 31}" font-weight="bold">{sentence}</text>')
    return "\n".join(parts)


def swatch(x: int, y: int, colour: str, words: str, dashed: bool) -> str:
    """One line of the legend."""
    style = ' stroke-dasharray="4 3"' if dashed else ""
    square = f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}" stroke="#555"{style}/>'
    return f'{square}<text x="{x + 18}" y="{y + 11}">{words}</text>'


if __name__ == "__main__":
    main()
