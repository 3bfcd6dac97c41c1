"""What is saved answers alike at each call of `generate`, whatever settings the base came with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.running import run
from tests.tiny_data import tiny_config
from tests.tiny_models import change, make_base
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from sidtune.config.model import ModelConfig
from sidtune.model.checkpoint_files import save_pretrained, save_training_state
from sidtune.model.load import load_model
from sidtune.tokenizer.load import load_tokenizer
from sidtune.tokenizer.vocabulary import extend_vocabulary

SAMPLED = {
    "do_sample": True,
    "temperature": 1.7,
    "top_k": 50,
    "top_p": 0.8,
    "repetition_penalty": 1.3,
}
# Each moves the choice of some token, or the number of answers, by itself.
OTHERS: list[dict[str, Any]] = [
    {"do_sample": True},
    {
        "do_sample": False,
        "temperature": 0.6,
        "top_p": 0.9,
        "top_k": 20,
    },  # a contradiction that the library saves on
    {
        "do_sample": True,
        "min_p": 0.1,
        "typical_p": 0.9,
        "epsilon_cutoff": 1e-4,
        "eta_cutoff": 1e-4,
        "top_k": 0,
    },
    {"repetition_penalty": 5.0},
    {"encoder_repetition_penalty": 5.0},
    {"no_repeat_ngram_size": 1},
    {"encoder_no_repeat_ngram_size": 1},
    {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True},
    {"num_beams": 3, "num_return_sequences": 3},
    {"min_length": 60},
    {"min_new_tokens": 7},
    {"forced_bos_token_id": 7},
    {"forced_eos_token_id": 7},
    {"suppress_tokens": [*range(3, 200)]},
    {"begin_suppress_tokens": [*range(3, 200)]},
    {"bad_words_ids": [[number] for number in range(3, 200)]},
    {"sequence_bias": [[[7], 50.0]]},
    {"exponential_decay_length_penalty": [1, 5.0]},
    {"guidance_scale": 3.0},
    {"watermarking_config": {"bias": 20.0, "greenlist_ratio": 0.1}},
    {"stop_strings": ["a", "e"]},
    {"return_dict_in_generate": True, "output_scores": True},
    {"max_time": 1e-9},
    {"cache_implementation": "static"},
    {"prompt_lookup_num_tokens": 2},
]


def saved_settings(base: Path, to: Path, **options: Any) -> Path:
    vocabulary = extend_vocabulary(load_tokenizer(str(base)), ["<a_0>", "<b_0>"])
    model = load_model(ModelConfig(base=str(base), **options), vocabulary, 0)
    save_pretrained(model, vocabulary.tokenizer, to / "result", torch.float32)
    save_training_state(model, vocabulary.tokenizer, to / "state")
    first, second = (
        json.loads((to / name / "generation_config.json").read_text())
        for name in ("result", "state")
    )
    assert first == second
    return to / "result"


def answers(folder: Path) -> list[list[int]]:
    """By README's way: token ids alone, no settings but the length."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.arange(3, 20)[None]
    return model.generate(ids, max_new_tokens=8).tolist()  # type: ignore[no-any-return]


def greedily(folder: Path) -> list[list[int]]:
    """The likeliest token, eight times or up to the end, without `generate`."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    stops = model.generation_config.eos_token_id
    ids = torch.arange(3, 20)[None]
    for _ in range(8):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
        if ids[0, -1] in (stops if isinstance(stops, list) else [stops]):
            break
    return ids.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("settings", [SAMPLED, *OTHERS], ids=lambda settings: "-".join(settings))
def test_settings_that_change_answers_are_not_kept(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    base = make_base(tmp_path / "base")
    change(base / "generation_config.json", **settings)
    folder = saved_settings(base, tmp_path)
    kept = json.loads((folder / "generation_config.json").read_text())
    assert kept.pop("do_sample") is False
    assert not kept.keys() & settings.keys()
    assert answers(folder) == answers(folder) == greedily(folder)


@pytest.mark.parametrize(
    "options", [{}, {"tuning": "frozen"}, {"from_scratch": True}], ids=["full", "frozen", "new"]
)
def test_settings_of_old_bases_stand_in_the_configuration(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    base = make_base(tmp_path / "base")
    (base / "generation_config.json").unlink()
    change(base / "config.json", eos_token_id=[1, 2], **SAMPLED)
    folder = saved_settings(base, tmp_path, **options)
    kept = json.loads((folder / "generation_config.json").read_text())
    assert kept["eos_token_id"] == [1, 2]
    assert not (kept | json.loads((folder / "config.json").read_text())).keys() & SAMPLED.keys() - {
        "do_sample"
    }
    assert answers(folder) == answers(folder) == greedily(folder)


def test_token_ids_and_lengths_are_kept(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    ids = {
        "bos_token_id": 5,
        "eos_token_id": [1, 9, 4],
        "pad_token_id": 3,
        "max_new_tokens": 6,
        "max_length": 77,
    }
    change(base / "generation_config.json", **SAMPLED, **ids)
    folder = saved_settings(base, tmp_path)
    kept = json.loads((folder / "generation_config.json").read_text())
    assert {name: kept[name] for name in ids} == ids
    assert GenerationConfig.from_pretrained(folder).do_sample is False


def test_a_pad_token_that_is_none(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    change(base / "generation_config.json", pad_token_id=-1, **SAMPLED)
    folder = saved_settings(base, tmp_path)
    assert "pad_token_id" not in json.loads((folder / "generation_config.json").read_text())


def test_a_trained_model_gives_one_answer(tmp_path: Path) -> None:
    """The result, its checkpoints and the stage before it."""
    base = make_base(tmp_path / "base")
    change(base / "generation_config.json", eos_token_id=[1, 2], **SAMPLED)
    stages = [{"tuning": "frozen", "steps": 2, "learning_rate": 0.01}, {"tuning": "full"}]
    training = {"max_steps": 3, "epochs": 1}
    config = tiny_config(
        tmp_path, training=training, stages=stages, eval={"every": 2, "save_total_limit": 5}
    )
    out = run(config).folder
    folders = [out, *sorted(path.parent for path in out.rglob("*/generation_config.json"))]
    assert len(folders) >= 4
    tokenizer = AutoTokenizer.from_pretrained(out)
    prompt = tokenizer(
        "A user's interactions, oldest first:\n<a_0><b_0><c_0>\nThe next item is:\n",
        return_tensors="pt",
    )
    for folder in folders:
        settings = json.loads((folder / "generation_config.json").read_text())
        assert settings["eos_token_id"] == [1, 2], folder
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        given = {
            tuple(model.generate(prompt.input_ids, max_new_tokens=8)[0].tolist()) for _ in range(5)
        }
        assert len(given) == 1, folder
