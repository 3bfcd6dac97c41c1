"""Compare a step of reinforcement, rollouts and update together, with TRL's GRPOTrainer.

The baseline is a plain subclass of GRPOTrainer (`build_trl`) that generates by constrained beam
search with `generate` and `prefix_allowed_tokens_fn`, as MiniOneRec's trainer does. Both start from
the same random weights (two million parameters), and ask for 16 answers to each of the same prompts
of amazon-industrial. The target is put into groups that miss it, so every group has a gradient:
sidtune skips those that have none, TRL does not. Both measure the divergence from a reference. Each
runs in its own process, and they make their steps in turn, so that other load affects both alike.
The reported ratio is the median over rounds. At the first step, answers must be the same but for a
few that are tied with the last, and so must the gradient norm, or the script fails.

    SIDTUNE_DATA=folder python benchmarks/rl.py [--rounds N] [--only 34|155]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl

from contestants import GIB, own_channel
from decoding import LONG_WORDING, allowed_after, constrained_beams
from side_by_side import FILES
from sidtune.base.signals import StopRequest
from sidtune.base.terminal import quiet_libraries
from sidtune.batching.steps import Steps
from sidtune.data.catalogue import read_texts
from sidtune.inputs import Inputs
from sidtune.model.load import load_model
from sidtune.model.new_base import create_base
from sidtune.reinforcement.prompt_corpus import PromptCorpus
from sidtune.reinforcement.rollouts import Rollouts
from sidtune.reinforcement.run import prompt_steps, reinforced, reinforcement_trainer
from sidtune.reinforcement.trainer import ReinforcementTrainer
from sidtune.tasks.config_file import parse_config
from sidtune.training.arguments import training_arguments
from sidtune.training.display.callbacks import LastStepEvaluation
from sidtune.training.method import Shared

GROUP, BETA, RATE, ROUNDS = 16, 1e-3, 1e-4, 3
# Of TRL: rows of a forward pass with gradients, and prompts of a call of `generate`.
MICRO_BATCH, GENERATE_BATCH = 64, 8
# Tokens of a prompt, on average: its wording, and the prompts of a step.
LENGTHS = {"34": None, "155": LONG_WORDING}
PROMPTS = {"34": 16, "155": 8}
PREDICTION = (
    "Written down before the first run: with 34 tokens, TRL computes 16 prompts of a group three"
    " times (rollout, reference, update) and ours one and a bit; 8 to 12 times. With 155 tokens the"
    " prompt is nearly all: 20 to 30 times."
)
# The share of answers, and the ratio of gradient norms, from which first steps count as the same.
ALIKE = 0.98
OUTCOME = Path(__file__).with_suffix(".json")


# --- in a process of its own ---


class Meter(TrainerCallback):
    """Waits before every step until told to go, and reports the step when it is made."""

    def __init__(self, channel: Any, trainer: Trainer, answers: dict[str, Any]) -> None:
        self.channel, self.answers, self.began = channel, answers, 0.0
        self.norm = 0.0
        clip: Any = trainer._clip_grad_norm

        def clipping(model: Any) -> Any:
            norm = clip(model)
            self.norm = float(norm)
            return norm

        trainer._clip_grad_norm = clipping  # type: ignore[method-assign]
        trainer.add_callback(self)

    def on_train_begin(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:
        """Tell that everything is built."""
        # What is in memory before the first step is the same for both: weights and libraries.
        self.idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB
        self._say({"ready": True})
        self._wait(control)

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:
        """Report, and wait for the next step."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB
        self._say(
            {
                "seconds": time.perf_counter() - self.began,
                "above_idle_gib": peak - self.idle,
                "norm": self.norm,
                **self.answers,
            }
        )
        self._wait(control)

    def _wait(self, control: TrainerControl) -> None:
        if sys.stdin.readline().strip() != "go":
            control.should_training_stop = True
        self.began = time.perf_counter()

    def _say(self, message: dict[str, Any]) -> None:
        print(json.dumps(message), file=self.channel, flush=True)


def work(contestant: str, folder: Path, length: str, steps: int) -> None:
    """Train step by step as told."""
    channel = own_channel()
    quiet_libraries()
    shared, plan, model = prepared(folder, length, steps)
    answers: dict[str, Any] = {}
    build = build_ours if contestant == "ours" else build_trl
    trainer = build(shared, plan, model, steps, answers)
    Meter(channel, trainer, answers)
    trainer.train()


