"""`sidtune check`: everything that can be found wrong without training, all at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape

from sidtune.config import NEEDED_FILES
from sidtune.data.catalogue import read_catalogue
from sidtune.data.disagreements import Disagreement, disagreements
from sidtune.data.leaks import repeated_rows
from sidtune.data.leave_one_out import FEWEST, read_interactions
from sidtune.data.rows import Split
from sidtune.encoding.encoder import Encoder
from sidtune.errors import UserError
from sidtune.inputs import Inputs
from sidtune.tasks import SEQUENCES, TASKS
from sidtune.tasks.base import Items, Part
from sidtune.templates import SEQUENCE
from sidtune.terminal import console

Severity = Literal["error", "warning", "note"]
SHOWN = 3
SAMPLED = 50
# Rotary positions that depend on the longest sequence of a forward pass.
LENGTH_DEPENDENT = ("dynamic", "longrope")


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing.

    Args:
        where: the file or key it is about.
        message: what was found.
        examples: the first offending rows.
        remedy: what to do next; empty for notes.
    """

    severity: Severity
    where: str
    message: str
    examples: list[str] = field(default_factory=list)
    remedy: str = ""


Check = Callable[[Inputs], Iterator[Finding]]


def run_checks(inputs: Inputs) -> list[Finding]:
    """Every finding of every check, errors first; a check that cannot go on says why and the others still run."""
    return _findings(inputs, CHECKS)


def _findings(inputs: Inputs, checks: Sequence[Check]) -> list[Finding]:
    findings: list[Finding] = []
    failed: set[str] = set()
    for check in checks:
        try:
            findings.extend(check(inputs))
        except UserError as error:
            # A broken file stops several checks with the same words; once is enough.
            if error.message not in failed:
                findings.append(Finding("error", check.__name__.strip("_"), error.message, [], error.hint))
            failed.add(error.message)
    order: list[Severity] = ["error", "warning", "note"]
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def refuse_errors(inputs: Inputs) -> None:
    """Run every check before training: errors end it, all of them at once, and warnings are shown.

    What the rows were found to be is taken from the cache for as long as they and their settings stay the same.

    Raises:
        UserError: lists the errors.
    """
    findings = _findings(inputs, [_remembered(check) if check in ROW_CHECKS else check for check in CHECKS])
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        lines = [f"{error.message}\n  {error.remedy}".rstrip() for error in errors]
        raise UserError("\n".join(lines), "`sidtune check` shows everything else worth knowing.")
    for finding in findings:
        if finding.severity == "warning":
            console.print(f"warning: {escape(finding.where)}: {escape(finding.message)}. {escape(finding.remedy)}")


def _remembered(check: Check) -> Check:
    """The check, made once for the same files and settings; one that fails fails again."""

    @wraps(check)
    def kept(inputs: Inputs) -> Iterator[Finding]:
        name = f"check{check.__name__}"
        found = inputs.mixture.remembered(name, lambda: [asdict(finding) for finding in check(inputs)])
        return (Finding(**finding) for finding in found)

    return kept


def render(findings: Sequence[Finding]) -> Iterator[str]:
    """For the screen, as markup: each finding with its examples and its remedy, then how many there are."""
    styles = {"error": "bold red", "warning": "bold yellow", "note": "dim"}
    for finding in findings:
        yield f"[{styles[finding.severity]}]{finding.severity}[/] {escape(finding.where)}: {escape(finding.message)}"
        yield from (f"    {escape(example)}" for example in finding.examples)
        if finding.remedy:
            yield f"    → {escape(finding.remedy)}"
    counts = {name: sum(finding.severity == name for finding in findings) for name in styles}
    yield ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())


def exit_status(findings: Sequence[Finding]) -> int:
    """0 for nothing but notes, 1 for warnings, 2 for errors."""
    severities = {finding.severity for finding in findings}
    return 2 if "error" in severities else 1 if "warning" in severities else 0


def _catalogue(inputs: Inputs) -> Iterator[Finding]:
    catalogue, data = inputs.catalogue, inputs.config.data
    depths = sorted({len(sid) for sid in catalogue.sids})
    shared = {sid: items for sid, items in catalogue.items_of.items() if len(items) > 1}
    yield Finding(
        "note",
        str(data.index),
        f"{len(catalogue.ids):,} items, {len(catalogue.items_of):,} distinct SIDs of {'/'.join(map(str, depths))} "
        f"tokens, {len(catalogue.sid_tokens):,} SID tokens",
    )
    if shared:
        items = sum(len(group) for group in shared.values())
        examples = [f"{''.join(sid)}: items {', '.join(catalogue.ids[i] for i in g)}" for sid, g in shared.items()]
        remedy = "data.unique_sids: true gives each of them a SID of its own."
        yield Finding(
            "note", str(data.index), f"{items:,} items share a SID with another item", examples[:SHOWN], remedy
        )


