"""One loss, and one gradient, whatever the layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny_models import ARCHITECTURES, make_base, make_config, random_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, set_seed

from sidtune.batching import layouts
from sidtune.batching.layouts import Example, Layout, MicroBatch, idle_micro_batch
from sidtune.model.attention import runs_trees
from sidtune.model.output_head import ends_model
from sidtune.model.tuning.frozen import freeze
from sidtune.training.loss import blockwise
from sidtune.training.loss.label_loss import LabelLoss

ROWS, PAD, TASKS, CPU = 200, 2, 3, torch.device("cpu")
SID_IDS = torch.arange(90, 110)
LAYOUTS = {
    "padded": Layout("padded", 3, PAD),
    "buckets": Layout("bucketed", 60, PAD, pass_cost=10),
    "one bucket": Layout("bucketed", 10_000, PAD, pass_cost=10_000),
    "small trees": Layout("tree", 40, PAD, pass_cost=10, token_cost=30),
    "large trees": Layout("tree", 10_000, PAD, pass_cost=10_000, token_cost=1e9),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of logits even here."""
    monkeypatch.setattr(blockwise, "BLOCK_VALUES", 7 * ROWS)


def make_model(
    architecture: str = "qwen3",
    tied: bool = True,
    frozen: bool = False,
    dtype: torch.dtype = torch.float64,
) -> PreTrainedModel:
    model = random_model(make_config(architecture, tied, ROWS))
    if frozen:
        freeze(model, SID_IDS)
    return model.to(dtype)  # type: ignore[arg-type, no-any-return]


def make_examples(seed: int = 0) -> list[Example]:
    """Growing histories of a few users, asked several questions; one response in the middle; one
    example twice.
    """
    random = np.random.default_rng(seed)
    opening, examples = [5, 6, 7], []
    for _ in range(3):
        history = random.integers(90, 110, 12).tolist()
        for length in (3, 6, 9):
            for task, question in enumerate(([11, 12], [11, 13, 14])):
                prompt = [*opening, *history[:length], *question]
                answer = [*history[length : length + 3], 1]
                span = [len(prompt), len(prompt) + len(answer)]
                examples.append(
                    (np.array(prompt + answer, np.int32), np.array([span], np.int32), task)
                )
    several = np.array([*opening, *random.integers(90, 110, 9)], np.int32)
    examples.append((several, np.array([[4, 6], [9, 12]], np.int32), 2))
    examples.append(examples[4])
    return examples


