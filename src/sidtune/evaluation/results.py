"""The files of an evaluation: where they go, when they are kept, and how they are written."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from pydantic import TypeAdapter, ValidationError

from sidtune.base.errors import UserError
from sidtune.base.storage import replacing, write_text
from sidtune.evaluation.compare import read_settings
from sidtune.evaluation.report import Report
from sidtune.files.text import read_json_object
from sidtune.runs.checkpoints import MANIFEST
from sidtune.runs.model_card import CARD, with_results


def make_folder(folder: Path, refuse_link: bool = False) -> Path:
    """Made before anything is computed, so that nothing is computed in vain.

    Args:
        refuse_link: whether it may not be a link to somewhere else, because nobody named it.

    Raises:
        UserError: for a folder that cannot be written to.
    """
    if refuse_link and folder.is_symlink():
        raise UserError(
            f"{folder} is a link to {folder.readlink()}",
            "Remove it, or choose that folder with --output DIR.",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        message = f"{folder} cannot be written to: {error.strerror}"
        raise UserError(message, "Choose another folder with --output DIR.") from None
    return folder


def refuse_other_settings(summary: Path, settings: dict[str, Any], names: Sequence[str]) -> None:
    """Keep an evaluation that was made otherwise: `compare` would take the new one for it.

    Raises:
        UserError: where a setting of these `names` differs.
    """
    if not summary.is_file():
        return
    refuse_unlike(
        summary,
        unlike(read_settings(summary), settings, names),
        "Use --output DIR to keep both, or delete that file to replace it.",
    )


def refuse_unlike(summary: Path, names: Sequence[str], hint: str) -> None:
    """Raises `UserError` for an evaluation with other settings, by the names of these."""
    if names:
        raise UserError(
            f"{summary} contains an evaluation with different settings ({', '.join(names)})", hint
        )


def unlike(one: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Those of these settings in which two evaluations differ."""
    # An option that is off is as one that there is not.
    return [name for name in names if (one.get(name) or None) != (other.get(name) or None)]


def write_results(folder: Path, split: str, report: Report, predictions: pa.Table) -> None:
    """Leave the lists and, last, the figures."""
    with replacing(folder / f"{split}.predictions.parquet") as aside:
        pyarrow.parquet.write_table(predictions, aside)
    write_report(folder, split, report)


def write_report(folder: Path, split: str, report: Report) -> None:
    """Leave the figures."""
    text = json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n"
    write_text(folder / f"{split}.json", text)


def read_report(file: Path) -> Report | None:
    """Figures that `write_report` left; None for a file that fits no report of this version."""
    try:
        return TypeAdapter(Report).validate_python(read_json_object(file))
    except ValidationError:
        return None


def write_on_card(model: Path, split: str, report: Report) -> None:
    """Put the figures on a model's card, where it has a place for them.

    The files of a checkpoint must keep matching their checksums, so its card stays as it is.
    """
    card = model / CARD
    if (model / MANIFEST).is_file() or not card.is_file():
        return
    renewed = with_results(card.read_text(encoding="utf-8"), split, report.as_json())
    if renewed:
        write_text(card, renewed)
