"""Stops on a loss or gradient that is not finite, names the examples that cause it, and gives
advice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from sidtune.base.errors import UserError
from sidtune.base.storage import write_text
from sidtune.batching.steps import Steps
from sidtune.model.sharding.shards import is_sharded, whole
from sidtune.runs.checkpoints import checkpoints
from sidtune.runs.files import json_line
from sidtune.tokenizer.faults import decode
from sidtune.training.loss.label_loss import LabelLoss

FILE = "non_finite.jsonl"
SECTION = "See “The loss or the gradient is not finite” in docs/troubleshooting.md."


@dataclass(frozen=True)
class Suspect:
    """An example of the step, run in a pass of its own.

    Args:
        step: counted from 1, as in the logs.
        task: its task.
        example: its number among the encoded examples of the task, from 0.
        loss: in nats per label.
        gradient_norm: of its loss, summed over labels; None if it was not computed because a loss
            is not finite.
        text: prompt and response, decoded.
    """

    step: int
    task: str
    example: int
    loss: float
    gradient_norm: float | None
    text: str

    @property
    def finite(self) -> bool:
        """Whether loss and gradient norm are finite."""
        return math.isfinite(self.loss) and (
            self.gradient_norm is None or math.isfinite(self.gradient_norm)
        )


def carrying_faults(loss: Tensor, sums: Tensor) -> Tensor:
    """The loss unchanged, or NaN if a sum is not finite.

    The all-reduce of gradients, which happens anyway, carries the NaN to every rank, without
    further communication or device synchronisation.
    """
    return loss * (1 + 0 * sums.sum())


def explained(
    loss_module: LabelLoss,
    steps: Steps,
    number: int,
    precision: Callable[[], AbstractContextManager[Any]],
    tokenizer: PreTrainedTokenizerFast,
    run: Path,
) -> UserError:
    """Find the examples that cause the fault, list them in a file, and return the error to raise;
    called on every rank.

    Args:
        loss_module: with the weights from before the step.
        number: of the step, from 0.
        precision: the autocast context of the forward pass.
        run: the output folder.
    """
    broken = [
        name
        for name, weight in loss_module.model.named_parameters()
        if not whole(weight.detach()).isfinite().all()
    ]
    sharded = is_sharded(loss_module.model)
    own = _one_by_one(loss_module, steps, number, precision, tokenizer, gradients=False)
    suspects: list[Suspect] = own if sharded else gather_object(own)
    if all(suspect.finite for suspect in suspects):
        own = _one_by_one(loss_module, steps, number, precision, tokenizer, gradients=True)
        suspects = own if sharded else gather_object(own)
    # If each is finite alone, only their sum is not: list all of them.
    blamed = [suspect for suspect in suspects if not suspect.finite] or suspects
    if steps.rank == 0:
        write_text(run / FILE, "".join(json_line(asdict(one)) for one in blamed))
    # A rank that exited now would bring down rank 0 while it writes the file.
    PartialState().wait_for_everyone()
    return _error(number + 1, suspects, blamed, broken, run)


def refuse_validation(metrics: dict[str, float], step: int) -> None:
    """Refuse to save weights whose validation is not finite; before the first step, training may
    still fix them.

    Raises:
        UserError: names the metric.
    """
    broken = [
        name.removeprefix("eval_") for name, value in metrics.items() if not math.isfinite(value)
    ]
    if step and broken:
        raise UserError(
            f"after step {step}: the validation metric {broken[0]} is not finite; this step is not"
            " saved",
            "Lower training.learning_rate, or lengthen training.warmup, or set training.precision:"
            f" fp32. {SECTION}",
        )


def _one_by_one(
    loss_module: LabelLoss,
    steps: Steps,
    number: int,
    precision: Callable[[], AbstractContextManager[Any]],
    tokenizer: PreTrainedTokenizerFast,
    gradients: bool,
) -> list[Suspect]:
    """This rank's examples of a step, each run alone; with a sharded model all of the step's, since
    processes run their passes together.
    """
    found, starts = [], np.cumsum([0, *steps.corpus.sizes])
    sharded = is_sharded(loss_module.model)
    examples = steps.plan.step(number) if sharded else steps.share(number)
    for index in examples.tolist():
        ids, _, task = steps.corpus[index]
        (batch,) = steps.layout.micro_batches([steps.corpus[index]])
        with torch.set_grad_enabled(gradients), precision():
            loss, by_task = loss_module(**batch.to(loss_module.model.device))
        norm = _gradient_norm(loss_module, loss) if gradients else None
        each, name = by_task.sum().item() / len(batch.labels), steps.corpus.tasks[task].name
        place, text = index - int(starts[task]), decode(tokenizer, ids.tolist())
        found.append(Suspect(number + 1, name, place, each, norm, text))
    return found


def _gradient_norm(loss_module: LabelLoss, loss: Tensor) -> float:
    trained = [weight for weight in loss_module.parameters() if weight.requires_grad]
    if is_sharded(loss_module.model):
        # Their gradients are made by hooks, and averaged over processes that run the same example.
        torch.autograd.backward(loss)
        norm = whole(torch.nn.utils.get_total_norm([w.grad for w in trained if w.grad is not None]))
        loss_module.zero_grad()
        return norm.item()
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    return torch.nn.utils.get_total_norm([g for g in gradients if g is not None]).item()


def _error(
    step: int, suspects: list[Suspect], blamed: list[Suspect], broken: list[str], run: Path
) -> UserError:
    what = "gradient" if all(math.isfinite(suspect.loss) for suspect in suspects) else "loss"
    if broken:
        cause = f"The weights themselves are not finite, such as {broken[0]}"
    elif all(suspect.finite for suspect in suspects):
        cause = f"Each of its {len(suspects)} examples is finite on its own"
    else:
        cause = f"It is caused by {len(blamed)} of its {len(suspects)} examples"
    return UserError(
        f"step {step}: the {what} is not finite; training stopped before updating the weights."
        f" {cause}: {run / FILE} lists them",
        " ".join([*_advice(suspects, blamed, broken, run), SECTION]),
    )


def _advice(
    suspects: list[Suspect], blamed: list[Suspect], broken: list[str], run: Path
) -> list[str]:
    lower = (
        "Lower training.learning_rate, or lengthen training.warmup; if it happens again, set"
        " training.precision: fp32."
    )
    if broken:
        return ["Start from other weights: these were not finite before this step."]
    few = 2 * len(blamed) <= len(suspects)
    advice = ["Check these rows of your data first: correct or remove them."] if few else []
    checkpoint = next(iter(checkpoints(run)), None)
    again = (
        f"In a new output_dir, `--resume PATH` starts from the weights before it: {checkpoint}."
        if checkpoint
        else ""
    )
    return [*advice, lower, *([again] if again else [])]
