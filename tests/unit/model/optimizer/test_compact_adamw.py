"""AdamW with moments in few bits or in main memory, against PyTorch's, bitsandbytes' and a slow
one.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sidtune.config.training import StateKind
from sidtune.model.optimizer import adamw
from sidtune.model.optimizer.adamw import CompactAdamW
from sidtune.model.optimizer.moments import block_of, optimizer_bytes, rounded

# Rows of blocks of 256, 64 and 128 values; of no whole block; too small.
SHAPES = [(100, 256), (70, 192), (33, 3, 128), (90, 100), (2, 256), (333,)]
KINDS: list[StateKind] = ["fp32", "bf16", "8bit"]
RATE, DECAY, STEPS = 1e-2, 0.1, 12


@pytest.fixture(autouse=True)
def _in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are updated in several parts, the last of which is not full."""
    monkeypatch.setattr(adamw, "AT_ONCE", 4096)


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def groups(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    return [
        {"params": parameters[:3], "weight_decay": DECAY},
        {"params": parameters[3:], "weight_decay": 0.0},
    ]


def gradients(step: int) -> list[Tensor]:
    """As large as one another's squares, and of some weights none in the second step."""
    generator = torch.Generator().manual_seed(100 + step)
    made = [torch.randn(shape, generator=generator) for shape in SHAPES]
    return [gradient * 10.0 ** (number - 4) for number, gradient in enumerate(made)]


def steps(optimizer: Any, parameters: list[nn.Parameter], first: int, last: int) -> None:
    for step in range(first, last):
        for number, (weight, gradient) in enumerate(zip(parameters, gradients(step), strict=True)):
            weight.grad = None if step == 1 and number == 1 else gradient
        optimizer.step()


def trained(make: Callable[[Any], Any], last: int = STEPS) -> tuple[list[nn.Parameter], Any]:
    parameters = weights()
    optimizer = make(groups(parameters))
    steps(optimizer, parameters, 0, last)
    return parameters, optimizer


def compact(kind: StateKind, offload: bool = False, seed: int = 7) -> Callable[[Any], Any]:
    return lambda given: CompactAdamW(given, kind, offload, seed, lr=RATE)


def full(given: Any) -> Any:
    return torch.optim.AdamW(given, lr=RATE, fused=True)


def same(mine: list[nn.Parameter], theirs: list[nn.Parameter]) -> bool:
    return all(torch.equal(*pair) for pair in zip(mine, theirs, strict=True))


def test_moments_in_main_memory_change_nothing() -> None:
    assert same(trained(compact("fp32", offload=True))[0], trained(full)[0])
    for kind in KINDS:
        assert same(trained(compact(kind, offload=True))[0], trained(compact(kind))[0])


def test_a_weight_that_is_not_contiguous_is_updated_too() -> None:
    def one(make: Callable[[Any], Any], transposed: bool) -> Tensor:
        values = torch.arange(64 * 128.0).view(64, 128).sin()
        weight = nn.Parameter(values.T.contiguous().T if transposed else values.clone())
        assert weight.is_contiguous() != transposed
        optimizer = make([weight])
        for step in range(3):
            weight.grad = values.roll(step)
            optimizer.step()
        return weight.data

    for kind in KINDS:
        assert torch.equal(one(compact(kind), True), one(compact(kind), False))


def slow(parameters: list[nn.Parameter], noise: Callable[[int, int], torch.Generator]) -> None:
    """AdamW by its definition, with moments that are rounded to bfloat16 after each step."""
    moments = [(torch.zeros_like(w), torch.zeros_like(w)) for w in parameters]
    counts = [0] * len(parameters)
    for step in range(STEPS):
        for number, gradient in enumerate(gradients(step)):
            if step == 1 and number == 1:
                continue
            weight = parameters[number].data
            first, second = moments[number]
            generator = noise(counts[number], number)
            counts[number] += 1
            weight *= 1 - RATE * (DECAY if number < 3 else 0)
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            mean = first / (1 - 0.9 ** counts[number])
            square = second / (1 - 0.999 ** counts[number])
            weight -= RATE * mean / (square.sqrt() + 1e-8)
            moments[number] = by_parts(first, second, generator)


def by_parts(first: Tensor, second: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Round part by part, the first moment before the second, as noise is drawn."""
    pairs = [
        (rounded(one, generator).float(), rounded(two, generator).float())
        for one, two in zip(first.view(-1).split(4096), second.view(-1).split(4096), strict=True)
    ]
    one, two = (torch.cat(parts).view_as(first) for parts in zip(*pairs, strict=True))
    return one, two


def test_bfloat16_moments_are_those_of_a_slow_adamw() -> None:
    parameters, optimizer = trained(compact("bf16"))
    expected = weights()
    drawn = optimizer._drawn
    slow(expected, lambda step, n: torch.Generator().manual_seed(drawn(torch.tensor(step), n)))
    for weight, right in zip(parameters, expected, strict=True):
        # A moment that lies at the border of two roundings may take the other.
        away = (weight - right).abs() > 1e-5
        assert away.float().mean() < 1e-2
        torch.testing.assert_close(weight, right, rtol=0, atol=1e-3)
    other = trained(compact("bf16", seed=8))[0]
    assert not same(other, parameters)


def test_rounding_takes_one_of_two_neighbours_and_is_right_in_the_mean() -> None:
    values = torch.tensor([1.0, 1.001, -3.1415926, 7e-12, -2.5e20, 0.0])
    generator = torch.Generator().manual_seed(0)
    many = torch.stack([rounded(values, generator) for _ in range(4096)])
    assert many.dtype == torch.bfloat16
    gap = (values.abs().log2().floor() - 7).exp2().nan_to_num()
    assert ((many.float() - values).abs() <= gap).all()
    for column, value in zip(many.float().T, values, strict=True):
        found = column.unique()
        assert len(found) == (1 if float(value) in (1.0, 0.0) else 2)
        # Four standard deviations of a mean of 4,096.
        assert abs(float(column.double().mean() - value)) <= 4 / 2 / 64 * float(
            found.max() - found.min()
        )


def test_the_second_moment_in_bfloat16_decays() -> None:
    """Rounding to the nearest would keep it: .999 of a bfloat16 lies nearest to itself."""
    weight = nn.Parameter(torch.zeros(64, 64))
    optimizer = CompactAdamW([weight], "bf16", False, 0, lr=RATE)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    weight.grad = torch.zeros_like(weight)
    for _ in range(500):
        optimizer.step()
    moment = optimizer.state[weight]["exp_avg_sq"]
    assert moment.dtype == torch.bfloat16
    assert float(moment.float().mean()) == pytest.approx(1e-3 * 0.999**500, rel=0.02)


def test_eight_bits_are_those_of_bitsandbytes() -> None:
    """Where a row is a number of its blocks, they are the same blocks."""
    bitsandbytes = pytest.importorskip("bitsandbytes", "0.50")
    parameters, _ = trained(compact("8bit"))
    theirs, _ = trained(lambda given: bitsandbytes.optim.AdamW(given, lr=RATE, optim_bits=8))
    exact, _ = trained(full)
    assert (parameters[0] - theirs[0]).abs().max() < 1e-4
    assert (parameters[0] - exact[0]).abs().max() > 1e-3
    # What is too small, or not made of whole blocks, is in float32.
    assert same(parameters[3:], exact[3:])


def test_blocks_never_reach_over_rows() -> None:
    found = [block_of(torch.Size(shape)) for shape in SHAPES]
    assert found == [256, 64, 128, None, None, None]
    assert block_of(torch.Size((151936, 896))) == 128


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_takes_the_bytes_that_are_estimated(kind: StateKind) -> None:
    if kind == "8bit":
        pytest.importorskip("bitsandbytes")
    parameters, optimizer = trained(compact(kind), 1)
    held = sum(
        value.nbytes
        for state in optimizer.state.values()
        for name, value in state.items()
        if name != "step"
    )
    assert held == optimizer_bytes(nn.ParameterList(parameters), kind)
    each = held / sum(weight.numel() for weight in parameters)
    assert {"fp32": each == 8, "bf16": each == 4, "8bit": each < 4}[kind]
    if kind == "8bit":
        large = optimizer.state[parameters[0]]
        assert [large[name].dtype for name in ("exp_avg", "exp_avg_sq")] == [torch.uint8] * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offload", [False, True])
def test_a_saved_state_goes_on_to_the_bit(kind: StateKind, offload: bool) -> None:
    """Also from PyTorch's own optimizer, and back to it."""
    if kind == "8bit":
        pytest.importorskip("bitsandbytes")
    make = compact(kind, offload)
    expected, _ = trained(make)
    begins = [make, full] if kind == "fp32" else [make]
    for begin in begins:
        for end in begins:
            parameters, before = trained(begin, 5)
            file = io.BytesIO()
            torch.save(before.state_dict(), file)
            file.seek(0)
            after = end(groups(parameters))
            after.load_state_dict(torch.load(file, weights_only=True))
            steps(after, parameters, 5, STEPS)
            assert same(parameters, expected)


def test_a_state_of_another_kind_is_not_loaded() -> None:
    pytest.importorskip("bitsandbytes")
    state = trained(compact("bf16"), 1)[1].state_dict()
    other = compact("8bit")(groups(weights()))
    with pytest.raises(ValueError, match="other entries"):
        other.load_state_dict(state)


@pytest.mark.parametrize("kind", ["bf16", "8bit"])
def test_it_learns_nearly_what_full_adamw_learns(kind: StateKind) -> None:
    """A small network's losses, step by step."""
    if kind == "8bit":
        pytest.importorskip("bitsandbytes")

    def losses(make: Callable[[Any], Any]) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))
        target = torch.randn(64, 64, generator=generator) / 8
        optimizer, found = make(network.parameters()), []
        for _ in range(200):
            given = torch.randn(64, 64, generator=generator)
            loss = (network(given) - given @ target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.detach())
        return torch.stack(found)

    right = losses(full)
    found = losses(compact(kind))
    assert right[-1] < right[0] / 3
    assert not torch.equal(found, right)
    torch.testing.assert_close(found, right, rtol=0.1, atol=0)
