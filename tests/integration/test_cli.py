"""The commands, as people and programs meet them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.rankers import BASELINES
from tests.tiny_data import tiny_tree, write_shop
from tests.tiny_models import make_base
from typer.main import get_command
from typer.testing import CliRunner

from sidtune.base.errors import UserError
from sidtune.commands.demo_steps import run_demo
from sidtune.commands.main import app, main
from sidtune.pipeline.defaults import Request, load_run
from sidtune.tasks.config_file import load_config

OPTIONS = {
    "train": (
        "config overrides --dry-run --gpus --gpu-memory --resume --extend --processes"
        " --allow-other-processes --trust-remote-code --quiet"
    ),
    "rl": (
        "config overrides --dry-run --resume --processes --allow-other-processes"
        " --trust-remote-code"
    ),
    "sft": (
        "--base_model --train_file --eval_file --output_dir --sid_index_path --item_meta_path"
        " --sample --seed --batch_size --micro_batch_size --num_epochs --learning_rate --cutoff_len"
        " --group_by_length --freeze_LLM --wandb_project --wandb_run_name --resume_from_checkpoint"
        " --category --train_from_scratch --processes --dry-run"
    ),
    "check": "config overrides --json --trust-remote-code",
    "preview": "config overrides --task -n --json --trust-remote-code",
    "merge": "source target --trust-remote-code",
    "new-model": "folder --items --hidden --layers --vocab --seed",
    "evaluate": (
        "model --split --beams --normalize --both-directions --limit --exclude-history --candidates"
        " --rows --train --no-baselines --no-rank --output --max-tokens --json --processes"
        " --trust-remote-code --quiet"
    ),
    "baselines": (
        "config overrides --split --simple --seed --limit --exclude-history --candidates --output"
        " --json"
    ),
    "rank": "model overrides --events --items --json --trust-remote-code",
    "recommend": (
        "model --history --input -k --beams --normalize --both-directions --exclude-history"
        " --candidates --no-rank --json --trust-remote-code"
    ),
    "serve": (
        "model --host --port --beams --normalize --both-directions --no-rank --batch --queue"
        " --timeout --max-body --max-history --max-candidates --trust-remote-code"
    ),
    "play": "model other --host --port --beams --normalize --trust-remote-code",
    "export": "model folder --to",
    "compare": "runs --split --json",
    "report": "runs --split --output",
    "demo": "--output --rl",
    "run": "config overrides --processes --trust-remote-code --quiet --json",
    "push": "model repo --public --yes",
    "explain": "key --json",
    "schema": "",
    "init": "folder --output --events --user --item --time --k-core --split --base --yes",
    "prepare": "config overrides --minionerec --index --json",
    "sids fit": "config overrides --json",
    "sids report": "index --items --vectors --quick --json",
    "sids assign": "fitted --items --vectors --model --json",
}


def config_file(folder: Path, **sections: Any) -> Path:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(tiny_tree(folder, **sections)))
    return file


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def shell(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sidtune", *map(str, arguments)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)


def entry(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Any:
    """The exit status of the entry point, in this process: another one would first import torch."""
    monkeypatch.setattr(sys, "argv", ["sidtune", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def flat(text: str) -> str:
    return " ".join(text.split())


# --- the surface ---


def test_the_options_stay_as_they_are() -> None:
    found = {
        name: " ".join(p.opts[0] for p in command.params if p.name not in ("help",))
        for name, command in every_command(get_command(app))
    }
    assert found == OPTIONS


def every_command(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Commands by the words that call them, those of groups too."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


@pytest.mark.parametrize("command", OPTIONS)
def test_help_says_what_it_does_with_an_example(command: str) -> None:
    result = call(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"sidtune {command}" in flat(result.output).replace("│", "")
    assert "Example:" in result.output


def test_help_needs_no_torch() -> None:
    names = ("torch", "transformers", "pyarrow")
    code = (
        f"import sys, sidtune.commands.main; print([name for name in {names} if name in"
        " sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_version() -> None:
    assert call("--version").output.startswith("sidtune 0.")


def test_a_mistake_is_one_message_and_status_two(tmp_path: Path) -> None:
    done = shell("train", config_file(tmp_path), "training.epoch=3")
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "training.epoch: unknown key; did you mean epochs?" in done.stderr
    assert "Traceback" not in done.stderr


# --- explain, schema ---


def test_explain_and_schema() -> None:
    told = call("explain", "training.group_by").output
    assert "`user`: groups of four" in flat(told)
    assert "values: user or example" in told
    assert "default: user" in told
    (section, *keys) = json.loads(call("explain", "loss", "--json").stdout)
    assert section["is_section"]
    assert [key["name"] for key in keys] == ["loss.over", "loss.label_smoothing"]
    everything = call("explain").output
    assert "loss: over, label_smoothing" in everything
    assert json.loads(call("schema").stdout)["properties"]["output_dir"]["type"] == "string"


# --- init ---


def test_init_writes_what_run_takes_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shop(tmp_path / "shop")
    monkeypatch.chdir(tmp_path)
    result = call("init", "shop", "--yes")
    assert result.exit_code == 0, result.output
    said = flat(result.output)
    assert "train.csv: training rows, about" in said
    assert "index.json: semantic IDs, about 8 items" in said
    assert "All stages will take roughly" in said
    assert "Next: sidtune run shop.yaml" in said
    assert Request.read(Path("shop.yaml")).tree["data"]["train"] == "shop/train.csv"
    again = call("init", "shop", "--yes")
    assert "shop.yaml is there already" in str(again.exception)
    assert "--output" in again.exception.hint
    other = call("init", "shop", "--yes", "--k-core", 3, "--output", "other.yaml")
    assert "these are rows" in str(other.exception)
    assert not Path("other.yaml").exists()
    (tmp_path / "shop" / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "shop" / "inner")
    assert call("init", "..", "--yes").exit_code == 0
    assert Request.read(Path("shop.yaml")).tree["output_dir"] == "runs/shop"


def test_init_asks_for_what_it_cannot_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log.csv").write_text("who,sku,on\nv,2,2020-01-01\n" + "u,1,2020-01-01\n" * 3)
    monkeypatch.chdir(tmp_path)
    silent = call("init", "--events", "log.csv", "--yes")
    assert "no column is known as the user; found who, sku, on" in str(silent.exception)
    assert "--user COLUMN" in silent.exception.hint
    answers = "who\non\n3\nglobal_time\nbase\n"
    command = [str(word) for word in ("init", ".", "--events", "log.csv", "--output", "x.yaml")]
    asked = CliRunner().invoke(app, command, input=answers)
    assert asked.exit_code == 0, asked.output
    assert "k_core: 3 leaves 3 of 4 events" in asked.output
    tree = Request.read(Path("x.yaml")).tree
    assert tree["events"] == {
        "files": "log.csv",
        "user": "who",
        "time": "on",
        "k_core": 3,
        "split": "global_time",
    }
    assert tree["model"]["base"] == "base"
    wrong = CliRunner().invoke(app, [*command[:-1], "y.yaml"], input="nosuch\n")
    assert "no column 'nosuch'" in str(wrong.exception)
    assert not Path("y.yaml").exists()


# --- check ---


def test_check_of_good_data(tmp_path: Path) -> None:
    result = call("check", config_file(tmp_path))
    assert result.exit_code == 0, result.output
    text = flat(result.output)
    assert "8 items, 7 distinct SIDs of 3 tokens, 13 SID tokens" in text
    assert "2 items share a SID" in text
    assert "0 errors, 0 warnings" in text


def test_check_reads_the_test_rows_too(tmp_path: Path) -> None:
    file = config_file(tmp_path)
    config = load_config(file)
    test = Path(str(config.data.test))
    test.write_text(test.read_text() + config.data.train.read_text().splitlines()[1] + "\n")
    result = call("check", file, "--json")
    assert result.exit_code == 1
    (warning,) = (
        finding for finding in json.loads(result.stdout) if finding["severity"] == "warning"
    )
    assert warning["where"] == str(test)
    assert "1 rows (user, history and target) are also in the training file" in warning["message"]
    test.unlink()
    assert f"data.test: no such file: {test}" in call("check", file).output.replace("\n", "")


def test_check_lists_everything_at_once(tmp_path: Path) -> None:
    file = config_file(tmp_path, encoding={"cutoff_len": 9000})
    config = load_config(file)
    valid, train = config.data.valid, config.data.train
    lines = train.read_text().splitlines()
    valid.write_text(valid.read_text() + lines[1] + "\n")
    train.write_text(
        train.read_text().replace("Red Tent", "Green Tent", 1) + "u9,['x'],x,[77],5,['s'],s\n"
    )
    result = call("check", file, "--json")
    assert result.exit_code == 2
    findings = json.loads(result.stdout)
    errors = [finding for finding in findings if finding["severity"] == "error"]
    assert [finding["severity"] for finding in findings] == sorted(
        (finding["severity"] for finding in findings), key=["error", "warning", "note"].index
    )
    assert any(
        "9000 tokens exceed the model's 1024 positions" in error["message"] for error in errors
    )
    assert any("77" in error["message"] and "without a SID" in error["message"] for error in errors)
    assert all(error["remedy"] for error in errors)


def test_check_warns_of_leaks_and_disagreements(tmp_path: Path) -> None:
    file = config_file(tmp_path)
    config = load_config(file)
    valid, train = config.data.valid, config.data.train
    valid.write_text(valid.read_text() + train.read_text().splitlines()[1] + "\n")
    train.write_text(train.read_text().replace("Red Tent", "Green Tent", 1))
    result = call("check", file)
    assert result.exit_code == 1
    text = flat(result.output)
    assert "1 rows (user, history and target) are also in the training file row 13" in text
    assert "1 cells differ from the catalogue" in text
    assert "row 1, item_title: 'Green Tent' in the file, 'Red Tent' in the catalogue" in text


def test_check_reports_faults_of_the_configuration_as_findings(tmp_path: Path) -> None:
    result = call("check", config_file(tmp_path), "training.epoch=1", "--json")
    assert result.exit_code == 2
    (finding,) = json.loads(result.stdout)
    assert finding["severity"] == "error"
    assert "did you mean epochs" in finding["message"]


def test_check_names_files_that_nothing_reads(tmp_path: Path) -> None:
    extra = tmp_path / "i.jsonl"
    extra.write_text('{"prompt": "a", "response": "b"}\n')
    result = call("check", config_file(tmp_path, data={"instructions": str(extra)}))
    assert result.exit_code == 1
    assert "data.instructions: has no effect: no task of the mixture reads this file" in flat(
        result.output
    )


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda data: Path(data["items"]).write_text("{"), "not valid JSON"),
        (lambda data: Path(data["train"]).unlink(), "data.train: no such file"),
        (
            lambda data: Path(data["valid"]).write_text("user_id,history_item_id\nu,[1]\n"),
            "no column 'item_id'",
        ),
        (lambda data: Path(data["index"]).write_text('{"0": ["<a 1>"]}'), "items have no SID"),
    ],
)
def test_check_of_broken_files(tmp_path: Path, break_it: Any, message: str) -> None:
    file = config_file(tmp_path)
    break_it(load_config(file).data.model_dump(mode="json"))
    result = call("check", file)
    assert result.exit_code == 2
    assert flat(result.stdout).count(message) == 1, "said once, however many checks it stops"


# --- preview ---


def test_preview_shows_segments_and_labels(tmp_path: Path) -> None:
    result = call("preview", config_file(tmp_path), "--task", "sid_next", "-n", "1")
    assert result.exit_code == 0, result.output
    text = result.output
    assert (
        "interactions, oldest first:↵\n│<a_0><b_0><c_0>│↵\nThe next item"
        " is:↵\n│<a_1><b_0><c_1>│</s>│" in text
    )
    assert "tokens, 4 labels" in text


def test_preview_as_json(tmp_path: Path) -> None:
    result = call("preview", config_file(tmp_path), "--json", "-n", "2")
    examples = json.loads(result.stdout)
    assert [example["form"] for example in examples[:4]] == ["sid_next"] * 2 + [
        "item_feature.sid_to_title"
    ] * 2
    for example in examples:
        ids = [token for segment in example["segments"] for token in segment["ids"]]
        assert len(ids) == example["length"]
        assert (
            sum(len(s["ids"]) for s in example["segments"] if s["label"]) == example["labels"] > 0
        )


def test_preview_of_an_unknown_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry(monkeypatch, "preview", config_file(tmp_path), "--task", "sid_nxt") == 2
    assert "did you mean sid_next?" in capsys.readouterr().err


def test_preview_disarms_escape_sequences(tmp_path: Path) -> None:
    file = config_file(tmp_path)
    items = load_config(file).data.items
    items.write_text(items.read_text().replace("Blue Mug", "[red]\\u001b[31mBlue"))
    result = call("preview", file, "--task", "item_feature", "-n", "1")
    assert "\x1b" not in result.output
    assert "[red]\\x1b[31mBlue" in result.output


# --- new-model, sft, demo ---


def test_new_model(tmp_path: Path) -> None:
    data = write_shop(tmp_path / "data")
    result = call(
        "new-model",
        tmp_path / "base",
        "--items",
        data["items"],
        "--hidden",
        32,
        "--layers",
        1,
        "--vocab",
        300,
    )
    assert result.exit_code == 0, result.output
    assert "300 tokens" in result.output
    assert (tmp_path / "base" / "model.safetensors").is_file()


def sft_flags(folder: Path) -> list[object]:
    data = write_shop(folder / "data")
    base = folder / "base"
    if not base.exists():
        make_base(base)
    return [
        *("--base_model", base, "--train_file", data["train"], "--eval_file", data["valid"]),
        *(
            "--output_dir",
            folder / "run",
            "--sid_index_path",
            data["index"],
            "--item_meta_path",
            data["items"],
        ),
    ]


def printed_config(output: str) -> dict[str, Any]:
    lines = output.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("output_dir:"))
    end = next(number for number in range(start, len(lines)) if not lines[number].strip())
    tree: dict[str, Any] = yaml.safe_load("\n".join(lines[start:end]))
    return tree


def test_sft_has_minionerecs_defaults(tmp_path: Path) -> None:
    result = call("sft", *sft_flags(tmp_path), "--dry-run")
    assert result.exit_code == 0, result.output
    tree = printed_config(result.output)
    assert tree["seed"] == 42
    assert tree["model"] == {
        "base": str(tmp_path / "base"),
        "from_scratch": False,
        "tuning": "full",
        "new_rows": "mean",
        "residual_dropout": None,
        "embedding_dropout": None,
    }
    training = tree["training"]
    assert (
        training["batch_size"],
        training["epochs"],
        training["learning_rate"],
        training["warmup"],
    ) == (
        128,
        10,
        3e-4,
        20,
    )
    assert (training["max_tokens"], tree["encoding"]["cutoff_len"]) == (4 * 512, 512)
    assert (tree["eval"]["every"], tree["eval"]["save_total_limit"], tree["logging"]["every"]) == (
        0.05,
        1,
        1,
    )
    assert tree["data"]["sample"] is None


def test_sft_trains_with_its_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        "--batch_size",
        16,
        "--num_epochs",
        1,
        "--learning_rate",
        0.01,
        "--sample",
        10,
        "--cutoff_len",
        128,
    ]
    flags += [
        "--freeze_LLM",
        "True",
        "--group_by_length",
        "True",
        "--category",
        "Ships in bottles",
        "--seed",
        3,
    ]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert entry(monkeypatch, "sft", *sft_flags(tmp_path), *flags) == 0
    said = capsys.readouterr().out
    tree = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert tree["model"]["tuning"] == "frozen"
    assert "--group_by_length has no effect" in said
    assert tree["data"]["sample"] == 10
    assert "frozen tuning · 416 of" in said
    assert "Ships in bottles" in said
    assert (tmp_path / "run" / "final_checkpoint" / "model.safetensors").is_file()


@pytest.mark.parametrize("text", ["None", "none", "", "False"])
def test_sft_takes_minionerecs_words_for_a_new_run(tmp_path: Path, text: str) -> None:
    """None is the default of its script, and starts anew."""
    flags = ["--batch_size", 16, "--num_epochs", 1, "--sample", 4, "--resume_from_checkpoint", text]
    assert call("sft", *sft_flags(tmp_path), *flags, "--dry-run").exit_code == 0
    if text == "None":
        assert call("sft", *sft_flags(tmp_path), *flags).exit_code == 0
        again = call("sft", *sft_flags(tmp_path), *flags)
        assert "contains another run" in str(again.exception), (
            "it does not go on from where that one was"
        )
        auto = call("sft", *sft_flags(tmp_path), *flags[:-1], "True")
        assert "already contains this run, finished" in str(auto.exception)


def test_an_index_without_files_to_write_it_into(tmp_path: Path) -> None:
    said = call("prepare", config_file(tmp_path), "--index", tmp_path / "nosuch.json").exception
    assert "--index has no effect without --minionerec" in str(said)


def test_a_dry_run_looks_at_what_it_would_resume_from(tmp_path: Path) -> None:
    file = config_file(tmp_path)
    missing = call("train", file, "--dry-run", "--resume", tmp_path / "nosuch")
    assert "nosuch: no such folder" in str(missing.exception)
    missing = call(
        "sft", *sft_flags(tmp_path), "--dry-run", "--resume_from_checkpoint", tmp_path / "nosuch"
    )
    assert "nosuch: no such folder" in str(missing.exception)
    (tmp_path / "empty").mkdir()
    assert isinstance(
        call("train", file, "--dry-run", "--resume", tmp_path / "empty").exception, UserError
    )
    assert not (tmp_path / "run").exists()
    other = call("train", file, "--dry-run", "--resume", tmp_path / "base")
    assert "Starting from the weights in" in other.output
    assert "do not match the model" in str(other.exception), "it has no rows for the SIDs"


def test_sft_wants_true_or_false(tmp_path: Path) -> None:
    done = shell("sft", *sft_flags(tmp_path), "--freeze_LLM", "maybe")
    assert done.returncode == 2
    assert "expected True or False, found 'maybe'" in done.stderr


def test_quiet_training_prints_warnings_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warmup = {"max_steps": 2, "batch_size": 16, "warmup": 50}
    done = call("train", config_file(tmp_path, training=warmup), "--quiet")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "final_checkpoint").is_dir()
    said = flat(capsys.readouterr().out + done.output)
    assert said.startswith("warning: training.warmup: warmup takes 50 steps and training 2")
    assert said.endswith("such as 0.05, suits any length.")


def test_the_demo_leaves_a_model_and_says_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run_demo(tmp_path / "demo", users=6, rl=True)
    output = flat(capsys.readouterr().out)
    assert list(report.rankers) == ["ranker", "model", "ranker without model", *BASELINES]
    assert output.count("last bought:") == 3
    assert output.count("→") >= 9
    assert (tmp_path / "demo" / "run" / "final_checkpoint" / "config.json").is_file()
    for words in ("Done.", "prepare:", "sids:", "train:", "NDCG@10", "sidtune preview"):
        assert words in output
    row = r"((?: [01]\.\d{4}){4})"
    gained = re.search(f"HR@50 supervised{row} reinforced{row}", output)
    assert gained
    logged = (tmp_path / "demo" / "run-rl" / "metrics.jsonl").read_text().splitlines()
    before = next(filter(None, (json.loads(line).get("eval_hr@50") for line in logged)))
    assert gained[1].split()[3] == f"{before:.4f}"
    report_file = tmp_path / "demo" / "run" / "report.html"
    assert output.endswith(f"Report: {report_file}")
    assert "Where the SID is lost" in report_file.read_text()
    assert load_run(tmp_path / "demo" / "demo.yaml").model.from_scratch
    assert entry(monkeypatch, "demo", "--output", tmp_path / "demo") == 2
    refused = " ".join(capsys.readouterr().err.split())
    assert "is not empty" in refused
    assert f"sidtune run {tmp_path / 'demo' / 'demo.yaml'}" in refused


def test_a_demo_refuses_a_folder_of_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").touch()
    assert entry(monkeypatch, "demo", "--output", tmp_path) == 2
    refused = capsys.readouterr().err
    assert "is not empty" in refused
    assert "sidtune run" not in refused
