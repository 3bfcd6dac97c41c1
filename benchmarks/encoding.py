"""Compare the speed of encoding with a row-by-row loop: rows in memory to an Arrow file of token
ids, one process.

The loop goes over a pandas frame, evaluates the list literals of each row, and calls the tokenizer
separately for the instruction, the prompt and the response of every example. sidtune's side is
`Mixture.train` with an empty cache. Both write the same tasks of the same rows with the same
tokenizer. They take turns, and the reported ratio is the median over rounds. The last two lines of
the table also include reading the CSV file.

    SIDTUNE_DATA=folder python benchmarks/encoding.py
"""

from __future__ import annotations

import ast
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from sidtune.base.terminal import quiet_libraries
from sidtune.data.catalogue import Catalogue, read_texts
from sidtune.inputs import Inputs
from sidtune.model.new_base import create_base
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config

ROUNDS = 3
# The loop is timed on every n-th row: its rate does not depend on how many it has done.
LOOP_STRIDE = 4
DEFAULT = ("sid_next", "item_feature", "fusion", "title_next", "title_to_sid")
PREDICTION = (
    "Written down before the first run: segments make an item's text cost one look-up instead of"
    " one tokenisation for every row that mentions it; with 3.1 items a history and 25 tokens a"
    " title that is about 30 times on the default mixture, and over 50 times on sid_next, where a"
    " row costs a few array operations."
)
OUTCOME = Path(__file__).with_suffix(".json")


def main() -> None:
    """Time both, print the table and leave the JSON."""
    quiet_libraries()
    data = Path(os.environ.get("SIDTUNE_DATA", "../shared/data")) / "amazon-industrial"
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        create_base(base, read_texts(data / "Industrial_and_Scientific.item.json"))
        for start in ("rows", "file"):
            for name, tasks in {"default mixture": DEFAULT, "sid_next": ("sid_next",)}.items():
                work = Path(tempfile.mkdtemp(dir=folder))
                results[f"{name}, from {start}"] = compare(
                    config_of(data, base, tasks), work, start
                )
    print(f"{'tasks':<28}{'loop, examples/s':>20}{'sidtune, examples/s':>20}{'ratio':>8}")
    for name, row in results.items():
        print(f"{name:<28}{row['loop']:>20,.0f}{row['ours']:>20,.0f}{row['ratio']:>7.1f}x")
    OUTCOME.write_text(
        json.dumps({"prediction": PREDICTION, "rounds": ROUNDS, "results": results}, indent=1)
        + "\n",
        encoding="utf-8",
    )


def config_of(data: Path, base: Path, tasks: tuple[str, ...]) -> Config:
    """A configuration of the given tasks."""
    files = {
        "items": "Industrial_and_Scientific.item.json",
        "index": "Industrial_and_Scientific.index.json",
    }
    named = {
        name: str(data / file)
        for name, file in (files | {"train": "train.csv", "valid": "valid.csv"}).items()
    }
    tree = {
        "output_dir": "unused",
        "model": {"base": str(base)},
        "data": named,
        "tasks": dict.fromkeys(tasks),
    }
    return parse_config(tree, "benchmark")


def compare(config: Config, folder: Path, start: str) -> dict[str, float]:
    """Examples per second of both, medians over alternating rounds; `start` is `rows` or `file`."""
    rates: dict[str, list[float]] = {"loop": [], "ours": []}
    for number in range(ROUNDS):
        cache = config.encoding.model_copy(update={"cache_dir": folder / f"cache-{number}"})
        inputs = Inputs(config.model_copy(update={"encoding": cache}))
        frame = pd.read_csv(config.data.train).iloc[::LOOP_STRIDE]
        if start == "rows":
            inputs.mixture.source("train")
        # Tokenizer and catalogue are loaded before the clock starts, for both.
        assert inputs.mixture.vocabulary.known
        rates["ours"].append(rate(lambda inputs=inputs: sum(map(len, inputs.mixture.train()))))  # type: ignore[misc]
        given = frame if start == "rows" else None
        rates["loop"].append(rate(partial(usual_loop, inputs, given, folder)))
    ratios = [ours / loop for ours, loop in zip(rates["ours"], rates["loop"], strict=True)]
    return {name: statistics.median(values) for name, values in rates.items()} | {
        "ratio": statistics.median(ratios)
    }


def rate(work: Callable[[], int]) -> float:
    """Examples per second of a piece of work that returns how many it made."""
    start = time.perf_counter()
    return work() / (time.perf_counter() - start)


def usual_loop(inputs: Inputs, frame: pd.DataFrame | None, folder: Path) -> int:
    """Row by row, one call of the tokenizer each for instruction, prompt and response."""
    tokenizer = inputs.vocabulary.tokenizer
    if frame is None:
        frame = pd.read_csv(inputs.config.data.train).iloc[::LOOP_STRIDE]
    ids, labels = [], []
    for instruction, prompt, response in texts(inputs.config, inputs.catalogue, frame):
        head = tokenizer.encode(instruction, add_special_tokens=False)
        body = tokenizer.encode(prompt, add_special_tokens=False)
        answer = [*tokenizer.encode(response, add_special_tokens=False), tokenizer.eos_token_id]
        ids.append([*head, *body, *answer])
        labels.append([-100] * (len(head) + len(body)) + answer)
    table = pa.table({"input_ids": ids, "labels": labels})
    with (
        pa.OSFile(str(folder / "loop.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    return len(ids)


def texts(
    config: Config, catalogue: Catalogue, frame: pd.DataFrame
) -> Iterator[tuple[str, str, str]]:
    """Instruction, prompt and response of every example of the configured tasks."""
    for task in config.tasks:
        if task == "item_feature":
            for sid, title in list(zip(catalogue.sids, catalogue.titles, strict=True))[
                ::LOOP_STRIDE
            ]:
                yield "Item ", f"{''.join(sid)} has the title:\n", title
                yield "The item with the title\n", f"{title}\nis:\n", "".join(sid)
        else:
            for index in range(len(frame)):
                yield row_texts(task, frame.iloc[index])


def row_texts(task: str, row: Any) -> tuple[str, str, str]:
    """Instruction, prompt and response of one interaction row."""
    response = row["item_title"] if task in ("fusion", "title_next") else row["item_sid"]
    question = (
        "\nThe title of the next item is:\n"
        if task in ("fusion", "title_next")
        else "\nThe next item is:\n"
    )
    if task in ("title_next", "title_to_sid"):
        titles = "\n".join(ast.literal_eval(row["history_item_title"]))
        return "A user's items by title, oldest first:\n", titles + question, response
    sids = "".join(ast.literal_eval(row["history_item_sid"]))
    return "A user's interactions, oldest first:\n", sids + question, response


if __name__ == "__main__":
    main()
