"""Compare training speed: Transformers' Trainer, TRL's SFTTrainer and sidtune's layouts, in
examples per second.

All contestants train the default mixture of amazon-industrial from the same weights, in float32 on
a CPU. Each runs in its own process and makes a step when told to. The contestants take turns, so
that other load on the machine affects all of them alike; the reported ratio is the median over
rounds. The measured time includes data loading, forward, backward, clipping and optimizer.
Contestants that train on the same plan of steps must show the same loss at every step, or the
script fails. A second table shows the cost per example as histories grow.

    export SIDTUNE_DATA=folder
    python benchmarks/training.py [--quick] [--rounds N] [--only 8.5k/128/64/full]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from contestants import CONTESTANTS, OURS, Report, Tuning
from side_by_side import VOCABULARIES, Place, Work, alternate
from sidtune.base.terminal import quiet_libraries
from sidtune.data.catalogue import Catalogue

HIDDEN, BATCHES = (128, 512), (64, 256)
# Where the usual loop takes half a minute per step or more: the most rounds to measure, without a
# warm-up step.
LONG = {
    ("8.5k", 512, 256): 1,
    ("152k", 128, 64): 2,
    ("152k", 512, 64): 1,
    ("152k", 128, 256): 1,
    ("152k", 512, 256): 1,
}
# A minute per step or more: measured only when named by --only.
BY_NAME = {"152k/128/256/full", "152k/128/256/frozen", "152k/512/256/full", "152k/512/256/frozen"}
# Prompts as long as usual instruction data: 150 tokens per example, response included.
LONG_PROMPTS = "long"
QUICK = "8.5k/128/64/full"
# The losses of one plan may differ by this share of the usual loop's.
TOLERANCE = 1e-3
# The longest history of the second table's users, who have one row for every item after their
# first. A step of 200 rows holds whole users at every length.
GROWTH, GROWTH_BATCH = (5, 10, 20, 50), 200
# Those that the second table is about.
GROWING = [name for name in OURS if name != "padded"]
PREDICTION = (
    "Written down before the first run of the table, when trials of 8 examples a step had shown"
    " that losses agree, from the mixture's lengths: an example is 72 tokens on average, 14 of them"
    " labels; of 16 drawn at random and padded to the longest 64% is padding. The usual loop runs"
    " all of it through trunk and head, bucketed the tokens through the trunk, with a tenth of"
    " padding, and the labels through the head. In multiplications that is 4.8 times at 8.5k rows"
    " and hidden size 128, 3.2 at 512; 12 and 8.5 at 152k. Logits must be written and read besides:"
    " 6, 3.5, 14 and 10. Packing saves TRL all padding, but on a CPU it scores every position, and"
    " computes the logits again on the way back: between 1.5 and 2.5. Frozen, ours skips the"
    " gradients of all other weights, and the usual loop only those of the trunk: our ratio grows"
    " by a tenth to a third. What an example costs in bucketed grows as its tokens do, 25 and 3 for"
    " every item of its history. Added for trees, after one trial of 8.5k/128/64/full (7.3"
    " bucketed, 6.7 tree, 9.0 by user): by example a tree saves a seventh of the tokens and spends"
    " it on its mask; by user half of the tokens stay, so 10 to 11 with 256 examples a step, where"
    " passes are fuller, and 5 to 6 at hidden size 512; at 152k the head outweighs the trunk in"
    " both plans: 20 and 12. Frozen by user: 12 and 7, 25 and 15."
)
OUTCOME = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class Row:
    """What a contestant came to; `reports` are those of the timed rounds, and `losses` those of all
    steps.
    """

    reports: list[Report]
    losses: list[float]
    ratio: float
    valid: bool

    def table(self) -> dict[str, float]:
        """Its figures, over the timed rounds."""
        tokens, seconds = self.total("tokens"), self.total("seconds")
        return {
            "seconds per step": seconds / len(self.reports),
            "examples per second": self.total("examples") / seconds,
            "ratio": self.ratio,
            "tokens computed": tokens / len(self.reports),
            "padding": self.total("padding") / tokens,
            "peak GiB": max(report.peak_gib for report in self.reports),
            "last loss": self.losses[-1],
        }

    def total(self, name: str) -> float:
        """Sum of a figure over the timed rounds."""
        return sum(float(getattr(report, name)) for report in self.reports)


def main() -> int:
    """Measure what was asked for; 1 where losses disagree."""
    options = parse_arguments()
    quiet_libraries()
    contestants = present_contestants()
    outcome: dict[str, Any] = {
        "machine": machine(),
        "prediction": PREDICTION,
        "results": {},
        "growth": {},
    }
    valid = True
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        for work in chosen_works(options):
            rows = compare(place, work, contestants, rounds_of(work, options.rounds))
            print_rows(work, rows)
            valid &= all(row.valid for row in rows.values())
            outcome["results"][work.name] = {name: described(row) for name, row in rows.items()}
            options.out.write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
        for longest in () if options.only or options.quick else GROWTH:
            outcome["growth"][str(longest)] = grow(place, longest, options.rounds)
            options.out.write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
        print_growth(outcome["growth"])
    return 0 if valid else 1


def parse_arguments() -> argparse.Namespace:
    """The options; figures that are not of a whole run go beside the JSON that is kept."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--rounds", type=int, default=3, help="number of timed steps per contestant"
    )
    parser.add_argument("--quick", action="store_true", help=f"measure only {QUICK}, for one round")
    parser.add_argument(
        "--only",
        help=(
            "measure one configuration: vocabulary/hidden/batch/tuning, plus /long for long prompts"
        ),
    )
    parser.add_argument("--out", type=Path, help="output JSON file")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.only = 1, options.only or QUICK
    if options.out is None:
        options.out = OUTCOME.with_suffix(".part.json") if options.only else OUTCOME
    return options


