"""Measure how single settings change recommendation quality, with three seeds for each.

Every run is trained and evaluated on validation rows through the command line. Test rows are not
read. A setting is compared with the reference of its group: the difference is between the means
over seeds, paired by validation row, with a 95% bootstrap interval over the rows. The interval
tells whether other users would show the same difference. The standard deviation over seeds is
printed beside it.

    export SIDTUNE_DATA=folder
    python benchmarks/quality.py   # all settings, hours on two cores
    python benchmarks/quality.py --only "unique SIDs"   # one setting; other figures are kept
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from sidtune.evaluation.compare import interval_of
from sidtune.metrics.metrics import gains, hits

ROOT = Path(__file__).parents[1]
OUTCOME = Path(__file__).with_suffix(".json")
SEEDS = (1, 2, 3)
# Steps between evaluations: the last step is evaluated in any case.
NEVER = 1_000_000
ITEMS = "Industrial_and_Scientific.item.json"
FILES = {
    "index": "Industrial_and_Scientific.index.json",
    "train": "train.csv",
    "valid": "valid.csv",
}


@dataclass(frozen=True)
class Lever:
    """A change of one thing.

    Args:
        group: what the change is compared within; its first lever is what the others are compared
            with.
        name: what is changed.
        settings: overrides, on top of those of the group's first lever.
        evaluate: options of the evaluation.
    """

    group: str
    name: str
    settings: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What its row of the table is called."""
        return f"{self.group} · {self.name}"

    @property
    def changes(self) -> list[str]:
        """All that is not as in the reference."""
        return [*self.settings, *self.evaluate]


SEQUENCE = "sid_sequence"
MIXTURE = "mixture"
NEXT = "sid_next"
# From a base that has learned the shop's language, and nothing of its SIDs.
PRETRAINED = "pretrained"
FROZEN_FIRST = (
    "stages=[{tuning: frozen, epochs: 2, learning_rate: 1e-2}, {tuning: full}]",
    "training.epochs=10",
)


def beside(task: str, options: str, first: str = SEQUENCE) -> str:
    """The override that mixes another task in with the one that is ranked."""
    return f"tasks={{{first}: null, {task}: {{{options}}}}}"


# A sample of the validation rows, ranked at every evaluation.
BY_RANKING = ("eval.metric=ndcg@10", "eval.ranking={every: 1, sample: 2000}")
BOTH_WAYS = beside("sid_sequence_reversed", "")

