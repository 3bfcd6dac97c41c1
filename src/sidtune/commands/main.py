"""The entry point: registers all commands, and shows messages instead of tracebacks."""

from __future__ import annotations

import logging

from sidtune.base.terminal import messages_for_errors
from sidtune.commands import (
    baselines,
    check,
    compare,
    demo,
    evaluate,
    explain,
    export,
    init,
    merge,
    new_model,
    play,
    prepare,
    preview,
    push,
    rank,
    recommend,
    report,
    rl,
    run,
    schema,
    serve,
    sft,
    sids,
    train,
)
from sidtune.commands.app import app

# In the order of `sidtune --help`.
COMMANDS = (
    init.init,
    run.run,
    prepare.prepare,
    train.train,
    sft.sft,
    rl.rl,
    check.check,
    preview.preview,
    evaluate.evaluate,
    baselines.baselines,
    rank.rank,
    recommend.recommend,
    serve.serve,
    play.play,
    export.export,
    compare.compare,
    report.report,
    push.push,
    merge.merge,
    new_model.new_model,
    demo.demo,
    explain.explain,
    schema.schema,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(sids.sids, name="sids")


def main() -> None:
    """Entry point. A `UserError` prints one message and exits with status 2; an interrupted run
    exits with 75.
    """
    # It says at its import which of its kernels are missing, whether or not they are wanted.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with messages_for_errors():
        app()
