"""Messages name the keys that the running command reads."""

from __future__ import annotations

import pickle

import pytest

from sidtune.base.errors import UserError
from sidtune.base.keys import named, naming
from sidtune.base.terminal import warn

NAMES = {"training.warmup": "rl.warmup", "output_dir": "rl.output_dir", "tasks.": "rl.tasks."}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Lower training.warmup, now 3.", "Lower rl.warmup, now 3."),
        ("training.warmup: 3", "rl.warmup: 3"),
        ("training.warmup_steps", "training.warmup_steps"),
        ("other.training.warmup", "other.training.warmup"),
        ("output_dir /a/output_dir/b is a file", "rl.output_dir /a/output_dir/b is a file"),
        ("tasks.sid_next, not its tasks.", "rl.tasks.sid_next, not its tasks."),
    ],
)
def test_whole_keys_are_exchanged_once(text: str, said: str) -> None:
    with naming(NAMES):
        assert named(text) == named(named(text)) == said
    assert named(text) == text


def test_errors_and_warnings_name_them(capsys: pytest.CaptureFixture[str]) -> None:
    with naming(NAMES):
        error = UserError("training.warmup is 3", "Choose another output_dir.")
        warn("training.warmup: 3")
    # An error reaches other processes, and the end of the program, as it was made.
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == "rl.warmup is 3\nChoose another rl.output_dir."
    assert capsys.readouterr().err == "warning: rl.warmup: 3\n"
