"""Reads YAML as plain values in bounded time and memory; errors name line and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sidtune.base.errors import UserError
from sidtune.files.text import read_text

# PyYAML reads about fifty thousand characters per second; no configuration or template file is this
# long.
MOST_CHARACTERS = 200_000
# Limits the number of values after expanding aliases.
MOST_VALUES = 100_000
# PyYAML's time grows with the square of the nesting depth, and its stack with the depth.
DEEPEST = 100
MERGE = "tag:yaml.org,2002:merge"
# Raised by PyYAML, besides its own errors, for a value that does not fit its type, such as
# 2001-99-99.
MISFIT = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        UserError: as `read_text` and `parse_yaml`, and for anything but a mapping.
    """
    tree = parse_yaml(read_text(path), str(path))
    if not isinstance(tree, dict):
        raise UserError(
            f"{path}: expected a mapping of keys to values, found {type(tree).__name__}",
            "A file begins with a key, such as output_dir: runs/shop.",
        )
    return tree


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML; tags create only plain values.

    Raises:
        UserError: for invalid YAML (with line and column), duplicate keys, and texts that are or
            expand to be too long.
    """
    if len(text) > MOST_CHARACTERS:
        raise UserError(
            f"{where}: {len(text):,} characters, more than the maximum of {MOST_CHARACTERS:,} for"
            " YAML",
            "Leave out what no key needs.",
        )
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _refuse(root, loader, where)
        return loader.construct_document(root)
    except yaml.YAMLError as error:
        raise UserError(
            f"{where}: not valid YAML: {' '.join(str(error).split())}",
            "Correct it there: keys are indented by blanks, and a colon is followed by one.",
        ) from None
    except MISFIT as error:
        message = f"{where}: not valid YAML: a value does not fit its type: {error}"
        raise UserError(message, "Put text in quotes.") from None


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.depth == DEEPEST:
            raise yaml.YAMLError(f"values are nested more than {DEEPEST} levels deep")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _refuse(root: yaml.Node, loader: _Loader, where: str) -> None:
    """Check all nodes, counting aliases each time, before values are constructed."""
    waiting, seen = [root], 1
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.MappingNode):
            _refuse_twice(node, loader, where)
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        else:
            continue
        seen += len(parts)
        if seen > MOST_VALUES:
            raise UserError(
                f"{where}: aliases expand to more than {MOST_VALUES:,} values", "Use fewer aliases."
            )
        waiting += parts


def _refuse_twice(node: yaml.MappingNode, loader: _Loader, where: str) -> None:
    known: set[Any] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            # Compare constructed keys: `yes` equals `true`, and 0x1 equals 1.
            name = MERGE if key.tag == MERGE else loader.construct_object(key)
            if name in known:
                line = key.start_mark.line + 1
                message = (
                    f"{where}: the key {key.value!r:.80} occurs twice in one mapping, again in line"
                    f" {line}"
                )
                raise UserError(message, "Remove one of them.")
            known.add(name)
