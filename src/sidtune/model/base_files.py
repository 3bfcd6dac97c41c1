"""Checks the weight files of a base by their sizes and headers only, which is cheap for files of
any size.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import safetensors
from transformers import PreTrainedConfig
from transformers.utils import CONFIG_NAME
from transformers.utils.hub import cached_file

from sidtune.base.errors import UserError, some
from sidtune.files.pointers import is_pointer, pointing, pull
from sidtune.files.shards import SHARDS, sharded
from sidtune.files.weight_files import (
    INDEX,
    OLD_INDEX,
    OLD_WEIGHTS,
    UNREADABLE,
    WEIGHTS,
    weight_map,
)
from sidtune.model.tuning.quantised import Kind, kernel_fault

BITSANDBYTES = "bitsandbytes"
# Older tools describe quantised weights in files of their own.
QUANTISED_BY = {"quantize_config.json": "GPTQ", "quant_config.json": "AWQ"}
# In the order in which Transformers looks for them.
WEIGHT_FILES = (WEIGHTS, INDEX, OLD_WEIGHTS, OLD_INDEX)
OTHER_WEIGHTS = ("*.safetensors", "*.gguf", "*.bin", "*.h5", "*.msgpack", "*.pth", "*.pt", "*.onnx")
DOWNLOAD = "Download or copy it again."
SCRATCH = "model.from_scratch: true needs no weights."
# Maximum header of a safetensors file in bytes, as the format defines it.
LONGEST_HEADER = 100_000_000


def weight_faults(base: str, without: str = "Give another folder.") -> list[UserError]:
    """All faults that prevent the weights of a base from being loaded.

    Args:
        base: a folder, or a Hub name, of which only locally cached files are checked.
        without: hint if there are no weights.
    """
    folder = _folder(base)
    if folder is None:
        return []
    try:
        faults = list(_faults(folder, Path(base).is_dir(), without))
    except UNREADABLE as error:
        faults = [(" ".join(str(error).split())[:300], DOWNLOAD)]
    return [
        UserError(f"the weights of {base} cannot be loaded: {reason}", hint)
        for reason, hint in faults
    ]


def quantisation_fault(
    base: str, model_config: PreTrainedConfig, quantize: Kind | None = None, beside: bool = False
) -> UserError | None:
    """The error for weights that are quantised, or are to be, and cannot be trained then; else
    None.

    Args:
        model_config: of the base; one that makes Transformers dequantise the weights (`dequantize`)
            is accepted.
        quantize: how the base is to be quantised while it is loaded.
        beside: whether only weights beside the base's are trained, by LoRA. Then bitsandbytes'
            weights are accepted, where its kernels work.
    """
    folder = _folder(base)
    said = next((file for file in QUANTISED_BY if folder and (folder / file).is_file()), None)
    method, where = (QUANTISED_BY[said], said) if said else (None, "")
    eight_bits = False
    for config in (model_config, model_config.get_text_config()):
        settings: Any = getattr(config, "quantization_config", None) or {}
        settings = settings if isinstance(settings, dict) else settings.to_dict()
        if settings and not settings.get("dequantize"):
            method, where = _method(settings), f"quantization_config in its {CONFIG_NAME}"
            eight_bits = bool(settings.get("load_in_8bit"))
    if method is None:
        return kernel_fault(quantize) if quantize else None
    if quantize:
        return UserError(
            f"model.quantize: {base} is quantised already ({method}, by {where})", "Remove it."
        )
    if method == BITSANDBYTES and beside:
        return kernel_fault("int8" if eight_bits else "nf4")
    return UserError(
        f"{base} is quantised ({method}, by {where}), and quantised weights cannot be trained",
        "Use the unquantised version of this base."
        + (" With model.tuning: lora it can be used." if method == BITSANDBYTES else ""),
    )


def _method(settings: dict[str, Any]) -> str:
    bits = any(settings.get(name) for name in ("load_in_4bit", "load_in_8bit"))
    return str(settings.get("quant_method") or (BITSANDBYTES if bits else "an unnamed method"))[:60]


def _folder(base: str) -> Path | None:
    """The local folder of a base's files, if there is one."""
    if Path(base).is_dir():
        return Path(base)
    try:
        found = cached_file(
            base, CONFIG_NAME, local_files_only=True, _raise_exceptions_for_missing_entries=False
        )
    except (OSError, ValueError):
        return None
    return Path(found).parent if found else None


Fault = tuple[str, str]


