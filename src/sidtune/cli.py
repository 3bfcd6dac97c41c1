"""The commands: parse, call, print. What they do is elsewhere, and imported only when asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from sidtune import __version__
from sidtune.errors import UserError
from sidtune.evaluation.options import BEAMS, MAX_TOKENS, Normalize, RankOptions
from sidtune.terminal import (
    console,
    first_process,
    json_text,
    launched,
    messages_for_errors,
    print_in_any_encoding,
    quiet_libraries,
)

if TYPE_CHECKING:
    from sidtune.config import Config

app = typer.Typer(
    help="Fine-tune a causal language model into a generative recommender over semantic IDs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The configuration.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[section.key=value]...", help="Keys that replace those of the file."),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Let Python code that comes with the base run on this machine."),
]
Resume = Annotated[
    str,
    typer.Option(metavar="auto|never|PATH", help="Go on from the newest complete checkpoint, or from this folder."),
]
Processes = Annotated[int | None, typer.Option(min=1, help="Start this many processes, one for each GPU.")]
ModelFolder = Annotated[Path, typer.Argument(metavar="MODEL_OR_RUN", help="A run's folder, or one of its checkpoints.")]
Split = Literal["test", "valid", "train"]
Normalization = Annotated[
    Normalize,
    typer.Option(help="Probabilities over the full vocabulary, as published, or over the tokens that may follow."),
]
Beams = Annotated[int, typer.Option(min=1, help="Width of the search; no list is longer.")]
ExcludeHistory = Annotated[bool, typer.Option("--exclude-history", help="Never answer with an item of the history.")]
Candidates = Annotated[Path | None, typer.Option(metavar="FILE", help="Answer only with these items, an id a line.")]
OtherProcesses = Annotated[
    bool,
    typer.Option("--allow-other-processes", help="Go on though another number of processes wrote the checkpoint."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]


def main() -> None:
    """Entry point: a user's mistake becomes one message and exit status 2, a run that was asked to stop 75."""
    print_in_any_encoding()
    with messages_for_errors():
        app()


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Options of the program itself."""
    if version:
        typer.echo(f"sidtune {__version__}")
        raise typer.Exit


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything up to the first step; print the plan.")
    ] = False,
    resume: Resume = "auto",
    processes: Processes = None,
    allow_other_processes: OtherProcesses = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Check the data, encode it (cached), train, and save a plain Hugging Face checkpoint.

    Example: `sidtune train recipes/amazon-industrial.yaml training.epochs=3`
    """
    from sidtune.config_file import load_config

    _train(load_config(config, overrides or []), resume, dry_run, processes, trust_remote_code, allow_other_processes)


@app.command()
def sft(
    base_model: Annotated[str, typer.Option("--base_model", help="Folder or hub name of the base.")],
    train_file: Annotated[Path, typer.Option("--train_file", help="Training rows (CSV).")],
    eval_file: Annotated[Path, typer.Option("--eval_file", help="Validation rows (CSV).")],
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Folder of the run.")],
    sid_index_path: Annotated[Path, typer.Option("--sid_index_path", help="The .index.json file.")],
    item_meta_path: Annotated[Path, typer.Option("--item_meta_path", help="The .item.json file.")],
    sample: Annotated[int, typer.Option("--sample", help="Rows for each task; -1 for all.")] = -1,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.")] = 42,
    batch_size: Annotated[int, typer.Option("--batch_size", help="Examples of a step, over all processes.")] = 128,
    micro_batch_size: Annotated[
        int,
        typer.Option("--micro_batch_size", help="Bounds memory: this many times cutoff_len tokens at once."),
    ] = 4,
    num_epochs: Annotated[int, typer.Option("--num_epochs", help="Epochs.")] = 10,
    learning_rate: Annotated[float, typer.Option("--learning_rate", help="Peak learning rate.")] = 3e-4,
    cutoff_len: Annotated[int, typer.Option("--cutoff_len", help="Longest example, in tokens.")] = 512,
    group_by_length: Annotated[str, typer.Option("--group_by_length", help="True or False.")] = "False",
    freeze_llm: Annotated[str, typer.Option("--freeze_LLM", help="True or False: train the SID rows alone.")] = "False",
    wandb_project: Annotated[str, typer.Option("--wandb_project", help="Log to this W&B project.")] = "",
    wandb_run_name: Annotated[str, typer.Option("--wandb_run_name", help="Name of the W&B run.")] = "",
    resume_from_checkpoint: Annotated[
        str,
        typer.Option("--resume_from_checkpoint", help="auto, never or a folder; None means never, True means auto."),
    ] = "auto",
    category: Annotated[str, typer.Option("--category", help="Any text; our wordings do not mention it.")] = "",
    train_from_scratch: Annotated[
        str, typer.Option("--train_from_scratch", help="True or False: random weights of the base's shape.")
    ] = "False",
    processes: Processes = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything up to the first step; print the plan.")
    ] = False,
) -> None:
    """Train with the flags of MiniOneRec's script; prints the configuration they stand for.

    Example: `sidtune sft --base_model Qwen/Qwen2.5-0.5B --train_file train.csv --eval_file valid.csv
    --output_dir runs/a --sid_index_path a.index.json --item_meta_path a.item.json --freeze_LLM False`
    """
    flags = dict(locals())
    from sidtune import minionerec
    from sidtune.config_file import dump_config, parse_config

    resume = minionerec.resume(resume_from_checkpoint)
    config = parse_config(minionerec.to_config(**flags), "the flags")
    if first_process():
        console.print(
            "# The configuration these flags stand for; save it and use it with `sidtune train`.", style="dim"
        )
        console.print(escape(dump_config(config)))
        if minionerec.boolean(group_by_length):
            console.print("--group_by_length has no effect: prefix trees need no batches of like length.", style="dim")
        if category:
            console.print(f"--category {escape(category)}: noted; the wordings here do not mention it.", style="dim")
    _train(config, resume, dry_run, processes)