def _rows(inputs: Inputs, split: Split) -> Iterator[Finding]:
    path, where = inputs.config.data.rows_file(split), _where(inputs, split)
    rows = inputs.mixture.source(split).rows
    lengths = rows.history.lengths
    yield Finding(
        "note",
        where,
        f"{len(rows.target):,} rows, histories of {lengths.min()} to {lengths.max()} items (mean {lengths.mean():.1f})",
    )
    repeats = np.flatnonzero(rows.history.values[rows.history.offsets[1:] - 1] == rows.target)
    if len(repeats):
        shown = [f"row {row + 1}, user {rows.users[row]}" for row in repeats[:SHOWN].tolist()]
        remedy = "data.dedup: true leaves them out of training." if split == "train" else ""
        yield Finding("note", where, f"{len(repeats):,} targets repeat the last history item", shown, remedy)
    if path and not inputs.config.data.interactions:
        yield from _disagreements(path, inputs)


def _where(inputs: Inputs, split: Split) -> str:
    """The file that holds a split, and which split where it holds them all."""
    data = inputs.config.data
    return f"{data.interactions}, {split}" if data.interactions else str(data.rows_file(split))


def _disagreements(path: Path, inputs: Inputs) -> Iterator[Finding]:
    data = inputs.config.data
    # Rows name SIDs as the index does, whatever data.unique_sids adds.
    differing = disagreements(path, read_catalogue(data.items, data.index))
    first = list(islice(differing, SHOWN))
    count = len(first) + sum(1 for _ in differing)
    if count:
        yield Finding(
            "warning",
            str(path),
            f"{count:,} cells disagree with the catalogue, which is what training uses",
            [_cell(entry) for entry in first],
            "Check that the rows and the catalogue are of the same version.",
        )


def _cell(entry: Disagreement) -> str:
    return f"row {entry.row}, {entry.column}: {entry.found!r:.60} here, {entry.expected!r:.60} in the catalogue"


def _train_rows(inputs: Inputs) -> Iterator[Finding]:
    yield from _rows(inputs, "train")


def _valid_rows(inputs: Inputs) -> Iterator[Finding]:
    yield from _rows(inputs, "valid")


def _test_rows(inputs: Inputs) -> Iterator[Finding]:
    if inputs.config.data.rows_file("test"):
        yield from _rows(inputs, "test")


def _interactions(inputs: Inputs) -> Iterator[Finding]:
    """What the rows are made of; every user's last two items are held out, so nothing can leak."""
    data, count = inputs.config.data, len(inputs.catalogue.ids)
    if data.interactions is None:
        return
    items = read_interactions(data.interactions, inputs.catalogue).items
    lengths, bought = items.lengths, np.bincount(items.values, minlength=count)
    yield Finding(
        "note",
        str(data.interactions),
        f"{len(lengths):,} users, {lengths.sum():,} interactions, {lengths.min()} to {lengths.max()} a user (mean "
        f"{lengths.mean():.1f}); {np.count_nonzero(bought == 0):,} of {count:,} items have none",
    )
    if few := np.count_nonzero(lengths < FEWEST):
        message = f"{few:,} users have fewer than {FEWEST} interactions: they are training data alone"
        yield Finding("note", str(data.interactions), message)


def _leakage(inputs: Inputs) -> Iterator[Finding]:
    """A row that also stands among the training rows flatters what is measured on it."""
    if inputs.config.data.interactions:
        return  # each row of a user ends at another interaction
    train = inputs.mixture.source("train").rows
    held_out: list[Split] = ["valid"] if inputs.config.data.test is None else ["valid", "test"]
    for split in held_out:
        leaked = repeated_rows(inputs.mixture.source(split).rows, train)
        if len(leaked):
            yield Finding(
                "warning",
                str(getattr(inputs.config.data, split)),
                f"{len(leaked):,} rows (user, history and target) also stand in the training file",
                [f"row {row + 1}" for row in leaked[:SHOWN]],
                "Split by time or by user, so that these rows are unseen.",
            )


def _vocabulary(inputs: Inputs) -> Iterator[Finding]:
    vocabulary = inputs.vocabulary
    known = len(vocabulary.sid_ids) - len(vocabulary.new_ids)
    message = f"{vocabulary.known:,} tokens, and {len(vocabulary.new_ids):,} new ones for SIDs"
    yield Finding(
        "note",
        inputs.config.model.base,
        message + (f"; {known:,} SID tokens known already" if known else ""),
    )