def _faults(folder: Path, whole: bool, without: str) -> Iterator[Fault]:
    """Yields reasons and hints.

    Args:
        whole: whether all files must be present, unlike in a cache.
    """
    # A broken link counts as a file that is missing, not as one that the base does not have.
    name = next(
        (
            name
            for name in WEIGHT_FILES
            if (folder / name).is_file() or (folder / name).is_symlink()
        ),
        None,
    )
    if name is None:
        if whole and not _names_its_weights(folder):
            yield _none(folder, without)
        return
    if name not in (INDEX, OLD_INDEX) or not (folder / name).is_file() or is_pointer(folder / name):
        yield from _file_faults(folder, {name: set()}, whole)
        return
    try:
        names = weight_map(folder / name)
    except UNREADABLE as error:
        yield f"{' '.join(str(error).split())[:200]} ({name})", DOWNLOAD
        return
    shards: dict[str, set[str]] = {file: set() for file in sorted(set(names.values()))}
    for weight, file in names.items():
        shards[file].add(weight)
    yield from _file_faults(folder, shards, whole)


def _names_its_weights(folder: Path) -> bool:
    """Whether the configuration says that the weights lie in another file."""
    try:
        tree = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except UNREADABLE:
        return False
    return isinstance(tree, dict) and bool(tree.get("transformers_weights"))


def _none(folder: Path, without: str) -> Fault:
    if (folder / SHARDS).is_dir():
        return sharded("the folder")
    others = sorted(path.name for kind in OTHER_WEIGHTS for path in folder.glob(kind))
    found = f"; it contains {some(others)}, which is not supported" if others else ""
    return (
        f"the folder contains neither {WEIGHTS} nor {OLD_WEIGHTS}, whole or in shards{found}",
        without,
    )


def _file_faults(folder: Path, files: dict[str, set[str]], whole: bool) -> Iterator[Fault]:
    """Faults of the files that hold the weights.

    Args:
        files: maps each file to the names of the weights that it must contain; empty if unknown.
    """
    absent = [name for name in files if not (folder / name).is_file()]
    pointers = [name for name in files if name not in absent and is_pointer(folder / name)]
    if absent and whole:
        # Named pipes count as absent too, since opening one may block.
        yield f"missing file: {some(absent)}", "Download or copy the missing files."
    if pointers:
        yield pointing(pointers), pull(folder)
    for name in files:
        if name not in absent and name not in pointers:
            yield from _content_faults(folder / name, files[name])


def _content_faults(path: Path, expected: Iterable[str]) -> Iterator[Fault]:
    if path.stat().st_size == 0:
        yield f"{path.name} is empty", DOWNLOAD
    elif path.suffix != ".safetensors":
        if reason := _old_fault(path):
            yield f"{path.name} {reason}", DOWNLOAD
    else:
        try:
            # PyTorch's mapping reserves as much memory as the file has bytes; NumPy's does not.
            with safetensors.safe_open(path, framework="np") as file:
                lacking = sorted(set(expected) - set(file.keys()))
        except UNREADABLE as error:
            reason = _truncated(path) or f"is damaged: {' '.join(str(error).split())[:200]}"
            yield f"{path.name} {reason}", DOWNLOAD
            return
        if lacking:
            yield (
                (
                    f"{path.name} lacks {len(lacking):,} weights that the index lists, such as"
                    f" {lacking[0]}"
                ),
                DOWNLOAD,
            )


def _truncated(path: Path) -> str | None:
    """How much of a safetensors file is missing according to its header; None if it is damaged
    otherwise.

    The file starts with the length of its header in 8 bytes, and the header says where each weight
    ends.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 9 or (file.read(1) == b"{" and size < 8 + length < LONGEST_HEADER):
            return f"is truncated: it ends within its header, after {size:,} bytes"
        if 8 + length > size:
            return None
        file.seek(8)
        try:
            entries = json.loads(file.read(length))
            ends = [
                entry["data_offsets"][1]
                for name, entry in entries.items()
                if name != "__metadata__"
            ]
            needed = 8 + length + max(ends)
        except UNREADABLE:
            return None
    return f"is truncated: it has {size:,} of {needed:,} bytes" if size < needed else None


def _old_fault(path: Path) -> str | None:
    """What is wrong with a PyTorch file (a zip archive, or a pickle in the old format), without
    unpickling it.
    """
    with path.open("rb") as file:
        opening = file.read(2)
    if opening == b"PK":
        try:
            with zipfile.ZipFile(path):
                return None
        except zipfile.BadZipFile:
            return "is truncated or damaged: its table of contents is missing"
    return None if opening[:1] == b"\x80" else "is damaged: it is not a PyTorch file"
