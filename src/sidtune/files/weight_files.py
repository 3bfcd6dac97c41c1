"""Weights in files: safetensors, sharded or not, and `pytorch_model.bin`."""

from __future__ import annotations

import contextlib
import json
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sidtune.base.errors import UserError

WEIGHTS, INDEX, OLD_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
)
OLD_INDEX = "pytorch_model.bin.index.json"
# Exceptions of weight readers for damaged or missing files, found by flipping and cutting bytes.
UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    AssertionError,
    RuntimeError,
    EOFError,
    RecursionError,
    TypeError,
    AttributeError,
    struct.error,
    safetensors.SafetensorError,
    pickle.UnpicklingError,
)


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a folder: safetensors, sharded or not, or `pytorch_model.bin` without
    executing code in it.

    Raises:
        UserError: where there are none, or they are damaged.
    """
    with refusing_damage(folder):
        if (folder / INDEX).is_file():
            parts = [
                safetensors.torch.load_file(folder / shard) for shard in shard_names(folder / INDEX)
            ]
            return {name: value for part in parts for name, value in part.items()}
        if (folder / WEIGHTS).is_file():
            return safetensors.torch.load_file(folder / WEIGHTS)
        if (folder / OLD_WEIGHTS).is_file():
            return _tensors(torch.load(folder / OLD_WEIGHTS, map_location="cpu", weights_only=True))
    raise UserError(
        f"{folder} contains no weights ({WEIGHTS} or {OLD_WEIGHTS})",
        "Give a model or checkpoint folder.",
    )


def load_file(file: Path) -> dict[str, Tensor]:
    """The weights of one safetensors file.

    Raises:
        UserError: where it is missing or damaged.
    """
    with refusing_damage(file.parent):
        return safetensors.torch.load_file(file)


@contextlib.contextmanager
def refusing_damage(folder: Path) -> Iterator[None]:
    """Turn what readers raise over damaged or missing weights into a `UserError`."""
    try:
        yield
    except UNREADABLE as error:
        raise UserError(
            f"{folder}: damaged weights: {str(error)[:200]}", "Use another checkpoint."
        ) from None


def shard_names(index: Path) -> list[str]:
    """The file names in an index of sharded weights, all of them in its folder; none where there is
    no index.
    """
    if not index.is_file():
        return []
    names = sorted(set(weight_map(index).values()))
    if absent := [name for name in names if not (index.parent / name).is_file()]:
        # Named pipes count as absent too, since opening one may block.
        raise ValueError(f"{index.name} lists {absent[0]!r:.80}, which is missing")
    return names


def weight_map(index: Path) -> dict[str, str]:
    """The weights that an index names and the file that holds each, all of them in its folder.

    Raises:
        ValueError: for an invalid index, or one that names files outside its folder.
    """
    tree = json.loads(index.read_text(encoding="utf-8"))
    files = tree.get("weight_map") if isinstance(tree, dict) else None
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ValueError(f"{index.name} has no valid weight_map")
    names = sorted(set(files.values()))
    if strange := [
        name for name in names if name in ("", "..") or Path(name).name != name or "\\" in name
    ]:
        raise ValueError(f"{index.name} lists a file outside the folder: {strange[0]!r:.80}")
    return files


def _tensors(loaded: Any) -> dict[str, Tensor]:
    if not isinstance(loaded, dict) or not all(
        isinstance(value, Tensor) for value in loaded.values()
    ):
        raise ValueError(f"{OLD_WEIGHTS} does not contain a dictionary of weights")
    return loaded


def weights_in(file: Path) -> frozenset[str]:
    """The names of the weights in a safetensors file."""
    with safetensors.safe_open(file, "pt") as opened:
        return frozenset(opened.keys())
