"""Measure how encoding scales to millions of rows: seconds and memory to encode, check, and start
training.

The data is a made-up shop of 100,000 items with SIDs of three levels. Users have histories that
grow from 1 to 10 items. One process writes the rows. Three others encode them, check them, and
start training on them, so that each peak of memory belongs to one stage. Only `sid_next` is
encoded, and seconds do not include imports. The start is measured up to the first step's batch; a
step is 128 examples in layout `bucketed`. Each MB column is the peak memory up to that point. The
last one also counts the pages of the memory-mapped file that 200 steps at random places of the
epoch touched; the operating system reclaims them when it needs memory.

    python benchmarks/scale.py [--rows 10000,100000]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

# A process counts the memory of the one that started it as its own until it has more: this one
# stays small, and what is large is imported where it is needed.
if TYPE_CHECKING:
    from sidtune.inputs import Inputs

SIZES = (10_000, 100_000, 1_000_000, 5_000_000)
ITEMS, LEVELS, CODES, LONGEST = 100_000, 3, 256, 10
VALID_ROWS = 10_000
USERS_AT_ONCE = 20_000
BATCH_SIZE, STEPS = 128, 200
LIMIT_MB = 1_500
PREDICTION = (
    "Written down before the first run: 5 million rows are 4 history items each, so 20 million"
    " positions of 4 bytes, offsets of 8 and users of 8, or 200 MB, and twice that while they are"
    " joined; with 300 MB of imports and 100 MB of catalogue that is about 1.0 GB at the peak of"
    " encoding, in about 25 seconds. A second start holds lengths and orders of examples only, 0.7"
    " GB, and is done in 6 seconds, most of them spent on checksums. Loading an example takes about"
    " 10 microseconds at every size."
)
OUTCOME = Path(__file__).with_suffix(".json")


def main() -> None:
    """Measure every size, print the table, leave the JSON, and fail where the largest needs too
    much.
    """
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--rows", default=",".join(map(str, SIZES)), help="training rows, separated by commas"
    )
    sizes = [int(size) for size in parser.parse_args().rows.split(",")]
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        in_process("shop", Path(folder))
        heading("rows", "check, s", "MB", "encode, s", "MB", "start, s", "MB", "µs/example", "MB")
        for size in sizes:
            in_process("rows", Path(folder), size)
            results[size] = {
                step: in_process(step, Path(folder), size) for step in ("encode", "check", "start")
            }
            print_row(size, results[size])
    if tuple(sizes) == SIZES:
        OUTCOME.write_text(
            json.dumps({"prediction": PREDICTION, "results": results}, indent=1) + "\n",
            encoding="utf-8",
        )
    peak = max(results[max(sizes)][step]["megabytes"] for step in ("check", "encode", "start"))
    if peak > LIMIT_MB:
        sys.exit(f"{max(sizes):,} rows need {peak:,.0f} MB, more than the limit of {LIMIT_MB:,} MB")


def heading(*names: str) -> None:
    """The first line of the table."""
    print("".join(f"{name:>11}" for name in names), flush=True)


def print_row(size: int, row: dict[str, Any]) -> None:
    """A line of the table."""
    timed = "".join(
        f"{row[step]['seconds']:>11.1f}{row[step]['megabytes']:>11,.0f}"
        for step in ("check", "encode")
    )
    start = row["start"]
    started = f"{start['seconds']:>11.1f}{start['megabytes']:>11,.0f}"
    print(
        f"{size:>11,}{timed}{started}{start['microseconds']:>11.1f}{start['loaded_megabytes']:>11,.0f}",
        flush=True,
    )


def in_process(step: str, folder: Path, size: int = 0) -> dict[str, float]:
    """What a step reports that has a process to itself."""
    command = [sys.executable, __file__, "--step", step, str(folder), str(size)]
    said = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, text=True, encoding="utf-8"
    ).stdout
    report: dict[str, float] = json.loads(said.splitlines()[-1])
    return report


def megabytes() -> float:
    """The most memory that this process has had, pages of mapped files included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def write_shop(folder: Path, _: int) -> dict[str, float]:
    """Items, index and a base of random weights."""
    import numpy as np

    from sidtune.base.terminal import quiet_libraries
    from sidtune.model.new_base import create_base

    quiet_libraries()
    codes = np.random.default_rng(0).integers(0, CODES, (ITEMS, LEVELS)).tolist()
    titles = {item_id(item): {"title": f"Item {item} of the shop"} for item in range(ITEMS)}
    sids = {
        item_id(item): [f"<{'abc'[level]}_{c}>" for level, c in enumerate(codes[item])]
        for item in range(ITEMS)
    }
    (folder / "shop.item.json").write_text(json.dumps(titles), encoding="utf-8")
    (folder / "shop.index.json").write_text(json.dumps(sids), encoding="utf-8")
    texts = [
        "A user's interactions, oldest first:\n",
        "\nThe next item is:\n",
        "Item 0123456789 of the shop",
    ]
    create_base(folder / "base", texts * 100, hidden=32, layers=1, vocab=400)
    return {}