def prepared(folder: Path, length: str, steps: int) -> tuple[Shared, Steps, PreTrainedModel]:
    """Data, plan and model, the same for both contestants."""
    data = Path(os.environ.get("SIDTUNE_DATA", "../shared/data")) / "amazon-industrial"
    template = folder / f"{length}.yaml"
    template.write_text(json.dumps(LENGTHS[length] or {}), encoding="utf-8")
    tree = {
        "output_dir": str(folder / "unused"),
        "model": {"base": str(folder / "base")},
        "data": {name: str(data / file) for name, file in FILES.items()},
        "encoding": {"cache_dir": str(folder / "cache")},
        "training": {"precision": "fp32", "min_lr_ratio": 1},
        "eval": {"patience": None},
        "template": {"file": str(template)} if LENGTHS[length] else {},
        "rl": {
            "start": str(folder / "base"),
            "prompts": PROMPTS[length],
            "group": GROUP,
            "rollout": "beams",
            "steps": steps,
            "beta": BETA,
            "sft_weight": 0,
            "add_target": True,
            "learning_rate": RATE,
            "warmup": 0,
        },
    }
    run = reinforced(parse_config(tree, "benchmark"))
    inputs = Inputs(run)
    model = load_model(run.model, inputs.vocabulary, seed=0)
    shared = Shared(inputs, inputs.mixture.train(), [], {}, None)
    return shared, prompt_steps(shared, run, model, training_arguments(run)), model


def build_ours(
    shared: Shared, plan: Steps, model: PreTrainedModel, steps: int, answers: dict[str, Any]
) -> Trainer:
    """Our trainer as `sidtune rl` puts it together, with evaluation and saving off."""
    run = shared.inputs.config
    arguments = training_arguments(run)
    arguments.eval_strategy = arguments.save_strategy = "no"
    arguments.eval_on_start = arguments.load_best_model_at_end = False
    arguments.max_steps = steps
    trainer = reinforcement_trainer(shared, run, model, plan, arguments, StopRequest())
    assert isinstance(trainer, ReinforcementTrainer)
    trainer.remove_callback(LastStepEvaluation)
    corpus, asked, ask = plan.corpus, trainer._answered, Rollouts.ask
    assert isinstance(corpus, PromptCorpus)

    def timed(*given: Any) -> Any:
        began = time.perf_counter()
        rollout = ask(*given)
        answers["rollout"] = time.perf_counter() - began
        return rollout

    Rollouts.ask = timed  # type: ignore[assignment,method-assign]

    def answered(number: int) -> Any:
        found = asked(number)
        paths = corpus.paths.tokens[found.rollout.groups.sids]
        answers["answers"] = [sorted(group) for group in paths.tolist()]
        return found

    trainer._answered = answered  # type: ignore[method-assign]
    return trainer


