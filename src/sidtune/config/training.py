"""`training` and `stages`: batch size, optimizer and schedule."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sidtune.config.model import TuningName
from sidtune.config.section import MOST, Positive, Section, Share


class TrainingConfig(Section):
    """Batch size, memory limits, optimizer and schedule."""

    epochs: Positive = 3
    max_steps: Positive | None = None
    batch_size: Positive = 128
    group_by: Literal["user", "example"] = "user"
    layout: Literal["tree", "bucketed", "padded"] = "tree"
    max_tokens: Positive | Literal["auto"] = "auto"
    micro_batch_size: Positive = 4
    workers: Annotated[int, Field(ge=0, le=MOST)] = 1
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    warmup: Annotated[int, Field(ge=0, le=MOST)] | Share = 20
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    decay_embeddings: bool = True
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        idle, used = "micro_batch_size", "max_tokens"
        if self.layout == "padded":
            idle, used = used, idle
        if idle in self.model_fields_set and used not in self.model_fields_set:
            raise ValueError(f"{idle} has no effect with layout: {self.layout}; use {used}")
        return self

    @model_validator(mode="after")
    def _something_decays(self) -> Self:
        if "decay_embeddings" in self.model_fields_set and not self.weight_decay:
            raise ValueError("decay_embeddings has no effect with weight_decay: 0; remove it")
        return self


class StageConfig(Section):
    """A stage of the run, with its own tuning and schedule."""

    tuning: TuningName
    steps: Positive | None = None
    epochs: Positive | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps and self.epochs:
            raise ValueError(
                "steps and epochs both set the length of the stage: remove one of them"
            )
        return self
