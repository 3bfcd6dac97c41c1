"""A model folder as FlashRec loads it: SID tokens as codebooks, the catalogue as codes, and prompts
as text.

Written for FlashRec 0.1.2: `flashrec.search.trie.build_trie_from_sid2vid_file` reads the catalogue,
`flashrec.models.weight` the weights and `config.json`, and Transformers 4 the tokenizer.
"""

from __future__ import annotations

import shlex
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.data.catalogue import Catalogue
from sidtune.decoding.prompts import Prompts
from sidtune.exports.codebooks import Codebooks, codebooks_of
from sidtune.exports.folder import export_folder, write_json
from sidtune.exports.older_files import older_config, older_tokenizer_config, renumbered
from sidtune.exports.prompt import PROMPT, prompt_parts, refuse_other_texts
from sidtune.files.text import read_json_object
from sidtune.runs.bundle import read_bundle
from sidtune.tokenizer.load import load_tokenizer

SIDS, COMMAND = "sids.json", "serve.sh"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# Rows of these belong to tokens.
BY_TOKEN = ("model.embed_tokens.weight", "lm_head.weight")
MODEL_TYPE = "qwen3"


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
    prompt = prompt_parts(bundle, prompts, tokenizer)
    # FlashRec tokenises a prompt as one text.
    refuse_other_texts(bundle, prompts, tokenizer, prompt)
    with export_folder(model, folder) as aside:
        _write_weights(model, aside, codebooks, codebooks.order(prompts.token_ids))
        write_json(aside / "config.json", older_config(config))
        _write_tokenizer(model, aside, codebooks)
        write_json(aside / SIDS, _items_by_codes(bundle.catalogue, codebooks))
        write_json(aside / PROMPT, prompt)
        script = " \\\n  ".join(_command(Path("."), codebooks, prompt))
        text = f'#!/bin/sh\ncd "$(dirname "$0")" && exec {script} "$@"\n'
        (aside / COMMAND).write_text(text, encoding="utf-8")
        (aside / COMMAND).chmod(0o755)
    command = _command(folder, codebooks, prompt)
    return Exported(folder, codebooks, len(set(bundle.catalogue.sids)), command)


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
    write_json(aside / "tokenizer.json", renumbered(definition, codebooks.ids))
    write_json(aside / "tokenizer_config.json", older_tokenizer_config(settings))


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