def _model(inputs: Inputs) -> Iterator[Finding]:
    text, cutoff = inputs.header.get_text_config(), inputs.config.encoding.cutoff_len
    yield Finding("note", inputs.config.model.base, f"{text.model_type} with a vocabulary of {text.vocab_size:,} rows")
    longest = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    if longest and cutoff > longest:
        yield Finding(
            "error",
            "encoding.cutoff_len",
            f"{cutoff} tokens, but the model has only {longest} positions",
            remedy=f"Set encoding.cutoff_len to at most {longest}.",
        )
    rope = getattr(text, "rope_parameters", None) or {}
    native = rope.get("original_max_position_embeddings") or longest
    if rope.get("rope_type") in LENGTH_DEPENDENT and native and cutoff > native:
        yield Finding(
            "warning",
            "encoding.cutoff_len",
            f"{cutoff} tokens, but this model's positions change beyond {native}, with the longest example of a pass",
            remedy=f"Set encoding.cutoff_len to at most {native}, so that a loss does not depend on its neighbours.",
        )
    tunings = {inputs.config.model.tuning, *(stage.tuning for stage in inputs.config.stages)}
    if "frozen" in tunings and not len(inputs.vocabulary.sid_ids):
        yield Finding("error", "model.tuning", "frozen tuning trains SID rows, and there is no SID token")


def _encoding(inputs: Inputs) -> Iterator[Finding]:
    """Decoding the ids of a sample of examples must give their text back."""
    mixture, tokenizer = inputs.mixture, inputs.vocabulary.tokenizer
    for name, options in inputs.config.task_options().items():
        for part in mixture.parts(name, "train", options):
            lost = [
                row for row in range(min(SAMPLED, len(part))) if not mixture.encoder.reversible(part, row, tokenizer)
            ]
            if lost:
                yield Finding(
                    "warning",
                    f"task {name}",
                    f"{len(lost)} of {min(SAMPLED, len(part))} sampled examples do not decode to the text they encode",
                    [f"row {part.rows[row] + 1}" for row in lost[:SHOWN]],
                    "The tokenizer changes such text (lower case, unknown characters); `sidtune preview` shows how.",
                )


def _templates(inputs: Inputs) -> Iterator[Finding]:
    given = inputs.config.template.file
    if given:
        yield Finding("note", str(given), f"{len(inputs.mixture.templates)} forms, those of this file in place of ours")


def _idle_options(inputs: Inputs) -> Iterator[Finding]:
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


def _loss(inputs: Inputs) -> Iterator[Finding]:
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


def _sequences(inputs: Inputs) -> Iterator[Finding]:
    """Items that a sequence loses to the length limit are targets; a history's are only read."""
    mixture, given = inputs.mixture, inputs.config.task_options()
    for name in (name for name in given if name in SEQUENCES):
        (part,) = mixture.parts(name, "train", given[name])
        longest = part.take(np.argmax(_sequence_tokens(mixture.encoder, part), keepdims=True))
        if mixture.encoder.encode(longest).truncated:
            items = int(longest.history_lengths[0]) + 1
            message = f"{name}: sequences of {items} items lose their oldest, which are targets too"
            remedy = "Raise encoding.cutoff_len, or let histories be shorter."
            yield Finding("warning", "encoding.cutoff_len", message, [], remedy)


def _sequence_tokens(encoder: Encoder, part: Part) -> NDArray[np.int64]:
    """Tokens of the SIDs of each sequence, `(n,)`."""
    column = part.columns[SEQUENCE]
    assert isinstance(column, Items)
    total = np.cumsum(encoder.item_tokens("sid", False).lengths[column.positions.values])
    return np.diff(np.append(0, total)[column.positions.offsets])


def _output(inputs: Inputs) -> Iterator[Finding]:
    folder: Path = inputs.config.output_dir
    if (folder / "final_checkpoint").exists():
        message, remedy = "holds a finished run", "Choose another output_dir to train again."
        yield Finding("warning", f"output_dir {folder}", message, [], remedy)


CHECKS: list[Check] = [
    _catalogue,
    _model,
    _vocabulary,
    _templates,
    _interactions,
    _train_rows,
    _valid_rows,
    _test_rows,
    _leakage,
    _encoding,
    _sequences,
    _idle_options,
    _loss,
    _output,
]
# Those that read every row; all else is looked at afresh at every start.
ROW_CHECKS = (_interactions, _train_rows, _valid_rows, _test_rows, _leakage, _encoding, _sequences)
