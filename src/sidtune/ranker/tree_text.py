"""LightGBM's text format, checked before LightGBM reads it, since its reader trusts its input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

FIRST, LAST = "Tree=", "end of trees"
HEADER = "feature_names="
# Arrays with an entry for each split, and for each leaf.
OF_SPLITS = ("split_feature", "threshold", "decision_type", "left_child", "right_child")
OF_LEAVES = ("leaf_value",)


def refuse_broken_trees(text: str, columns: Sequence[str]) -> None:
    """Check that every tree can be walked from its root to a leaf, and reads only these columns.

    Raises:
        ValueError: says what is wrong.
    """
    head, *trees = text.split(f"\n{FIRST}")
    if f"\n{HEADER}{' '.join(columns)}\n" not in head:
        raise ValueError("the trees read other features")
    if f"\nmax_feature_idx={len(columns) - 1}\n" not in head:
        raise ValueError("the trees read another number of features")
    if not trees or f"\n{LAST}" not in trees[-1]:
        raise ValueError("the last tree is cut off")
    trees[-1] = trees[-1].partition(f"\n{LAST}")[0]
    sizes = dict(_entries(head)).get("tree_sizes", "").split()
    if len(sizes) != len(trees):
        raise ValueError(f"there are {len(trees):,} trees, not {len(sizes):,}")
    for number, tree in enumerate(trees):
        try:
            _refuse_broken(dict(_entries(tree)), len(columns))
        except (KeyError, ValueError, OverflowError) as error:
            raise ValueError(f"tree {number}: {error}") from None


def _refuse_broken(tree: dict[str, str], columns: int) -> None:
    if (tree["num_cat"], tree["is_linear"]) != ("0", "0"):
        raise ValueError("it has splits by category, or linear leaves")
    leaves = int(tree["num_leaves"])
    if leaves < 1:
        raise ValueError("it has no leaf")
    if leaves > 1:
        for name in OF_SPLITS:
            _numbers(tree[name], leaves - 1, name)
        features = _numbers(tree["split_feature"], leaves - 1, "split_feature")
        if features.min() < 0 or features.max() >= columns:
            raise ValueError("it reads a feature that there is not")
        for name in ("left_child", "right_child"):
            children = _numbers(tree[name], leaves - 1, name)
            inner, parents = children >= 0, np.arange(leaves - 1)
            # A split is numbered after the one above it, so a walk ends.
            if (children[inner] <= parents[inner]).any() or children.max() >= leaves - 1:
                raise ValueError(f"{name} leads astray")
            if children.min() < -leaves:
                raise ValueError(f"{name} leads to a leaf that there is not")
    for name in OF_LEAVES:
        _numbers(tree[name], leaves, name)


def _numbers(text: str, count: int, name: str) -> NDArray[np.float64]:
    found = np.array([float(word) for word in text.split(" ")])
    # A split of what is there from what is missing has an infinite threshold.
    right = ~np.isnan(found) if name == "threshold" else np.isfinite(found)
    if len(found) != count or not right.all():
        raise ValueError(f"{name} is not {count:,} numbers")
    return found


def _entries(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            yield name, value
