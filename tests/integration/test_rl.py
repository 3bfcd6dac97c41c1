"""`sidtune rl`: from a finished run to an ordinary model folder, exactly resumable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests.forking import start_ranks
from tests.running import Crash, metrics, same_result
from tests.tiny_data import tiny_config, tiny_tree
from typer.testing import CliRunner

from sidtune.base.errors import UserError
from sidtune.batching.steps import Steps
from sidtune.commands.main import app
from sidtune.decoding.recommender import Recommender
from sidtune.files.weight_files import load_weights
from sidtune.reinforcement.rewards.base import Groups
from sidtune.reinforcement.rollouts import Rollout, Rollouts
from sidtune.reinforcement.run import reinforce, reinforced
from sidtune.reinforcement.trainer import ReinforcementTrainer
from sidtune.reporting import page
from sidtune.runs.checkpoints import FINAL, IDENTITY
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config
from sidtune.training.train import train

RL = {"steps": 6, "prompts": 8, "group": 4, "learning_rate": 1e-3, "warmup": 1}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of a configuration `tree`."""
    folder = tmp_path_factory.mktemp("rl")
    train(tiny_config(folder, tasks={"sid_next": None}, eval={"every": 10}))
    return folder


def tree_of(shop: Path, name: str, rl: dict[str, Any], **sections: Any) -> dict[str, Any]:
    tree = tiny_tree(shop, tasks={"sid_next": None}, eval={"every": 2, "patience": None})
    return tree | sections | {"rl": RL | rl | {"output_dir": str(shop / name)}}


def config_of(shop: Path, name: str, **rl: Any) -> Config:
    return parse_config(tree_of(shop, name, rl), "test")


def dies(config: Config, step: int) -> None:
    ordinary = ReinforcementTrainer.training_step

    def dying(self: ReinforcementTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.state.global_step == step:
            raise Crash
        return ordinary(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReinforcementTrainer, "training_step", dying)
        with pytest.raises(Crash):
            reinforce(config)


@pytest.mark.parametrize(
    ("rl", "every", "state"),
    [
        ({}, 2, "fp32"),
        # The checkpoint lies between the updates of one rollout.
        ({"rollout": "sample", "updates": 3, "hint": 1, "add_target": True}, 4, "fp32"),
        ({}, 3, "bf16"),
    ],
    ids=["beams", "sample", "state of the optimizer in bfloat16"],
)
def test_a_killed_run_ends_as_if_left_alone(
    shop: Path, rl: dict[str, Any], every: int, state: str
) -> None:
    names = [f"whole {every}", f"broken {every}"]
    trees = [tree_of(shop, name, rl, eval={"every": every, "patience": None}) for name in names]
    for tree in trees:
        tree["training"]["optimizer_state"] = state
    whole, broken = (parse_config(tree, "test") for tree in trees)
    gain = reinforce(whole)
    assert gain is not None
    dies(broken, every + 1)
    reinforce(broken)
    left, right = ({"output_dir": str(shop / name)} for name in names)
    rest = tiny_tree(shop)
    same_result(rest | left, rest | right)
    logged = [entry for entry in metrics(reinforced(whole)) if "reward" in entry]
    assert len(logged) == RL["steps"]
    assert {"kl", "hit_groups", "taught_groups", "entropy", "tokens_saved"} <= logged[0].keys()
    assert logged[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert logged[-1]["kl"] > 1e-6
    assert gain.before.keys() >= {"ndcg@10", "hr@10"}


def test_answers_to_other_prompts_are_not_taken_up(shop: Path) -> None:
    """A process of a run that others resume may have as many prompts as one had before."""
    tree = tree_of(shop, "others", {"steps": 4, "updates": 2}, eval={"every": 3, "patience": None})
    config, share, ask = parse_config(tree, "test"), Steps.share, Rollouts.ask
    asked: list[int] = []

    def asking(self: Rollouts, decoder: Any, examples: Any, number: int) -> Rollout:
        asked.append(number)
        return ask(self, decoder, examples, number)

    def sharing(part: slice) -> Any:
        return lambda self, number: share(self, number)[part]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rollouts, "ask", asking)
        patch.setattr(Steps, "share", sharing(slice(4)))
        dies(config, 3)
        assert asked == [0, 1]
        patch.setattr(Steps, "share", sharing(slice(4, 8)))
        reinforce(config)
    assert asked == [0, 1, 1]


def test_what_is_left_is_an_ordinary_model_that_answers(shop: Path) -> None:
    config = config_of(shop, "folder", steps=2)
    reinforce(config)
    folder = shop / "folder"
    assert len(Recommender.load(folder).recommend([["1", "2"]], k=3)[0]) == 3
    start, end = load_weights(shop / "run" / FINAL), load_weights(folder / FINAL)
    assert start.keys() == end.keys()
    assert any(not torch.equal(start[name], end[name]) for name in start)
    with pytest.raises(UserError, match="already contains this run, finished"):
        reinforce(config)


def test_the_layout_does_not_matter(shop: Path) -> None:
    """Nor does the size of a micro-batch, up to rounding."""
    ends = []
    for name, training in (
        ("tree", {"layout": "tree"}),
        ("padded", {"layout": "padded", "micro_batch_size": 3}),
    ):
        tree = tree_of(shop, name, {"over": "allowed", "steps": 2})
        tree["training"] = training
        reinforce(parse_config(tree, "test"))
        ends.append(load_weights(shop / name / FINAL))
    for weight, value in ends[0].items():
        torch.testing.assert_close(ends[1][weight], value, rtol=1e-4, atol=2e-5)


def test_two_uneven_processes_equal_one(shop: Path, tmp_path: Path) -> None:
    """Of three prompts one rank has one, which at some step teaches nothing."""
    rl = {"prompts": 3, "rollout": "sample", "updates": 2, "sft_weight": 0, "max_grad_norm": 1e6}
    alone, together = (tree_of(shop, name, rl) for name in ("alone", "together"))
    one, two = (reinforced(parse_config(tree, "test")) for tree in (alone, together))
    reinforce(parse_config(alone, "test"))
    assert [rank.ends() for rank in start_ranks(2, together, tmp_path, command="rl")] == [0, 0]
    logged = metrics(one)
    assert any(0 < entry.get("taught_groups", 0) < 1 for entry in logged)
    assert max(entry.get("grad_norm", 0) for entry in logged) > 1e-3
    for left, right in zip(logged, metrics(two), strict=True):
        # The opening that all prompts share is computed once in each process.
        for entry in (left, right):
            entry.pop("tokens_saved", None)
        assert right == pytest.approx(left, rel=2e-3, abs=1e-5)
    start = load_weights(shop / "run" / FINAL)
    mine, theirs = (load_weights(run.output_dir / FINAL) for run in (one, two))
    assert any(not torch.equal(value, start[name]) for name, value in mine.items())
    for name, value in mine.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=1e-4)


