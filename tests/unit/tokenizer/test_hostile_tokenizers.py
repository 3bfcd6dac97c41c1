"""Tokenizers made to harm: what would end the process is refused before it is loaded, and what
fails says so.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_models import change, make_base, make_tokenizer
from transformers import PreTrainedTokenizerFast

from sidtune.base.errors import UserError
from sidtune.config.model import ModelConfig
from sidtune.encoding.chat import make_frame
from sidtune.model.load import load_model
from sidtune.tokenizer.faults import decode, refuse_deadly, refusing_faults
from sidtune.tokenizer.load import load_tokenizer
from sidtune.tokenizer.segments import segment_tokenizers
from sidtune.tokenizer.vocabulary import extend_vocabulary

SIDS = ["<a_1>", "<b_1>"]
TEXTS = ["a blue mug", "a" * 40 + "!", "ü", "", "<a_1>"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def base(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "base"))


def use(base: Path) -> PreTrainedTokenizerFast:
    """All that is done with a base's tokenizer before training."""
    tokenizer = load_tokenizer(str(base))
    extend_vocabulary(tokenizer, SIDS)
    segments = segment_tokenizers(tokenizer, SIDS)
    make_frame(tokenizer, segments, "plain")
    for first in (True, False):
        segments.template(TEXTS, first)
        segments.data(TEXTS, first)
    segments.cut(TEXTS, 2)
    return tokenizer


def test_a_sound_tokenizer_is_used(base: Path) -> None:
    """Or the tests below would show nothing."""
    tokenizer = use(base)
    assert decode(tokenizer, tokenizer("blue mug").input_ids) == "blue mug"


# --- what would end the process or fill the memory ---


def table(said: int, content: bytes = b"a" * 40) -> dict[str, Any]:
    charsmap = base64.b64encode(said.to_bytes(4, "little") + content).decode()
    return {"type": "Precompiled", "precompiled_charsmap": charsmap}


def replace(content: Any, **pattern: Any) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*steps: Any) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


DEADLY = {
    "a table of gigabytes": (table(2**32 - 1), "shorter than its stated length"),
    "a table of a byte too many": (table(41), "shorter than its stated length"),
    "a table inside others": (
        sequence(sequence({"type": "NFC"}, table(2**32 - 1))),
        "shorter than its stated length",
    ),
    "a table of nothing": (
        table(0) | {"precompiled_charsmap": ""},
        "shorter than its stated length",
    ),
    "a table that is not valid base64": (
        table(0) | {"precompiled_charsmap": "a\n?"},
        "is not valid base64",
    ),
    "a table that is a number": (table(0) | {"precompiled_charsmap": 7}, "is not valid base64"),
    "an empty pattern": (replace("xx", String=""), "an empty pattern"),
    "an empty expression": (sequence(replace("xx", Regex="")), "an empty pattern"),
    "a long replacement": (replace("x" * 70_000, String="a"), "70,000 times as long"),
    "replacements of replacements": (
        sequence(*[replace("aa", String="a")] * 9),
        "512 times as long",
    ),
    "expressions of nothing": (sequence(*[replace("a", Regex="(?=.)")] * 9), "512 times as long"),
    "a replacement without a pattern": (replace("x"), "expected a pattern and a content"),
    "a replacement of nothing known": (
        replace(None, String="a"),
        "expected a pattern and a content",
    ),
    "a step without a type": (sequence([{"String": "a"}, "aa"]), "expected an object with a type"),
    "steps that are none": (
        sequence() | {"normalizers": {"a": 1}},
        "expected a list of normalizers",
    ),
}


@pytest.mark.parametrize("name", DEADLY)
def test_what_would_kill_is_not_loaded(base: Path, name: str) -> None:
    step, message = DEADLY[name]
    change(base / "tokenizer.json", normalizer=step)
    # Not through the loader: where this fails, it would take all other tests along.
    with pytest.raises(UserError, match=rf"tokenizer.json: normalizer: .*{message}"):
        refuse_deadly(str(base))


def test_the_loader_asks_first(base: Path) -> None:
    change(base / "tokenizer.json", normalizer=table(41))
    with pytest.raises(UserError, match="shorter than its stated length"):
        load_tokenizer(str(base))


def test_decoders_are_looked_at_too(base: Path) -> None:
    steps = [{"type": "Fuse"}, replace("xx", String="")]
    change(base / "tokenizer.json", decoder={"type": "Sequence", "decoders": steps})
    with pytest.raises(UserError, match=r"tokenizer.json: decoder: .*an empty pattern"):
        refuse_deadly(str(base))


