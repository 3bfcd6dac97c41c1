"""Asking a trained run through the command line, and what the answers must be by plain
Transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from sidtune.base.errors import UserError
from sidtune.commands.main import app
from sidtune.encoding.build import load_catalogue
from sidtune.tasks.config import Config
from tests.slow_search import Reference
from tests.tiny_data import read_rows


def call(*arguments: object, stdin: str = "") -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def results(folder: Path, split: str = "test") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The report and the predictions that were written."""
    report = json.loads((folder / f"{split}.json").read_text())
    return report, pyarrow.parquet.read_table(folder / f"{split}.predictions.parquet").to_pylist()


def plain_reference(
    config: Config, history: list[str]
) -> tuple[Reference, list[tuple[int, ...]], Any]:
    """A run's model in plain Transformers behind the prompt of a history, the paths of all SIDs,
    and its tokenizer.
    """
    catalogue = load_catalogue(config)
    sid = dict(zip(catalogue.ids, catalogue.sids, strict=True))
    tokenizer: Any = AutoTokenizer.from_pretrained(config.output_dir)
    model = AutoModelForCausalLM.from_pretrained(config.output_dir).eval()
    written = "".join("".join(sid[item]) for item in history)
    asked = "\nThe next item is:\n" if config.evaluation_task == "sid_next" else ""
    prompt = tokenizer(f"A user's interactions, oldest first:\n{written}{asked}").input_ids
    paths = sorted(
        {tuple(tokenizer.convert_tokens_to_ids(list(tokens))) for tokens in catalogue.sids}
    )
    return Reference(model, prompt, paths, "full"), paths, tokenizer


def plainly_ranked(
    config: Config, history: list[str], among: set[str] | None = None
) -> list[tuple[str, float]]:
    """Items and scores, best first, with plain Transformers and the prompt as a string."""
    catalogue = load_catalogue(config)
    reference, every_path, tokenizer = plain_reference(config, history)
    users: dict[str, set[str]] = {item: set() for item in catalogue.ids}
    for row in read_rows(config.data.train).to_pylist():
        for item in [*row["history"], row["target"]]:
            users[item].add(row["user_id"])
    items = [item for item in catalogue.ids if among is None or item in among]
    sid = dict(zip(catalogue.ids, catalogue.sids, strict=True))
    paths = {item: tuple(tokenizer.convert_tokens_to_ids(list(sid[item]))) for item in items}
    score = {path: reference.score(path) for path in every_path}
    order = sorted(
        items, key=lambda item: (-score[paths[item]], -len(users[item]), catalogue.ids.index(item))
    )
    return [(item, score[paths[item]]) for item in order]


def message(*arguments: object, stdin: str = "") -> str:
    """The one message of a mistake."""
    error = call(*arguments, stdin=stdin).exception
    assert isinstance(error, UserError), error
    return str(error)
