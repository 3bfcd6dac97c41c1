"""How long SIDs of many items take, and how much memory: given vectors, and titles by the default.

Each size runs in a process of its own, so that its peak memory is its own. Vectors lie in clusters
of clusters, as those of real items do. Titles are made of words whose frequencies follow the law of
Zipf. On a machine with other work, seconds of all cores say more than those on the clock.

    python benchmarks/sids_scale.py                   # both sizes; writes sids_scale.json
    python benchmarks/sids_scale.py --items 100000    # writes nothing
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

OUTCOME = Path(__file__).with_suffix(".json")
SIZES, DIMENSIONS, LEVELS = (100_000, 1_000_000), 256, [256, 256, 256]
KINDS = ("vectors", "titles")
WORDS, WORDS_OF_A_TITLE = 50_000, 9
# What is to be kept at a million items on two cores: seconds and GiB.
BOUNDS = {"vectors": (120, 5), "titles": (600, 8)}
ROWS_AT_ONCE = 50_000


def main() -> None:
    """Measure every size and kind, print a line each, and leave the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--items", type=int, nargs="*", help="other numbers of items: the JSON is not written"
    )
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument(
        "--child", nargs=3, metavar=("KIND", "ITEMS", "FOLDER"), help=argparse.SUPPRESS
    )
    asked = parser.parse_args()
    if asked.child:
        kind, items, folder = asked.child
        print(json.dumps(measure(kind, int(items), Path(folder))))
        return
    sizes = asked.items or list(SIZES)
    print(f"{'kind':<10}{'items':>12}{'seconds':>10}{'of cores':>10}{'GiB':>8}{'SIDs':>12}")
    measured = [in_process(kind, items) for kind in asked.kinds for items in sizes]
    if not asked.items and tuple(asked.kinds) == KINDS:
        found = {
            "cores": os.cpu_count(),
            "dimensions": DIMENSIONS,
            "levels": LEVELS,
            "measured": measured,
        }
        OUTCOME.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def in_process(kind: str, items: int) -> dict[str, Any]:
    """The figures of one size, from a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(kind, items, Path(folder))
        command = [sys.executable, __file__, "--child", kind, str(items), folder]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, encoding="utf-8"
        )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    taken = f"{figures['seconds']:>10.1f}{figures['core_seconds']:>10.1f}{figures['gib']:>8.2f}"
    print(f"{kind:<10}{items:>12,}{taken}{figures['sids']:>12,}", flush=True)
    seconds, gib = BOUNDS[kind]
    if items >= max(SIZES) and (figures["seconds"] > seconds or figures["gib"] > gib):
        print(f"over the bound of {seconds} s and {gib} GiB")
    return figures


def measure(kind: str, items: int, folder: Path) -> dict[str, Any]:
    """Seconds from files to files, reading, vectors, codebooks, collisions and report included."""
    from sidtune.config.sids import SidsRun
    from sidtune.sids.fit import make

    sids: dict[str, Any] = {"catalogue": folder / "catalogue.parquet", "levels": LEVELS}
    if kind == "vectors":
        sids |= {"vectors": "file", "file": folder / "vectors.npy"}
    began = time.monotonic()
    made = make(SidsRun.model_validate({"output_dir": folder / "run", "sids": sids}))
    seconds = time.monotonic() - began
    report = json.loads((made.folder / "report.json").read_text(encoding="utf-8"))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    shown = {name: report["fit"][name] for name in ("reassigned", "surplus", "distortion")}
    return {
        "kind": kind,
        "items": items,
        "seconds": seconds,
        "core_seconds": usage.ru_utime + usage.ru_stime,
        "gib": usage.ru_maxrss / 2**20,
        "sids": report["collisions"]["sids"],
        **shown,
    }


def make_inputs(kind: str, items: int, folder: Path) -> None:
    """A catalogue, and vectors where they are given."""
    import pyarrow as pa
    import pyarrow.parquet

    generator = np.random.default_rng(0)
    if kind == "vectors":
        save_vectors(items, folder / "vectors.npy", generator)
    titles = (
        [f"item {item}" for item in range(items)]
        if kind == "vectors"
        else make_titles(items, generator)
    )
    table = pa.table({"item_id": np.arange(items), "title": titles})
    pyarrow.parquet.write_table(
        table, folder / "catalogue.parquet", use_dictionary=False, compression="none"
    )


def save_vectors(items: int, path: Path, generator: np.random.Generator) -> None:
    """Clusters of unequal sizes, in clusters, with noise: `(items, DIMENSIONS)`."""
    coarse = generator.normal(size=(500, DIMENSIONS)).astype(np.float32)
    fine = 0.5 * generator.normal(size=(20_000, DIMENSIONS)).astype(np.float32)
    saved = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(items, DIMENSIONS))
    for start in range(0, items, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, items - start)
        below = (len(fine) * generator.random(count) ** 2).astype(int)
        noise = 0.3 * generator.standard_normal((count, DIMENSIONS), dtype=np.float32)
        saved[start : start + count] = coarse[below % len(coarse)] + fine[below] + noise
    saved.flush()


def make_titles(items: int, generator: np.random.Generator) -> list[str]:
    """Titles of `WORDS_OF_A_TITLE` words; the word of rank r is as frequent as 1/r."""
    shares = 1 / np.arange(1, WORDS + 1)
    drawn = generator.choice(WORDS, (items, WORDS_OF_A_TITLE), p=shares / shares.sum())
    return [" ".join(f"word{word}" for word in row) for row in drawn.tolist()]


if __name__ == "__main__":
    main()
