"""A run keeps what its chat template wrote, and every other program can ask its model with the ids
of training.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.forking import start_ranks
from tests.running import dies, run
from tests.tiny_data import tiny_config, tiny_tree
from tests.tiny_models import change, make_base
from transformers import AutoTokenizer

from sidtune.base.errors import UserError
from sidtune.checks.finding import Finding
from sidtune.checks.run import run_checks
from sidtune.decoding.recommender import Recommender
from sidtune.evaluation.evaluate import EvaluationRequest, evaluate
from sidtune.inputs import Inputs
from sidtune.runs import output
from sidtune.runs.bundle import CARD, RECOMMENDER_FILE, read_bundle
from sidtune.tasks import TASKS
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config

# Two renderings never agree.
CLOCK = (
    "{%- set now = strftime_now('%d %b %Y %H:%M:%S.%f') %}{{ 'It is ' + now + '.\\n' }}{% for m in"
    " messages %}{{ '[' + m['role'] + '] ' + m['content'] | trim + eos_token }}{% endfor %}{% if"
    " add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
)
DATE_ALONE = CLOCK.replace("%d %b %Y %H:%M:%S.%f", "%Y")
STILL = CLOCK.replace("strftime_now('%d %b %Y %H:%M:%S.%f')", "'today'")
SHORT: dict[str, Any] = {
    "tasks": {"sid_next": None},
    "training": {"max_steps": 6},
    "eval": {"every": 2},
}


def base(folder: Path, template: str = CLOCK, kind: str = "byte") -> Path:
    made = make_base(folder / "base", kind=kind)
    (made / "chat_template.jinja").write_text(template)
    return made


def chat_config(folder: Path, template: str = CLOCK, kind: str = "byte", **sections: Any) -> Config:
    base(folder, template, kind)
    return tiny_config(folder, template={"format": "chat"}, **{**SHORT, **sections})


def findings(config: Config, word: str) -> list[Finding]:
    return [finding for finding in run_checks(Inputs(config)) if word in finding.message]


def test_a_run_goes_on_with_the_prompt_it_began_with(tmp_path: Path) -> None:
    config = chat_config(tmp_path)
    assert Inputs(config).mixture.frame != Inputs(config).mixture.frame, "or nothing is shown"
    dies(config, step=5)
    began = read_bundle(config.output_dir / "checkpoint-4").frame
    # Damaged, the newest one has nothing to say about the run.
    shutil.copytree(config.output_dir / "checkpoint-4", config.output_dir / "checkpoint-5")
    question = config.output_dir / "checkpoint-5" / RECOMMENDER_FILE
    question.write_text(question.read_text().replace("It is", "It was"))
    result = run(config)
    assert result.steps == 6
    assert read_bundle(result.folder).frame == began
    first, again = (Recommender.load(result.folder) for _ in range(2))
    history = first.positions([["1", "2"]])
    assert (
        first.prompts.encode(history)[0][0].tolist() == again.prompts.encode(history)[0][0].tolist()
    )
    tokenizer = AutoTokenizer.from_pretrained(result.folder)
    assert tokenizer.decode(first.prompts.encode(history)[0][0].tolist()).startswith(began.before)
    evaluate(EvaluationRequest(result.folder))
    with pytest.raises(UserError, match="already contains this run, finished"):
        run(config)


def test_a_finished_stage_hands_its_prompt_on(tmp_path: Path) -> None:
    stages = [
        {"tuning": "frozen", "steps": 4, "learning_rate": 0.01},
        {"tuning": "full", "steps": 4},
    ]
    base(tmp_path)
    tree = tiny_tree(tmp_path, template={"format": "chat"}, stages=stages, **SHORT)  # type: ignore[arg-type]
    tree["training"] = {"batch_size": 16}
    config = parse_config(tree, "test")
    dies(config, 1, config.output_dir)
    began = read_bundle(config.output_dir / "stage-1" / "final_checkpoint").frame
    assert read_bundle(run(config).folder).frame == began


def test_the_first_of_several_processes_decides(tmp_path: Path) -> None:
    base(tmp_path)
    tree = tiny_tree(tmp_path, template={"format": "chat"}, **SHORT)
    assert [rank.ends() for rank in start_ranks(2, tree, tmp_path)] == [0, 0]
    assert len(list((tmp_path / "cache").glob("sid_next-*"))) == 2, (
        "training and validation, encoded once"
    )


def test_another_template_is_another_run(tmp_path: Path) -> None:
    config = chat_config(tmp_path)
    dies(config, step=5)
    (tmp_path / "base" / "chat_template.jinja").write_text(CLOCK.replace("It is", "Now it is"))
    with pytest.raises(UserError, match="chat template: "):
        run(config)


def test_another_format_is_another_run(tmp_path: Path) -> None:
    config = chat_config(tmp_path)
    dies(config, step=5)
    plain = config.model_copy(
        update={"template": config.template.model_copy(update={"format": "plain"})}
    )
    with pytest.raises(UserError, match="belongs to a run with different settings"):
        run(plain)


def test_a_frame_is_kept_by_checkpoints_alone(tmp_path: Path) -> None:
    assert output.kept_frame([tmp_path / "stage-1", tmp_path], chat=True) is None


@pytest.mark.parametrize(("template", "found"), [(CLOCK, 1), (DATE_ALONE, 1), (STILL, 0)])
def test_check_says_that_a_template_reads_the_clock(
    tmp_path: Path, template: str, found: int
) -> None:
    config = chat_config(tmp_path, template)
    assert len(findings(config, "writes the current time")) == found
    assert not findings(config, "token ids differ from those of apply_chat_template:"), (
        "the moment is no difference"
    )


@pytest.mark.parametrize("kind", ["byte", "first", "always", "prepend"])
def test_check_compares_with_apply_chat_template(tmp_path: Path, kind: str) -> None:
    """A template that changes what stands inside a message cannot be followed."""
    config = chat_config(tmp_path, STILL, kind)
    assert not findings(config, "apply_chat_template")
    changing = STILL.replace("| trim", "| replace('oldest', 'latest')")
    (tmp_path / "base" / "chat_template.jinja").write_text(changing)
    (found,) = findings(config, "apply_chat_template")
    assert (found.severity, found.where) == ("warning", "task sid_next")
    assert re.search(
        r"from token \d+ on, Transformers gives '.*' \[.*\] and training '.*", found.message
    )


# --- other programs ---


def llama(folder: Path, legacy: bool) -> Path:
    """A base with the tokenizer class of Llama, which puts spaces by its own setting."""
    made = make_base(folder / "base", kind="first")
    change(made / "tokenizer_config.json", tokenizer_class="LlamaTokenizer", legacy=legacy)
    return made


@pytest.mark.parametrize(
    ("kind", "warned"),
    [("byte", False), ("first", False), ("never", False), ("always", True), ("prepend", True)],
)
def test_check_warns_where_whole_text_is_read_otherwise(
    tmp_path: Path, kind: str, warned: bool
) -> None:
    make_base(tmp_path / "base", kind=kind)
    found = findings(tiny_config(tmp_path), "tokenizer(prompt)")
    assert [finding.severity for finding in found] == ["warning"] * warned


@pytest.mark.parametrize("legacy", [True, False])
def test_the_rule_of_a_llama_tokenizer_is_saved(tmp_path: Path, legacy: bool) -> None:
    llama(tmp_path, legacy)
    config = tiny_config(tmp_path, **SHORT)
    assert len(findings(config, "tokenizer(prompt)")) == legacy
    text = "a <a_1>\n and <b_0> more"
    expected = Inputs(config).vocabulary.tokenizer(text).input_ids
    assert AutoTokenizer.from_pretrained(run(config).folder)(text).input_ids == expected


WORDINGS = {
    "ours": None,
    "one segment": {
        "prompt": ["So: {history_sids}\nNext: "],
        "separator": ", ",
        "response": ["{target_sid}\n"],
    },
    "separated": {
        "prompt": ["{history_sids}", " and then\n"],
        "separator": "; ",
        "response": ["It: ", "{target_sid}"],
    },
}


@pytest.mark.parametrize("style", ["plain", "chat"])
@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize("kind", ["byte_bos", "first", "always", "prepend"])
def test_the_page_beside_the_model_shows_the_ids_of_training(
    tmp_path: Path, kind: str, wording: str, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code is run as it stands, for one item and for several."""
    base(tmp_path, CLOCK, kind)
    template: dict[str, Any] = {"format": style}
    if WORDINGS[wording]:
        (tmp_path / "mine.json").write_text(json.dumps({"sid_next": WORDINGS[wording]}))
        template["file"] = str(tmp_path / "mine.json")
    config = tiny_config(tmp_path, template=template, **SHORT | {"training": {"max_steps": 1}})
    folder = run(config).folder
    monkeypatch.chdir(folder)
    recommending, code = re.findall(r"```python\n(.*?)```", (folder / CARD).read_text(), re.DOTALL)
    exec(recommending, {})
    recommender, bundle = Recommender.load(folder), read_bundle(folder)
    sids = bundle.catalogue.sids
    for history in (["0"], ["3", "0", "5"]):
        listed = json.dumps([list(sids[bundle.catalogue.ids.index(item)]) for item in history])
        shown = re.sub(r"history = .*?  #", lambda _: f"history = {listed}  #", code)  # noqa: B023
        known: dict[str, Any] = {}
        exec(shown, known)
        (expected,) = (
            ids.tolist()
            for ids in [recommender.prompts.encode(recommender.positions([history]))[0][0]]
        )
        assert known["ids"] == expected


def test_the_ids_are_those_of_the_training_examples(tmp_path: Path) -> None:
    make_base(tmp_path / "base", kind="prepend")
    inputs = Inputs(tiny_config(tmp_path))
    (part,) = inputs.mixture.parts("sid_next", "train", TASKS["sid_next"].options())
    around = inputs.bundle.prompt_ids
    assert around is not None
    for row in range(5):
        ids = (
            inputs.mixture.encoder.encode(part.take(part.rows[row : row + 1])).input_ids[0].tolist()
        )
        assert ids[: len(around.before)] == around.before
        sids = set(inputs.vocabulary.sid_ids.tolist())
        last = max(place for place, token in enumerate(ids[:-4]) if token in sids)
        assert ids[last + 1 : last + 1 + len(around.after)] == around.after


def test_a_tokenizer_that_reads_otherwise_is_refused(tmp_path: Path) -> None:
    make_base(tmp_path / "base", kind="byte_bos")
    folder = run(tiny_config(tmp_path, **SHORT | {"training": {"max_steps": 1}})).folder
    change(folder / "tokenizer.json", normalizer={"type": "Lowercase"})
    with pytest.raises(UserError, match="encodes the prompt differently than in training"):
        Recommender.load(folder)
