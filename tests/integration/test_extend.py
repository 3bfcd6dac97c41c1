"""`--extend`: a finished run is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.asking import message
from tests.running import dies, metrics, run, same_result
from tests.tiny_data import tiny_tree
from transformers import trainer_utils

from sidtune.base.errors import UserError
from sidtune.runs.checkpoints import FINAL
from sidtune.runs.output import FinishedError
from sidtune.tasks.config_file import parse_config
from sidtune.training.train import train


def tree(folder: Path, name: str, steps: int, **training: Any) -> dict[str, Any]:
    return tiny_tree(
        folder,
        output_dir=str(folder / name),  # type: ignore[arg-type]
        tasks={"sid_next": None},
        training={"max_steps": steps, "workers": 0, **training},
        eval={"every": 2},
    )


def test_an_extended_run_is_the_longer_run(tmp_path: Path, capsys: Any) -> None:
    """With a constant learning rate to the bit, also where the extension is killed."""
    whole = tree(tmp_path, "whole", 8, min_lr_ratio=1.0)
    short, longer = (tree(tmp_path, "short", steps, min_lr_ratio=1.0) for steps in (4, 8))
    run(parse_config(whole, "test"))
    run(parse_config(short, "test"))
    config = parse_config(longer, "test")
    with pytest.raises(UserError, match=r"training.max_steps: 4 in the checkpoint, 8") as refusal:
        train(config)
    assert "`sidtune train --extend`" in refusal.value.hint
    capsys.readouterr()
    dies(config, 7, resume="extend")
    said = " ".join(capsys.readouterr().out.split())
    assert "Extending the run to 8 steps: the optimizer's state is kept" in said
    assert (config.output_dir / FINAL).is_dir(), "the shorter result stays until the longer is done"
    run(config, resume="extend")
    same_result(longer, whole)
    with pytest.raises(FinishedError, match="already contains this run, finished"):
        train(config, resume="extend")
    with pytest.raises(UserError, match=r"made 8 steps, and its new length is 6"):
        train(parse_config(tree(tmp_path, "short", 6, min_lr_ratio=1.0), "test"), resume="extend")
    other = tree(tmp_path, "short", 12, min_lr_ratio=1.0, learning_rate=0.5)
    with pytest.raises(UserError, match=r"training.learning_rate: 0.01 in the checkpoint, 0.5"):
        train(parse_config(other, "test"), resume="extend")


def test_intervals_are_those_of_the_longer_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainer's state in a checkpoint has those of the shorter one. A run that is resumed as it was
    is not warned of them.
    """
    warned: list[str] = []
    monkeypatch.setattr(trainer_utils.logger, "warning_once", warned.append)
    for steps, log in ((4, 4), (8, 1)):
        made = tree(tmp_path, "run", steps, batch_size=4)
        made |= {"eval": {"every": 0.5}, "logging": {"every": log}}
        config = parse_config(made, "test")
        dies(config, steps - 1, resume="extend" if steps == 8 else "auto")
        warned.clear()
        run(config, resume="auto" if steps == 4 else "extend")
        assert steps == 8 or not warned
    entries = metrics(config)
    assert [e["step"] for e in entries if "eval_sid_next_loss" in e] == [0, 2, 4, 8]
    assert [e["step"] for e in entries if "loss" in e] == [4, 5, 6, 7, 8]


@pytest.mark.long
def test_the_learning_rate_is_that_of_a_run_of_the_new_length(tmp_path: Path) -> None:
    """And a run that had stopped early has its patience again."""
    rates = {}
    for name, lengths in (("whole", (10,)), ("extended", (4, 10))):
        for steps in lengths:
            made = tree(tmp_path, name, steps)
            config = parse_config(made, "test")
            run(config, resume="extend" if steps == 10 and name == "extended" else "auto")
        rates[name] = {
            entry["step"]: entry["learning_rate"]
            for entry in metrics(config)
            if "learning_rate" in entry
        }
    assert len(rates["whole"]) == 10
    late = [step for step in rates["whole"] if step > 4]
    assert [rates["extended"][step] for step in late] == [rates["whole"][step] for step in late]
    assert rates["extended"][4] < rates["whole"][4]


def test_there_must_be_something_to_extend(tmp_path: Path) -> None:
    made = tree(tmp_path, "none", 4)
    with pytest.raises(UserError, match=r"--extend: .* has no complete checkpoint"):
        train(parse_config(made, "test"), resume="extend")
    file = tmp_path / "run.yaml"
    file.write_text("")
    assert "--extend has no effect with --resume never" in message(
        "train", file, "--extend", "--resume", "never"
    )