LEVERS = (
    Lever(SEQUENCE, "reference"),
    Lever(SEQUENCE, "residual dropout: none", ("model.residual_dropout=0",)),
    Lever(SEQUENCE, "residual dropout: 0.1", ("model.residual_dropout=0.1",)),
    Lever(SEQUENCE, "residual dropout: 0.3", ("model.residual_dropout=0.3",)),
    Lever(SEQUENCE, "embedding dropout: none", ("model.embedding_dropout=0",)),
    Lever(SEQUENCE, "weight decay: none", ("training.weight_decay=0",)),
    Lever(SEQUENCE, "weight decay: 0.5", ("training.weight_decay=0.5",)),
    Lever(SEQUENCE, "weight decay: not on embeddings", ("training.decay_embeddings=false",)),
    Lever(SEQUENCE, "history excluded from the lists", (), ("--exclude-history",)),
    Lever(SEQUENCE, "label smoothing: 0.1", ("loss.label_smoothing=0.1",)),
    Lever(SEQUENCE, "learning rate: 1e-3", ("training.learning_rate=1e-3",)),
    Lever(SEQUENCE, "learning rate: 4e-3", ("training.learning_rate=4e-3",)),
    Lever(SEQUENCE, "batch size: 16", ("training.batch_size=16",)),
    Lever(SEQUENCE, "batch size: 64", ("training.batch_size=64",)),
    Lever(SEQUENCE, "epochs: 6", ("training.epochs=6",)),
    Lever(SEQUENCE, "epochs: 24", ("training.epochs=24",)),
    Lever(
        SEQUENCE, "epochs: 24, best of eight by loss", ("training.epochs=24", "eval.every=0.125")
    ),
    Lever(
        SEQUENCE,
        "epochs: 24, best of eight by NDCG@10",
        ("training.epochs=24", "eval.every=0.125", *BY_RANKING),
    ),
    Lever(SEQUENCE, "loss over allowed tokens", ("loss.over=allowed",)),
    Lever(
        SEQUENCE,
        "loss and ranking over allowed tokens",
        ("loss.over=allowed",),
        ("--normalize", "trie"),
    ),
    Lever(SEQUENCE, "ranking over allowed tokens", (), ("--normalize", "trie")),
    Lever(SEQUENCE, "group_by: example", ("training.group_by=example",)),
    Lever(SEQUENCE, "unique SIDs", ("data.unique_sids=true",)),
    Lever(SEQUENCE, "history: 5 items", ("data.history=5",)),
    Lever(SEQUENCE, "task: sid_next", ("tasks={sid_next: null}",)),
    # An epoch has twice the steps, so that half as many epochs take as long.
    Lever(SEQUENCE, "with sid_sequence_reversed", (BOTH_WAYS,)),
    Lever(SEQUENCE, "with sid_sequence_reversed, epochs: 6", (BOTH_WAYS, "training.epochs=6")),
    # A quarter of a task's examples an epoch: more of each would take a day.
    Lever(MIXTURE, "reference"),
    Lever(MIXTURE, "with item_feature", (beside("item_feature", "weight: 0.25"),)),
    Lever(MIXTURE, "with fusion", (beside("fusion", "weight: 0.25"),)),
    Lever(
        MIXTURE,
        "with fusion, descriptions",
        (beside("fusion", "weight: 0.25, target: description"),),
    ),
    Lever(MIXTURE, "with title_next", (beside("title_next", "weight: 0.25"),)),
    Lever(MIXTURE, "with title_to_sid", (beside("title_to_sid", "weight: 0.25"),)),
    Lever(NEXT, "reference"),
    Lever(NEXT, "with item_feature", (beside("item_feature", "weight: 0.25", NEXT),)),
    Lever(NEXT, "with item_feature, weight: 1", (beside("item_feature", "", NEXT),)),
    Lever(NEXT, "with fusion", (beside("fusion", "weight: 0.25", NEXT),)),
    Lever(NEXT, "with title_next", (beside("title_next", "weight: 0.25", NEXT),)),
    Lever(NEXT, "with title_to_sid", (beside("title_to_sid", "weight: 0.25", NEXT),)),
    Lever(PRETRAINED, "reference"),
    Lever(PRETRAINED, "new rows: text", ("model.new_rows=text",)),
    Lever(PRETRAINED, "stages: two epochs frozen, then full", FROZEN_FIRST),
)


