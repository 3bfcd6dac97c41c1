"""What each step left, and what left nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from sidtune.base.errors import UserError


@dataclass(frozen=True)
class Step:
    """One reason to leave events out.

    Args:
        name: a key of the configuration, or `input` for what is wrong with the events themselves.
        why: what is true of the events that were dropped.
        dropped, left: events.
    """

    name: str
    why: str
    dropped: int
    left: int


@dataclass
class Steps:
    """The steps so far.

    Args:
        read: events at the start.
    """

    read: int
    taken: list[Step] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Events that no step has dropped."""
        return self.taken[-1].left if self.taken else self.read

    def add(self, name: str, why: str, dropped: int) -> None:
        """Note a step.

        Raises:
            UserError: where it dropped all that was left.
        """
        left = self.left - dropped
        self.taken.append(Step(name, why, dropped, left))
        if not left:
            raise UserError(f"{name} left no event: {self.told()}", _remedy(name))

    def told(self) -> str:
        """All steps that dropped something, in a line."""
        dropped = [
            f"{step.dropped:,} dropped ({step.name}: {step.why})"
            for step in self.taken
            if step.dropped
        ]
        return "; ".join([f"{self.read:,} events read", *dropped])

    def as_json(self) -> list[dict[str, Any]]:
        """As in `summary.json`."""
        return [asdict(step) for step in self.taken]


def _remedy(name: str) -> str:
    if name == "input":
        return "Are the columns the right ones? events.user, events.item and events.time name them."
    if name.startswith("catalogue"):
        return (
            "Are catalogue.id and catalogue.title the right columns, and the ids those of the"
            " events?"
        )
    return f"Change or leave out {name}."