def measured(
    model: PreTrainedModel, layout: Layout, examples: list[Example]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss by task, and the gradient of every trained parameter."""
    objective, sums = LabelLoss(model, TASKS), []
    model.zero_grad()
    for batch in layout.micro_batches(examples):
        loss, by_task = objective(**batch.to(CPU), scale=0.25)
        assert loss.item() == pytest.approx(0.25 * by_task.sum().item())
        loss.backward()
        sums.append(by_task)
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return torch.stack(sums).sum(0), gradients


def one_by_one(model: PreTrainedModel, examples: list[Example]) -> tuple[Tensor, dict[str, Tensor]]:
    """The slow reference: each example alone through the plain forward pass, with ordinary shifted
    labels.
    """
    sums = torch.zeros(TASKS, dtype=torch.float64)
    model.zero_grad()
    for ids, spans, task in examples:
        tokens = torch.tensor(ids, dtype=torch.long)[None]
        logits = model(input_ids=tokens).logits[0].log_softmax(-1)
        places = [place for start, end in spans for place in range(start, end)]
        loss = -sum(logits[place - 1, tokens[0, place]] for place in places)
        (0.25 * loss).backward()  # type: ignore[union-attr]
        sums[task] += loss.detach()  # type: ignore[union-attr]
    return sums, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("frozen", [False, True], ids=["full", "frozen"])
def test_every_layout_gives_the_loss_and_gradients_of_one_example_at_a_time(
    frozen: bool, tied: bool
) -> None:
    # GPT-2 computes in the precision it is given; norms of Qwen and Llama are float32 inside,
    # whatever comes in.
    model, examples = make_model("gpt2", tied, frozen), make_examples()
    expected, expected_gradients = one_by_one(model, examples)
    assert len(expected_gradients) == (1 + (not tied) if frozen else len(list(model.parameters())))
    for name, layout in LAYOUTS.items():
        loss, gradients = measured(model, layout, examples)
        torch.testing.assert_close(
            loss, expected, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}"
        )
        assert gradients.keys() == expected_gradients.keys()
        for parameter, gradient in gradients.items():
            torch.testing.assert_close(
                gradient, expected_gradients[parameter], rtol=1e-9, atol=1e-9
            )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_trees_are_exact_for_every_architecture(architecture: str) -> None:
    """Gemma 2 caps its logits, GPT-2 learns positions, the mixture of experts routes tokens."""
    model, examples = make_model(architecture, dtype=torch.float32), make_examples()
    assert runs_trees(model, 64)
    expected, expected_gradients = measured(model, LAYOUTS["padded"], examples)
    loss, gradients = measured(model, LAYOUTS["large trees"], examples)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-3)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-2, atol=1e-3)


def test_long_examples_have_one_loss_however_they_share_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows are as narrow here as rows for examples of ordinary length are beside real ones."""
    monkeypatch.setattr(layouts, "WIDEST_ROW", 8)
    model, random = make_model("gpt2"), np.random.default_rng(1)
    unlike = [
        (random.integers(5, 90, 15).astype(np.int32), np.array([[12, 15]], np.int32), 1)
        for _ in range(3)
    ]
    examples = [*make_examples(), *unlike]
    expected, expected_gradients = one_by_one(model, examples)
    layout = Layout("tree", 200, PAD, pass_cost=10, token_cost=30)
    batches = layout.micro_batches(examples)
    alone = [batch for batch in batches if batch.ends is None]
    assert 0 < len(alone) < len(batches), "some share rows and some do not"
    assert any(len(batch.input_ids) > 1 for batch in alone)
    loss, gradients = measured(model, layout, examples)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-9, atol=1e-9)


def test_a_head_with_a_bias_is_trained_with_it() -> None:
    config = AutoConfig.for_model(
        "phi",
        vocab_size=ROWS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    set_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float64)
    assert model.lm_head.bias is not None
    examples = make_examples()
    expected, expected_gradients = one_by_one(model.eval(), examples)
    loss, gradients = measured(model, LAYOUTS["small trees"], examples)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        gradients["lm_head.bias"], expected_gradients["lm_head.bias"], rtol=1e-9, atol=1e-9
    )
    freeze(model, SID_IDS)
    model.double()
    expected, expected_gradients = one_by_one(model, examples)
    loss, gradients = measured(model, LAYOUTS["buckets"], examples)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_example_sees_another(name: str) -> None:
    """Other tokens in one example leave the losses of the others as they were."""
    model, examples = make_model(dtype=torch.float32).eval(), make_examples()
    # Tasks number the examples, so that each one's loss is told apart.
    numbered = [(ids, spans, number) for number, (ids, spans, _) in enumerate(examples)]
    changed = list(numbered)
    ids, spans, number = changed[4]
    changed[4] = (
        np.where(np.arange(len(ids)) < 5, ids, (ids + 7) % 80).astype(np.int32),
        spans,
        number,
    )
    objective = LabelLoss(model, len(examples))
    with torch.no_grad():
        before, after = (
            torch.stack(
                [objective(**batch.to(CPU))[1] for batch in LAYOUTS[name].micro_batches(given)]
            ).sum(0)
            for given in (numbered, changed)
        )
    difference = (before - after).abs()
    assert difference[4] > 0.1
    difference[4] = 0
    assert difference.max() < 1e-5


