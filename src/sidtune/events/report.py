"""What `prepare` did, in lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from sidtune.data.leave_one_out import FEWEST
from sidtune.events.prepare import Prepared


def lines(done: Prepared) -> Iterator[str]:
    """The steps that dropped events, what is left, and where it is."""
    summary = done.summary
    if done.again:
        yield f"{done.folder}: nothing has changed, nothing was done"
        return
    yield f"{summary['read']:,} events read"
    for step in summary["steps"]:
        if step["dropped"]:
            yield f"{-step['dropped']:>+12,}  {step['name']}: {step['why']}"
    result, rows = summary["result"], summary["rows"]
    yield (
        f"{result['events']:,} events of {result['users']:,} users and {result['items']:,} items"
        " are left"
    )
    if "interactions" in rows:
        whole, split = rows["interactions"], result["users_with_held_out_events"]
        yield f"{whole:,} sequences; the last two events of {split:,} are held out"
        if not split:
            yield f"no user has {FEWEST} events or more: there are no validation and no test rows"
        elif split < whole:
            yield f"users of fewer than {FEWEST} events are for training alone: {whole - split:,}"
    else:
        yield "rows: " + ", ".join(f"{count:,} {name}" for name, count in rows.items())
        cold = ", ".join(
            f"{count:,} {name}"
            for name, count in summary["held_out_targets_not_in_training"].items()
        )
        yield f"rows whose target is not in training: {cold}"
    if ties := result["events_ordered_by_item"]:
        yield f"{ties:,} events have the time of another event of their user: ordered by item id"
    yield f"{done.folder}"