@app.command()
def check(
    config: ConfigFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """List everything wrong or worth knowing in configuration, data, tokenizer and model, at once.

    Exit status: 0 all well, 1 warnings, 2 errors. Example: `sidtune check recipes/amazon-industrial.yaml`
    """
    from sidtune.checks.finding import Finding, exit_status, render
    from sidtune.checks.run import run_checks
    from sidtune.config_file import load_config
    from sidtune.inputs import Inputs

    quiet_libraries()
    try:
        findings = run_checks(Inputs(load_config(config, overrides or []), trust_remote_code))
    except UserError as error:
        findings = [Finding("error", "configuration", error.message, [], error.hint)]
    if as_json:
        typer.echo(json_text([vars(finding) for finding in findings], indent=1))
    else:
        for line in render(findings):
            console.print(line)
    raise typer.Exit(exit_status(findings))


@app.command()
def preview(
    config: ConfigFile,
    overrides: Overrides = None,
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Examples of each form.")] = 3,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Show examples as the model sees them: labels green, a red bar after every segment.

    Example: `sidtune preview recipes/amazon-industrial.yaml --task sid_next -n 2`
    """
    from sidtune import preview as room
    from sidtune.config_file import load_config
    from sidtune.inputs import Inputs

    quiet_libraries()
    examples = room.preview(Inputs(load_config(config, overrides or []), trust_remote_code), task, n)
    if as_json:
        typer.echo(json_text(room.as_json(examples), indent=1))
        return
    for example in examples:
        console.print(room.render(example), soft_wrap=True)


@app.command()
def evaluate(
    model: ModelFolder,
    split: Annotated[Split, typer.Option(help="Which rows of the run's configuration.")] = "test",
    beams: Beams = BEAMS,
    normalize: Normalization = "full",
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many rows, drawn by a fixed seed.")] = None,
    exclude_history: ExcludeHistory = False,
    candidates: Candidates = None,
    rows: Annotated[Path | None, typer.Option(help="Rows to rank, in place of the run's split.")] = None,
    train: Annotated[Path | None, typer.Option(help="Training rows for the baselines, in place of the run's.")] = None,
    no_baselines: Annotated[
        bool, typer.Option("--no-baselines", help="Rank with the model alone; no training rows are read.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Folder of the results; MODEL/evaluation by default.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one forward pass; bounds memory.")] = MAX_TOKENS,
    as_json: AsJson = False,
    processes: Processes = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Rank the rows of a split over the whole catalogue: HR@K, NDCG@K and MRR beside three baselines.

    Writes SPLIT.json with every figure and SPLIT.predictions.parquet with every list.

    Example: `sidtune evaluate runs/shop`
    """
    from sidtune.evaluation import evaluate as room
    from sidtune.evaluation.tables import render
    from sidtune.training import launch

    quiet_libraries()
    if processes and processes > 1 and not launched():
        raise typer.Exit(launch.launch(processes, sys.argv[1:]))
    options = RankOptions(beams, normalize, exclude_history, max_tokens)
    request = room.Request(
        model, split, options, limit, candidates, rows, train, output, trust_remote_code, not no_baselines
    )
    report = room.evaluate(request)
    if report and as_json:
        typer.echo(json_text(report.as_json(), indent=1))
    elif report:
        for table in render(report):
            console.print(table)
        folder = escape(str(room.results_folder(request)))
        console.print(f"Every figure: {folder}/{split}.json. Every list: {folder}/{split}.predictions.parquet")


@app.command()
def baselines(
    config: ConfigFile,
    overrides: Overrides = None,
    split: Annotated[Split, typer.Option(help="Which rows of the configuration.")] = "test",
    simple: Annotated[bool, typer.Option("--simple", help="Leave SASRec out; no library is needed then.")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Seed of SASRec, in place of the configuration's.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many rows, drawn by a fixed seed.")] = None,
    exclude_history: ExcludeHistory = False,
    candidates: Candidates = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the results; OUTPUT_DIR-baselines by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Rank the same rows with SASRec, tuned on the validation rows, and three simple baselines; needs no model.

    Writes a folder for each, which `compare` takes beside evaluated runs.

    Example: `sidtune baselines recipes/amazon-industrial.yaml`
    """
    from sidtune.config_file import load_config
    from sidtune.evaluation import baseline_run as room

    quiet_libraries()
    request = room.Request(
        load_config(config, overrides or []), split, simple, seed, limit, candidates, exclude_history, output
    )
    report = room.run_baselines(request)
    if as_json:
        typer.echo(json_text(report.as_json(), indent=1))
        return
    for part in room.render(report):
        console.print(part)
    console.print(f"Every figure: {escape(str(request.folder))}/{split}.json. A folder for each ranker beside it.")


@app.command()
def recommend(
    model: ModelFolder,
    history: Annotated[str | None, typer.Option(metavar="ID,ID,…", help="Item ids, oldest first.")] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--input", metavar="FILE", help='JSON lines: {"user_id": "u1", "history": ["17"]}; - is standard input.'
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Items of a list.")] = 10,
    beams: Beams = BEAMS,
    normalize: Normalization = "full",
    exclude_history: ExcludeHistory = False,
    candidates: Candidates = None,
    as_json: AsJson = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Recommend items to one history, or to every line of a file: title, SID and log-probability.

    Example: `sidtune recommend runs/shop --history 12,7 -k 5`
    """
    from sidtune.evaluation import stream

    if (history is None) == (source is None):
        raise UserError("give either --history or --input", "sidtune recommend MODEL --history 12,7")
    quiet_libraries()
    recommender = stream.load(model, candidates, trust_remote_code)
    asked = stream.histories(recommender, history, source)
    for answer in stream.answer(recommender, asked, k, RankOptions(beams, normalize, exclude_history)):
        if as_json:
            typer.echo(json_text(stream.as_json(answer)))
        else:
            for part in stream.render(answer):
                console.print(part)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN_A RUN_B ...", help="Evaluated runs, the yardstick first.")],
    split: Annotated[Split, typer.Option(help="Which of their evaluations.")] = "test",
    as_json: AsJson = False,
) -> None:
    """Say which differences between evaluated runs are real: a paired bootstrap over the rows they share.

    Example: `sidtune compare runs/a runs/b`
    """
    from sidtune.evaluation import compare as room

    if len(runs) < 2:
        raise UserError("nothing to compare", "Give at least two runs: sidtune compare RUN_A RUN_B")
    first, *others = [room.read_evaluated(run, split) for run in runs]
    comparisons = room.compare(first, others)
    if as_json:
        typer.echo(json_text(room.as_json(comparisons), indent=1))
        return
    for comparison in comparisons:
        for part in room.render(comparison):
            console.print(part)


@app.command()
def new_model(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the new base goes; must not exist.")],
    items: Annotated[
        Path | None,
        typer.Option(
            help="The .item.json whose text the tokenizer is trained on; without it, the wording of our prompts."
        ),
    ] = None,
    hidden: Annotated[int, typer.Option(help="Hidden size, a multiple of 32.")] = 128,
    layers: Annotated[int, typer.Option(help="Transformer blocks.")] = 4,
    vocab: Annotated[int, typer.Option(help="Tokens of the byte-level BPE, at most.")] = 8000,
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Make a small base (Qwen3 type, byte-level BPE) for when there is no pretrained one.

    Its tokenizer writes any text, and what it was trained on in few tokens. Leave --items out to train on SIDs alone.

    Example: `sidtune new-model bases/small --items data/shop.item.json`
    """
    from sidtune.data.catalogue import read_texts
    from sidtune.model.new_base import create_base
    from sidtune.templates import wording_texts

    quiet_libraries()
    made = create_base(folder, read_texts(items) if items else wording_texts(), hidden, layers, vocab, seed)
    console.print(
        f"{escape(str(folder))}: {made.parameters:,} parameters, {made.tokens:,} tokens. Use it as model.base."
    )


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for data, base and run; must not exist.")] = Path("demo"),
) -> None:
    """The main job on made-up data, on the CPU, in under three minutes: train, evaluate, recommend.

    Example: `sidtune demo --output /tmp/demo`
    """
    from sidtune.demo import run_demo

    quiet_libraries()
    run_demo(output)


def _train(config: Config, resume: str, dry_run: bool, processes: int | None, *switches: bool) -> None:
    from sidtune.training import launch
    from sidtune.training.train import train as run

    quiet_libraries()
    if processes and processes > 1 and not launched():
        raise typer.Exit(launch.launch(processes, sys.argv[1:]))
    result = run(config, resume, dry_run, *switches)
    if result and first_process():
        console.print(escape(result.text))


if __name__ == "__main__":
    main()
