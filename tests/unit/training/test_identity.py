"""What a resumed run must share with its checkpoint: every key of the configuration is
looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tests.tiny_data import tiny_tree

from sidtune.base.errors import UserError
from sidtune.inputs import Inputs
from sidtune.runs.checkpoints import CHANGEABLE, IDENTITY, RECORDED_LATER, compare_identity
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config
from sidtune.training.identity import run_identity

LORA = {"model": {"tuning": "lora", "lora": {"rank": 4}}}
BEST = {"eval": {"every": 5, "metric": "ndcg@10", "ranking": {"every": 1}}}
# Another value for each key that makes it another run, and what the key needs beside it in both.
COMPARED: dict[str, tuple[Any, dict[str, Any]]] = {
    "seed": (5, {}),
    "model.from_scratch": (True, {}),
    "model.tuning": ("frozen", {}),
    "model.lora.rank": (5, LORA),
    "model.lora.alpha": (5, LORA),
    "model.lora.dropout": (0.1, LORA),
    "model.lora.targets": (["q_proj"], LORA),
    "model.lora.rslora": (True, LORA),
    "model.lora.dora": (True, LORA),
    "model.lora.init": ("gaussian", LORA),
    "model.quantize": ("nf4", LORA),
    "model.new_rows": ("text", {}),
    "model.residual_dropout": (0.1, {}),
    "model.embedding_dropout": (0.1, {}),
    "data.history": (3, {}),
    "data.unique_sids": (True, {}),
    "data.sample": (3, {}),
    "data.dedup": (True, {}),
    "data.description_tokens": (3, {}),
    "tasks": ({"sid_next": {"weight": 2}}, {}),
    "template.format": ("chat", {}),
    "encoding.cutoff_len": (150, {}),
    "training.epochs": (9, {}),
    "training.max_steps": (9, {}),
    "training.batch_size": (8, {}),
    "training.group_by": ("example", {}),
    "training.learning_rate": (0.5, {}),
    "training.min_lr_ratio": (0.9, {}),
    "training.weight_decay": (0.5, {}),
    "training.distributed": ("fsdp2", {}),
    "training.optimizer_state": ("bf16", {}),
    "training.decay_embeddings": (False, {"training": {"weight_decay": 0.5}}),
    "loss.over": ("allowed", {}),
    "loss.label_smoothing": (0.1, {}),
    "stages": ([{"tuning": "full"}], {}),
    "eval.task": ("sid_sequence", {"tasks": {"sid_next": None, "sid_sequence": None}}),
    "eval.every": (4, {}),
    "eval.max_rows": (4, {}),
    "eval.task_rows": (4, {}),
    "eval.metric": ("hr@10", BEST),
    "eval.ranking.sample": (9, BEST),
    "eval.ranking.beams": (11, BEST),
    "eval.ranking.normalize": ("trie", BEST),
    "eval.ranking.exclude_history": (True, BEST),
    "eval.patience": (9, {}),
}
# Files: their content is compared, wherever they lie.
CONTENT = ["data.items", "data.index", "data.train", "data.valid", "template.file"]
NOT_IN_THE_SHOP = {
    "data.interactions": "content is compared, as that of data.train",
    "data.preferences": "content is compared, as that of data.train",
    "data.instructions": "content is compared, as that of data.train",
}
HARMLESS = {
    "model.lora.save_adapter": "what is written at the end",
    "output_dir": "where the run lies",
    "events": "`sidtune prepare` reads it; training compares the content of its rows",
    "catalogue": "as `events`",
    "sids": "`sidtune sids` reads it; training compares the content of the index",
    "model.base": "weights come from the checkpoint; another vocabulary or shape is refused",
    "data.test": "training never reads it",
    "encoding.cache_dir": "a cache",
    "training.workers": "steps are the same whoever prepares them",
    "training.gradient_checkpointing": "the same activations, computed twice",
    "training.offload_optimizer": "the same state, in another place",
    "eval.ranking.every": (
        "metrics that nothing is chosen by; with another eval.metric than loss it must be 1"
    ),
    "eval.save_total_limit": "older checkpoints that are kept beside the best",
    "rank.fit": "read after training",
    "rank.sources": "as `rank.fit`",
    "rank.rows": "as `rank.fit`",
    "rank.beams": "as `rank.fit`",
    "rank.trees": "as `rank.fit`",
    "rank.leaves": "as `rank.fit`",
    "rank.learning_rate": "as `rank.fit`",
    "rl.start": "`sidtune rl` reads it, and compares what it needs by itself",
    "rl.output_dir": "as `rl.start`",
    "rl.tasks": "as `rl.start`",
    "rl.group": "as `rl.start`",
    "rl.rollout": "as `rl.start`",
    "rl.temperature": "as `rl.start`",
    "rl.add_target": "as `rl.start`",
    "rl.hint": "as `rl.start`",
    "rl.rewards": "as `rl.start`",
    "rl.over": "as `rl.start`",
    "rl.beta": "as `rl.start`",
    "rl.keep_start": "as `rl.start`",
    "rl.sft_weight": "as `rl.start`",
    "rl.level_weights": "as `rl.start`",
    "rl.updates": "as `rl.start`",
    "rl.clip": "as `rl.start`",
    "rl.prompts": "as `rl.start`",
    "rl.steps": "as `rl.start`",
    "rl.epochs": "as `rl.start`",
    "rl.learning_rate": "as `rl.start`",
    "rl.warmup": "as `rl.start`",
    "rl.max_grad_norm": "as `rl.start`",
    "logging.every": "what is logged",
    "logging.trackers": "what is logged",
    "logging.project": "what is logged",
    "logging.run_name": "what is logged",
    "logging.report": "what is written at the end",
}
MAY_CHANGE = {
    "training.layout": "padded",
    "training.max_tokens": 4000,
    "training.micro_batch_size": 2,
    "training.warmup": 5,
    "training.max_grad_norm": 2.0,
    "training.precision": "bf16",
    "training.compile": True,
}


def keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_key_is_compared_or_known_to_be_harmless() -> None:
    """A new key of the configuration belongs into one of these tables."""
    decided = [*COMPARED, *CONTENT, *NOT_IN_THE_SHOP, *HARMLESS, *MAY_CHANGE]
    assert sorted(decided) == sorted(keys(Config))
    assert MAY_CHANGE.keys() == CHANGEABLE


def with_value(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The tree with one key set."""
    *above, last = key.split(".")
    copy: dict[str, Any] = json.loads(json.dumps(tree))
    section = copy
    for name in above:
        section = section.setdefault(name, {})
    section[last] = value
    return copy


