"""`model`: the base model, and which of its weights are trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from sidtune.config.section import DropoutRate, Positive, Section, expanded

TuningName = Literal["full", "frozen", "lora"]


class LoraConfig(Section):
    """Low-rank adapters beside the base's linear layers."""

    rank: Positive = Field(default=16, description="with `tuning: lora`: rank of the adapters")
    alpha: Positive | None = Field(
        default=None, description="adapters are multiplied by alpha ÷ rank; null: twice the rank"
    )
    dropout: DropoutRate = Field(
        default=0.0, description="dropout rate on the input of the adapters, in training"
    )
    targets: (
        Literal["all-linear"]
        | Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    ) = Field(
        default="all-linear",
        description=(
            "`all-linear`: every linear layer but the output head; or a list of names, such as"
            " `[q_proj, v_proj]`, each of which stands for all layers whose name ends with it"
        ),
    )
    rslora: bool = Field(default=False, description="multiply by alpha ÷ √rank instead (rsLoRA)")
    dora: bool = Field(
        default=False,
        description="train magnitude and direction of the weights separately (DoRA)",
    )
    init: Literal["default", "gaussian"] = Field(
        default="default",
        description=(
            "of the adapters' A: `default`, Kaiming uniform, or `gaussian`, normal with a"
            " standard deviation of 1 ÷ rank. With either, B is 0, so the logits before the"
            " first step are those of the base"
        ),
    )
    save_adapter: bool = Field(
        default=False,
        description="also write the adapter by itself, to `output_dir/adapter`",
    )


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
    tuning: TuningName = Field(
        default="full",
        description=(
            "`full` trains all parameters; `lora` trains low-rank adapters and the embedding rows"
            " of the SID tokens; `frozen` trains only these rows"
        ),
    )
    lora: LoraConfig = LoraConfig()
    quantize: Literal["nf4", "int8"] | None = Field(
        default=None,
        description=(
            "with `tuning: lora`: hold the base's linear layers as `nf4` (four bits) or `int8`, by"
            " bitsandbytes (`pip install 'sidtune[quantize]'`)"
        ),
    )
    new_rows: Literal["mean", "text"] = Field(
        default="mean",
        description=(
            "how to initialise the rows of SID tokens for which the base has no trained row"
            " (whether or not its tokenizer knows them). `mean`: drawn around the mean of"
            " the known rows, with their spread. `text`: from the titles of the items whose"
            " SID contains the token. The rows of each title's tokens are averaged, these"
            " averages are averaged over the items, and the result is scaled to the median"
            " length of the known rows, plus noise of a tenth of their spread; this needs a"
            " pretrained base"
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
