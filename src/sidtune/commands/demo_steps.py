"""`sidtune demo`: generated data, a small base model, the five default tasks, recommendations and
next steps.
"""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from sidtune.base.errors import UserError
from sidtune.base.terminal import console
from sidtune.data.catalogue import read_texts
from sidtune.data.demo_shop import DemoPaths, write_demo_data
from sidtune.data.rows import read_rows
from sidtune.decoding.recommender import Recommender
from sidtune.evaluation.evaluate import EvaluationRequest, evaluate
from sidtune.evaluation.report import Report
from sidtune.evaluation.tables import metrics_table
from sidtune.model.new_base import create_base
from sidtune.runs.checkpoints import FINAL
from sidtune.tasks.config_file import dump_config, parse_config, with_absolute_paths
from sidtune.training.train import Result, train

SEED = 0
SHOWN_USERS = 3


def run_demo(folder: Path, users: int = 600) -> Report:
    """Generate data and a base model, train from scratch, evaluate and recommend; print where the
    files are.

    Args:
        folder: must be new or empty.
        users: number of users in the generated data.

    Raises:
        UserError: if the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder} is not empty", "Choose another folder: sidtune demo --output DIR"
        )
    console.print("[bold]1. Data[/bold]: generated items, users and interactions")
    paths = write_demo_data(folder / "data", SEED, users)
    console.print(f"   {escape(str(folder / 'data'))}")
    console.print("[bold]2. Base model[/bold]: a small Qwen3-type model with random weights")
    made = create_base(
        folder / "base", read_texts(paths.items), hidden=128, layers=4, vocab=2000, seed=SEED
    )
    console.print(f"   {made.parameters:,} parameters, {made.tokens:,} tokens")
    config = parse_config(
        {
            "output_dir": str(folder / "run"),
            "seed": SEED,
            "model": {"base": str(folder / "base"), "from_scratch": True},
            "data": {
                name: str(getattr(paths, name))
                for name in ("items", "index", "train", "valid", "test")
            },
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
        },
        "demo",
    )
    (folder / "demo.yaml").write_text(dump_config(with_absolute_paths(config)), encoding="utf-8")
    console.print("[bold]3. Training[/bold]: a mixture of five tasks")
    result = train(config)
    assert result is not None
    console.print(
        f"   {result.seconds:.0f} s; validation loss of the next SID, in nats per token: "
        f"{result.first_loss:.3f} before training, {result.best_loss:.3f} after"
    )
    console.print("[bold]4. Evaluation[/bold]: each user's last item, ranked among all items")
    report = evaluate(EvaluationRequest(result.folder))
    assert report is not None
    console.print(metrics_table(report))
    console.print("[bold]5. Recommendations[/bold]")
    show_recommendations(result.folder, paths)
    _next_steps(folder, result)
    return report


def show_recommendations(model: Path, paths: DemoPaths) -> None:
    """Print the latest items of three users and the model's recommendations for them."""
    recommender = Recommender.load(model)
    rows = read_rows(paths.test).slice(0, SHOWN_USERS)
    histories, catalogue = rows["history"].to_pylist(), recommender.bundle.catalogue
    titles = dict(zip(catalogue.ids, catalogue.titles, strict=True))
    answers = recommender.recommend(histories, 3)
    for user, history, answer in zip(rows["user_id"].to_pylist(), histories, answers, strict=True):
        console.print(
            f"   {user} last bought: {'; '.join(titles[item] for item in history[-3:])}",
            markup=False,
        )
        for item in answer:
            console.print(f"     → {item.title}  {item.sid}  log p {item.score:.2f}", markup=False)


def _next_steps(folder: Path, result: Result) -> None:
    recipe, run = escape(str(folder / "demo.yaml")), escape(str(result.folder))
    console.print(
        "\n[bold]Done.[/bold] The checkpoint is an ordinary Hugging Face folder:"
        f" {run}/{FINAL}\n\nNext:\n  sidtune preview {recipe}            # the examples as the"
        f" model reads them, labels marked\n  sidtune check {recipe}              # all errors,"
        f" warnings and notes\n  sidtune evaluate {run}               # all metrics with 95%"
        f" intervals, also by group\n  sidtune recommend {run} --history 12,7\n  sidtune train"
        f" {recipe} output_dir={escape(str(folder / 'run2'))} training.epochs=3\nYour own data:"
        " README.md, “Your own data in three steps”."
    )
