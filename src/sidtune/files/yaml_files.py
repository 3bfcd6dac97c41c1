"""YAML as data: plain values in bounded time and memory, and a place for every fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sidtune.base.errors import UserError
from sidtune.files.text import read_text

# PyYAML reads some fifty thousand characters a second, and no configuration or template is as long as this.
MOST_CHARACTERS = 200_000
# An alias is a reference, but whoever walks the values meets them as often as they are referred to.
MOST_VALUES = 100_000
# PyYAML's time grows with the square of the depth, and its stack with the depth.
DEEPEST = 100
MERGE = "tag:yaml.org,2002:merge"
# What PyYAML raises, besides its own errors, over a value that does not fit its tag, such as 2001-99-99.
MISFIT = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        UserError: as `read_text` and `parse_yaml`, and for anything but a mapping.
    """
    tree = parse_yaml(read_text(path), str(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a mapping of keys to values, found {type(tree).__name__}")
    return tree


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; no tag makes anything but plain values.

    Raises:
        UserError: for broken YAML (line and column), a key that stands twice, and texts that are or become too long.
    """
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"{where}: {len(text):,} characters are more than YAML is read of ({MOST_CHARACTERS:,})")
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _refuse(root, loader, where)
        return loader.construct_document(root)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    except MISFIT as error:
        message = f"{where}: not valid YAML: a value does not fit its type: {error}"
        raise UserError(message, "Put text into quotes.") from None


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.depth == DEEPEST:
            raise yaml.YAMLError(f"values are nested more than {DEEPEST} deep")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _refuse(root: yaml.Node, loader: _Loader, where: str) -> None:
    """Look at every node as often as it is referred to, before any of them but keys becomes a value."""
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
            raise UserError(f"{where}: aliases make more than {MOST_VALUES:,} values of it", "Write fewer of them.")
        waiting += parts


def _refuse_twice(node: yaml.MappingNode, loader: _Loader, where: str) -> None:
    known: set[Any] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            # As the mapping will hold them: `yes` is `true`, and 0x1 is 1.
            name = MERGE if key.tag == MERGE else loader.construct_object(key)
            if name in known:
                line = key.start_mark.line + 1
                message = f"{where}: the key {key.value!r:.80} stands twice in one mapping, again in line {line}"
                raise UserError(message, "Which one counts? Remove the other.")
            known.add(name)