@pytest.mark.parametrize(
    ("architecture", "options", "plain"),
    [
        ("qwen3", {}, True),
        ("gemma2", {"final_logit_softcapping": 1.0, "head_dim": 16}, False),
        ("granite", {"logits_scaling": 8.0}, False),
        ("cohere", {"logit_scale": 0.5}, False),
    ],
)
def test_what_follows_the_head_is_seen_though_padding_has_a_row_of_zeros(
    architecture: str, options: dict[str, Any], plain: bool
) -> None:
    """Token 0 is padding, whose row the library leaves at zero: so are its logits,
    capped or not.
    """
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = AutoConfig.for_model(
        architecture, vocab_size=ROWS, num_key_value_heads=1, pad_token_id=0, **shape | options
    )
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    assert not model.get_input_embeddings().weight[0].any()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(20)
    assert ends_model(model) is plain
    expected, _ = one_by_one(model, make_examples())
    loss, _ = measured(model, LAYOUTS["buckets"], make_examples())
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-3)


def test_a_head_with_arithmetic_of_its_own_is_left_to_it() -> None:
    class NormHead(nn.Linear):
        def forward(self, hidden: Tensor) -> Tensor:
            return nn.functional.linear(hidden, nn.functional.normalize(self.weight))

    model: Any = make_model(tied=False)
    head = NormHead(32, ROWS, bias=False).double()
    model.set_output_embeddings(head)
    assert not ends_model(model)
    expected, expected_gradients = one_by_one(model, make_examples())
    loss, gradients = measured(model, LAYOUTS["small trees"], make_examples())
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        gradients["lm_head.weight"], expected_gradients["lm_head.weight"], rtol=1e-5, atol=1e-5
    )


def test_labels_share_a_state_where_a_node_branches() -> None:
    (batch,) = LAYOUTS["large trees"].micro_batches(make_examples())
    states = list(zip(batch.rows.tolist(), batch.columns.tolist(), strict=True))
    assert len(set(states)) < len(states), "several examples ask the same state for their label"
    assert batch.tokens < 0.5 * sum(len(ids) for ids, _, _ in make_examples())


@pytest.mark.parametrize("frozen", [False, True], ids=["full", "frozen"])
def test_gradient_checkpointing_changes_nothing(frozen: bool) -> None:
    model, examples = make_model(frozen=frozen), make_examples()
    _, expected = measured(model.train(), LAYOUTS["small trees"], examples)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    _, gradients = measured(model, LAYOUTS["small trees"], examples)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-9)


def test_dropout_is_drawn_anew_and_by_the_seed() -> None:
    config = make_config("qwen3", True, ROWS)
    config.attention_dropout = 0.5
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float64).train()
    draws = []
    for seed in (1, 1, 2):
        set_seed(seed)
        draws.append(measured(model, LAYOUTS["small trees"], make_examples())[0])
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_autocast_stays_near_full_precision() -> None:
    model, examples = make_model(dtype=torch.float32), make_examples()
    for layout in ("padded", "large trees"):
        expected, exact = measured(model, LAYOUTS[layout], examples)
        with torch.autocast("cpu", torch.bfloat16):
            loss, gradients = measured(model, LAYOUTS[layout], examples)
        torch.testing.assert_close(loss, expected, rtol=0.02, atol=0.5)
        embedding = "model.embed_tokens.weight"
        assert gradients[embedding].dtype == torch.float32
        torch.testing.assert_close(gradients[embedding], exact[embedding], rtol=0.2, atol=0.05)


def test_a_frozen_base_in_bfloat16_trains_float32_rows() -> None:
    model, examples = make_model(frozen=True, dtype=torch.float32), make_examples()
    expected, exact = measured(model, LAYOUTS["large trees"], examples)
    rows = model.get_output_embeddings().weight
    for module in (model.model, model.lm_head.base):  # type: ignore[union-attr]
        for parameter in module.parameters():  # type: ignore[union-attr, operator]
            if parameter is not rows:
                parameter.data = parameter.data.bfloat16()
    loss, gradients = measured(model, LAYOUTS["large trees"], examples)
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0.5)
    (name,) = gradients
    assert gradients[name].dtype == torch.float32
    torch.testing.assert_close(gradients[name], exact[name], rtol=0.2, atol=0.05)


