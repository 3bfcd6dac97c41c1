"""A model folder for vLLM and SGLang: the model as it is, its catalogue as token ids, and a script
that asks for recommendations.

Written for vLLM 0.33 and SGLang 0.5.23, whose requests take `beam_width`. Both load models and
tokenizers with Transformers 5.
"""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.numpy

from sidtune.base.errors import UserError
from sidtune.decoding.prompts import Prompts
from sidtune.exports import client
from sidtune.exports.folder import export_folder, write_json
from sidtune.exports.grammar import lark_grammar
from sidtune.exports.prompt import PROMPT, prompt_parts
from sidtune.exports.token_trie import TokenTrie, item_paths, token_trie
from sidtune.files.pointers import SMALL_FILES
from sidtune.runs.bundle import Bundle, read_bundle
from sidtune.tokenizer.load import load_tokenizer

Engine = Literal["vllm", "sglang"]
ITEMS, TRIE, SCRIPT = "catalogue.json", "trie.safetensors", "recommend.py"
# Ways to restrict an engine's own beam search: a grammar for vLLM, lines of text for SGLang.
GRAMMAR, LINES = "sids.lark", "sids.txt"
# The symbols of a grammar are numbered in 16 bits, and one of so many SIDs takes most of a second
# for each beam and step.
GRAMMAR_SIDS = 10_000
WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class PlainExport:
    """What was written.

    Args:
        folder: the new folder, which `sidtune` can load as well.
        trie: its SIDs.
        commands: start the engine, and ask it.
    """

    folder: Path
    trie: TokenTrie
    commands: list[str]


def export_plain(model: Path, folder: Path, engine: Engine) -> PlainExport:
    """Write a folder for vLLM or SGLang; it appears only when complete.

    Args:
        model: a run's folder or one of its checkpoints.
        folder: must not exist.

    Raises:
        UserError: for what the engine cannot serve, and a folder that exists.
    """
    bundle = read_bundle(model)
    tokenizer = load_tokenizer(str(model), trust_remote_code=False)
    prompts = Prompts(bundle, tokenizer)
    prompt = prompt_parts(bundle, prompts, tokenizer)
    paths = item_paths(bundle.catalogue, prompts.token_ids)
    trie = token_trie(list(paths.values()))
    weights = sorted(path for pattern in WEIGHTS for path in model.glob(pattern))
    if not weights:
        raise UserError(f"{model} has no {WEIGHTS[0]}", "Give a run's folder.")
    with export_folder(model, folder) as aside:
        for path in [*weights, *(model / name for name in SMALL_FILES)]:
            if path.is_file():
                shutil.copyfile(path, aside / path.name)
        write_json(aside / PROMPT, prompt)
        # The order of items that share a SID.
        items = {item: list(paths[item]) for item in bundle.by_users}
        write_json(aside / ITEMS, {"levels": trie.levels, "items": items}, indent=None)
        # As bytes: `save_file` would hide the file from other users.
        (aside / TRIE).write_bytes(safetensors.numpy.save(trie.tensors()))
        if engine == "sglang":
            (aside / LINES).write_text(_lines(bundle), encoding="utf-8")
        elif trie.count <= GRAMMAR_SIDS:
            (aside / GRAMMAR).write_text(lark_grammar(trie), encoding="utf-8")
        shutil.copyfile(client.__file__, aside / SCRIPT)
    return PlainExport(folder, trie, _commands(folder, engine, bundle.catalogue.ids[0]))


def _lines(bundle: Bundle) -> str:
    return "".join(sorted({f"{''.join(sid)}\n" for sid in bundle.catalogue.sids}))


def _commands(folder: Path, engine: Engine, item: str) -> list[str]:
    script = f"python {shlex.quote(str(folder / SCRIPT))} {shlex.quote(item)}"
    if engine == "vllm":
        return [script]
    start = f"python -m sglang.launch_server --model-path {shlex.quote(str(folder))} --page-size 1"
    return [start, f"{script} --server http://127.0.0.1:30000"]