def identity(tree: dict[str, Any]) -> dict[str, Any]:
    return run_identity(Inputs(parse_config(tree, "test")), 1)


@pytest.mark.parametrize("key", COMPARED)
def test_another_value_is_refused_with_both(tmp_path: Path, key: str) -> None:
    value, needs = COMPARED[key]
    before = tiny_tree(tmp_path, **needs)
    after = with_value(before, key, value)
    if key == "template.format":
        settings = tmp_path / "base" / "tokenizer_config.json"
        template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<pad>{% endfor %}"
        settings.write_text(
            json.dumps(json.loads(settings.read_text()) | {"chat_template": template})
        )
    (tmp_path / IDENTITY).write_text(json.dumps(identity(before)))
    with pytest.raises(UserError) as refusal:
        compare_identity(tmp_path, identity(after))
    said = refusal.value.message
    if key in RECORDED_LATER or key.partition(".")[0] == "eval":
        section, _, name = key.partition(".")
        old: Any = parse_config(before, "test").model_dump()[section]
        for part in name.split("."):
            old = old[part]
        old = "sid_next" if key == "eval.task" else old
        assert f"{key}: {old} in the checkpoint, {value} now" in said


@pytest.mark.parametrize("key", CONTENT)
def test_the_content_of_a_file_is_compared_and_its_place_is_not(tmp_path: Path, key: str) -> None:
    tree = tiny_tree(tmp_path)
    if key == "template.file":
        wording = tmp_path / "mine.yaml"
        wording.write_text(
            "sid_next:\n  - prompt: ['They chose ', '{history_sids}']\n    response:"
            " ['{target_sid}']\n"
        )
        tree["template"] = {"file": str(wording)}
    else:
        wording = Path(tree["data"][key.removeprefix("data.")])
    before = identity(tree)
    moved = tmp_path / "moved" / wording.name
    moved.parent.mkdir()
    moved.write_bytes(wording.read_bytes())
    assert identity(with_value(tree, key, str(moved))) == before
    text = wording.read_text()
    changed = {
        "template.file": text.replace("They", "We"),
        "data.items": text.replace("Red", "Tan"),
        "data.index": text.replace("<c_0>", "<c_9>"),
    }
    moved.write_text(changed.get(key, "\n".join(text.splitlines()[:-1])))
    assert identity(with_value(tree, key, str(moved))) != before