def main() -> None:
    """Run what is asked for, print the table of all, and leave the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = sorted({lever.name for lever in LEVERS})
    parser.add_argument(
        "--only",
        nargs="+",
        choices=known,
        metavar="SETTING",
        help="only these settings and their groups' references",
    )
    parser.add_argument(
        "--folder", type=Path, help="keep the runs in this folder; finished runs are not repeated"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="number of runs in parallel, one core each"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        groups = {lever.group for lever in LEVERS if not asked.only or lever.name in asked.only}
        names = [*asked.only, "reference"] if asked.only else [lever.name for lever in LEVERS]
        wanted = [lever for lever in LEVERS if lever.group in groups and lever.name in names]
        place = Place(asked.folder or Path(passing), groups)
        jobs = [(lever, seed) for seed in SEEDS for lever in wanted]
        # Levers of evaluation alone share a run.
        runs = {place.run_folder(*job): job for job in jobs}
        with ThreadPoolExecutor(asked.jobs) as pool:
            list(pool.map(lambda job: place.train(*job), runs.values()))
            list(pool.map(lambda job: place.evaluate(*job), jobs))
        references = {group: without_places(tree) for group, tree in place.references().items()}
        results = kept_levers(references) | {lever.title: place.figures(lever) for lever in wanted}
    ordered = {lever.title: results[lever.title] for lever in LEVERS if lever.title in results}
    outcome = {"references": references, "levers": ordered, "removed": removed_levers()}
    OUTCOME.write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
    for line in table(ordered):
        print(line)


def without_places(tree: dict[str, Any]) -> dict[str, Any]:
    """What of a reference says how models are trained, wherever files lie."""
    data = {name: Path(file).name for name, file in tree["data"].items()}
    model = tree["model"] | {"base": Path(tree["model"]["base"]).name}
    return {"data": data, "model": model} | {
        name: tree[name] for name in ("tasks", "training", "eval")
    }


def kept_levers(references: dict[str, Any]) -> dict[str, Any]:
    """Figures of earlier, of the levers that are what they were, over the same references."""
    kept = json.loads(OUTCOME.read_text(encoding="utf-8")) if OUTCOME.exists() else {}
    levers = kept.get("levers", {})
    return {
        lever.title: levers[lever.title]
        for lever in LEVERS
        if kept.get("references", {}).get(lever.group) == references[lever.group]
        and levers.get(lever.title, {}).get("settings") == lever.changes
    }


def removed_levers() -> dict[str, Any]:
    """Figures of options that no longer exist; they were measured with the last version that had
    them.
    """
    kept: dict[str, Any] = (
        json.loads(OUTCOME.read_text(encoding="utf-8")) if OUTCOME.exists() else {}
    )
    removed: dict[str, Any] = kept.get("removed", {})
    return removed


class Place:
    """Bases, runs and evaluations in a folder.

    Args:
        folder: made where it is missing; a run that is finished there is not done again.
        groups: those that are run.
    """

    def __init__(self, folder: Path, groups: Collection[str]) -> None:
        self.folder = folder
        self.data = Path(os.environ.get("SIDTUNE_DATA", "../shared/data")) / "amazon-industrial"
        for name, options in (("ids", ()), ("texts", ("--items", str(self.data / ITEMS)))):
            if not (folder / name).exists():
                sidtune("new-model", str(folder / name), *options)
        for group, tree in self.references().items():
            file, text = folder / f"{group}.yaml", yaml.safe_dump(tree)
            if file.exists() and file.read_text(encoding="utf-8") != text:
                raise SystemExit(
                    f"{file} was made with another reference configuration: choose another --folder"
                )
            file.write_text(text, encoding="utf-8")
        if PRETRAINED in groups and not (folder / "language" / "config.json").exists():
            self.learn_language(folder / "language.yaml")

    def learn_language(self, file: Path) -> None:
        """Train a base on histories and targets as titles; all items have one and the same SID,
        which no run uses.
        """
        tree = self.references()[MIXTURE]
        index = file.with_suffix(".index.json")
        items = json.loads((self.data / FILES["index"]).read_text(encoding="utf-8"))
        index.write_text(json.dumps({item: ["<item>"] for item in items}), encoding="utf-8")
        tree |= {"output_dir": str(file.with_suffix("")), "tasks": {"title_next": None}}
        tree |= {
            "data": tree["data"] | {"index": str(index)},
            "training": tree["training"] | {"epochs": 4},
            "rank": {"fit": "never"},
        }
        file.write_text(yaml.safe_dump(tree), encoding="utf-8")
        sidtune("train", str(file))

    def references(self) -> dict[str, dict[str, Any]]:
        """What the first lever of each group runs."""
        files = {name: str(self.data / file) for name, file in FILES.items()}
        sequence: dict[str, Any] = {
            "output_dir": "unused",
            "model": {
                "base": str(self.folder / "ids"),
                "from_scratch": True,
                "residual_dropout": 0.2,
                "embedding_dropout": 0.2,
            },
            "data": files,
            "tasks": {SEQUENCE: None},
            "encoding": {"cache_dir": str(self.folder / "cache")},
            "training": {
                "epochs": 12,
                "batch_size": 32,
                "learning_rate": 2e-3,
                "warmup": 100,
                "weight_decay": 0.05,
                "workers": 0,
            },
            "eval": {"every": NEVER, "patience": None},
        }
        mixture = sequence | {
            "model": sequence["model"] | {"base": str(self.folder / "texts")},
            "data": files | {"items": str(self.data / ITEMS)},
        }
        pretrained = mixture | {
            "model": (
                mixture["model"] | {"base": str(self.folder / "language"), "from_scratch": False}
            )
        }
        # Its epochs have four times the examples.
        following = mixture | {
            "tasks": {NEXT: None},
            "training": mixture["training"] | {"epochs": 6},
        }
        return {SEQUENCE: sequence, MIXTURE: mixture, NEXT: following, PRETRAINED: pretrained}

    def train(self, lever: Lever, seed: int) -> None:
        """Train, where that is not done yet."""
        output = self.run_folder(lever, seed)
        if not (output / "config.json").exists():
            # The figures are the model's own.
            settings = [f"output_dir={output}", f"seed={seed}", "rank.fit=never", *lever.settings]
            sidtune("train", str(self.folder / f"{lever.group}.yaml"), *settings)

    def evaluate(self, lever: Lever, seed: int) -> None:
        """Rank the validation rows, where that is not done yet."""
        output, result = self.run_folder(lever, seed), self._result_folder(lever, seed)
        if not (result / "valid.json").exists():
            sidtune(
                "evaluate",
                str(output),
                "--split",
                "valid",
                "--output",
                str(result),
                *lever.evaluate,
            )

    def figures(self, lever: Lever) -> dict[str, Any]:
        """HR@10 and NDCG@10 by item: each seed's, their mean, and what that is above the group's
        reference.
        """
        reference = next(entry for entry in LEVERS if entry.group == lever.group)
        found: dict[str, Any] = {"settings": lever.changes}
        for name, values in (("HR@10", hits), ("NDCG@10", gains)):
            own, other = (
                np.stack([values(self._ranks(entry, seed), 10) for seed in SEEDS])
                for entry in (lever, reference)
            )
            difference = own.mean(0) - other.mean(0)
            low, high = interval_of(difference)
            found[name] = {
                "seeds": dict(zip(map(str, SEEDS), own.mean(1).tolist(), strict=True)),
                "mean": float(own.mean()),
                "above": float(difference.mean()),
                "low": low,
                "high": high,
            }
        return found

    def _ranks(self, lever: Lever, seed: int) -> NDArray[np.int64]:
        table = pq.read_table(
            self._result_folder(lever, seed) / "valid.predictions.parquet", columns=["item_rank"]
        )
        ranks: NDArray[np.int64] = table["item_rank"].to_numpy()
        return ranks

    def run_folder(self, lever: Lever, seed: int) -> Path:
        """Where a lever's run with a seed lies."""
        name = "-".join(part for part in (lever.group, *lever.settings) if part)
        return (
            self.folder
            / "runs"
            / "".join(c if c.isalnum() or c in ".-_" else "_" for c in name)
            / str(seed)
        )

    def _result_folder(self, lever: Lever, seed: int) -> Path:
        return self.run_folder(lever, seed) / "-".join(("valid", *lever.evaluate))


def sidtune(*arguments: str) -> None:
    """Run a command on one core; it is shown when it fails."""
    began = time.monotonic()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "sidtune", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    if done.returncode:
        raise SystemExit(f"sidtune {' '.join(arguments)}\n{done.stdout}\n{done.stderr}")
    print(f"{time.monotonic() - began:6.0f} s  sidtune {' '.join(arguments)}", flush=True)


def table(levers: dict[str, Any]) -> Iterator[str]:
    """The rows of docs/quality.md."""
    yield (
        "| setting | NDCG@10 | s.d. over seeds | difference (95% interval) | HR@10 | difference"
        " (95% interval) |"
    )
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, figures in levers.items():
        ndcg, hr = figures["NDCG@10"], figures["HR@10"]
        above = (
            f"{entry['above']:+.4f} ({entry['low']:+.4f} to {entry['high']:+.4f})"
            for entry in (ndcg, hr)
        )
        first, second = ("–", "–") if name.endswith("· reference") else above
        spread = stdev(ndcg["seeds"].values())
        yield (
            f"| {name} | {ndcg['mean']:.4f} | {spread:.4f} | {first} | {hr['mean']:.4f} |"
            f" {second} |"
        )


if __name__ == "__main__":
    main()
