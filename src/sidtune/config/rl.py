"""`rl`: reinforcement learning after supervised fine-tuning."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from sidtune.config.section import MOST, ExpandedPath, Positive, Section, Share

RewardName = Literal["rule", "ranking", "prefix", "semantic"]
STEPS = 400


class RlConfig(Section):
    """What `sidtune rl` does: prompts, answers, rewards, objective and schedule."""

    start: ExpandedPath | None = Field(
        default=None,
        description=(
            "folder of the model to start from, which is also the reference; null:"
            " `output_dir`, the finished run"
        ),
    )
    output_dir: ExpandedPath | None = Field(
        default=None, description="folder of the result; null: `output_dir` with `-rl` at its end"
    )
    tasks: dict[str, Any] | None = Field(
        default=None,
        description=(
            "tasks whose examples give the prompts, as in `tasks`; null: the evaluation"
            " task. Every example that answers with a SID is a prompt; with `sid_sequence`,"
            " every item of a history after the first gives one"
        ),
    )
    group: Annotated[int, Field(ge=2, le=1_024)] = Field(
        default=16, description="answers to each prompt"
    )
    rollout: Literal["beams", "sample"] = Field(
        default="sample",
        description=(
            "`sample`: distinct answers drawn from the model; `beams`: the best ones, by"
            " constrained beam search"
        ),
    )
    temperature: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="with `sample`: higher values draw more evenly"
    )
    add_target: bool = Field(
        default=False,
        description="in groups without the target, put it in place of the last answer",
    )
    hint: Annotated[int, Field(ge=0, le=32)] = Field(
        default=0,
        description=(
            "groups without the target are asked again, with this many of the target's"
            " first tokens given; 0: never"
        ),
    )
    rewards: dict[RewardName, float] | None = Field(
        default=None,
        description=(
            "weights of the rewards `rule`, `ranking`, `prefix` and `semantic`, such as"
            " `{rule: 1, ranking: 1}`; null: `{rule: 1}`"
        ),
    )
    level_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = Field(
        default=None,
        description=(
            "factors of the advantage by level of the SID, such as `[0.5, 1, 1]`; levels"
            " after the end of the list have 1, and so have all levels with null"
        ),
    )
    over: Literal["vocabulary", "allowed"] = Field(
        default="vocabulary",
        description=(
            "tokens that probabilities are normalised over: `vocabulary`, or `allowed`, those"
            " that may follow in a SID"
        ),
    )
    beta: Annotated[float, Field(ge=0)] = Field(
        default=1e-3,
        description="weight of the divergence from the reference; with 0 no reference is kept",
    )
    sft_weight: Annotated[float, Field(ge=0)] = Field(
        default=0.1, description="weight of the supervised loss of the targets"
    )
    keep_start: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.4,
        description=(
            "weight of the start in the average of start and trained weights that is"
            " evaluated and saved. It preserves the lower ranks of the lists; 0 saves the"
            " trained weights alone"
        ),
    )
    updates: Annotated[int, Field(ge=1, le=100)] = Field(
        default=1, description="optimizer updates that learn from the same answers"
    )
    clip: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2,
        description=(
            "with several updates: how far the probability ratio may be from 1 before it"
            " stops counting"
        ),
    )
    prompts: Positive = Field(default=32, description="prompts of a step, over all processes")
    steps: Positive | None = Field(
        default=None, description="optimizer updates; null: 400, unless `rl.epochs` is given"
    )
    epochs: Positive | None = Field(
        default=None, description="passes over the prompts, in place of `rl.steps`"
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        default=1e-4, description="peak learning rate"
    )
    warmup: Annotated[int, Field(ge=0, le=MOST)] | Share = Field(
        default=20, description="as `training.warmup`"
    )
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="as `training.max_grad_norm`"
    )

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
