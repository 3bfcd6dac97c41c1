"""The configuration: frozen models, one section each; unknown keys are refused."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from sidtune.errors import did_you_mean
from sidtune.evaluation.options import Normalize
from sidtune.tasks import DEFAULT_TASKS, SEQUENCES, TASKS, Question
from sidtune.tasks.base import MOST, TaskOptions, needs_texts

# File systems take 255 bytes a name and 4,095 a path, and runs write files below theirs.
LONGEST_NAME, LONGEST_PATH = 255, 3_000


def _expanded(text: str) -> str:
    """Environment variables and `~` filled in; refuses variables that are not set, and what no path can be."""
    if "\0" in text or text.encode("utf-8", "replace") != text.encode("utf-8", "surrogatepass"):
        raise ValueError("holds a character that no path can have")
    if os.path.isabs(text) and len(text) <= LONGEST_PATH and os.path.lexists(text):
        # As a saved configuration has it: a `$` in the name of a folder stands for itself.
        return text
    missing = [name for name in re.findall(r"\$\{?(\w+)", text) if name not in os.environ]
    if missing:
        raise ValueError(f"the environment variable {missing[0]} is not set (export {missing[0]}=…)")
    path = os.path.expanduser(os.path.expandvars(text))
    if len(os.fsencode(path)) > LONGEST_PATH or any(len(os.fsencode(part)) > LONGEST_NAME for part in path.split("/")):
        raise ValueError(f"longer than a path may be ({LONGEST_NAME} bytes a name, {LONGEST_PATH:,} in all)")
    return path


ExpandedPath = Annotated[Path, AfterValidator(lambda path: Path(_expanded(str(path))))]
Positive = Annotated[int, Field(ge=1, le=MOST)]
Share = Annotated[float, Field(gt=0, lt=1)]
DropoutRate = Annotated[float, Field(ge=0, lt=1)]
# Tasks by the start of their name, and the data file they are made from.
NEEDED_FILES = (("preference", "preferences"), ("instruction", "instructions"))
SPLITS = ("train", "valid", "test")
# Keys of `data`, and the file each is about.
IDLE_WITHOUT = {"description_tokens": "items"}
# As in LC-Rec and TIGER; files of rows hold what they hold.
HISTORY_OF_INTERACTIONS = 20
# The K of the metrics that a best model may be chosen by.
METRIC_DEPTH = 10


class Section(BaseModel):
    """One block of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class ModelConfig(Section):
    """Which language model is tuned, and how much of it."""

    base: Annotated[str, AfterValidator(_expanded), Field(min_length=1)]
    from_scratch: bool = False
    tuning: Literal["full", "frozen"] = "full"
    new_rows: Literal["mean", "text"] = "mean"
    residual_dropout: DropoutRate | None = None
    embedding_dropout: DropoutRate | None = None

    @model_validator(mode="after")
    def _scratch_is_not_frozen(self) -> Self:
        if self.from_scratch and self.tuning == "frozen":
            raise ValueError("from_scratch leaves nothing worth freezing: choose tuning: full, or a pretrained base")
        return self

    @model_validator(mode="after")
    def _text_needs_known_rows(self) -> Self:
        if self.from_scratch and self.new_rows == "text":
            raise ValueError("new_rows: text has no effect with from_scratch, where every row is drawn anew")
        return self


