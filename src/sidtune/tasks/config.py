"""The configuration: immutable pydantic models, one per section; unknown keys are errors."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from sidtune.base.errors import did_you_mean
from sidtune.config.data import DataConfig
from sidtune.config.encoding import EncodingConfig, TemplateConfig
from sidtune.config.evaluation import EvalConfig
from sidtune.config.events import CatalogueConfig, EventsConfig
from sidtune.config.logging import LoggingConfig
from sidtune.config.loss import LossConfig
from sidtune.config.model import ModelConfig
from sidtune.config.rank import RankConfig
from sidtune.config.rl import RlConfig
from sidtune.config.section import ExpandedPath, Section
from sidtune.config.sids import SidsConfig
from sidtune.config.training import StageConfig, TrainingConfig
from sidtune.tasks import DEFAULT_TASKS, TASKS
from sidtune.tasks.base import TaskOptions


class Config(Section):
    """The configuration of a training run."""

    output_dir: ExpandedPath = Field(
        description="the run's own folder: checkpoints, logs, the trained model"
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=42, description="seed of everything random"
    )
    events: EventsConfig | None = Field(
        default=None, description="the events from which `sidtune prepare` makes training rows"
    )
    catalogue: CatalogueConfig | None = Field(
        default=None, description="the items and their texts, for `sidtune prepare`"
    )
    model: ModelConfig
    data: DataConfig
    sids: SidsConfig | None = Field(
        default=None,
        description="how `sidtune sids` makes semantic IDs; null: with the default settings",
    )
    tasks: dict[str, Any] = Field(
        default_factory=lambda above: dict.fromkeys(_default_tasks(above.get("data")))
    )
    template: TemplateConfig = TemplateConfig()
    encoding: EncodingConfig = EncodingConfig()
    training: TrainingConfig = TrainingConfig()
    loss: LossConfig = LossConfig()
    stages: tuple[StageConfig, ...] = Field(
        default=(),
        description=(
            "parts of the run, one after the other, each with its own optimizer, warmup"
            " and schedule; without stages the run is one part"
        ),
    )
    eval: EvalConfig = EvalConfig()
    rank: RankConfig = RankConfig()
    rl: RlConfig = RlConfig()
    logging: LoggingConfig = LoggingConfig()

    @model_validator(mode="after")
    def _known_tasks(self) -> Self:
        if not self.tasks:
            raise ValueError(f"tasks: no task given; known tasks: {', '.join(TASKS)}")
        if self.rl.tasks == {}:
            raise ValueError(
                "rl.tasks: no task given; without the key, the evaluation task gives the prompts."
                f" Known tasks: {', '.join(TASKS)}"
            )
        for key, name in self._named().items():
            if name not in TASKS:
                raise ValueError(
                    f"{key}: unknown task{did_you_mean(name, TASKS) or '.'} Known tasks:"
                    f" {', '.join(TASKS)}"
                )
            needed = TASKS[name].needs
            if needed and getattr(self.data, needed) is None:
                raise ValueError(f"{key} needs data.{needed}")
        return self

    @model_validator(mode="after")
    def _evaluation_task_is_trained(self) -> Self:
        if self.eval.task is None:
            return self
        able = [name for name, task in TASKS.items() if task.recommends]
        if self.eval.task not in able:
            raise ValueError(
                f"eval.task: {self.eval.task} does not recommend items; use {' or '.join(able)}"
            )
        # Reinforcement goes on with a trained model, and may have other prompts.
        if self.eval.task not in self.tasks and not self.reinforces:
            raise ValueError(
                f"eval.task: {self.eval.task} is not in `tasks`, so the model would not be trained"
                " on it"
            )
        return self

    @model_validator(mode="after")
    def _histories_are_whole(self) -> Self:
        whole = [key for key, name in self._named().items() if TASKS[name].is_sequence]
        if self.data.dedup and whole:
            raise ValueError(
                f"data.dedup removes rows, but {whole[0]} needs whole histories: use one of them"
            )
        return self

    @model_validator(mode="after")
    def _decay_has_a_subject(self) -> Self:
        if (
            self.tunings == {"frozen"}
            and self.training.weight_decay
            and not self.training.decay_embeddings
        ):
            raise ValueError(
                "training.weight_decay has no effect: frozen tuning trains only embedding rows, and"
                " decay_embeddings: false excludes them from weight decay"
            )
        return self

    @model_validator(mode="after")
    def _texts_are_given(self) -> Self:
        wanting = [key for key, name in self._named().items() if TASKS[name].needs_texts]
        wanting += ["model.new_rows: text"] if self.model.new_rows == "text" else []
        if wanting and self.data.items is None:
            raise ValueError(
                "data.items is missing, but titles or descriptions are needed by"
                f" {', '.join(wanting)}"
            )
        return self

    @model_validator(mode="after")
    def _stages_can_follow(self) -> Self:
        for number, stage in enumerate(self.stages[:-1], start=1):
            if not stage.steps and not stage.epochs:
                raise ValueError(
                    f"stages: stage {number} of {len(self.stages)} needs steps or epochs"
                )
        from_base = [stage.tuning for stage in self.stages if stage.tuning != "full"]
        if self.model.from_scratch and from_base:
            raise ValueError(
                f"stages: {from_base[0]} tuning needs a pretrained base: use full stages, or"
                " from_scratch: false"
            )
        for section, key in self.said_by_stages():
            if key in getattr(self, section).model_fields_set:
                raise ValueError(
                    f"{section}.{key} has no effect, since the stages set it; remove it"
                )
        return self

    @model_validator(mode="after")
    def _adapters_have_a_subject(self) -> Self:
        if "lora" not in self.tunings and "lora" in self.model.model_fields_set:
            raise ValueError("model.lora has no effect without tuning: lora; remove it")
        if self.model.quantize:
            if self.tunings != {"lora"} or len(self.stages) > 1:
                raise ValueError(
                    "model.quantize needs tuning: lora, in a run of one stage: quantised weights"
                    " cannot be trained, and no stage can start from trained ones"
                )
            if self.training.distributed == "fsdp2":
                raise ValueError(
                    "model.quantize: not with training.distributed: fsdp2, which cannot divide"
                    " quantised weights; use ddp"
                )
            if self.model.lora.dora or self.model.lora.save_adapter:
                raise ValueError(
                    "model.quantize: not with lora.dora; and not with lora.save_adapter, since the"
                    " adapter fits the quantised weights, which it does not contain"
                )
        if not self.model.lora.save_adapter:
            return self
        *before, last = [stage.tuning for stage in self.stages] or [self.model.tuning]
        if last != "lora" or set(before) - {"frozen"}:
            raise ValueError(
                "model.lora.save_adapter: an adapter describes a run whose last stage is lora,"
                " after frozen stages or none; otherwise the base's own weights have changed."
                " Remove it"
            )
        return self

    @property
    def tunings(self) -> set[str]:
        """The ways to tune of all stages, or of the run itself."""
        return {stage.tuning for stage in self.stages} or {self.model.tuning}

    @property
    def reinforces(self) -> bool:
        """Whether this is the run of `sidtune rl`, as `reinforced` makes it."""
        return self.rl.output_dir == self.output_dir

    @property
    def evaluation_task(self) -> str:
        """The task whose prompts evaluation and `recommend` use."""
        if self.eval.task:
            return self.eval.task
        return (
            "sid_sequence"
            if "sid_sequence" in self.tasks and "sid_next" not in self.tasks
            else "sid_next"
        )

    def said_by_stages(self) -> list[tuple[str, str]]:
        """Pairs of section and key that have no effect because the stages set them."""
        said = [("model", "tuning")] if self.stages else []
        if self.stages and (self.stages[-1].steps or self.stages[-1].epochs):
            said += [("training", "epochs"), ("training", "max_steps")]
        if self.stages and all(stage.learning_rate for stage in self.stages):
            said.append(("training", "learning_rate"))
        return said

    def _named(self) -> dict[str, str]:
        """The tasks of the mixture and of reinforcement, by their keys."""
        prompting = {f"rl.tasks.{name}": name for name in self.rl.tasks or ()}
        return {f"tasks.{name}": name for name in self.tasks} | prompting

    def task_options(self) -> dict[str, TaskOptions]:
        """The tasks of the mixture with their validated options."""
        return {
            name: TASKS[name].options.model_validate(given or {})
            for name, given in self.tasks.items()
        }


def _default_tasks(data: DataConfig | None) -> list[str]:
    """The default tasks that the configured files support; `data` is None if it is
    invalid itself.
    """
    return [
        name for name in DEFAULT_TASKS if data is None or data.items or not TASKS[name].needs_texts
    ]
