"""`rl`: reinforcement learning after supervised fine-tuning."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from sidtune.config.section import MOST, ExpandedPath, Positive, Section, Share

RewardName = Literal["rule", "ranking", "prefix", "semantic"]
STEPS = 400


class RlConfig(Section):
    """What `sidtune rl` does: prompts, answers, rewards, objective and schedule."""

    start: ExpandedPath | None = None
    output_dir: ExpandedPath | None = None
    tasks: dict[str, Any] | None = None
    group: Annotated[int, Field(ge=2, le=1_024)] = 16
    rollout: Literal["beams", "sample"] = "beams"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    add_target: bool = False
    rewards: dict[RewardName, float] | None = None
    over: Literal["vocabulary", "allowed"] = "vocabulary"
    beta: Annotated[float, Field(ge=0)] = 1e-3
    sft_weight: Annotated[float, Field(ge=0)] = 0.1
    updates: Annotated[int, Field(ge=1, le=100)] = 1
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    prompts: Positive = 32
    steps: Positive | None = None
    epochs: Positive | None = None
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    warmup: Annotated[int, Field(ge=0, le=MOST)] | Share = 20
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps and self.epochs:
            raise ValueError("steps and epochs both set the length: remove one of them")
        return self

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        given = self.model_fields_set
        if "temperature" in given and self.rollout == "beams":
            raise ValueError("temperature has no effect with rollout: beams; remove it")
        if "clip" in given and self.updates == 1:
            raise ValueError(
                "clip has no effect with updates: 1, since nothing has changed since the rollout;"
                " remove it"
            )
        return self

    @model_validator(mode="after")
    def _something_is_rewarded(self) -> Self:
        if not any(self.weights.values()):
            raise ValueError("rewards: give at least one reward a weight other than 0")
        return self

    @property
    def weights(self) -> dict[RewardName, float]:
        """The weight of each reward; by default, only hits are rewarded."""
        return {"rule": 1.0} if self.rewards is None else self.rewards