class DataConfig(Section):
    """The files, and which of their rows are used."""

    items: ExpandedPath | None = None
    index: ExpandedPath
    train: ExpandedPath | None = None
    valid: ExpandedPath | None = None
    test: ExpandedPath | None = None
    interactions: ExpandedPath | None = None
    history: Positive | None = None
    unique_sids: bool = False
    preferences: ExpandedPath | None = None
    instructions: ExpandedPath | None = None
    sample: Positive | None = None
    dedup: bool = False
    description_tokens: Positive = 128

    @model_validator(mode="after")
    def _one_way_to_rows(self) -> Self:
        given = [name for name in SPLITS if getattr(self, name) is not None]
        if self.interactions and given:
            raise ValueError(f"interactions holds every split: leave out {' and '.join(given)}, or interactions")
        if not self.interactions and not {"train", "valid"} <= set(given):
            raise ValueError("rows are missing: give train and valid (and test), or interactions")
        return self

    @model_validator(mode="after")
    def _nothing_idle(self) -> Self:
        for name, needed in IDLE_WITHOUT.items():
            if name in self.model_fields_set and getattr(self, needed) is None:
                raise ValueError(f"{name} has no effect without {needed}")
        return self

    @property
    def longest_history(self) -> int | None:
        """The most items a history keeps, the latest ones; None where it keeps what its row says."""
        return self.history or (HISTORY_OF_INTERACTIONS if self.interactions else None)

    def rows_file(self, split: str) -> Path | None:
        """The file that the rows of a split are read from, if there is one."""
        file: Path | None = self.interactions or getattr(self, split)
        return file


class TemplateConfig(Section):
    """The wording of the tasks: a file whose entries replace ours, and plain text or the chat template."""

    file: ExpandedPath | None = None
    format: Literal["plain", "chat"] = "plain"


class EncodingConfig(Section):
    """The length that examples are cut to, and where encoded examples are kept."""

    cutoff_len: Annotated[int, Field(ge=8, le=MOST)] = 512
    cache_dir: ExpandedPath = Path("~/.cache/sidtune")


class TrainingConfig(Section):
    """The step, the optimizer and its schedule."""

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
    ema: Share | None = None
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
            raise ValueError("decay_embeddings has no effect with weight_decay: 0; leave it out")
        return self


class LossConfig(Section):
    """What training minimises: the negative log likelihood, or a variant of it for the tokens of SIDs."""

    over: Literal["vocabulary", "allowed"] = "vocabulary"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def looks_at_prefixes(self) -> bool:
        """Whether the loss of a SID token depends on the SID tokens before it."""
        return self.over == "allowed"


class StageConfig(Section):
    """A part of the run with a tuning and a schedule of its own."""

    tuning: Literal["full", "frozen"]
    steps: Positive | None = None
    epochs: Positive | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps and self.epochs:
            raise ValueError("steps and epochs both say how long the stage is: leave one out")
        return self


class RankingConfig(Section):
    """Ranking metrics while training: with which evaluations, on how many validation rows, by which search."""

    every: Positive | None = None
    sample: Positive = 500
    beams: Positive = 20
    normalize: Normalize = "full"


class EvalConfig(Section):
    """When validation runs (a checkpoint follows each time), on how much, and when training stops."""

    task: Question | None = None
    every: Positive | Share = 0.05
    max_rows: Positive = 5000
    task_rows: Positive = 200
    ranking: RankingConfig = RankingConfig()
    metric: Literal["loss", "ndcg@10", "hr@10"] = "loss"
    patience: Positive | None = 3
    save_total_limit: Positive = 1

    @model_validator(mode="after")
    def _metric_is_computed(self) -> Self:
        if self.metric == "loss":
            return self
        if self.ranking.every != 1:
            raise ValueError(f"metric {self.metric} is needed at every evaluation: set eval.ranking.every: 1")
        if self.ranking.beams < METRIC_DEPTH:
            raise ValueError(f"metric {self.metric} needs eval.ranking.beams of at least {METRIC_DEPTH}")
        return self


class LoggingConfig(Section):
    """What is logged besides the console and metrics.jsonl."""

    every: Positive = 1
    tensorboard: bool = False
    wandb_project: str | None = None
    wandb_run_name: str | None = None


