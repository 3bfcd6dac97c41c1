"""Model folders made to harm: nothing of theirs runs unasked, nothing outside them is read, and
lies are refused.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tests.fuzz.readers import STATE_TREE
from tests.tiny_models import change, make_base, make_tokenizer

from sidtune.base.errors import UserError
from sidtune.config.model import ModelConfig
from sidtune.encoding.chat import make_frame
from sidtune.files.weight_files import INDEX, OLD_INDEX, OLD_WEIGHTS, WEIGHTS, load_weights
from sidtune.model.checkpoint_files import SID_ROWS
from sidtune.model.load import load_model, load_trained
from sidtune.runs.resumed import STATE, refuse_broken_state
from sidtune.tokenizer.load import load_model_config, load_tokenizer
from sidtune.tokenizer.segments import segment_tokenizers
from sidtune.tokenizer.vocabulary import extend_vocabulary

CPU = torch.device("cpu")
CODE = """
open({canary!r}, "w").close()
from transformers import Qwen3Config, Qwen3ForCausalLM, PreTrainedTokenizerFast

class Config(Qwen3Config):
    model_type = "evil"

class Model(Qwen3ForCausalLM):
    config_class = Config

class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base")


# --- code ---


def with_code(base: Path, canary: Path, known: bool) -> None:
    """Code in the folder that leaves a canary, asked for by model and tokenizer."""
    (base / "evil.py").write_text(CODE.format(canary=str(canary)))
    names = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    change(base / "config.json", auto_map=names, **({} if known else {"model_type": "evil"}))
    tokenizer = {"AutoTokenizer": [None, "evil.Tokenizer"]}
    change(base / "tokenizer_config.json", auto_map=tokenizer, tokenizer_class="Tokenizer")


LOADERS: list[Callable[[str, bool], Any]] = [
    load_model_config,
    load_tokenizer,
    lambda folder, trust: load_trained(Path(folder), CPU, trust),
]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("load", LOADERS, ids=["config", "tokenizer", "model"])
def test_code_of_a_folder_is_not_run_unasked(
    base: Path, tmp_path: Path, load: Callable[[str, bool], Any], known: bool
) -> None:
    with_code(base, tmp_path / "canary", known)
    if known:
        load(str(base), False)  # the library's own classes serve
    else:
        with pytest.raises(UserError, match="contains Python code") as error:
            load(str(base), False)
        assert "--trust-remote-code" in error.value.hint
    assert not (tmp_path / "canary").exists()


def test_code_of_a_folder_runs_where_it_is_trusted(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the test above would show nothing."""
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    with_code(base, tmp_path / "canary", known=False)
    assert load_model_config(str(base), True).model_type == "evil"
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("load", LOADERS, ids=["config", "tokenizer", "model"])
def test_an_adapter_leads_to_no_other_model(
    base: Path, tmp_path: Path, load: Callable[[str, bool], Any]
) -> None:
    other = make_base(tmp_path / "other", "llama")
    (base / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(other)}))
    with pytest.raises(UserError, match="contains an adapter"):
        load(str(base), False)


@pytest.mark.parametrize("load", [LOADERS[0], LOADERS[2]], ids=["config", "model"])
def test_attention_from_the_hub_is_code(base: Path, load: Callable[[str, bool], Any]) -> None:
    change(base / "config.json", attn_implementation="somebody/kernels")
    with pytest.raises(
        UserError,
        match=r"attention implementation from the Hub \(somebody/kernels\); such code runs only",
    ):
        load(str(base), False)


@pytest.mark.parametrize(
    "template",
    [
        (
            "{{ ''.__class__.__mro__[1].__subclasses__() }}{% for m in messages %}{{ m.content }}{%"
            " endfor %}"
        ),
        "{{ cycler.__init__.__globals__.os.system('touch canary') }}",
        "{{ 1 / 0 }}",
        "{{ messages[7].content.x.y }}",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{% broken",
    ],
)
def test_a_chat_template_stays_in_its_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=r"the chat template (fails|does not write)"):
        make_frame(tokenizer, segment_tokenizers(tokenizer, []), "chat")
    assert list(tmp_path.iterdir()) == []


# --- weights ---


class Bomb:
    """Runs a command where it is unpickled by a reader that trusts it."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def forged(tensors: dict[str, dict[str, Any]], data: bytes, length: int | None = None) -> bytes:
    """A safetensors file with this header."""
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(start: int, end: int, shape: list[int]) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


LIES = {
    "a header longer than the file": forged({"a": entry(0, 8, [2])}, bytes(8), 10_000),
    "a header of exabytes": forged({"a": entry(0, 8, [2])}, bytes(8), 2**63),
    "a header of nothing": struct.pack("<Q", 0),
    "weights beyond the file": forged({"a": entry(0, 2**40, [2**38])}, bytes(8)),
    "weights before the file": forged({"a": entry(-8, 0, [2])}, bytes(8)),
    "weights that overlap": forged({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)),
    "a shape that is another": forged({"a": entry(0, 8, [3])}, bytes(8)),
    "a shape whose size overflows": forged({"a": entry(0, 8, [2**33, 2**33])}, bytes(8)),
    "a gap": forged({"a": entry(4, 12, [2])}, bytes(12)),
    "nested headers": struct.pack("<Q", 100_000) + b"[" * 100_000,
}


def forgeries(canary: Path) -> dict[str, bytes]:
    return LIES | {
        "a pickle": pickle.dumps(Bomb(canary)),
        "an old pickle": pickle.dumps({"a": Bomb(canary)}, 2),
    }


@pytest.mark.parametrize("lie", [*LIES, "a pickle", "an old pickle"])
@pytest.mark.parametrize("name", [WEIGHTS, OLD_WEIGHTS, "part.safetensors"])
def test_weights_that_lie(base: Path, tmp_path: Path, name: str, lie: str) -> None:
    canary = tmp_path / "canary"
    (base / WEIGHTS).unlink()
    (base / name).write_bytes(forgeries(canary)[lie])
    if name == "part.safetensors":
        (base / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {"a": name}}))
    with pytest.raises(UserError, match="damaged weights"):
        load_weights(base)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_trained(base, CPU)
    assert not canary.exists()


