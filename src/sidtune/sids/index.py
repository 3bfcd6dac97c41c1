"""The folder of an index: complete or absent, and verified before it is used."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from sidtune.base.errors import UserError
from sidtune.base.hashing import file_digest
from sidtune.base.storage import flush, refusing_failed_writes, write_text
from sidtune.config.sids import SidsConfig, VectorKind
from sidtune.data.catalogue import sid_token
from sidtune.files.text import read_json_model, read_json_object
from sidtune.sids.codebooks import Codebooks
from sidtune.sids.kmeans import Codes, Floats
from sidtune.sids.vectors.source import State

# Of an output_dir; it holds a folder for each index.
FOLDER = "sids"
INDEX, CODEBOOKS, REPORT, VECTORS, FITTED = (
    "index.json",
    "codebooks.safetensors",
    "report.json",
    "vectors.npy",
    "fitted.json",
)
FILES = (INDEX, CODEBOOKS, REPORT, VECTORS)
FORMAT_VERSION: Final = 1
HINT = "Run `sidtune sids` again."


@dataclass(frozen=True)
class Fitted:
    """A fitted index.

    Args:
        ids, titles: of the items, n of them.
        vectors: `(n, d)`, what was quantised.
        sids: SID tokens of each item.
        codes: `(n, levels)`, without the token that `extra_token` adds.
        books: the codebooks.
        options: the section `sids`.
        states: what each kind of vectors learned.
        widths: the dimensions of each kind.
        report: what `sidtune sids report` says.
    """

    ids: list[str]
    titles: list[str]
    vectors: Floats
    sids: list[tuple[str, ...]]
    codes: Codes
    books: Codebooks
    options: SidsConfig
    states: Mapping[VectorKind, State]
    widths: list[int]
    report: dict[str, Any]


def tokens(codes: Codes, extra: Codes) -> list[tuple[str, ...]]:
    """SID tokens of codes `(n, levels)` and of the number `(n,)` of one token more, -1 where there
    is none.
    """
    most = codes.max(0, initial=-1).tolist()
    names = [
        [sid_token(level, code) for code in range(largest + 1)]
        for level, largest in enumerate(most)
    ]
    columns = [
        [names[level][code] for code in codes[:, level].tolist()] for level in range(len(names))
    ]
    sids = list(zip(*columns, strict=True))
    return [
        sid if more < 0 else (*sid, f"<item_{more}>")
        for sid, more in zip(sids, extra.tolist(), strict=True)
    ]


def is_complete(folder: Path) -> bool:
    """Whether a folder holds an index whose files are as they were written."""
    try:
        written = json.loads((folder / FITTED).read_text(encoding="utf-8"))["files"]
        return set(written) == set(FILES) and all(
            file_digest(folder / name) == digest for name, digest in written.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def write_index(fitted: Fitted, folder: Path) -> None:
    """Write a folder aside and rename it; one of that name that another process completed meanwhile
    stays.
    """
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    with refusing_failed_writes(folder, fitted.vectors.nbytes):
        aside.mkdir(parents=True)
        try:
            _write(fitted, aside)
            _publish(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def read_index(folder: Path) -> Fitted:
    """Read what `write_index` wrote.

    Raises:
        UserError: for a folder that holds no index, and for files that are damaged or of another
            version.
    """
    if not (folder / FITTED).is_file():
        raise UserError(
            f"{folder} holds no fitted SIDs: it has no {FITTED}",
            "Give the folder that `sidtune sids` names.",
        )
    given = read_json_model(folder / FITTED, _FittedFile, HINT)
    if not is_complete(folder):
        raise UserError(f"{folder}: a file is damaged or missing", HINT)
    tensors = safetensors.numpy.load_file(folder / CODEBOOKS)
    sids = read_json_object(folder / INDEX)
    if len(given.titles) != len(sids) or set(given.terms) != set(given.options.weights):
        raise UserError(f"{folder / FITTED} does not belong to the files beside it", HINT)
    return Fitted(
        ids=list(sids),
        titles=given.titles,
        vectors=np.load(folder / VECTORS, allow_pickle=False),
        sids=[tuple(sid) for sid in sids.values()],
        codes=np.asarray(tensors["codes"], np.int32),
        books=Codebooks.of(_named(tensors, "codebooks.")),
        options=given.options,
        states={
            kind: State(_named(tensors, f"vectors.{kind}."), terms)
            for kind, terms in given.terms.items()
        },
        widths=given.widths,
        report=read_json_object(folder / REPORT),
    )


class _FittedFile(BaseModel):
    """`fitted.json`."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    options: SidsConfig
    titles: list[str]
    terms: dict[VectorKind, list[str]]
    widths: list[int]
    files: dict[str, str]


def _write(fitted: Fitted, folder: Path) -> None:
    index = {item: list(sid) for item, sid in zip(fitted.ids, fitted.sids, strict=True)}
    write_text(folder / INDEX, json.dumps(index, ensure_ascii=False))
    write_text(folder / REPORT, json.dumps(fitted.report, indent=1, ensure_ascii=False) + "\n")
    np.save(folder / VECTORS, fitted.vectors)
    tensors: dict[str, NDArray[Any]] = {
        f"codebooks.{name}": each for name, each in fitted.books.tensors().items()
    }
    tensors["codes"] = fitted.codes
    for kind, state in fitted.states.items():
        tensors |= {f"vectors.{kind}.{name}": tensor for name, tensor in state.tensors.items()}
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    safetensors.numpy.save_file(contiguous, folder / CODEBOOKS)
    for name in FILES:
        flush(folder / name)
    # The encoder is read again for new items, from whatever folder.
    paths = {name: value.absolute() for name, value in fitted.options if isinstance(value, Path)}
    given = {
        "version": FORMAT_VERSION,
        "options": fitted.options.model_copy(update=paths).resolved(),
        "titles": fitted.titles,
        "terms": {kind: state.terms for kind, state in fitted.states.items()},
        "widths": fitted.widths,
        "files": {name: file_digest(folder / name) for name in FILES},
    }
    write_text(folder / FITTED, json.dumps(given, ensure_ascii=False))


def _publish(aside: Path, folder: Path) -> None:
    if folder.exists() and not is_complete(folder):
        os.rename(folder, aside.with_name(f"{aside.name}.damaged"))
        shutil.rmtree(aside.with_name(f"{aside.name}.damaged"), ignore_errors=True)
    try:
        os.rename(aside, folder)
    except OSError:
        if not is_complete(folder):
            raise
    flush(folder.parent)


def _named(tensors: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