class Config(Section):
    """One training run."""

    output_dir: ExpandedPath
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    model: ModelConfig
    data: DataConfig
    tasks: dict[str, Any] = Field(default_factory=lambda above: dict.fromkeys(_default_tasks(above.get("data"))))
    template: TemplateConfig = TemplateConfig()
    encoding: EncodingConfig = EncodingConfig()
    training: TrainingConfig = TrainingConfig()
    loss: LossConfig = LossConfig()
    stages: tuple[StageConfig, ...] = ()
    eval: EvalConfig = EvalConfig()
    logging: LoggingConfig = LoggingConfig()

    @model_validator(mode="after")
    def _known_tasks(self) -> Self:
        if not self.tasks:
            raise ValueError(f"tasks: none given; known are {', '.join(TASKS)}")
        for name in self.tasks:
            if name not in TASKS:
                raise ValueError(f"tasks.{name}: no such task{did_you_mean(name, TASKS)} Known are {', '.join(TASKS)}")
        for name, needs in NEEDED_FILES:
            used = [task for task in self.tasks if task.startswith(name)]
            if used and getattr(self.data, needs) is None:
                raise ValueError(f"tasks.{used[0]} needs data.{needs}")
        return self

    @model_validator(mode="after")
    def _question_is_trained(self) -> Self:
        if self.eval.task and self.eval.task not in self.tasks:
            raise ValueError(f"eval.task: {self.eval.task} is not among `tasks`, so nothing would teach it")
        return self

    @model_validator(mode="after")
    def _histories_are_whole(self) -> Self:
        whole = [name for name in self.tasks if name in SEQUENCES]
        if self.data.dedup and whole:
            raise ValueError(f"data.dedup leaves out rows, and tasks.{whole[0]} is about whole histories: use one")
        return self

    @model_validator(mode="after")
    def _decay_has_a_subject(self) -> Self:
        tunings = {stage.tuning for stage in self.stages} or {self.model.tuning}
        if tunings == {"frozen"} and self.training.weight_decay and not self.training.decay_embeddings:
            raise ValueError(
                "training.weight_decay has no effect: frozen tuning trains nothing but rows of embeddings, and "
                "decay_embeddings: false spares them"
            )
        return self

    @model_validator(mode="after")
    def _texts_are_given(self) -> Self:
        wanting = [f"tasks.{name}" for name in self.tasks if name in TASKS and needs_texts(TASKS[name])]
        wanting += ["model.new_rows: text"] if self.model.new_rows == "text" else []
        if wanting and self.data.items is None:
            raise ValueError(f"data.items is not given, and titles or descriptions are needed by {', '.join(wanting)}")
        return self

    @model_validator(mode="after")
    def _stages_can_follow(self) -> Self:
        for number, stage in enumerate(self.stages[:-1], start=1):
            if not stage.steps and not stage.epochs:
                raise ValueError(f"stages: stage {number} of {len(self.stages)} needs steps or epochs")
        if self.model.from_scratch and any(stage.tuning == "frozen" for stage in self.stages):
            raise ValueError(
                "stages: from_scratch leaves nothing worth freezing: use full stages, or a pretrained base"
            )
        for section, key in self.said_by_stages():
            if key in getattr(self, section).model_fields_set:
                raise ValueError(f"{section}.{key} has no effect: the stages say it; leave it out")
        return self

    @property
    def question(self) -> Question:
        """The task that evaluation and `recommend` ask."""
        if self.eval.task:
            return self.eval.task
        return "sid_sequence" if "sid_sequence" in self.tasks and "sid_next" not in self.tasks else "sid_next"

    def said_by_stages(self) -> list[tuple[str, str]]:
        """Sections and their keys that have no effect, since the stages say the same."""
        said = [("model", "tuning")] if self.stages else []
        if self.stages and (self.stages[-1].steps or self.stages[-1].epochs):
            said += [("training", "epochs"), ("training", "max_steps")]
        if self.stages and all(stage.learning_rate for stage in self.stages):
            said.append(("training", "learning_rate"))
        return said

    def task_options(self) -> dict[str, TaskOptions]:
        """The tasks of the mixture with their options, checked."""
        return {name: TASKS[name].options.model_validate(given or {}) for name, given in self.tasks.items()}


def _default_tasks(data: DataConfig | None) -> list[str]:
    """Those that the files can serve; `data` is missing where it is at fault itself."""
    return [name for name in DEFAULT_TASKS if data is None or data.items or not needs_texts(TASKS[name])]