def test_without_signal_and_without_sft_nothing_moves(shop: Path) -> None:
    """All groups hold every SID of the shop, and all answers are rewarded alike."""
    tree = tree_of(shop, "still", {"steps": 1, "beta": 0, "sft_weight": 0, "group": 4})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sidtune.reinforcement.rollouts.mixed", lambda weights, groups, shop: groups.sids * 0.0
        )
        reinforce(parse_config(tree, "test"))
    start, end = load_weights(shop / "run" / FINAL), load_weights(shop / "still" / FINAL)
    assert all(torch.equal(start[name], end[name]) for name in start)


@pytest.mark.parametrize("rollout", ["beams", "sample"])
def test_groups_that_miss_are_asked_again_with_a_hint(shop: Path, rollout: str) -> None:
    ordinary, kept = Rollouts.judged, list[Groups]()
    first: list[int] = []

    def keeping(self: Rollouts, *args: Any) -> Rollout:
        answered = ordinary(self, *args)
        kept.append(answered.groups)
        first[:] = self.corpus.paths.tokens[:, 0].tolist()
        return answered

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rollouts, "judged", keeping)
        for hint in (0, 1):
            rl = {"rollout": rollout, "steps": 1, "prompts": 16, "group": 2, "hint": hint}
            reinforce(config_of(shop, f"hint {hint} {rollout}", **rl))
    plain, hinted = kept
    missed = ~plain.hits.any(axis=1)
    assert 0 < missed.sum() < len(missed)
    assert (hinted.sids[~missed] == plain.sids[~missed]).all()
    for sids, target in zip(hinted.sids[missed], hinted.targets[missed], strict=True):
        assert {first[sid] for sid in sids if sid >= 0} == {first[target]}