def test_a_bomb_goes_off_where_it_is_trusted(tmp_path: Path) -> None:
    """Or the test above would show nothing."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("index", [INDEX, OLD_INDEX])
@pytest.mark.parametrize(
    "away", ["../other/model.safetensors", "{other}/model.safetensors", "..", "", "a\\..\\b", "a/b"]
)
def test_an_index_leads_nowhere_else(base: Path, tmp_path: Path, index: str, away: str) -> None:
    other = make_base(tmp_path / "other")
    names = dict.fromkeys(load_weights(base), away.replace("{other}", str(other)))
    (base / WEIGHTS).unlink()
    (base / index).write_text(json.dumps({"metadata": {}, "weight_map": names}))
    with pytest.raises(UserError, match="lists a file outside the folder"):
        load_trained(base, CPU)
    if index == INDEX:
        with pytest.raises(UserError, match="lists a file outside the folder"):
            load_weights(base)


def test_weights_in_parts_are_still_read(base: Path) -> None:
    weights = load_weights(base)
    names = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(weights)}
    for part in set(names.values()):
        tensors = {name: weights[name] for name in weights if names[name] == part}
        safetensors.torch.save_file(tensors, base / part, {"format": "pt"})
    (base / WEIGHTS).unlink()
    (base / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))
    assert load_weights(base).keys() == weights.keys()
    vocabulary = extend_vocabulary(load_tokenizer(str(base)), ["<a_1>"])
    load_model(ModelConfig(base=str(base)), vocabulary, 0)


# --- a configuration ---


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"vocab_size": 2**40},
            r"describes weights of 131,072\.\d GiB in float32, but this machine has [\d.,]+ GiB",
        ),
        ({"intermediate_size": 2**50}, r"describes weights of [\d.,]+ GiB in float32"),
        ({"vocab_size": 2**70}, "no model can be built .*: TypeError"),
        ({"hidden_size": -3}, "no model can be built .*: RuntimeError"),
        ({"num_attention_heads": 0}, "no model can be built .*: ZeroDivisionError"),
        ({"num_key_value_heads": 0}, "no model can be built .*: ZeroDivisionError"),
        ({"head_dim": 0}, "no model can be built .*: ZeroDivisionError"),
        ({"hidden_act": "nonsense"}, "no model can be built .*: KeyError: 'nonsense'"),
        (
            {"rope_parameters": {"rope_type": "nonsense", "rope_theta": 1e4}},
            "no model can be built .*: KeyError: 'nonsense'",
        ),
        ({"pad_token_id": 10**6}, "no model can be built .*: AssertionError"),
        ({"attn_implementation": "nonsense"}, "no model can be built .*: ValueError"),
        (
            {"num_hidden_layers": 1001, "layer_types": None},
            "num_hidden_layers is 1,001, more than 1,000",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_configuration_that_makes_no_model(
    base: Path, changed: dict[str, Any], message: str
) -> None:
    change(base / "config.json", **changed)
    vocabulary = extend_vocabulary(load_tokenizer(str(base)), ["<a_1>"])
    with pytest.raises(UserError, match=message) as error:
        load_model(ModelConfig(base=str(base), from_scratch=True), vocabulary, 0)
    assert str(base) in error.value.message


# --- the state of a run ---


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"global_step": 4}, "does not belong to this checkpoint"),
        ({"global_step": True}, "does not belong to this checkpoint"),
        ({"unheard_of": 1}, "cannot be read"),
        ({}, None),
    ],
)
def test_a_trainer_state_of_another_shape(
    tmp_path: Path, changed: dict[str, Any], message: str | None
) -> None:
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    (folder / STATE).write_text(json.dumps(STATE_TREE | changed))
    if message is None:
        refuse_broken_state(folder)
        return
    with pytest.raises(UserError, match=message):
        refuse_broken_state(folder)
    (folder / STATE).write_text("[" * 100_000)
    with pytest.raises(UserError, match="cannot be read"):
        refuse_broken_state(folder)


def test_no_reader_of_arrays_takes_pickles() -> None:
    """NumPy's own files may hold them; they are read without."""
    source = Path(__file__).parents[3] / "src"
    for path in source.rglob("*.py"):
        text = path.read_text()
        assert text.count("np.load(") == text.count("allow_pickle=False"), path
        assert "pickle.load" not in text, path
        assert text.count("torch.load(") == text.count("weights_only=True"), path
    assert SID_ROWS.endswith(".safetensors")
