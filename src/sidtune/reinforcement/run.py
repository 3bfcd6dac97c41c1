"""`sidtune rl`: reinforcement that starts from a finished run."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, TrainingArguments

from sidtune.base.errors import UserError
from sidtune.base.hashing import digest, file_digest
from sidtune.base.keys import naming
from sidtune.base.ragged import row_of
from sidtune.base.signals import StopRequest
from sidtune.base.terminal import first_process, warn
from sidtune.batching.steps import Steps
from sidtune.config.loss import LossConfig
from sidtune.config.rl import STEPS
from sidtune.decoding.answers import Answers, make_answers
from sidtune.decoding.prompts import Prompts
from sidtune.files.text import read_lines
from sidtune.inputs import Inputs
from sidtune.ranker.file import FILE as RANKER
from sidtune.reinforcement.policy_loss import PolicyLoss
from sidtune.reinforcement.prompt_corpus import PromptCorpus
from sidtune.reinforcement.rewards.base import Shop
from sidtune.reinforcement.rollouts import Rollouts
from sidtune.reinforcement.trainer import Reinforcement, ReinforcementTrainer, averaged_weights
from sidtune.runs.bundle import RECOMMENDER_FILE, read_bundle, refuse_other_folders
from sidtune.runs.files import METRICS, beside
from sidtune.runs.schedule import stage_runs
from sidtune.sids.vectors.source import unit
from sidtune.tasks.config import Config
from sidtune.training.loss.label_loss import LabelLoss
from sidtune.training.make_steps import make_plan, make_steps
from sidtune.training.method import Method, Shared, make_trainer
from sidtune.training.records.result import Result
from sidtune.training.train import train
from sidtune.training.trainer import StepTrainer

# Lists this long are ranked on validation rows, for HR@50.
BEAMS = 50
# Columns of the table that training prints: title and key of the log.
SHOWN = {"reward": "reward", "groups hit": "hit_groups", "KL": "kl"}
WEIGHTS = ("*.safetensors", "*.bin")
# What messages of training name, and the keys that set it here.
KEYS = {
    "training.batch_size": "rl.prompts",
    "training.max_steps": "rl.steps",
    "training.epochs": "rl.epochs",
    "training.learning_rate": "rl.learning_rate",
    "training.warmup": "rl.warmup",
    "training.max_grad_norm": "rl.max_grad_norm",
    "model.base": "rl.start",
    "output_dir": "rl.output_dir",
    "tasks.": "rl.tasks.",
    "`tasks`": "`rl.tasks`",
    "warning: tasks:": "warning: rl.tasks:",
    "warning: loss:": "warning: rl.over:",
    "`--resume PATH`": "`rl.start=PATH`",
}
# What a resumed run must share; the identity of every run has the rest under other names.
COMPARED = (
    "group",
    "rollout",
    "temperature",
    "add_target",
    "hint",
    "beta",
    "sft_weight",
    "level_weights",
    "keep_start",
    "updates",
    "clip",
)


@dataclass(frozen=True)
class Gain:
    """What reinforcement changed on validation rows.

    Args:
        result: of the run.
        before, after: metrics by name, such as `ndcg@10`, of the start and of the saved model.
    """

    result: Result
    before: dict[str, float]
    after: dict[str, float]

    @property
    def text(self) -> str:
        """A few words for each metric, and the folder."""
        told = ", ".join(
            f"{name.upper()} {self.before[name]:.4f} → {self.after[name]:.4f}"
            for name in ("ndcg@10", "hr@10", f"hr@{BEAMS}")
        )
        return (
            f"{self.result.steps:,} steps in {self.result.seconds:.0f} s; best by ndcg@10 at step"
            f" {self.result.best_step:,}. On a sample of validation rows: {told}. Model:"
            f" {self.result.folder}"
        )


def reinforced(config: Config) -> Config:
    """The run that `sidtune rl` makes of a configuration: its model is the finished run, tuned as
    its last stage was, and its schedule that of the section `rl`.
    """
    rl, tuned = config.rl, stage_runs(config)[-1].model
    start = rl.start or config.output_dir
    output_dir = rl.output_dir or beside(config.output_dir, "rl")
    model: dict[str, Any] = {"base": str(start), "from_scratch": False, "new_rows": "mean"}
    if rl.updates > 1:
        # Clipping looks at the ratio to the rollout's probabilities, which dropout would blur.
        undropped = tuned.lora.model_copy(update={"dropout": 0.0})
        model |= {"residual_dropout": 0.0, "embedding_dropout": 0.0, "lora": undropped}
    training = {
        "batch_size": rl.prompts,
        "max_steps": rl.steps or (None if rl.epochs else STEPS),
        "epochs": rl.epochs or 1,
        "learning_rate": rl.learning_rate,
        "warmup": rl.warmup,
        "max_grad_norm": rl.max_grad_norm,
        "weight_decay": 0.0,
        "group_by": "example",
        "workers": 0,
    }
    ranking = config.eval.ranking
    evaluation = {
        "task": config.evaluation_task,
        "metric": "ndcg@10",
        "ranking": ranking.model_copy(update={"every": 1, "beams": max(BEAMS, ranking.beams)}),
    }
    changes = {
        "output_dir": output_dir,
        "model": tuned.model_copy(update=model),
        "tasks": rl.tasks or {config.evaluation_task: None},
        "training": config.training.model_copy(update=training),
        "loss": LossConfig(over=rl.over),
        "stages": (),
        "eval": config.eval.model_copy(update=evaluation),
        "rl": rl.model_copy(update={"start": start, "output_dir": output_dir}),
    }
    return config.model_copy(update=changes)


def reinforce(
    config: Config,
    resume: str = "auto",
    dry_run: bool = False,
    trust_remote_code: bool = False,
    other_processes: bool = False,
) -> Gain | None:
    """Reinforce a finished run as configured; None for a dry run.

    Args:
        config: of the finished run, with the section `rl`.
        resume: `auto`, `never`, or one of this run's checkpoints.
        dry_run: do everything up to the first step, print the plan and stop.
        trust_remote_code: allow Python code shipped with the base to run.
        other_processes: resume even if a different number of processes wrote the checkpoint.

    Raises:
        UserError: for any mistake in configuration, data or model.
        Interrupted: after SIGTERM or SIGINT, once the step is finished and its checkpoint saved.
    """
    if config.training.distributed == "fsdp2":
        raise UserError(
            "training.distributed: fsdp2 is not supported by reinforcement",
            "Add training.distributed=ddp, or auto for one process.",
        )
    run = reinforced(config)
    start = Path(run.model.base)
    if not config.rl.start and not start.exists():
        raise UserError(
            f"{start} does not exist, and reinforcement starts from a finished run",
            "Run `sidtune train` with this configuration first, or set rl.start.",
        )
    refuse_other_folders(start)
    given = resume not in ("auto", "never")
    if given and Path(resume).parent.resolve() != run.output_dir.resolve():
        raise UserError(
            f"--resume {resume} is not a checkpoint of {run.output_dir}",
            "Set rl.start to the model to start from, which is also the reference.",
        )
    method = Method(prompt_steps, reinforcement_trainer, _settings, earlier=(start,))
    with naming(KEYS):
        result = train(run, resume, dry_run, trust_remote_code, other_processes, method)
    if result is None:
        return None
    before, after = (_ranking(run.output_dir, step) for step in (0, result.best_step))
    if first_process() and after["ndcg@10"] <= before["ndcg@10"]:
        warn(
            f"no evaluation had a higher NDCG@10 than the start: {start} is the better model. Try a"
            " lower rl.learning_rate, a higher rl.sft_weight or other rl.rewards"
        )
    return Gain(result, before, after)


def _settings(inputs: Inputs) -> dict[str, Any]:
    """What a resumed run must share besides the settings of training."""
    rl, start = inputs.config.rl, Path(inputs.config.model.base)
    _refuse_other_catalogue(inputs, start)
    longest = max(map(len, inputs.catalogue.sids))
    if rl.hint >= longest:
        raise UserError(
            f"rl.hint: {rl.hint} gives the whole target away: the longest SID has {longest} tokens",
            f"Set rl.hint to {longest - 1} or less.",
        )
    factors = len(rl.level_weights or ())
    if factors > longest:
        raise UserError(
            f"rl.level_weights: {factors} factors, but SIDs have {longest} levels",
            "Give one factor for each level at most.",
        )
    if rl.weights.get("semantic"):
        # Here, since a dry run goes no further.
        _item_vectors(inputs)
    weights = sorted(file for pattern in WEIGHTS for file in start.glob(pattern))
    # The reference is loaded from it.
    digests = [file_digest(file) for file in weights if file.name != RANKER]
    compared = rl.model_dump(mode="json", include=set(COMPARED))
    return {
        **{f"rl.{name}": value for name, value in compared.items()},
        "rl.rewards": rl.weights,
        "rl.start": digest(digests)[:12],
    }


def _refuse_other_catalogue(inputs: Inputs, start: Path) -> None:
    """Refuse a start that does not know the SIDs, or gives them to other items."""
    unknown = len(inputs.vocabulary.new_ids)
    if unknown:
        raise UserError(
            f"{start} does not know {unknown:,} of the {len(inputs.vocabulary.sid_ids):,} SID"
            f" tokens of {inputs.config.data.index}",
            "Start from a model that was trained with this index.",
        )
    if not (start / RECOMMENDER_FILE).is_file():
        return
    if not inputs.catalogue.names_as(read_bundle(start).catalogue):
        raise UserError(
            f"{start} was trained with another catalogue than {inputs.config.data.index}",
            "Use the index and the items of that run.",
        )


def prompt_steps(
    shared: Shared, config: Config, model: PreTrainedModel, arguments: TrainingArguments
) -> Steps:
    """The plan, over prompts."""
    vocabulary = shared.inputs.vocabulary
    made = make_steps(config, shared.training, model, vocabulary, arguments, shared.prefixes)
    prompts = Prompts(shared.inputs.bundle, vocabulary.tokenizer)
    answers = make_answers(shared.inputs.bundle, prompts)
    corpus = PromptCorpus(shared.training, prompts.sids[0], answers)
    plan = replace(make_plan(config, corpus), repeats=config.rl.updates)
    return Steps(corpus, plan, made.layout, made.rank, made.world_size)


def reinforcement_trainer(
    shared: Shared,
    config: Config,
    model: PreTrainedModel,
    steps: Steps,
    arguments: TrainingArguments,
    request: StopRequest,
) -> StepTrainer:
    """The Trainer, with a copy of the model to compare with and one to average with."""
    assert isinstance(steps.corpus, PromptCorpus)
    rl, tasks = config.rl, len(shared.training)
    variant = PolicyLoss(config.loss, shared.prefixes, rl.clip)
    reference = LabelLoss(frozen_copy(model), tasks, variant) if rl.beta else None
    corpus, answers = steps.corpus, steps.corpus.answers
    shop = Shop(corpus.paths, cache(lambda: _sid_vectors(shared.inputs, answers)))
    rollouts = Rollouts(corpus, answers.trie, rl, shop, config.seed)
    kept = averaged_weights(model) if rl.keep_start else []
    # In main memory: they are read at evaluations alone.
    start = [weight.to("cpu", copy=True) for weight in kept]
    means = Reinforcement(rollouts, rl, reference, start)
    kind = partial(ReinforcementTrainer, reinforcement=means)
    return make_trainer(shared, config, model, steps, arguments, request, variant, kind, SHOWN)


def frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model that nothing trains; what is not trained in the model is not copied."""
    kept = {id(weight): weight for weight in model.parameters() if not weight.requires_grad}
    return copy.deepcopy(model, kept).requires_grad_(False)


