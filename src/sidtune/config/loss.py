"""`loss`: the training objective."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sidtune.config.section import Section


class LossConfig(Section):
    """The training objective: negative log-likelihood, or a variant of it for SID tokens."""

    over: Literal["vocabulary", "allowed"] = "vocabulary"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def looks_at_prefixes(self) -> bool:
        """Whether the loss of a SID token depends on the SID tokens before it."""
        return self.over == "allowed"