def item_id(item: int) -> str:
    """Ids of ten characters, as shops have them."""
    return f"B{item:09d}"


def write_rows(folder: Path, size: int) -> dict[str, float]:
    """Training rows, and validation rows of other users."""
    write_parquet(folder / f"train-{size}.parquet", size, "u")
    write_parquet(folder / "valid.parquet", VALID_ROWS, "v")
    return {}


def write_parquet(path: Path, size: int, prefix: str) -> None:
    """Some users at a time: one of n + 1 items has n rows, and each has one more item in its
    history.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet

    random = np.random.default_rng([size, len(path.name)])
    ids = pa.array(map(item_id, range(ITEMS)))
    schema = pa.schema(
        [("user_id", pa.string()), ("history", pa.list_(pa.string())), ("item_id", pa.string())]
    )
    written, users = 0, 0
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while written < size:
            rows = random.integers(1, LONGEST + 1, USERS_AT_ONCE)
            items = random.integers(0, ITEMS, (USERS_AT_ONCE, LONGEST + 1))
            user = np.repeat(np.arange(USERS_AT_ONCE), rows)[: size - written]
            cut = np.concatenate([np.arange(1, n + 1) for n in rows])[: size - written]
            history = items[user][np.arange(LONGEST + 1) < cut[:, None]]
            offsets = pa.array(np.concatenate([[0], np.cumsum(cut)]), pa.int32())
            columns = [
                pa.array(user + users).cast(pa.string()),
                pa.ListArray.from_arrays(offsets, ids.take(pa.array(history))),
                ids.take(pa.array(items[user, cut])),
            ]
            columns[0] = pa.compute.binary_join_element_wise(prefix, columns[0], "")
            writer.write_table(pa.table(columns, schema=schema))
            written, users = written + len(user), users + USERS_AT_ONCE


def inputs_of(folder: Path, size: int) -> Inputs:
    """The configuration of one size."""
    from sidtune.base.terminal import quiet_libraries
    from sidtune.inputs import Inputs
    from sidtune.tasks.config_file import parse_config

    quiet_libraries()
    files = {"items": "shop.item.json", "index": "shop.index.json", "valid": "valid.parquet"}
    tree = {
        "output_dir": str(folder / "run"),
        "model": {"base": str(folder / "base")},
        "data": {
            name: str(folder / file)
            for name, file in {**files, "train": f"train-{size}.parquet"}.items()
        },
        "tasks": {"sid_next": None},
        "encoding": {"cache_dir": str(folder / "cache")},
    }
    return Inputs(parse_config(tree, "benchmark"))


def encode(folder: Path, size: int) -> dict[str, float]:
    """The training examples, from files to the cache."""
    inputs = inputs_of(folder, size)
    began = time.perf_counter()
    (task,) = inputs.mixture.train()
    assert len(task) == size
    return {"seconds": time.perf_counter() - began, "megabytes": megabytes()}


def check(folder: Path, size: int) -> dict[str, float]:
    """What the first start does besides: the checks, and what the first checkpoint says
    of items.
    """
    from sidtune.checks.run import refuse_errors

    inputs = inputs_of(folder, size)
    began = time.perf_counter()
    refuse_errors(inputs)
    assert inputs.bundle.users.any()
    return {"seconds": time.perf_counter() - began, "megabytes": megabytes()}


def start(folder: Path, size: int) -> dict[str, float]:
    """A later start up to the first step's batch, then steps from anywhere in the epoch."""
    import numpy as np

    from sidtune.batching.layouts import Layout
    from sidtune.batching.plan import Plan
    from sidtune.batching.steps import Steps
    from sidtune.checks.run import refuse_errors
    from sidtune.encoding.corpus import Corpus
    from sidtune.training.make_steps import DEFAULT_MAX_TOKENS

    inputs = inputs_of(folder, size)
    began = time.perf_counter()
    refuse_errors(inputs)
    assert inputs.bundle.users.any()
    corpus = Corpus(inputs.mixture.train())
    plan = Plan(corpus.histories, [size], [1.0], BATCH_SIZE, "example", inputs.config.seed)
    layout = Layout("bucketed", DEFAULT_MAX_TOKENS, int(inputs.vocabulary.tokenizer.pad_token_id))
    steps = Steps(corpus, plan, layout, rank=0, world_size=1)
    assert steps[0]["examples"] == BATCH_SIZE
    report = {"seconds": time.perf_counter() - began, "megabytes": megabytes()}
    chosen = np.random.default_rng(0).integers(0, size // BATCH_SIZE, STEPS).tolist()
    began = time.perf_counter()
    examples = sum(steps[number]["examples"] for number in chosen)
    microseconds = (time.perf_counter() - began) / examples * 1e6
    return report | {"microseconds": microseconds, "loaded_megabytes": megabytes()}


PARTS = {"shop": write_shop, "rows": write_rows, "encode": encode, "check": check, "start": start}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        print(json.dumps(PARTS[sys.argv[2]](Path(sys.argv[3]), int(sys.argv[4]))))
    else:
        main()
