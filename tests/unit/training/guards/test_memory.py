"""Tokens that fit: the arithmetic, what is measured, and the measuring with a made-up GPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.running import run
from tests.tiny_data import tiny_config
from tests.tiny_models import make_base

from sidtune.base.errors import UserError
from sidtune.batching.layouts import MicroBatch
from sidtune.batching.steps import Steps
from sidtune.inputs import Inputs
from sidtune.model.load import load_model
from sidtune.training.arguments import training_arguments
from sidtune.training.display.describe import held_bytes
from sidtune.training.guards import memory
from sidtune.training.guards.memory import (
    MOST_TOKENS,
    USED_SHARE,
    largest_micro_batch,
    tokens_that_fit,
)
from sidtune.training.make_steps import DEFAULT_MAX_TOKENS, make_steps, measures_memory


def line(fixed: int, each: int) -> Callable[[int], tuple[int, int]]:
    """Passes hold a little less than they may."""
    return lambda limit: (limit - 24, fixed + each * (limit - 24))


@pytest.mark.parametrize(
    ("fixed", "each", "room", "found"),
    [
        (
            1_000_000,
            1_000,
            21_000_000,
            19_968,
        ),  # 20,000 tokens fill the room; a multiple of 256 below
        (
            1_000_000,
            1_000,
            1_450_000,
            400,
        ),  # room for 450: below 512, but the longest example of 400 fits
        (0, 1, 10**12, MOST_TOKENS),
    ],
)
def test_tokens_that_fit(fixed: int, each: int, room: int, found: int) -> None:
    assert tokens_that_fit(line(fixed, each), room, longest=400) == found


def test_long_examples_are_probed_by_passes_that_hold_several() -> None:
    asked: list[int] = []

    def measure(limit: int) -> tuple[int, int]:
        asked.append(limit)
        return limit, 1_000 * limit

    assert tokens_that_fit(measure, 40_000_000, longest=4_600) == 39_936
    assert asked == [9_200, 27_600]


def test_too_few_examples_for_two_sizes_put_all_memory_down_to_tokens() -> None:
    assert tokens_that_fit(lambda limit: (1_000, 2_000_000), 8_000_000, longest=100) == 3_840


def test_no_room_for_one_example_is_said() -> None:
    with pytest.raises(
        UserError, match="about 0 tokens fit on this GPU, but the longest example has 400"
    ):
        tokens_that_fit(line(1_000_000, 1_000), 500_000, longest=400)


@pytest.mark.parametrize("layout", ["tree", "bucketed"])
def test_what_is_measured_is_the_fullest_pass_of_the_first_steps(
    tmp_path: Path, layout: str
) -> None:
    config = tiny_config(tmp_path, training={"layout": layout, "batch_size": 8})
    inputs = Inputs(config)
    tasks = inputs.mixture.train()
    model = load_model(config.model, inputs.vocabulary, config.seed)
    steps = make_steps(config, tasks, model, inputs.vocabulary, training_arguments(config))
    assert steps.layout.limit == DEFAULT_MAX_TOKENS
    small, large = (largest_micro_batch(steps, limit).input_ids.size for limit in (128, 512))
    assert small <= 128
    assert small < large <= 512
    assert steps.layout.limit == DEFAULT_MAX_TOKENS, "measuring changes nothing"


def test_only_a_gpu_is_measured(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    assert config.training.max_tokens == "auto"
    assert measures_memory(config.training, "cuda")
    assert not measures_memory(config.training, "cpu")
    assert not measures_memory(config.training.model_copy(update={"max_tokens": 4096}), "cuda")
    assert not measures_memory(config.training.model_copy(update={"layout": "padded"}), "cuda")


def test_a_run_measures_and_uses_what_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it on the CPU, with a made-up GPU: a pass takes a thousand bytes a token."""
    config = tiny_config(tmp_path, training={"layout": "tree", "max_steps": 2, "workers": 0})
    measured: list[int] = []

    def noted(steps: Steps, limit: int) -> MicroBatch:
        batch = largest_micro_batch(steps, limit)
        measured.append(batch.input_ids.size)
        return batch

    model = load_model(config.model, Inputs(config).vocabulary, config.seed)
    trained = sum(weight.numel() for weight in model.parameters())
    room = 1_000_000
    for name, value in {
        "mem_get_info": lambda _: ((room + 8 * trained) / USED_SHARE - 500, None),
        "memory_reserved": lambda _: 500,
        "memory_allocated": lambda _: 0,
        "reset_peak_memory_stats": lambda _: None,
        "max_memory_allocated": lambda _: 1_000 * measured[-1],
        "get_rng_state": lambda _: None,
        "set_rng_state": lambda *_: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(memory, "measures_memory", lambda *_: True)
    monkeypatch.setattr(memory, "largest_micro_batch", noted)
    run(config)
    assert len(measured) == 2
    assert "measured that 768 tokens per forward pass fit" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("tied", [True, False])
def test_the_estimate_counts_each_weight_in_its_own_type(
    tmp_path: Path, dtype: torch.dtype, tied: bool
) -> None:
    """Frozen tuning keeps the base as it is, and float32 rows beside it; full tuning trains all of
    it in float32.
    """
    base = make_base(tmp_path / "base", "qwen3", tied, dtype=dtype)
    config = tiny_config(tmp_path, model={"base": str(base), "tuning": "frozen"})
    vocabulary = Inputs(config).vocabulary
    frozen = load_model(config.model, vocabulary, config.seed)
    full = load_model(config.model.model_copy(update={"tuning": "full"}), vocabulary, config.seed)
    values = sum(weight.numel() for weight in full.parameters())
    rows = len(vocabulary.sid_ids) * full.config.hidden_size * (1 if tied else 2)
    training = config.training
    assert held_bytes(full, training) == 16 * values
    assert held_bytes(frozen, training) == dtype.itemsize * values + 16 * rows
    narrow = training.model_copy(update={"optimizer_state": "bf16"})
    assert held_bytes(full, narrow) == 12 * values
    moved = training.model_copy(update={"offload_optimizer": True})
    assert held_bytes(full, moved) == 8 * values
