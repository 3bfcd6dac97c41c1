"""The configuration: frozen models read from YAML, with dotted overrides; unknown keys are refused."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from sidtune.data.files import read_text
from sidtune.errors import UserError, did_you_mean
from sidtune.tasks import DEFAULT_TASKS, TASKS
from sidtune.tasks.base import TaskOptions


def _expanded(text: str) -> str:
    """Environment variables and `~` filled in; a variable that is not set is an error, not an empty string."""
    missing = [name for name in re.findall(r"\$\{?(\w+)", text) if name not in os.environ]
    if missing:
        raise ValueError(f"the environment variable {missing[0]} is not set (export {missing[0]}=…)")
    return os.path.expanduser(os.path.expandvars(text))


ExpandedPath = Annotated[Path, AfterValidator(lambda path: Path(_expanded(str(path))))]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
# Tasks by the start of their name, and the data file they are made from.
NEEDED_FILES = (("preference", "preferences"), ("instruction", "instructions"))
# The K of the metrics that a best model may be chosen by.
METRIC_DEPTH = 10
CONFIG_HINT = "docs/configuration.md lists every key."


class Section(BaseModel):
    """One block of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class ModelConfig(Section):
    """Which language model is tuned, and how much of it."""

    base: Annotated[str, AfterValidator(_expanded), Field(min_length=1)]
    from_scratch: bool = False
    tuning: Literal["full", "frozen"] = "full"
    new_rows: Literal["mean", "text"] = "mean"

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

    items: ExpandedPath
    index: ExpandedPath
    train: ExpandedPath
    valid: ExpandedPath
    test: ExpandedPath | None = None
    preferences: ExpandedPath | None = None
    instructions: ExpandedPath | None = None
    sample: Positive | None = None
    dedup: bool = False
    description_tokens: Positive = 128


class TemplateConfig(Section):
    """The wording of the tasks: a file whose entries replace ours, and plain text or the chat template."""

    file: ExpandedPath | None = None
    format: Literal["plain", "chat"] = "plain"


class EncodingConfig(Section):
    """The length that examples are cut to, and where encoded examples are kept."""

    cutoff_len: Annotated[int, Field(ge=8)] = 512
    cache_dir: ExpandedPath = Path("~/.cache/sidtune")


class TrainingConfig(Section):
    """The step, the optimizer and its schedule."""

    epochs: Positive = 3
    max_steps: Positive | None = None
    batch_size: Positive = 128
    group_by: Literal["user", "example"] = "user"
    order: Literal["random", "length"] = "random"
    layout: Literal["tree", "bucketed", "padded"] = "tree"
    max_tokens: Positive | Literal["auto"] = "auto"
    micro_batch_size: Positive = 4
    workers: Annotated[int, Field(ge=0)] = 1
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    warmup: Annotated[int, Field(ge=0)] | Share = 20
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
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
    def _one_order(self) -> Self:
        if self.group_by == "user" and self.order == "length":
            raise ValueError("order: length would tear apart what group_by: user puts together: set group_by: example")
        return self


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
    """Ranking metrics while training: with which evaluations, on how many validation rows, how wide a search."""

    every: Positive | None = None
    sample: Positive = 500
    beams: Positive = 20


class EvalConfig(Section):
    """When validation runs (a checkpoint follows each time), on how much, and when training stops."""

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
    tasks: dict[str, Any] = Field(default_factory=lambda: dict.fromkeys(DEFAULT_TASKS))
    template: TemplateConfig = TemplateConfig()
    encoding: EncodingConfig = EncodingConfig()
    training: TrainingConfig = TrainingConfig()
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
        if self.model.new_rows == "text" and self.data.items is None:
            raise ValueError("model.new_rows: text needs data.items, which holds the titles")
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


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `section.key=value` overrides.

    Raises:
        UserError: for a missing or broken file, an unknown key or a value of the wrong type.
    """
    tree = read_yaml(path)
    for override in overrides:
        _apply(tree, override)
    return parse_config(tree, str(path))


def parse_config(tree: Mapping[str, Any], where: str) -> Config:
    """Check a configuration given as nested mappings; every fault is listed in one `UserError`."""
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{where}: {_faults(error, Config)}", CONFIG_HINT) from None
    for name, given in config.tasks.items():
        try:
            TASKS[name].options.model_validate(given or {})
        except ValidationError as error:
            raise UserError(f"{where}: {_faults(error, TASKS[name].options, f'tasks.{name}.')}", CONFIG_HINT) from None
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; `UserError` with line and column where it is broken."""
    try:
        tree = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a mapping of keys to values, found {type(tree).__name__}")
    return tree


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back, less the keys without effect in its mode."""
    tree = config.model_dump(mode="json")
    tree["tasks"] = {name: options.model_dump() for name, options in config.task_options().items()}
    idle = "max_tokens" if config.training.layout == "padded" else "micro_batch_size"
    del tree["training"][idle]
    for section, key in config.said_by_stages():
        del tree[section][key]
    tree["stages"] = [stage.model_dump(exclude_none=True) for stage in config.stages]
    if config.eval.ranking.every is None:
        tree["eval"]["ranking"] = {"every": None}
    if config.model.from_scratch:
        del tree["model"]["new_rows"]
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _apply(tree: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    keys = dotted.split(".")
    if not equals or not all(keys):
        raise UserError(f"override {override!r}: expected section.key=value, such as training.epochs=3")
    for key in keys[:-1]:
        if tree.get(key) is None:
            tree[key] = {}
        tree = tree[key]
        if not isinstance(tree, dict):
            raise UserError(f"override {override!r}: {key} is a value, not a section")
    try:
        tree[keys[-1]] = yaml.safe_load(text)
    except yaml.YAMLError:
        tree[keys[-1]] = text


def _faults(error: ValidationError, root: type[BaseModel], prefix: str = "") -> str:
    """One line a fault, in the file's own key names; the several complaints about a union become one."""
    messages: dict[str, list[str]] = {}
    found: dict[str, str] = {}
    for fault in error.errors():
        # Stages are counted from 1, as their folders are.
        keys = [str(part + 1) if isinstance(part, int) else part for part in fault["loc"]]
        if fault["type"] == "extra_forbidden":
            known = _section_of(root, keys).model_fields
            messages[prefix + ".".join(keys)] = [f"unknown key{did_you_mean(keys[-1], known)}"]
            continue
        key = prefix + _without_union(keys)
        messages.setdefault(key, []).append(fault["msg"].removeprefix("Value error, "))
        if fault["type"] != "missing" and not isinstance(fault["input"], dict):
            found[key] = f", found {fault['input']!r}"
    return "\n".join(f"{key}: {'; or '.join(said)}{found.get(key, '')}" for key, said in messages.items())


def _without_union(keys: list[str]) -> str:
    """Pydantic appends the tried member of a union to the location; the user never wrote it."""
    named = [key for key in keys if re.fullmatch(r"[a-z_][a-z0-9_]*|[0-9]+", key)]
    return ".".join(key for key in named if key not in ("int", "float", "str")) or "configuration"


def _section_of(root: type[BaseModel], keys: list[str]) -> type[BaseModel]:
    """The section class that holds the last key."""
    section = root
    for key in keys[:-1]:
        field = section.model_fields.get(key)
        inner = field.annotation if field else None
        inner = next(iter(get_args(inner)), inner)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            section = inner
    return section