def test_dropout_is_the_updates_alone(shop: Path) -> None:
    """At the first step, answers are the same as without, and their probabilities are not the
    reference's.
    """
    first = {}
    for rate, updates in ((0.0, 1), (0.5, 1), (0.5, 2)):
        tree = tree_of(shop, f"dropout {rate} {updates}", {"steps": 1, "updates": updates})
        tree["model"] = tree["model"] | {"residual_dropout": rate, "embedding_dropout": rate}
        config = parse_config(tree, "test")
        reinforce(config)
        first[rate, updates] = next(e for e in metrics(reinforced(config)) if "reward" in e)
    assert len({(entry["reward"], entry["entropy"]) for entry in first.values()}) == 1
    assert first[0.5, 1]["kl"] > 1e-3
    assert first[0.0, 1]["kl"] == pytest.approx(0, abs=1e-6)
    assert first[0.5, 2]["kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_what_is_evaluated_and_saved_is_averaged_with_the_start(shop: Path, tuning: str) -> None:
    """A run that starts from the result evaluates it as the run did that left it."""

    # Enough for the product of averaged factors to be another one than the average of products.
    steps = 4 if tuning == "lora" else 2

    def config_of_run(name: str, **rl: Any) -> Config:
        rl |= {"learning_rate": 0.01, "sft_weight": 1}
        tree = tree_of(shop, f"{name}, {tuning}", rl)
        tree["eval"] |= {"every": steps}
        tree["model"] |= {"tuning": tuning} | ({"lora": {"rank": 4}} if tuning == "lora" else {})
        return parse_config(tree, "test")

    whole = config_of_run("trained alone", steps=steps, keep_start=0)
    averaged = config_of_run("averaged", steps=steps, keep_start=0.25)
    for config in (whole, averaged):
        gain = reinforce(config)
        assert gain
        assert gain.result.best_step == steps
    start, trained, result = (
        load_weights(folder / FINAL)
        for folder in (shop / "run", *(reinforced(each).output_dir for each in (whole, averaged)))
    )
    for name, value in result.items():
        expected = 0.25 * start[name] + 0.75 * trained[name]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    again = config_of_run("again", steps=1, start=str(reinforced(averaged).output_dir))
    reinforce(again)
    evaluated = [
        [entry for entry in metrics(reinforced(config)) if "eval_ndcg@10" in entry]
        for config in (averaged, again)
    ]
    assert evaluated[1][0] == pytest.approx(evaluated[0][-1] | {"step": 0, "epoch": 0}, rel=1e-5)


@pytest.mark.parametrize(
    ("rl", "message"),
    [
        ({"start": "nowhere"}, "no such folder: nowhere"),
        ({"temperature": 2.0, "rollout": "beams"}, "temperature has no effect with rollout: beams"),
        ({"clip": 0.1}, "clip has no effect with updates: 1"),
        ({"tasks": {"sid_nxt": None}}, "rl.tasks.sid_nxt: unknown task; did you mean sid_next"),
        ({"tasks": {"fusion": None}}, "no example of fusion answers with a SID"),
        ({"rewards": {"rule": 0}}, "give at least one reward a weight other than 0"),
        ({"rewards": {"rules": 1}}, "rl.rewards.rules"),
        ({"hint": 3}, "rl.hint: 3 gives the whole target away: the longest SID has 3 tokens"),
        ({"level_weights": [1, 1, 1, 0]}, "rl.level_weights: 4 factors, but SIDs have 3 levels"),
        ({"level_weights": [1, -1]}, "rl.level_weights.2: expected at least 0"),
        ({"steps": 3, "epochs": 1}, "steps and epochs both set the length"),
    ],
)
def test_mistakes_are_named(shop: Path, rl: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        reinforce(config_of(shop, "mistaken", **rl))
    assert message in str(refusal.value)
    assert not (shop / "mistaken" / "metrics.jsonl").exists()


def test_a_reward_without_vectors_is_one_error(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = json.loads((shop / "data" / "shop.item.json").read_text())
    vectors, nameless = shop / "broken.npy", shop / "nameless.item.json"
    np.save(vectors, np.full((len(items), 2), np.nan, np.float32))
    nameless.write_text(json.dumps({item: {"title": ""} for item in items}))
    sections: list[tuple[dict[str, Any], str, str]] = [
        ({"vectors": "file", "file": str(vectors)}, "vectors hold NaN", "Or remove the reward."),
        ({"catalogue": str(nameless)}, "there are no texts", "or remove the reward."),
    ]
    for sids, found, todo in sections:
        tree = tree_of(shop, "no vectors", {"rewards": {"semantic": 1}}, sids=sids)
        for dry_run in (True, False):
            with pytest.raises(UserError) as refusal:
                reinforce(parse_config(tree, "test"), dry_run=dry_run)
            assert refusal.value.message.startswith("rl.rewards.semantic ")
            assert found in refusal.value.message
            assert refusal.value.hint.endswith(todo)
            assert "text neighbours" not in capsys.readouterr().err


def test_a_run_that_is_not_there_is_to_be_trained_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Run `sidtune train` with this configuration first"):
        reinforce(tiny_config(tmp_path))


def test_out_of_memory_the_answers_are_laid_out_again(shop: Path) -> None:
    """In smaller passes, and with what is asked of them: the result stays the same."""
    ordinary, failures = ReinforcementTrainer._passes, []

    def failing(self: ReinforcementTrainer, model: Any, step: Any) -> Any:
        largest = max(batch.input_ids.size for batch in step["micro_batches"])
        if largest > 80:
            failures.append(largest)
            raise torch.OutOfMemoryError
        return ordinary(self, model, step)

    reinforce(config_of(shop, "room enough", steps=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReinforcementTrainer, "_passes", failing)
        reinforce(config_of(shop, "little room", steps=2))
    assert failures
    left, right = (load_weights(shop / name / FINAL) for name in ("room enough", "little room"))
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, rtol=1e-4, atol=2e-5)


def test_another_catalogue_is_refused(shop: Path, tmp_path: Path) -> None:
    tree = tree_of(shop, "other", {})
    index = json.loads(Path(tree["data"]["index"]).read_text())
    for ids, message in ((("0", "1"), "another catalogue"), (("0", None), "does not know 1 of")):
        changed = dict(index)
        changed[ids[0]] = index[ids[1]] if ids[1] else ["<a_0>", "<b_0>", "<c_99>"]
        file = tmp_path / "index.json"
        file.write_text(json.dumps(changed))
        tree["data"]["index"] = str(file)
        # Rows hold SIDs too, which then differ from the index: that is only a warning.
        with pytest.raises(UserError, match=message):
            reinforce(parse_config(tree, "test"))


def test_a_changed_start_or_objective_is_another_run(shop: Path) -> None:
    config = config_of(shop, "resumed", steps=4)
    dies(config, 3)
    with pytest.raises(UserError, match=r"rl\.beta: 0\.001 in the checkpoint, 0\.5 now"):
        reinforce(config_of(shop, "resumed", steps=4, beta=0.5))
    with pytest.raises(UserError) as refused:
        reinforce(config_of(shop, "resumed", steps=5, prompts=6, learning_rate=0.5))
    for key in ("rl.steps: 4", "rl.prompts: 8", "rl.learning_rate: 0.001"):
        assert f"  {key} in the checkpoint" in str(refused.value)
    hint = "choose a new rl.output_dir, where `rl.start=PATH` starts from its weights only."
    assert hint in str(refused.value)
    assert "training." not in str(refused.value)
    with pytest.raises(UserError) as longer:
        reinforce(config_of(shop, "resumed", steps=5))
    assert "--extend" not in str(longer.value)
    saved = json.loads((shop / "resumed" / "checkpoint-2" / IDENTITY).read_text())
    assert {"rl.start", "rl.group", "rl.rewards", "rl.sft_weight"} <= saved.keys()
    with pytest.raises(UserError, match=r"rl\.start"):
        reinforce(config, resume=str(shop / "run"))


def test_messages_of_training_name_the_keys_of_reinforcement(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dies(config_of(shop, "named", steps=4), 3)
    reinforce(config_of(shop, "named", steps=4, warmup=0, max_grad_norm=3.0))
    said = capsys.readouterr().err
    assert "warning: rl.warmup: 1 in" in said
    assert "warning: rl.max_grad_norm: 1.0 in" in said
    with pytest.raises(UserError, match=r"To train again, choose another rl\.output_dir\."):
        reinforce(config_of(shop, "named", steps=4))
    # No weights stay finite at this rate.
    with pytest.raises(UserError) as broken:
        reinforce(config_of(shop, "not finite", steps=4, learning_rate=1e30, warmup=0))
    assert "Lower rl.learning_rate, or lengthen rl.warmup" in str(broken.value)
    assert "training.learning_rate" not in str(broken.value)


def test_the_command(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = shop / "config.yaml"
    file.write_text(yaml.safe_dump(tree_of(shop, "by command", {"steps": 2})))
    # It takes seconds to make, and is looked at elsewhere.
    monkeypatch.setattr(page, "chart_library", lambda: "")
    result = CliRunner().invoke(app, ["rl", str(file), "logging.report=true"])
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "2 steps in" in text
    assert "NDCG@10 0." in text
    assert "Mean reward of the answers" in (shop / "by command" / "report.html").read_text()
    another = f"rl.output_dir={shop / 'another'}"
    dry = CliRunner().invoke(app, ["rl", str(file), "--dry-run", another, "rl.warmup=9"])
    assert dry.exit_code == 0
    said = " ".join(dry.output.split())
    assert "warning: rl.warmup: warmup takes 9 steps and training 2" in said
    assert "which a dry run estimates" not in said
    assert not (shop / "another").exists()