def test_the_prompts_of_evaluation_are_compared_though_no_task_trains_them(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path, tasks={"title_to_sid": None})
    wording = tmp_path / "mine.yaml"
    tree["template"] = {"file": str(wording)}
    text = (
        "sid_next:\n  - prompt: ['They chose ', '{history_sids}']\n    response: ['{target_sid}']\n"
    )
    wording.write_text(text)
    before = identity(tree)
    wording.write_text(text.replace("They", "We"))
    assert identity(tree) != before


def test_harmless_keys_change_nothing(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path)
    tree["model"] |= {"tuning": "lora"}
    other = {
        "model.lora.save_adapter": True,
        "output_dir": str(tmp_path / "elsewhere"),
        "events": {"files": "events.csv"},
        "catalogue": {"file": "items.csv"},
        "sids": {"levels": [4, 4]},
        "data.test": str(Path(tree["data"]["valid"])),
        "encoding.cache_dir": str(tmp_path / "cache2"),
        "training.workers": 0,
        "training.gradient_checkpointing": True,
        "training.offload_optimizer": True,
        "eval.ranking.every": 2,
        "eval.save_total_limit": 3,
        "rank.fit": "auto",
        "rank.sources": ["model", "text"],
        "rank.rows": 7,
        "rank.beams": 7,
        "rank.trees": 7,
        "rank.leaves": 3,
        "rank.learning_rate": 0.1,
        "rl.start": "elsewhere",
        "rl.level_weights": [2.0],
        "rl.output_dir": "elsewhere-rl",
        "rl.tasks": {"sid_next": None},
        "rl.group": 4,
        "rl.rollout": "sample",
        "rl.temperature": 0.5,
        "rl.add_target": True,
        "rl.hint": 1,
        "rl.rewards": {"prefix": 1.0},
        "rl.over": "allowed",
        "rl.beta": 0.5,
        "rl.keep_start": 0.5,
        "rl.sft_weight": 0.5,
        "rl.updates": 2,
        "rl.clip": 0.1,
        "rl.prompts": 4,
        "rl.steps": 4,
        "rl.epochs": None,
        "rl.learning_rate": 0.5,
        "rl.warmup": 4,
        "rl.max_grad_norm": 0.5,
        "logging.every": 3,
        "logging.trackers": ["tensorboard"],
        "logging.project": "p",
        "logging.run_name": "n",
        "logging.report": False,
    }
    assert other.keys() | {"model.base"} == HARMLESS.keys()
    changed = tree
    for key, value in other.items():
        changed = with_value(changed, key, value)
    assert identity(changed) == identity(tree)


def test_what_may_change_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = tiny_tree(tmp_path)
    (tmp_path / IDENTITY).write_text(json.dumps(identity(tree)))
    tree["training"] |= {
        "warmup": 5,
        "max_grad_norm": 2.0,
        "layout": "padded",
        "micro_batch_size": 2,
    }
    compare_identity(tmp_path, identity(tree))
    said = " ".join(capsys.readouterr().err.split())
    for key, old, new in (
        ("warmup", 2, 5),
        ("max_grad_norm", 1.0, 2.0),
        ("layout", "tree", "padded"),
    ):
        assert f"training.{key}: {old} in {tmp_path}" in said.replace("- ", "-")
        assert f", {new} now" in said
    assert "max_tokens" not in said


def test_a_checkpoint_of_an_earlier_version_is_said_to_lack_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tiny_tree(tmp_path)
    now = identity(tree)
    assert set(RECORDED_LATER) < now.keys()
    earlier = {
        name: value for name, value in now.items() if name not in {*RECORDED_LATER, *CHANGEABLE}
    }
    (tmp_path / IDENTITY).write_text(json.dumps(earlier))
    compare_identity(tmp_path, now)
    said = " ".join(capsys.readouterr().err.split())
    assert "written by an earlier version" in said
    assert all(name in said for name in RECORDED_LATER)
    with pytest.raises(UserError, match="seed: 1 in the checkpoint, 2 now") as refusal:
        compare_identity(tmp_path, {**now, "seed": 2})
    assert "training.epochs" not in refusal.value.message
