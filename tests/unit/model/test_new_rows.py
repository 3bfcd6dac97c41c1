"""New rows that start from titles: worked out by hand, against a slow loop, and in whole models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny_data import tiny_config
from tests.tiny_models import make_base
from torch import Tensor

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.checks.run import run_checks
from sidtune.files.weight_files import load_weights
from sidtune.inputs import Inputs
from sidtune.model.initialise import ITEMS_AT_ONCE, ItemTexts, mean_rows, text_rows
from sidtune.model.load import load_model
from sidtune.model.tuning.frozen import sid_rows
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config


def noise(known: Tensor, count: int, seed: int = 0) -> Tensor:
    drawn = torch.randn(count, known.shape[1], generator=torch.Generator().manual_seed(seed))
    return 0.1 * known.std(0, unbiased=False) * drawn


def test_three_items_by_hand() -> None:
    """Token 0 stands for items 0 and 1, token 1 for item 2, token 2 for items 0 and 2, token 3 for
    none.
    """
    known = torch.tensor([[3.0, 0.0], [0.0, 5.0], [0.0, -1.0], [4.0, 3.0]])
    titles = Ragged.from_lists([[0, 0, 1], [3], [2]])  # means (2, 5/3), (4, 3), (0, -1)
    sids = Ragged.from_lists([[0, 2], [0], [1, 2]])
    rows = text_rows(known, 4, torch.Generator().manual_seed(0), ItemTexts(titles, sids)) - noise(
        known, 4
    )
    # The known rows are 3, 5, 1 and 5 long; the lower of the middle two is 3.
    directions = torch.tensor(
        [[(2 + 4) / 2, (5 / 3 + 3) / 2], [0, -1], [(2 + 0) / 2, (5 / 3 - 1) / 2]]
    )
    lengths = torch.tensor([[(9 + 49 / 9) ** 0.5], [1], [(1 + 1 / 9) ** 0.5]])
    torch.testing.assert_close(rows[:3], 3 * directions / lengths)
    torch.testing.assert_close(rows[3] - 9 * noise(known, 4)[3], torch.tensor([7 / 4, 7 / 4]))


def test_the_mean_over_a_title_comes_before_the_mean_over_items() -> None:
    """A long title weighs no more than a short one, and an item whose SID repeats a token no more
    than another.
    """
    known = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = ItemTexts(Ragged.from_lists([[0] * 9, [1]]), Ragged.from_lists([[0, 0, 0], [0]]))
    rows = text_rows(known, 1, torch.Generator().manual_seed(0), texts) - noise(known, 1)
    torch.testing.assert_close(rows, torch.full((1, 2), 0.5**0.5))


def test_a_token_without_a_title_starts_as_mean() -> None:
    known = torch.randn(9, 4, generator=torch.Generator().manual_seed(5))
    texts = ItemTexts(Ragged.from_lists([[], [1, 2]]), Ragged.from_lists([[0], [1]]))
    rows = text_rows(known, 3, torch.Generator().manual_seed(7), texts)
    mean = mean_rows(known, 3, torch.Generator().manual_seed(7))
    assert torch.equal(rows[[0, 2]], mean[[0, 2]])
    assert not torch.allclose(rows[1], mean[1])


def test_many_items_equal_a_slow_loop() -> None:
    random = np.random.default_rng(0)
    count, hidden, items = 30, 8, ITEMS_AT_ONCE + 500
    known = torch.from_numpy(random.normal(size=(50, hidden))).float()
    titles = [random.integers(0, 50, random.integers(0, 6)).tolist() for _ in range(items)]
    sids = [random.integers(0, count - 1, random.integers(1, 4)).tolist() for _ in range(items)]
    texts = ItemTexts(Ragged.from_lists(titles), Ragged.from_lists(sids))
    rows = text_rows(known, count, torch.Generator().manual_seed(0), texts) - noise(known, count)
    for token in range(count - 1):
        means = [
            known[title].double().mean(0)
            for title, sid in zip(titles, sids, strict=True)
            if title and token in sid
        ]
        mean = torch.stack(means).mean(0)
        expected = mean / mean.norm() * known.norm(dim=1).median()
        torch.testing.assert_close(rows[token].double(), expected, rtol=1e-4, atol=1e-5)
    rest = rows[count - 1] - 9 * noise(known, count)[count - 1]
    torch.testing.assert_close(rest, known.mean(0), rtol=1e-4, atol=1e-5)


def test_ids_become_places() -> None:
    texts = ItemTexts(Ragged.from_lists([[3, 9, 5], [7]]), Ragged.from_lists([[20, 22], [21, 99]]))
    placed = texts.placed(np.array([3, 5, 7]), np.array([20, 21]))
    assert [placed.titles[row].tolist() for row in range(2)] == [[0, 1], [2]], "9 has no known row"
    assert [placed.sids[row].tolist() for row in range(2)] == [[0], [1]], "22 and 99 are not new"


def model_and_inputs(config: Config) -> tuple[Any, Inputs]:
    inputs = Inputs(config)
    return load_model(config.model, inputs.vocabulary, config.seed, texts=inputs.item_texts), inputs


def expected_row(matrix: Tensor, inputs: Inputs, token: str) -> Tensor:
    """Straight from the catalogue and the tokenizer, noise left out."""
    tokenizer, catalogue = inputs.vocabulary.tokenizer, inputs.catalogue
    titles = [
        title for title, sid in zip(catalogue.titles, catalogue.sids, strict=True) if token in sid
    ]
    ids = [tokenizer(title, add_special_tokens=False).input_ids for title in titles]
    mean = torch.stack([matrix[title].mean(0) for title in ids]).mean(0)
    return mean / mean.norm() * matrix[: inputs.vocabulary.known].norm(dim=1).median()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_rows_of_a_model(tmp_path: Path, tied: bool) -> None:
    base = make_base(tmp_path / "base", tied=tied)
    model, inputs = model_and_inputs(
        tiny_config(tmp_path, model={"base": str(base), "new_rows": "text"})
    )
    plain, _ = model_and_inputs(tiny_config(tmp_path, model={"base": str(base)}))
    known, tokenizer = inputs.vocabulary.known, inputs.vocabulary.tokenizer
    before = load_weights(base)
    modules = [
        ("model.embed_tokens.weight", model.get_input_embeddings(), plain.get_input_embeddings())
    ]
    if not tied:
        modules.append(
            ("lm_head.weight", model.get_output_embeddings(), plain.get_output_embeddings())
        )
    for name, module, other in modules:
        matrix, start = module.weight.detach(), other.weight.detach()
        assert torch.equal(matrix[:known], before[name])
        assert torch.equal(matrix[len(tokenizer) :], start[len(tokenizer) :]), (
            "padding starts as mean"
        )
        added = start[known:] - matrix[:known].mean(0)
        for token in inputs.catalogue.sid_tokens:
            place = tokenizer.convert_tokens_to_ids(token)
            row = matrix[place] - added[place - known] / 10
            torch.testing.assert_close(
                row, expected_row(matrix, inputs, token), rtol=1e-4, atol=1e-5
            )


def test_frozen_rows_start_there_too(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", tied=False, dtype=torch.bfloat16)
    section = {"base": str(base), "new_rows": "text"}
    full, inputs = model_and_inputs(tiny_config(tmp_path, model=section))
    frozen, _ = model_and_inputs(tiny_config(tmp_path, model={**section, "tuning": "frozen"}))
    ids, rows = torch.from_numpy(inputs.vocabulary.sid_ids), sid_rows(frozen)
    assert torch.equal(rows["input"], full.get_input_embeddings().weight[ids])
    assert torch.equal(rows["output"], full.get_output_embeddings().weight[ids])
    assert not torch.allclose(rows["input"], rows["output"])


def test_tokens_the_base_has_keep_their_rows(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, model={"base": str(tmp_path / "base")})
    first, inputs = model_and_inputs(config)
    first.save_pretrained(tmp_path / "again")
    inputs.vocabulary.tokenizer.save_pretrained(tmp_path / "again")
    section = {"base": str(tmp_path / "again"), "new_rows": "text"}
    second, again = model_and_inputs(tiny_config(tmp_path, model=section))
    assert not len(again.vocabulary.new_ids)
    matrices = [
        model.get_input_embeddings().weight[: len(again.vocabulary.tokenizer)]
        for model in (first, second)
    ]
    assert torch.equal(*matrices)
    idle = [
        [found for found in run_checks(given) if found.where == "model.new_rows"]
        for given in (inputs, again)
    ]
    assert [len(found) for found in idle] == [0, 1]


def test_from_scratch_has_no_rows_to_start_from() -> None:
    tree = {
        "output_dir": "out",
        "model": {"base": "b", "from_scratch": True, "new_rows": "text"},
        "data": {"items": "i", "index": "x", "train": "t", "valid": "v"},
    }
    with pytest.raises(UserError, match="model: new_rows: text has no effect with from_scratch"):
        parse_config(tree, "test")