def build_trl(
    shared: Shared, plan: Steps, model: PreTrainedModel, steps: int, answers: dict[str, Any]
) -> Trainer:
    """TRL's GRPOTrainer with the constrained beam search of `benchmarks/decoding.py`."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    corpus = plan.corpus
    assert isinstance(corpus, PromptCorpus)
    paths = [tuple(path[path >= 0].tolist()) for path in corpus.paths.tokens]
    allowed = allowed_after(paths)
    examples = np.concatenate([plan.plan.step(number) for number in range(steps)])
    prompts = {str(example): corpus.prompt(int(example)) for example in examples}
    targets = {str(example): paths[corpus.targets[example]] for example in examples}
    # Two examples may have the same prompt and other targets, so answers go by name.
    asked_names: list[str] = []

    class BeamTrainer(GRPOTrainer):  # type: ignore[misc]
        """Prompts as token ids, and answers by beam search."""

        def _tokenize_prompts(self, names: list[str]) -> tuple[Any, None, dict[str, Any]]:
            asked_names[:] = names
            return [prompts[name].tolist() for name in names], None, {}

        def _generate_single_turn(
            self, prompt_ids: Any, images: Any, fields: Any, count: int, *_: Any, **__: Any
        ) -> tuple[list[list[int]], None]:
            """Every prompt stands there once for each of its answers."""
            began = time.perf_counter()
            language_model: Any = self.accelerator.unwrap_model(self.model)
            language_model.eval()
            asked: list[Any] = [np.array(one, np.int64) for one in prompt_ids[::count]]
            found: list[list[int]] = []
            for start in range(0, len(asked), GENERATE_BATCH):
                batch = asked[start : start + GENERATE_BATCH]
                beams = constrained_beams(language_model, batch, allowed, count, len(paths[0]))[0]
                found += beams.flatten(0, 1).tolist()
            language_model.train()
            answers["rollout"] = time.perf_counter() - began
            for row, name in enumerate(asked_names[::count]):
                target = list(targets[name])
                group = slice(row * count, (row + 1) * count)
                if target not in found[group]:
                    found[group.stop - 1] = target
            groups = [sorted(found[at : at + count]) for at in range(0, len(found), count)]
            answers["answers"] = groups
            return found, None

    def rule(completion_ids: list[list[int]], prompts: list[str], **_: Any) -> list[float]:
        """1 for the target."""
        pairs = zip(completion_ids, prompts, strict=True)
        return [float(tuple(ids) == targets[name]) for ids, name in pairs]

    folder = shared.inputs.config.output_dir.parent
    arguments = GRPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=plan.plan.batch_size * GROUP // MICRO_BATCH,
        num_generations=GROUP,
        max_completion_length=len(paths[0]),
        beta=BETA,
        # As published; by default TRL multiplies the divergence by the ratio.
        use_bias_correction_kl=False,
        loss_type="grpo",
        learning_rate=RATE,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        max_steps=steps,
        shuffle_dataset=False,
        disable_dropout=True,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_steps=10**6,
    )
    start = folder / "start"
    model.save_pretrained(start)
    return BeamTrainer(
        model=str(start),
        reward_funcs=rule,
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": str(example)} for example in examples]),
        processing_class=shared.inputs.vocabulary.tokenizer,
    )


# --- the comparison ---


def main() -> int:
    """Measure, print the table and leave the JSON; 1 where the first steps differ."""
    options = arguments()
    if options.worker:
        work(options.worker, Path(options.folder), options.only, options.rounds + 1)
        return 0
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(os.environ.get("SIDTUNE_DATA", "../shared/data")) / "amazon-industrial"
        create_base(Path(folder) / "base", read_texts(data / FILES["items"]))
        for length in [options.only] if options.only else LENGTHS:
            results[length] = compare(Path(folder), length, options.rounds)
    print("seconds of a step, of its rollout in parentheses, and memory above idle")
    print(f"{'prompt':>8} {'TRL':>16} {'ours':>16} {'ratio':>7} {'memory':>20}")
    for length, row in results.items():
        memory = f"{row['trl_gib']:.2f} → {row['ours_gib']:.2f} GiB"
        ratio = f"{row['ratio']:.1f}x"
        times = [f"{row[name]:.2f} ({row[f'{name}_rollout']:.2f})" for name in ("trl", "ours")]
        print(f"{length:>8} {times[0]:>16} {times[1]:>16} {ratio:>7} {memory:>20}")
    known = json.loads(OUTCOME.read_text(encoding="utf-8")) if OUTCOME.is_file() else {}
    tree = {
        "prediction": PREDICTION,
        "group": GROUP,
        "results": known.get("results", {}) | results,
    }
    OUTCOME.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    apart = [
        length
        for length, row in results.items()
        if row["same_answers"] < ALIKE or abs(row["ours_norm"] / row["trl_norm"] - 1) > 1 - ALIKE
    ]
    for length in apart:
        print(f"prompts of {length} tokens: the first steps differ: {results[length]}")
    return 1 if apart else 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", choices=list(LENGTHS))
    parser.add_argument("--worker", choices=["ours", "trl"])
    parser.add_argument("--folder")
    return parser.parse_args()


def compare(folder: Path, length: str, rounds: int) -> dict[str, Any]:
    """Seconds of a step of both, the median of the ratios, and peak memory above idle.

    Under `load`: how many processes ran or waited, in the minute before and in the last one.
    """
    load = os.getloadavg()[0]
    reports: dict[str, list[dict[str, Any]]] = {}
    workers = {name: start(name, folder, length, rounds) for name in ("ours", "trl")}
    try:
        for name, worker in workers.items():
            assert hear(worker) == {"ready": True}
            reports[name] = []
        for _ in range(rounds + 1):
            for name, worker in workers.items():
                worker.stdin.write("go\n")
                worker.stdin.flush()
                reports[name].append(hear(worker))
    finally:
        for worker in workers.values():
            worker.kill()
    ours, theirs = reports["ours"], reports["trl"]
    groups = zip(ours[0]["answers"], theirs[0]["answers"], strict=True)
    shared = [len({*map(tuple, a)} & {*map(tuple, b)}) / len(a) for a, b in groups]
    # The first step warms up.
    pairs = list(zip(ours[1:], theirs[1:], strict=True))
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
        "prompts": PROMPTS[length],
        "rounds": rounds,
        "ours": statistics.median(mine["seconds"] for mine, _ in pairs),
        "ours_rollout": statistics.median(mine["rollout"] for mine, _ in pairs),
        "trl": statistics.median(their["seconds"] for _, their in pairs),
        "trl_rollout": statistics.median(their["rollout"] for _, their in pairs),
        "ratio": statistics.median(their["seconds"] / mine["seconds"] for mine, their in pairs),
        "ours_gib": ours[-1]["above_idle_gib"],
        "trl_gib": theirs[-1]["above_idle_gib"],
        "same_answers": statistics.mean(shared),
        "ours_norm": ours[0]["norm"],
        "trl_norm": theirs[0]["norm"],
    }


def start(name: str, folder: Path, length: str, rounds: int) -> Any:
    """A contestant's process."""
    command = [sys.executable, __file__, "--worker", name, "--folder", str(folder)]
    return subprocess.Popen(
        [*command, "--only", length, "--rounds", str(rounds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(folder / f"{name}.log").open("w", encoding="utf-8"),
        env=os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        text=True,
        encoding="utf-8",
    )


def hear(worker: Any) -> dict[str, Any]:
    """The next line of a process."""
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError("a contestant ended early")
    heard: dict[str, Any] = json.loads(line)
    return heard


if __name__ == "__main__":
    sys.exit(main())
