"""A model folder as FlashRec loads it: SID tokens as codebooks, the catalogue as codes, and prompts
as text.

Written for FlashRec 0.1.2: `flashrec.search.trie.build_trie_from_sid2vid_file` reads the catalogue,
`flashrec.models.weight` the weights and `config.json`, and Transformers 4 the tokenizer.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.base.storage import refusing_failed_writes
from sidtune.data.catalogue import Catalogue
from sidtune.decoding.prompts import Prompts
from sidtune.exports.codebooks import Codebooks, codebooks_of
from sidtune.exports.older_files import older_config, older_tokenizer_config, renumbered
from sidtune.files.text import read_json_object
from sidtune.ranker.file import FILE as RANKER
from sidtune.runs.bundle import CATALOGUE, RECOMMENDER_FILE, Bundle, read_bundle
from sidtune.tokenizer.load import load_tokenizer

SIDS, PROMPT, COMMAND = "sids.json", "prompt.json", "serve.sh"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# Rows of these belong to tokens.
BY_TOKEN = ("model.embed_tokens.weight", "lm_head.weight")
MODEL_TYPE = "qwen3"
COPIED = (CATALOGUE, RECOMMENDER_FILE, RANKER, "generation_config.json")
# Histories that are tokenised as text to compare with training's ids.
COMPARED = 200


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        folder: the new folder, which `sidtune` can load as well.
        codebooks: of its SID tokens.
        sids: number of distinct SIDs.
        command: starts the engine.
    """

    folder: Path
    codebooks: Codebooks
    sids: int
    command: list[str]


def export_flashrec(model: Path, folder: Path) -> Exported:
    """Write a folder for FlashRec; it appears only when complete.

    Args:
        model: a run's folder or one of its checkpoints.
        folder: must not exist.

    Raises:
        UserError: for what FlashRec cannot serve, and a folder that exists.
    """
    if folder.exists():
        raise UserError(f"{folder} exists", "Choose a new folder.")
    bundle = read_bundle(model)
    config = read_json_object(model / "config.json")
    if config.get("model_type") != MODEL_TYPE:
        raise UserError(
            f"{model} is of type {config.get('model_type')}; FlashRec serves {MODEL_TYPE} alone",
            "Serve it with `sidtune serve`.",
        )
    tokenizer = load_tokenizer(str(model), trust_remote_code=False)
    prompts = Prompts(bundle, tokenizer)
    codebooks = codebooks_of(bundle.catalogue.sids, prompts.token_ids)
    prompt = _prompt(bundle, prompts, tokenizer)
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    with refusing_failed_writes(folder, size):
        try:
            aside.mkdir(parents=True)
            _write_weights(model, aside, codebooks, codebooks.order(prompts.token_ids))
            _write_json(aside / "config.json", older_config(config))
            _write_tokenizer(model, aside, codebooks)
            _write_json(aside / SIDS, _items_by_codes(bundle.catalogue, codebooks))
            _write_json(aside / PROMPT, prompt)
            script = " \\\n  ".join(_command(Path("."), codebooks, prompt))
            text = f'#!/bin/sh\ncd "$(dirname "$0")" && exec {script} "$@"\n'
            (aside / COMMAND).write_text(text, encoding="utf-8")
            (aside / COMMAND).chmod(0o755)
            for name in COPIED:
                if (model / name).is_file():
                    shutil.copyfile(model / name, aside / name)
            os.rename(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    command = _command(folder, codebooks, prompt)
    return Exported(folder, codebooks, len(set(bundle.catalogue.sids)), command)


def _prompt(bundle: Bundle, prompts: Prompts, tokenizer: Any) -> dict[str, Any]:
    """The texts around a history; checked, since FlashRec tokenises a prompt as one text."""
    around = bundle.prompt_ids
    if around is None:
        raise UserError(
            "the prompts hold more of a history than its SIDs, such as titles",
            "Train with a template whose prompt is {history_sids} and text of its own.",
        )
    texts = {
        name: tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for name, ids in asdict(around).items()
    }
    catalogue, chance = bundle.catalogue, np.random.default_rng(0)
    length = min(bundle.longest_history, 5)
    drawn = chance.integers(len(catalogue.ids), size=(COMPARED, length))
    expected, rows = prompts.encode(Ragged.from_lists(drawn.tolist()))
    for place, row in enumerate(rows.tolist()):
        sids = ["".join(catalogue.sids[item]) for item in drawn[row]]
        text = texts["before"] + texts["separator"].join(sids) + texts["after"]
        if tokenizer.encode(text, add_special_tokens=False) != expected[place].tolist():
            raise UserError(
                f"as one text, the prompts are tokenised differently than in training: {text:.200}",
                "Train with a template that stands in one segment.",
            )
    return {
        **texts,
        "token_ids": asdict(around),
        "end_of_sid": prompts.closing,
        "longest_history": bundle.longest_history,
    }


def _write_weights(
    model: Path, aside: Path, codebooks: Codebooks, order: NDArray[np.int64]
) -> None:
    """All weights, file by file; rows of SID tokens in the order of the codebooks."""
    files = sorted(model.glob("model*.safetensors"))
    if not files:
        raise UserError(f"{model} has no {WEIGHTS}", "Give a run's folder.")
    ids = torch.from_numpy(order)
    for file in files:
        tensors = safetensors.torch.load_file(file)
        for name in BY_TOKEN:
            if name in tensors:
                rows = tensors[name].clone()
                rows[codebooks.start : codebooks.end + 1] = tensors[name][ids]
                tensors[name] = rows
        safetensors.torch.save_file(tensors, aside / file.name, metadata={"format": "pt"})
    if (model / INDEX).is_file():
        shutil.copyfile(model / INDEX, aside / INDEX)


def _write_tokenizer(model: Path, aside: Path, codebooks: Codebooks) -> None:
    definition = read_json_object(model / "tokenizer.json")
    settings = read_json_object(model / "tokenizer_config.json")
    _write_json(aside / "tokenizer.json", renumbered(definition, codebooks.ids))
    _write_json(aside / "tokenizer_config.json", older_tokenizer_config(settings))


def _items_by_codes(catalogue: Catalogue, codebooks: Codebooks) -> dict[str, list[str]]:
    """Item ids by the codes of their SID, as in `"3,14,159": ["17"]`."""
    found: dict[str, list[str]] = defaultdict(list)
    for item, codes in zip(catalogue.ids, codebooks.codes(catalogue.sids), strict=True):
        found[",".join(map(str, codes))].append(item)
    return dict(sorted(found.items()))


def _command(folder: Path, codebooks: Codebooks, prompt: Mapping[str, Any]) -> list[str]:
    """Starts FlashRec.

    It adds the first boundary token to each prompt that does not end with it, and our prompts end
    with their own last token: so that one is given. Scores are not divided by the length.
    """
    last = prompt["token_ids"]["after"] or prompt["token_ids"]["before"]
    return [
        "flashrec --serve",
        f"--model-path {shlex.quote(str(folder))}",
        f"--sid-vocab-file {shlex.quote(str(folder / SIDS))}",
        f"--sid-token-range {codebooks.start}:{codebooks.end}",
        f"--sid-codebook-sizes {','.join(map(str, codebooks.sizes))}",
        f"--sid-boundary-tokens {last[-1]},{prompt['end_of_sid']}",
        f"--max-tokens {len(codebooks.sizes)}",
        "--beam-width 50",
        "--length-penalty 0",
        "--quantization none",
    ]


def _write_json(path: Path, tree: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(tree, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
