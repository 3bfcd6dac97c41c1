"""The model card: the Hub's metadata, what was trained on what, results, and nothing local."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from tests.running import run
from tests.tiny_data import tiny_config

from sidtune.evaluation.evaluate import EvaluationRequest, evaluate
from sidtune.runs.checkpoints import FINAL
from sidtune.runs.model_card import CARD, Prompted, Training, model_card, with_results
from sidtune.training.records.card import hub_name

PROMPTED = Prompted(8, "17", ("<a_1>", "<b_2>"), True)
TRAINING = Training(
    "shop",
    base="Qwen/Qwen3-0.6B",
    model={"base": "Qwen/Qwen3-0.6B"},
    data={"items": "8"},
    tasks=["sid_next", "fusion × 2"],
    settings={"seed": "1"},
)


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def report(value: float, **settings: Any) -> dict[str, Any]:
    figures = {"item": {name: estimate(value) for name in ("HR@10", "NDCG@10")}}
    return {
        "rows": 900,
        "items": 8,
        "settings": {"beams": 50, **settings},
        "rankers": {"model": figures, "popular": figures},
    }


def test_the_hub_reads_its_metadata() -> None:
    card = ModelCard(model_card(PROMPTED, TRAINING))
    assert card.data.library_name == "transformers"
    assert card.data.base_model == "Qwen/Qwen3-0.6B"
    assert "recommender-system" in card.data.tags
    assert "model-index" not in card.data.to_dict(), "there are no results yet"
    assert "| tasks | sid_next, fusion × 2 |" in card.text
    assert "sidtune evaluate" in card.text
    assert ModelCard(model_card(PROMPTED)).text.count("## ") == 2, "a checkpoint says how to use it"


def test_results_are_put_in_their_place() -> None:
    card = model_card(PROMPTED, TRAINING)
    shown = with_results(card, "valid", report(0.2))
    assert shown
    assert "900 validation rows, ranked over 8 items with 50 beams." in shown
    assert "| model | 0.2000 (0.1900–0.2100) |" in shown
    again = with_results(shown, "test", report(0.3, exclude_history=True))
    assert again
    assert "0.2000" not in again
    assert "items of the history excluded" in again
    figures = {each.metric_type: each.metric_value for each in ModelCard(again).data.eval_results}
    assert figures == {"hr@10": 0.3, "ndcg@10": 0.3}
    assert again.count("## Results") == again.count("<!-- end of results -->") == 1
    assert with_results(again, "valid", report(0.9)) is None, "test rows count more"
    assert with_results(again, "train", report(0.9)) is None
    assert with_results(model_card(PROMPTED), "test", report(0.3)) is None
    assert with_results("# A card of mine\n", "test", report(0.3)) is None
    section = "<!-- results -->\n<!-- end of results -->\n"
    emptied = with_results(f"# Mine\n\n## Results\n\n{section}", "test", report(0.3))
    assert emptied
    assert emptied.index("## Results") < emptied.index("| model | 0.3000")


@pytest.mark.parametrize(
    ("base", "scratch", "name"),
    [
        ("Qwen/Qwen3-0.6B", False, "Qwen/Qwen3-0.6B"),
        ("gpt2", False, "gpt2"),
        ("Qwen/Qwen3-0.6B", True, None),
        ("/models/mine", False, None),
        ("a/b/c", False, None),
    ],
)
def test_only_names_of_the_hub_are_named(
    tmp_path: Path, base: str, scratch: bool, name: str | None
) -> None:
    assert hub_name(tiny_config(tmp_path, model={"base": base, "from_scratch": scratch})) == name
    (tmp_path / "own").mkdir()
    assert hub_name(tiny_config(tmp_path, model={"base": str(tmp_path / "own")})) is None


def test_a_run_writes_its_card_and_an_evaluation_its_results(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"max_steps": 1}, eval={"every": 1})
    folder = run(config).folder
    text = (folder / CARD).read_text()
    for words in ("# run", "| items | 8 |", "qwen3", "trained", "12 users", "a local model"):
        assert words in text
    assert str(tmp_path) not in text
    evaluate(EvaluationRequest(folder, "valid"))
    shown = (folder / CARD).read_text()
    assert "12 validation rows" in shown
    assert ModelCard(shown).data.eval_results
    assert (folder / FINAL / CARD).read_text() == text, "its checksum is in a manifest"
    evaluate(EvaluationRequest(folder / FINAL, "test"))
    assert (folder / FINAL / CARD).read_text() == text
