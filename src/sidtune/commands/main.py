"""The entry point: every command, and messages in place of tracebacks."""

from __future__ import annotations

from sidtune.base.terminal import messages_for_errors
from sidtune.commands import baselines, check, compare, demo, evaluate, new_model, preview, recommend, sft, train
from sidtune.commands.app import app

# In the order of `sidtune --help`.
COMMANDS = (
    train.train,
    sft.sft,
    check.check,
    preview.preview,
    evaluate.evaluate,
    baselines.baselines,
    recommend.recommend,
    compare.compare,
    new_model.new_model,
    demo.demo,
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Entry point: a user's mistake becomes one message and exit status 2, a run that was asked to stop 75."""
    with messages_for_errors():
        app()