def chosen_works(options: argparse.Namespace) -> list[Work]:
    """Small ones first; the longest, and sizes that are not in the table, only by name."""
    if options.only:
        vocabulary, hidden, batch, tuning, *prompts = options.only.split("/")
        return [Work(vocabulary, int(hidden), int(batch), tuning, *prompts)]
    sizes = product(VOCABULARIES, BATCHES, HIDDEN, get_args(Tuning))
    works = [Work(vocabulary, hidden, batch, tuning) for vocabulary, batch, hidden, tuning in sizes]
    works += [
        Work("8.5k", HIDDEN[0], BATCHES[0], tuning, LONG_PROMPTS) for tuning in get_args(Tuning)
    ]
    return [work for work in works if work.name not in BY_NAME]


def rounds_of(work: Work, rounds: int) -> int:
    """Number of timed steps: fewer where a step takes long."""
    return min(rounds, LONG.get(work.size, rounds))


def present_contestants() -> list[str]:
    """All of them, less TRL where it is not installed."""
    missing = [name for name in ("trl", "datasets") if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"trl is left out: cannot import {' and '.join(missing)} (pip install"
            " 'sidtune[bench]')."
        )
    return [name for name in CONTESTANTS if name != "trl" or not missing]


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
    }


# --- measuring ---


def compare(place: Place, work: Work, contestants: Sequence[str], rounds: int) -> dict[str, Row]:
    """Rows by contestant."""
    warm_up = 0 if work.size in LONG else 1
    jobs = [place.job(work, name, rounds + warm_up) for name in contestants]
    reports = alternate(place, jobs)
    expected = [report.loss for report in reports["stock"]]
    rows = {}
    for name, made in reports.items():
        timed, losses = made[warm_up:], [report.loss for report in made]
        ratios = [
            rate(mine) / rate(usual)
            for mine, usual in zip(timed, reports["stock"][warm_up:], strict=True)
        ]
        rows[name] = Row(
            timed,
            losses,
            statistics.median(ratios),
            not of_our_plan(name) or agree(losses, expected),
        )
    return rows


def rate(report: Report) -> float:
    """Examples per second."""
    return report.examples / report.seconds


def of_our_plan(contestant: str) -> bool:
    """Whether it trains on the same examples at every step as the usual loop does here."""
    return contestant == "stock" or OURS.get(contestant, {}).get("group_by") == "example"


def agree(losses: Sequence[float], expected: Sequence[float]) -> bool:
    """The same at every step, relative to what is expected."""
    return all(abs(a - b) <= TOLERANCE * abs(b) for a, b in zip(losses, expected, strict=True))


def grow(place: Place, longest: int, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds and computed tokens per example, by contestant, where histories grow up
    to a length.
    """
    work, steps = Work("8.5k", HIDDEN[0], GROWTH_BATCH, "full"), rounds + 1
    train = place.folder / f"history-{longest}.jsonl"
    write_users(train, place.catalogue(work), longest, steps * GROWTH_BATCH // longest)
    jobs = [place.job(work, name, steps, train, "sid_next") for name in GROWING]
    return {
        name: {
            "seconds": statistics.median(report.seconds / report.examples for report in made[1:]),
            "tokens": (
                sum(report.tokens for report in made[1:])
                / sum(report.examples for report in made[1:])
            ),
        }
        for name, made in alternate(place, jobs).items()
    }


def write_users(path: Path, catalogue: Catalogue, longest: int, users: int) -> None:
    """Users of random items: a row for every item after the first, its history all
    items before it.
    """
    random = np.random.default_rng(longest)
    with path.open("w", encoding="utf-8") as file:
        for user in range(users):
            items = [
                catalogue.ids[item]
                for item in random.choice(len(catalogue.ids), longest + 1, replace=False)
            ]
            for at in range(1, longest + 1):
                row = {"user_id": str(user), "history": items[:at], "item_id": items[at]}
                file.write(json.dumps(row) + "\n")


# --- what is shown ---


def described(row: Row) -> dict[str, Any]:
    """A row for the JSON: the table's figures, and what they were made from."""
    seconds = [report.seconds for report in row.reports]
    return row.table() | {"valid": row.valid, "seconds by round": seconds, "losses": row.losses}


def print_rows(work: Work, rows: dict[str, Row]) -> None:
    """The table of one configuration."""
    print(
        f"\n{work.name} (vocabulary/hidden size/examples per step/tuning),"
        f" {len(rows['stock'].reports)} rounds"
    )
    heads = ("s/step", "examples/s", "x stock", "tokens", "padding", "peak GiB", "loss")
    print(f"{'':<14}" + "".join(f"{head:>11}" for head in heads))
    for name, row in rows.items():
        formats = ("11.2f", "11.1f", "10.2f", "11,.0f", "11.0%", "11.2f", "11.4f")
        cells = [
            format(value, form) for value, form in zip(row.table().values(), formats, strict=True)
        ]
        cells[2] += "x"
        print(
            f"{name:<14}"
            + "".join(cells)
            + ("" if row.valid else f"  INVALID: losses {row.losses}"),
            flush=True,
        )


def print_growth(growth: dict[str, dict[str, dict[str, float]]]) -> None:
    """The second table."""
    if growth:
        print(
            f"\n{'histories up to':<16}"
            + "".join(f"{name + ', ms and tokens per example':>46}" for name in GROWING)
        )
    for longest, by_name in growth.items():
        cells = (
            f"{1000 * row['seconds']:>34.1f}{row['tokens']:>12.0f}" for row in by_name.values()
        )
        print(f"{longest:<16}" + "".join(cells))


if __name__ == "__main__":
    sys.exit(main())
