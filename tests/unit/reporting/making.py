"""Folders of runs as training and evaluation leave them, made without a model."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from tests.unit.ranker.making import catalogue, made_up

from sidtune.data.catalogue import Catalogue
from sidtune.evaluation.details import examples, history_lengths
from sidtune.evaluation.report import Details, Level, make_report
from sidtune.evaluation.results import make_folder, write_results
from sidtune.metrics.metrics import Estimate, proportion
from sidtune.metrics.ranks import Ranking
from sidtune.ranker.figures import Line, Ranked
from sidtune.runs.bundle import Bundle, write_bundle
from sidtune.runs.files import CONFIG, METRICS, PLAN, RANKED, TaskPlan, TrainingPlan
from sidtune.templates import load_templates

ITEMS, BEAMS, STEPS = 30, 10, 40
TASKS = ("sid_next", "title_next")
RANKERS = ("ranker", "model", "ranker without model", "most popular", "transitions")
SETTINGS = {
    "split": "test",
    "beams": BEAMS,
    "normalize": "full",
    "exclude_history": False,
    "sids_sha256": "0",
    "ranking_seconds": 1.0,
}


def write_run(folder: Path, seed: int = 0, title: str = "Item") -> Path:
    """A finished run with its evaluation, and the folder; `title` opens all titles."""
    folder.mkdir(parents=True)
    tree = {
        "output_dir": str(folder),
        "seed": seed,
        "model": {"base": "somebody/a-base", "tuning": "full"},
        "data": {"train": "/far/away/train.csv"},
        "training": {"batch_size": 16, "learning_rate": 0.01 * (seed + 1), "warmup": 2},
    }
    (folder / CONFIG).write_text(yaml.safe_dump(tree))
    (folder / METRICS).write_text("".join(f"{json.dumps(entry)}\n" for entry in entries(seed)))
    (folder / PLAN).write_text(json.dumps(asdict(plan())))
    (folder / RANKED).write_text(json.dumps(ranked().as_json()))
    known = titled(title)
    users, wording = np.ones(ITEMS, np.int64), load_templates()["sid_next"][0]
    write_bundle(Bundle(known, users, "sid_next", wording, "plain", 99, 9), folder)
    write_evaluation(folder / "evaluation", known, seed)
    return folder


def titled(title: str) -> Catalogue:
    known = catalogue(ITEMS)
    titles = [f"{title} {name}" for name in known.ids]
    return replace(known, titles=titles, descriptions=titles)


def entries(seed: int = 0) -> list[dict[str, float]]:
    """What a run logs: losses that fall, each differently."""
    found: list[dict[str, float]] = []
    for step in range(1, STEPS + 1):
        loss = 5 / (step + seed + 1)
        by_task = {f"{name}_loss": loss * (n + 1) for n, name in enumerate(TASKS)}
        speed = {"tokens_per_second": 900.0 + step, "useful_tokens": 0.9, "memory_gib": 0.5}
        found.append({"step": step, "loss": loss, "learning_rate": 0.01, **by_task, **speed})
        if step % 10 == 0:
            found.append({"step": step, **{f"eval_{name}": v for name, v in by_task.items()}})
    return [*found, {"step": STEPS, "train_runtime": 12.5, "train_loss": 1.0}]


def plan() -> TrainingPlan:
    task = TaskPlan(2.0, 10, 400, 40, 60, 3, 1, [4, 5, 1])
    tasks = dict.fromkeys(TASKS, task)
    return TrainingPlan("qwen3", 5000, 4000, "cpu", 1, "fp32", STEPS, 20, [0, 20, 40, 61], tasks)


def ranked() -> Ranked:
    estimate, change = Estimate(0.5, 0.4, 0.6), Estimate(0.03, 0.01, 0.05)
    whole = Line(estimate, estimate, estimate, None)
    part = replace(whole, change=change)
    lines = {"ranker": whole, "without model": part, "without text": part, "model": part}
    shares, weights = {"from_last": 0.7, "text": 0.3}, {"transitions": 1.0}
    return Ranked(20, lines, shares, weights, 0.5, ("behaviour",), {"beams": 50})


def write_evaluation(folder: Path, known: Catalogue, seed: int, **settings: Any) -> None:
    """Rankings drawn at random, the first ranker being a little better than the rest."""
    train, rows = made_up(20, ITEMS, 0)
    random = np.random.default_rng(seed)
    numbers = {sid: n for n, sid in enumerate(dict.fromkeys(known.sids))}
    sid_of = np.array([numbers[sid] for sid in known.sids])
    rankings = {name: _ranking(rows.target, random, n) for n, name in enumerate(RANKERS)}
    first, all_rows = rankings["ranker"], np.arange(len(rows.target))
    report = make_report(
        SETTINGS | settings, rows, sid_of, np.arange(ITEMS), 0, rankings, all_rows % 5
    )
    right = proportion(np.array([1.0, 0.0]))
    levels = [Level(tokens, right, right, right, 0.5) for tokens in range(4)]
    histories = history_lengths({"train": train.history, "test": rows.history})
    details = Details(levels, examples(known, rows, all_rows, first), histories)
    table = pa.table(
        {
            "row": all_rows + 1,
            "user_id": rows.users,
            "target": [known.ids[item] for item in rows.target],
            "sid_rank": first.sid_ranks,
            "item_rank": first.item_ranks,
            "reach": ["co-occurs"] * len(all_rows),
        }
    )
    write_results(make_folder(folder), "test", replace(report, details=details), table)


def _ranking(target: np.ndarray, random: np.random.Generator, worse: int) -> Ranking:
    lists = []
    for wanted in target.tolist():
        others = random.permutation(np.delete(np.arange(ITEMS), wanted))[:BEAMS]
        if random.random() < 0.8 - 0.1 * worse:
            others[random.integers(BEAMS)] = wanted
        lists.append(others)
    items = np.stack(lists)
    same = items == target[:, None]
    ranks = np.where(same.any(axis=1), same.argmax(axis=1) + 1, 0)
    return Ranking(ranks, ranks, items)
