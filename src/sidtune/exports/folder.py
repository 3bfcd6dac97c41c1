"""A folder for another engine: written aside, and there only when it is complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sidtune.base.errors import UserError
from sidtune.base.storage import new_folder
from sidtune.ranker.file import FILE as RANKER
from sidtune.runs.bundle import CATALOGUE, RECOMMENDER_FILE

# What sidtune itself needs beside weights and tokenizer, and how an engine generates.
COPIED = (CATALOGUE, RECOMMENDER_FILE, RANKER, "generation_config.json")


@contextmanager
def export_folder(model: Path, folder: Path) -> Iterator[Path]:
    """A folder aside that becomes `folder` at the end of the block, with `COPIED` of the model.

    Raises:
        UserError: if `folder` exists.
    """
    if folder.exists():
        raise UserError(f"{folder} exists", "Choose a new folder.")
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    with new_folder(folder, size) as aside:
        for name in COPIED:
            if (model / name).is_file():
                shutil.copyfile(model / name, aside / name)
        yield aside


def write_json(path: Path, tree: Mapping[str, Any], indent: int | None = 1) -> None:
    """Write an object as JSON."""
    path.write_text(json.dumps(tree, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")
