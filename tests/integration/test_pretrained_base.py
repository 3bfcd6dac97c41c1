"""A base that has read texts: SmolLM2 135M, as `benchmarks/pretrained_base.py` writes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.running import losses, metrics, run
from tests.slow_search import Reference
from tests.tiny_data import read_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from sidtune.commands.demo_shop import write_demo_data
from sidtune.config.model import TuningName
from sidtune.decoding.decoder import SharedPrompts, make_decoder
from sidtune.decoding.recommender import Recommender
from sidtune.files.weight_files import load_weights
from sidtune.inputs import Inputs
from sidtune.model.attention import runs_trees
from sidtune.model.load import load_model
from sidtune.tasks import TASKS
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config
from sidtune.tokenizer.segments import segment_tokenizers

pytestmark = pytest.mark.long

VARIABLE = "SIDTUNE_PRETRAINED"
STEPS, BEAMS = 10, 4
EMBEDDING = "model.embed_tokens.weight"
QUESTION, ANSWER = "The capital of France is", " Paris"
TEXTS = [
    QUESTION,
    "  two blanks,\ttab\n\n\nlines ",
    "价格 128 元 😀, naïve façade",
    "def f(x):\n    return x**2 if x[1:] else {'a': 1234567890}",
    "<|im_start|>user\nHi<|im_end|>\n<|endoftext|>",
    "nearly <a_ 1> <a_1 <c_99999> a_1>",
]
AROUND = [("", ""), ("see", "here"), ("see ", " here"), ("\n", "\n"), ("(", ")."), ("价", "格")]


@pytest.fixture(scope="module")
def base() -> Path:
    """The folder of the base, or a skip that says how it is made."""
    folder = os.environ.get(VARIABLE)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"set {VARIABLE} to a folder made by benchmarks/pretrained_base.py")
    return Path(folder)


@pytest.fixture(scope="module")
def tree(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A brief run on the demo's shop, in chat format."""
    folder = tmp_path_factory.mktemp("pretrained")
    shop = write_demo_data(folder / "data", users=40)
    return {
        "output_dir": str(folder / "run"),
        "seed": 1,
        "model": {"base": str(base), "lora": {"rank": 8}},
        "template": {"format": "chat"},
        "data": {name: str(path) for name, path in vars(shop).items()},
        "tasks": {"sid_next": None, "item_feature": None},
        "encoding": {"cache_dir": str(folder / "cache")},
        "training": {
            "max_steps": STEPS,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "warmup": 2,
            "workers": 0,
        },
        "eval": {"every": STEPS, "max_rows": 8, "task_rows": 8},
        "rank": {"fit": "never"},
        "logging": {"report": False},
    }


def tuned(tree: dict[str, Any], tuning: TuningName, **sections: Any) -> Config:
    model = {name: value for name, value in tree["model"].items() if name != "lora"}
    if tuning == "lora":
        model = tree["model"]
    changed = {"model": model | {"tuning": tuning}, "output_dir": f"{tree['output_dir']}-{tuning}"}
    return parse_config(tree | changed | sections, "test")


@pytest.fixture(scope="module", params=["lora", "full"])
def trained(request: pytest.FixtureRequest, tree: dict[str, Any]) -> Config:
    """A run that has made its steps."""
    config = tuned(tree, request.param)
    run(config)
    return config


