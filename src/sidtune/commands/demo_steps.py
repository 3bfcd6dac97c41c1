"""`sidtune demo`: a made-up shop's events and items, and all stages to recommendations."""

from __future__ import annotations

import csv
from pathlib import Path

import yaml
from rich.markup import escape

from sidtune.base.errors import UserError
from sidtune.base.terminal import console
from sidtune.commands.demo_shop import EventPaths, write_demo_events
from sidtune.commands.report import leave_report
from sidtune.decoding.recommender import Recommender
from sidtune.evaluation.report import Report
from sidtune.evaluation.tables import metrics_table, plain_table
from sidtune.model.new_base import create_base
from sidtune.pipeline.defaults import Request, load_run
from sidtune.pipeline.run import run
from sidtune.reinforcement.run import reinforce
from sidtune.runs.checkpoints import FINAL

SEED = 0
SHOWN_USERS = 3
CONFIG = "demo.yaml"


def run_demo(folder: Path, users: int = 600, rl: bool = False) -> Report:
    """Generate a shop and a base model, and run all stages; print what they did.

    Args:
        folder: must be new or empty.
        users: number of users in the generated data.
        rl: reinforce the model too.

    Raises:
        UserError: if the folder is not empty, or a library is missing.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        config = folder / CONFIG
        hint = "Choose another folder: sidtune demo --output DIR"
        if config.is_file():
            hint += f"; `sidtune run {config}` goes on with an interrupted demo"
        raise UserError(f"{folder} is not empty", hint)
    console.print("[bold]A shop[/bold]: generated items, customers and purchases")
    paths = write_demo_events(folder / "data", SEED, users)
    console.print(f"   {escape(str(paths.events))}, {escape(str(paths.items))}")
    made = create_base(
        folder / "base", item_texts(paths), hidden=128, layers=4, vocab=2000, seed=SEED
    )
    console.print(
        "[bold]A base model[/bold]: Qwen3 type, random weights,"
        f" {made.parameters:,} parameters, {made.tokens:,} tokens"
    )
    config = write_config(folder, paths)
    console.print(f"[bold]All stages[/bold]: sidtune run {escape(str(config))}")
    report = run(Request.read(config))
    console.print(metrics_table(report))
    if rl:
        _reinforce(config)
    model = folder / "run"
    console.print("[bold]Recommendations[/bold]")
    show_recommendations(paths, model)
    _next_steps(config, model)
    leave_report(model)
    return report


def write_config(folder: Path, paths: EventPaths) -> Path:
    """The configuration that a user would write for these tables."""
    tree = {
        "output_dir": str(folder / "run"),
        "seed": SEED,
        "events": {"files": str(paths.events), "user": "customer", "item": "sku", "time": "ts"},
        "catalogue": {"file": str(paths.items), "id": "sku", "title": "name"},
        "model": {"base": str(folder / "base"), "from_scratch": True},
        # Mostly the recommendation task; the others relate SID tokens to words.
        "tasks": {
            "sid_next": {"weight": 4},
            "item_feature": {},
            "fusion": {"weight": 0.5},
            "title_next": {"weight": 0.25},
            "title_to_sid": {"weight": 0.5},
        },
        "encoding": {"cache_dir": str(folder / "cache"), "cutoff_len": 256},
        "training": {"epochs": 1, "batch_size": 64, "learning_rate": 2e-3},
        "eval": {"every": 0.2},
        "rl": {"epochs": 1, "prompts": 64},
    }
    config = folder / CONFIG
    config.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return config


def _reinforce(file: Path) -> None:
    """Reinforce the model, and print a table of what that changed on validation rows."""
    console.print(f"[bold]Reinforcement[/bold]: sidtune rl {escape(str(file))} rank.fit=never")
    gain = reinforce(load_run(file, ["rank.fit=never"]))
    assert gain
    names = ("hr@1", "hr@10", "ndcg@10", "hr@50")
    table = plain_table("model alone, validation rows", *map(str.upper, names))
    for title, metrics in (("supervised", gain.before), ("reinforced", gain.after)):
        table.add_row(title, *(f"{metrics[name]:.4f}" for name in names))
    console.print(table)
    console.print(f"   the reinforced model: {escape(str(gain.result.folder))}", soft_wrap=True)


def item_texts(paths: EventPaths) -> list[str]:
    """Names and descriptions of the items, to train the tokenizer on."""
    with paths.items.open(encoding="utf-8", newline="") as file:
        return [text for row in csv.DictReader(file) for text in (row["name"], row["description"])]


def show_recommendations(paths: EventPaths, model: Path) -> None:
    """Print the latest items of three customers and the model's recommendations for them."""
    recommender = Recommender.load(model)
    bought: dict[str, list[str]] = {}
    with paths.events.open(encoding="utf-8", newline="") as file:
        for event in csv.DictReader(file):
            bought.setdefault(event["customer"], []).append(event["sku"])
    shown = dict(list(bought.items())[:SHOWN_USERS])
    catalogue = recommender.bundle.catalogue
    titles = dict(zip(catalogue.ids, catalogue.titles, strict=True))
    for user, answer in zip(shown, recommender.recommend(list(shown.values()), 3), strict=True):
        latest = "; ".join(titles[item] for item in shown[user][-3:] if item in titles)
        console.print(f"   {user} last bought: {latest}", markup=False)
        for item in answer:
            console.print(f"     → {item.title}  {item.sid}  {item.score:.2f}", markup=False)


def _next_steps(config: Path, model: Path) -> None:
    recipe, run_folder = escape(str(config)), escape(str(model))
    commands = {
        f"sidtune play {run_folder}": "try it in the browser",
        f"sidtune recommend {run_folder} --history 12,7": "a list for a history",
        f"sidtune evaluate {run_folder}": "figures by group too",
        f"sidtune preview {recipe}": "what the model reads",
    }
    width = max(map(len, commands))
    console.print(f"\n[bold]Done.[/bold] {run_folder}/{FINAL} is an ordinary Hugging Face folder.")
    console.print("\nNext:")
    for command, what in commands.items():
        console.print(f"  {command:{width}}  # {what}", soft_wrap=True)
    console.print("Your own data: sidtune init DIR (docs/start.md)")
