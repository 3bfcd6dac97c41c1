"""`model`: the base model, and which of its weights are trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from sidtune.config.section import DropoutRate, Section, expanded


class ModelConfig(Section):
    """The base model, and which of its weights are trained."""

    base: Annotated[str, AfterValidator(expanded), Field(min_length=1)]
    from_scratch: bool = False
    tuning: Literal["full", "frozen"] = "full"
    new_rows: Literal["mean", "text"] = "mean"
    residual_dropout: DropoutRate | None = None
    embedding_dropout: DropoutRate | None = None

    @model_validator(mode="after")
    def _scratch_is_not_frozen(self) -> Self:
        if self.from_scratch and self.tuning == "frozen":
            raise ValueError(
                "frozen tuning needs a pretrained base: set tuning: full, or from_scratch: false"
            )
        return self

    @model_validator(mode="after")
    def _text_needs_known_rows(self) -> Self:
        if self.from_scratch and self.new_rows == "text":
            raise ValueError(
                "new_rows: text has no effect with from_scratch, where all rows are initialised"
                " randomly"
            )
        return self