def _item_vectors(inputs: Inputs) -> NDArray[np.float32]:
    """Vectors of the items' texts, for the reward `semantic`."""
    try:
        vectors = inputs.text_vectors
    except UserError as error:
        raise UserError(
            f"rl.rewards.semantic has no vectors of items: {error.message}",
            f"{error.hint} Or remove the reward.",
        ) from None
    if vectors is None:
        raise UserError(
            "rl.rewards.semantic compares vectors of the items' texts, and there are no texts",
            "Give titles or descriptions in data.items, or remove the reward.",
        )
    return vectors


def _sid_vectors(inputs: Inputs, answers: Answers) -> NDArray[np.float32]:
    """The mean of the text vectors of each SID's items, of length 1."""
    vectors = _item_vectors(inputs)
    summed = np.zeros((answers.trie.count, vectors.shape[1]), np.float32)
    np.add.at(summed, row_of(answers.items), vectors[answers.items.values])
    return unit(summed)


def _ranking(folder: Path, step: int) -> dict[str, float]:
    """The validation metrics that a run logged for a step, by name."""
    entries = map(json.loads, read_lines(folder / METRICS))
    entry = next(each for each in entries if each["step"] == step and "eval_ndcg@10" in each)
    return {name.removeprefix("eval_"): value for name, value in entry.items()}
