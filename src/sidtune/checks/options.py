"""Checks of the configuration: keys without effect, and values that do not fit the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from sidtune.checks.finding import Finding
from sidtune.config import NEEDED_FILES
from sidtune.inputs import Inputs
from sidtune.model.bf16 import emulated
from sidtune.tasks import TASKS


def idle_options(inputs: Inputs) -> Iterator[Finding]:
    """Files and keys that nothing reads."""
    config, tasks = inputs.config, inputs.config.task_options()
    for name, needs in NEEDED_FILES:
        if getattr(config.data, needs) is not None and not any(task.startswith(name) for task in tasks):
            remedy = f"Add a task that reads it ({name}), or leave it out."
            yield Finding("warning", f"data.{needs}", "given, but no task of the mixture reads it", [], remedy)
    if config.question not in tasks:
        message = f"evaluation and `recommend` ask {config.question}, and no task of the mixture teaches that"
        yield Finding("warning", "tasks", message, [], "Add sid_next or sid_sequence.")
    if config.model.new_rows == "text" and not len(inputs.vocabulary.new_ids):
        message = "has no effect: the base knows every SID token already"
        yield Finding("warning", "model.new_rows", message, [], "Leave it out.")
    if config.eval.ranking.every is None and config.eval.ranking.model_fields_set - {"every"}:
        yield Finding(
            "warning", "eval.ranking", "has no effect without eval.ranking.every", [], "Set it, such as to 1."
        )
    if config.model.from_scratch and "new_rows" in config.model.model_fields_set:
        message = "has no effect with from_scratch: every row is drawn anew"
        yield Finding("warning", "model.new_rows", message, [], "Leave it out.")


def precision(inputs: Inputs) -> Iterator[Finding]:
    """An explicit bf16 must not be slower than float32."""
    slow = emulated(inputs.config.training.precision)
    if slow:
        yield Finding("warning", "training.precision", f"bf16, but {slow}", [], "Set it to auto, or leave it out.")


def loss(inputs: Inputs) -> Iterator[Finding]:
    """What is asked of the tokens of SIDs must fit them."""
    loss, deepest = inputs.config.loss, max(map(len, inputs.catalogue.sids))
    if loss.level_weights is not None and len(loss.level_weights) != deepest:
        message = f"{len(loss.level_weights)} weights, but the deepest SID has {deepest} tokens"
        yield Finding("error", "loss.level_weights", f"loss.level_weights: {message}", [], "Give one for each level.")
    widest = _widest(inputs.catalogue.sids)
    if loss.margin and loss.margin_beams >= widest:
        message = f"no prefix of a SID has more than {widest} tokens that may follow, so the margin adds nothing"
        yield Finding("warning", "loss.margin_beams", message, [], f"Set it below {widest}.")
    forms = [form for task in inputs.config.tasks for form in TASKS[task].forms.values()]
    if loss.looks_at_prefixes and not any("sid" in name for form in forms for name in form.response):
        message, remedy = (
            "changes the loss of SID tokens, but no task of the mixture answers with a SID",
            "Leave it out.",
        )
        yield Finding("warning", "loss", message, [], remedy)


def _widest(sids: Sequence[tuple[str, ...]]) -> int:
    """Most tokens that may follow one prefix of a SID."""
    children = {sid[: depth + 1] for sid in sids for depth in range(len(sid))}
    return max(Counter(child[:-1] for child in children).values())


def output(inputs: Inputs) -> Iterator[Finding]:
    folder: Path = inputs.config.output_dir
    if (folder / "final_checkpoint").exists():
        message, remedy = "holds a finished run", "Choose another output_dir to train again."
        yield Finding("warning", f"output_dir {folder}", message, [], remedy)