class LargestTensors(TorchDispatchMode):
    """Notes every tensor that an operation makes, views aside."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {
            t.untyped_storage().data_ptr()
            for t in tree_leaves((args, kwargs))
            if isinstance(t, Tensor)
        }
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in known:
                self.shapes.add(tuple(tensor.shape))
        return made


@pytest.mark.parametrize("autocast", [False, True])
def test_frozen_mode_makes_nothing_of_the_size_of_the_matrix(autocast: bool) -> None:
    """Nor do the logits of more than a block of labels exist at once."""
    model, examples = make_model(frozen=True, dtype=torch.float32), make_examples()
    objective = LabelLoss(model, TASKS)
    (batch,) = LAYOUTS["large trees"].micro_batches(examples)
    assert len(batch.labels) > 50
    with LargestTensors() as seen, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss, _ = objective(**batch.to(CPU))
        loss.backward()
    assert max((shape for shape in seen.shapes if ROWS in shape), key=lambda s: s[0]) == (7, ROWS)
    assert not [shape for shape in seen.shapes if len(shape) == 2 and set(shape) == {ROWS, 32}]
    assert model.get_input_embeddings().base.weight.grad is None  # type: ignore[union-attr]


def test_an_idle_pass_has_zero_gradient() -> None:
    model = make_model()
    batch: MicroBatch = idle_micro_batch(make_examples()[0], LAYOUTS["padded"])
    loss, by_task = LabelLoss(model, TASKS)(**batch.to(CPU))
    loss.backward()
    assert loss.item() == 0
    assert not by_task.any()
    for parameter in model.parameters():
        assert parameter.grad is not None, "so that DDP does not wait"
        assert not parameter.grad.any()


def test_the_plain_model_answers_as_before_between_losses() -> None:
    model = make_model()
    ids = torch.tensor([[5, 6, 90, 91]])
    expected = model(input_ids=ids).logits
    measured(model, LAYOUTS["padded"], make_examples())
    assert torch.equal(model(input_ids=ids).logits, expected)


def test_a_failing_pass_leaves_the_model_as_it_was() -> None:
    model, objective = (made := make_model()), LabelLoss(made, TASKS)
    (batch,) = LAYOUTS["large trees"].micro_batches(make_examples())
    with pytest.raises(IndexError):
        objective(**replace(batch, input_ids=batch.input_ids + ROWS).to(CPU))
    assert model(input_ids=torch.tensor([[5, 6]])).logits.shape == (1, 2, ROWS)


@pytest.mark.parametrize(
    ("architecture", "options", "runs"),
    [
        ("mistral", {"sliding_window": 32}, False),
        ("mistral", {"sliding_window": 64}, True),
        ("mamba", {}, False),
        (
            "gpt_neo",
            {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 2},
            False,
        ),
        ("bloom", {"n_layer": 2, "n_head": 2}, False),
        ("qwen3", {"attn_implementation": "eager"}, True),
    ],
)
def test_models_that_take_no_mask_are_told_apart(
    architecture: str, options: dict[str, Any], runs: bool
) -> None:
    given = {"hidden_size": 32, "num_hidden_layers": 2, **options}
    if architecture in ("mistral", "qwen3"):
        given |= {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32}
    implementation = given.pop("attn_implementation", None)
    config = AutoConfig.for_model(architecture, vocab_size=ROWS, **given)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    assert runs_trees(model, 64) is runs
    assert model.training


def test_a_base_folder_is_as_good_as_a_made_one(tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(make_base(tmp_path / "base"))
    assert runs_trees(model, 512)
