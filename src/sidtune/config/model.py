"""`model`: the base model, and which of its weights are trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from sidtune.config.section import DropoutRate, Positive, Section, expanded

TuningName = Literal["full", "frozen", "lora"]


class LoraConfig(Section):
    """Low-rank adapters beside the base's linear layers."""

    rank: Positive = 16
    alpha: Positive | None = None
    dropout: DropoutRate = 0.0
    targets: (
        Literal["all-linear"]
        | Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    ) = "all-linear"
    rslora: bool = False
    dora: bool = False
    init: Literal["default", "gaussian"] = "default"
    save_adapter: bool = False


class ModelConfig(Section):
    """The base model, and which of its weights are trained."""

    base: Annotated[str, AfterValidator(expanded), Field(min_length=1)]
    from_scratch: bool = False
    tuning: TuningName = "full"
    lora: LoraConfig = LoraConfig()
    quantize: Literal["nf4", "int8"] | None = None
    new_rows: Literal["mean", "text"] = "mean"
    residual_dropout: DropoutRate | None = None
    embedding_dropout: DropoutRate | None = None

    @model_validator(mode="after")
    def _scratch_is_trained_in_full(self) -> Self:
        if self.from_scratch and self.tuning != "full":
            raise ValueError(
                f"{self.tuning} tuning needs a pretrained base: set tuning: full, or from_scratch:"
                " false"
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
