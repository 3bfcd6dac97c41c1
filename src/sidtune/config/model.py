"""`model`: the base model, and which of its weights are trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from sidtune.config.section import DropoutRate, Section, expanded


class ModelConfig(Section):
    """The base model, and which of its weights are trained."""

    base: Annotated[str, AfterValidator(expanded), Field(min_length=1)] = Field(
        description=(
            "local folder or hub name of a causal language model with a fast tokenizer; left out:"
            " a small model from scratch, whose settings follow from the size of the data"
        )
    )
    from_scratch: bool = Field(
        default=False,
        description="build the model from its model configuration alone, with random weights",
    )
    tuning: Literal["full", "frozen"] = Field(
        default="full",
        description=(
            "`full` trains all parameters; `frozen` trains only the embedding rows of"
            " the SID tokens"
        ),
    )
    new_rows: Literal["mean", "text"] = Field(
        default="mean",
        description=(
            "how to initialise the rows of SID tokens for which the base has no trained row"
            " (whether or not its tokenizer knows them). `mean`: drawn around the mean of the"
            " known rows, with the spread of the known rows. `text`: the mean over the items that"
            " carry the token of the mean of the rows of their title's tokens, scaled to the"
            " median length of the known rows, plus noise of a tenth of the known rows' spread;"
            " this needs a pretrained base"
        ),
    )
    residual_dropout: DropoutRate | None = Field(
        default=None,
        description=(
            "dropout rate, in training, on the output of every attention block and"
            " every MLP, before it is added to the residual"
        ),
    )
    embedding_dropout: DropoutRate | None = Field(
        default=None, description="dropout rate, in training, on the output of the input embedding"
    )

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