def test_a_second_normalizer_does_not_hide_the_first(base: Path) -> None:
    path = base / "tokenizer.json"
    text = path.read_text().replace(
        '"normalizer": null', f'"normalizer": {json.dumps(table(99))}, "normalizer": null'
    )
    path.write_text(text)
    with pytest.raises(UserError, match="'normalizer' occurs twice"):
        refuse_deadly(str(base))


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize(
    "setting",
    [
        {"fast_tokenizer_files": ["../other/tokenizer.1.0.json"]},
        {"gguf_file": "../other/model.gguf"},
        {"_spm_precompiled_charsmap": [255, 255, 255, 255, *b"a" * 40]},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_settings_lead_around_nothing(base: Path, name: str, setting: dict[str, Any]) -> None:
    (base / name).touch()
    (base / name).write_text(json.dumps(json.loads((base / name).read_text() or "{}") | setting))
    with pytest.raises(UserError, match=rf"{name} sets {next(iter(setting))}"):
        load_tokenizer(str(base))


@pytest.mark.parametrize(
    "steps",
    [
        [{"type": "Prepend", "prepend": "▁"}, replace("▁", String=" ")],
        [
            replace('"', String="``"),
            replace('"', String="''"),
            {"type": "NFKD"},
            replace(" ", Regex=" {2,}"),
        ],
        [table(40), table(0)],
    ],
    ids=["llama", "albert", "tables that do not lie"],
)
def test_ordinary_normalizers_pass(base: Path, steps: list[Any]) -> None:
    change(base / "tokenizer.json", normalizer=sequence(*steps))
    refuse_deadly(str(base))


# --- what fails in Rust ---

WORDS = {"<s>": 0, "</s>": 1, "<pad>": 2}
NOT_ONE = {"pre_tokenizer": None, "normalizer": None}


def models(kind: str) -> dict[str, Any]:
    shared = {"type": kind, "vocab": WORDS, "unk_token": "nope"}
    match kind:
        case "WordPiece":
            return shared | {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
        case "Unigram":
            return {
                "type": kind,
                "unk_id": None,
                "vocab": [[token, 0.0] for token in WORDS],
                "byte_fallback": False,
            }
        case "BPE":
            return shared | {"merges": []}
    return shared


def numbered(base: Path, renumber: Callable[[dict[str, int]], None]) -> None:
    tree = json.loads((base / "tokenizer.json").read_text())
    renumber(tree["model"]["vocab"])
    (base / "tokenizer.json").write_text(json.dumps(tree))


def twice(vocabulary: dict[str, int]) -> None:
    first, second = list(vocabulary)[300:302]
    vocabulary[first] = vocabulary[second]


FAILING: dict[str, Callable[[Path], None]] = {
    **{
        f"{kind} without its unknown token": lambda base, kind=kind: change(
            base / "tokenizer.json", model=models(kind), **NOT_ONE
        )
        for kind in ("WordLevel", "WordPiece", "Unigram", "BPE")
    },
    "an id twice": lambda base: numbered(base, twice),
    "an id of 32 bits": lambda base: numbered(
        base, lambda vocabulary: vocabulary.update({"zzzzq": 2**32 - 1})
    ),
    "an expression without end": lambda base: change(
        base / "tokenizer.json",
        pre_tokenizer={
            "type": "Split",
            "pattern": {"Regex": "(a+)+$"},
            "behavior": "Isolated",
            "invert": False,
        },
    ),
    "an expression of nothing": lambda base: change(
        base / "tokenizer.json", normalizer=replace("xx", Regex="x*")
    ),
    "another class": lambda base: change(
        base / "tokenizer_config.json", tokenizer_class="BertTokenizer"
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_tokenizer_that_cannot_encode_is_named(base: Path, name: str) -> None:
    FAILING[name](base)
    # Some versions of the libraries find it when they load, others when they encode.
    with pytest.raises(
        UserError, match=rf"the tokenizer of {base} fails: \w|{base} cannot be read: \w"
    ):
        use(base)


@pytest.mark.parametrize("from_scratch", [True, False])
def test_ids_beyond_the_rows(tmp_path: Path, from_scratch: bool) -> None:
    folder = make_base(tmp_path / "model")
    numbered(
        folder,
        lambda vocabulary: vocabulary.update(
            {max(vocabulary, key=lambda token: vocabulary[token]): 1_364}
        ),
    )
    vocabulary = extend_vocabulary(load_tokenizer(str(folder)), SIDS)
    with pytest.raises(
        UserError,
        match=rf"the tokenizer of {folder} has ids up to 1,364, but the model has 384 rows",
    ):
        load_model(ModelConfig(base=str(folder), from_scratch=from_scratch), vocabulary, 0)


def test_a_panic_while_loading(base: Path) -> None:
    change(base / "tokenizer.json", normalizer=table(4, b"aaaa\xff"))
    with pytest.raises(UserError, match="cannot be read: Precompiled"):
        load_tokenizer(str(base))


def test_a_panic_while_decoding(base: Path) -> None:
    tokenizer = use(base)
    with pytest.raises(UserError, match=rf"the tokenizer of {base} fails"):
        decode(tokenizer, [2**40])


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_who_wants_to_stop_is_not_held_up(end: type[BaseException]) -> None:
    with pytest.raises(end), refusing_faults("x"):
        raise end
