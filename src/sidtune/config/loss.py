"""`loss`: the training objective."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sidtune.config.section import Section


class LossConfig(Section):
    """The training objective: negative log-likelihood, or a variant of it for SID tokens."""

    over: Literal["vocabulary", "allowed"] = Field(
        default="vocabulary",
        description=(
            "what the softmax of a SID token covers: the whole `vocabulary`, or only the"
            " `allowed` tokens, which continue what is already written of the SID to some SID of"
            " the catalogue"
        ),
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description=(
            "share of a label's probability that is spread evenly over what its softmax covers:"
            " the allowed tokens, or every column of the logits, including the rows that pad the"
            " matrix, as in `torch.nn.functional.cross_entropy`"
        ),
    )

    @property
    def looks_at_prefixes(self) -> bool:
        """Whether the loss of a SID token depends on the SID tokens before it."""
        return self.over == "allowed"