@pytest.fixture(scope="module")
def plain(trained: Config) -> tuple[Any, Any]:
    """Its model and tokenizer by plain Transformers, in float32."""
    model = AutoModelForCausalLM.from_pretrained(trained.output_dir, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(trained.output_dir)


# --- tokenizer and chat template ---


def test_sid_tokens_leave_all_other_text_as_it_was(tree: dict[str, Any], base: Path) -> None:
    vocabulary = Inputs(tuned(tree, "full")).vocabulary
    old, new = AutoTokenizer.from_pretrained(base), vocabulary.tokenizer
    assert old.get_vocab().items() <= new.get_vocab().items()
    for text in TEXTS:
        assert new(text).input_ids == old(text).input_ids
        assert new.decode(new(text).input_ids) == text
    tokens = new.convert_ids_to_tokens(vocabulary.sid_ids.tolist())
    segments = segment_tokenizers(new, tokens)
    assert len(tokens) == len(vocabulary.new_ids) > 30
    for number, token in zip(vocabulary.sid_ids.tolist(), tokens, strict=True):
        for before, after in AROUND:
            expected = [*old(before).input_ids, number, *old(after).input_ids]
            assert new(before + token + after).input_ids == expected
            assert new.decode(expected) == before + token + after
        title = f"a {token} mug"
        assert segments.data([title], first=False) == [old(title).input_ids], "a title stays text"
    joined = "".join(tokens)
    assert new(joined).input_ids == vocabulary.sid_ids.tolist()
    assert new(" ".join(tokens)).input_ids.count(old(" ").input_ids[0]) == len(tokens) - 1


def test_every_example_is_that_of_the_chat_template(tree: dict[str, Any]) -> None:
    """Ids where prompt and response hold SIDs alone, text where they hold titles."""
    names = ("sid_next", "item_feature", "fusion", "title_next", "title_to_sid")
    inputs = Inputs(tuned(tree, "full", tasks=dict.fromkeys(names)))
    tokenizer: Any = inputs.vocabulary.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert inputs.mixture.encoder.closing == end
    compared = 0
    for name in names:
        for part in inputs.mixture.parts(name, "train", TASKS[name].options()):
            part = part.take(np.arange(20))
            encoded = inputs.mixture.encoder.encode(part)
            for row in range(len(encoded.rows)):
                prompt, response = inputs.mixture.encoder.texts(part, row)
                asked = by_template(tokenizer, prompt)
                whole = by_template(tokenizer, prompt, response)
                whole = whole[: len(whole) - whole[::-1].index(end)]
                ids = encoded.input_ids[row].tolist()
                ((start, stop),) = encoded.label_spans[row].reshape(-1, 2).tolist()
                assert stop == len(ids)
                assert ids[-1] == end
                assert tokenizer.decode(ids) == tokenizer.decode(whole)
                assert tokenizer.decode(ids[start:]) == response + "<|im_end|>"
                if part.form == "sid_next":
                    assert (ids, ids[:start]) == (whole, asked)
                    compared += 1
    assert compared


def by_template(tokenizer: Any, prompt: str, response: str | None = None) -> list[int]:
    """What Transformers gives for a question and its answer, or for the question alone."""
    messages = [{"role": "user", "content": prompt}]
    messages += [{"role": "assistant", "content": response}] if response is not None else []
    ids: list[int] = tokenizer.apply_chat_template(
        messages, add_generation_prompt=response is None, return_dict=False
    )
    return ids


# --- training ---


@pytest.mark.parametrize("tuning", ["full", "lora", "frozen"])
@torch.inference_mode()
def test_before_the_first_step_it_answers_as_the_base(
    tree: dict[str, Any], base: Path, tuning: TuningName
) -> None:
    config = tuned(tree, tuning)
    vocabulary = Inputs(config).vocabulary
    mine: Any = load_model(config.model, vocabulary, config.seed, dtype=torch.float32).eval()
    right = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    for text in TEXTS:
        ids = vocabulary.tokenizer(text, return_tensors="pt").input_ids
        expected, seen = right(ids).logits, mine(ids).logits
        torch.testing.assert_close(seen[..., : vocabulary.known], expected, rtol=0, atol=1e-4)
        if text == QUESTION:
            assert vocabulary.tokenizer.decode(seen[0, -1].argmax()) == ANSWER


def test_the_loss_falls(trained: Config, base: Path) -> None:
    assert len(losses(trained)) == STEPS
    for task in trained.tasks:
        first, last = (
            entry[f"eval_{task}_loss"] for entry in metrics(trained) if f"eval_{task}_loss" in entry
        )
        assert last < 0.9 * first, task
    before, after = load_weights(base), load_weights(trained.output_dir)
    rows = len(before[EMBEDDING])
    kept = torch.equal(after[EMBEDDING][:rows], before[EMBEDDING])
    assert kept == (trained.model.tuning == "lora"), "the rows of other tokens are the base's"
    assert {weight.dtype for weight in after.values()} == {torch.bfloat16}


@torch.inference_mode()
def test_generate_goes_on(plain: tuple[Any, Any]) -> None:
    """With no setting that constrains it: by the likeliest token of a full pass."""
    model, tokenizer = plain
    for prompt in (by_template(tokenizer, "Name a fruit."), tokenizer(QUESTION).input_ids):
        made = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=6)[0].tolist()
        assert len(made) == len(prompt) + 6 or made[-1] == tokenizer.eos_token_id
        for length in range(len(prompt), len(made)):
            logits = model(torch.tensor([made[:length]])).logits[0, -1]
            assert made[length] == int(logits.argmax())


# --- decoding ---


def test_beam_search_is_the_textbook_one(trained: Config, plain: tuple[Any, Any]) -> None:
    model, tokenizer = plain
    recommender = Recommender.load(trained.output_dir, "cpu")
    assert isinstance(recommender.decoder, SharedPrompts), "beams share their prompt"
    catalogue = recommender.bundle.catalogue
    sids = sorted(set(catalogue.sids))
    paths = [tuple(tokenizer.convert_tokens_to_ids(list(sid))) for sid in sids]
    rows = read_rows(trained.data.test).to_pylist()[:4]
    histories = [row["history"] for row in rows]
    asked = recommender.prompts.encode(recommender.positions(histories))[0]
    answers = recommender.recommend(histories, BEAMS, beams=BEAMS)
    for history, prompt, answer in zip(histories, asked, answers, strict=True):
        written = "".join("".join(catalogue.sids[catalogue.ids.index(item)]) for item in history)
        text = f"A user's interactions, oldest first:\n{written}\nThe next item is:\n"
        assert prompt.tolist() == by_template(tokenizer, text)
        reference = Reference(model, prompt.tolist(), paths, "full")
        best = [("".join(sids[at]), score) for at, score in reference.beam_search(BEAMS)]
        # Items of one SID stand one after the other.
        mine = list({item.sid: item.score for item in answer}.items())
        assert [sid for sid, _ in mine] == [sid for sid, _ in best[: len(mine)]]
        assert [s for _, s in mine] == pytest.approx([s for _, s in best[: len(mine)]], abs=1e-3)
        assert len(answer) == BEAMS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prompts_are_shared(base: Path, dtype: torch.dtype) -> None:
    """In both precisions that a model is asked in: by beams, and in trees of examples."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype).eval()
    assert isinstance(make_decoder(model), SharedPrompts)
    assert runs_trees(model, 1024)
