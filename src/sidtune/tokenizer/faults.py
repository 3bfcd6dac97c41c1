"""Tokenizers whose files would end the process, and those whose Rust code fails: both are refused with a message."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.utils.hub import cached_file

from sidtune.base.errors import UserError
from sidtune.files.text import read_json

# Of every step that replaces text, multiplied; those of real tokenizers keep its length or shorten it.
MOST_GROWTH = 256
DETOURS = ("fast_tokenizer_files", "gguf_file", "_spm_precompiled_charsmap")
HINT = "Use the tokenizer that the model was published with."


def refuse_deadly(base: str) -> None:
    """Refuse a tokenizer that would end the process or fill the memory, which nobody could catch later.

    The library believes the length that a `precompiled_charsmap` opens with, asks for so much memory at once, and
    aborts without it. It replaces an empty pattern without end, and steps that each make text longer multiply.
    Settings that bring such a table along, or name another file to read, would lead around this check.

    Raises:
        UserError: names the file and what is wrong in it.
    """
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        settings, path = _read(base, name)
        for detour in DETOURS:
            if detour in settings:
                raise UserError(f"{path} sets {detour}, which is not followed", "Remove it.")
    tree, path = _read(base, "tokenizer.json")
    for key, inner in (("normalizer", "normalizers"), ("decoder", "decoders")):
        growth = 1.0
        for step in _steps(tree.get(key), inner, f"{path}: {key}"):
            if "precompiled_charsmap" in step:
                _refuse_lying_table(step["precompiled_charsmap"], f"{path}: {key}")
            if step["type"] == "Replace":
                growth *= _growth(step, f"{path}: {key}")
        if growth > MOST_GROWTH:
            raise UserError(f"{path}: {key}: its Replace steps make text {growth:,.0f} times as long", HINT)


@contextlib.contextmanager
def refusing_faults(name: str) -> Iterator[None]:
    """Turn what the tokenizers library raises, panics included, into a `UserError`.

    Args:
        name: of the tokenizer.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        if not is_fault(error):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"the tokenizer of {name or 'the base'} fails: {reason}", HINT) from None


def is_fault(error: BaseException) -> bool:
    """Whether this is an ordinary exception or a panic of Rust, whose class is neither one nor can be imported."""
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"


def decode(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    """The text of token ids, special tokens included."""
    with refusing_faults(tokenizer.name_or_path):
        return str(tokenizer.decode(ids, skip_special_tokens=False))


def _read(base: str, name: str) -> tuple[dict[str, Any], str]:
    """The object in a file of a base, fetched where it must be, and its path; empty where there is no such file."""
    try:
        path = cached_file(
            base,
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError):
        path = None  # What is wrong with the name, loading says.
    if path is None:
        return {}, name
    tree = read_json(Path(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a JSON object at the top level", HINT)
    return tree, path


def _steps(component: Any, inner: str, where: str) -> Iterator[dict[str, Any]]:
    """A normalizer or decoder, and all that are nested in it."""
    pending = [] if component is None else [component]
    while pending:
        step = pending.pop()
        # The library guesses the type of a step that is written otherwise.
        if not isinstance(step, dict) or not isinstance(step.get("type"), str):
            raise UserError(f"{where}: expected an object with a type, found {step!r:.60}", HINT)
        yield step
        nested = step.get(inner, [])
        if not isinstance(nested, list):
            raise UserError(f"{where}: expected a list of {inner}, found {nested!r:.60}", HINT)
        pending.extend(nested)


def _refuse_lying_table(table: Any, where: str) -> None:
    """The table opens with the length of its first part in bytes, as a little-endian number of 32 bits."""
    try:
        content = base64.b64decode(table, validate=True)
    except (TypeError, ValueError):
        raise UserError(f"{where}: precompiled_charsmap is no base64", HINT) from None
    if len(content) < 4 or int.from_bytes(content[:4], "little") > len(content) - 4:
        raise UserError(f"{where}: precompiled_charsmap is shorter than it says", HINT)


def _growth(step: dict[str, Any], where: str) -> float:
    """How many times as long a `Replace` step makes text at most."""
    pattern, content = step.get("pattern"), step.get("content")
    kind, text = next(iter(pattern.items())) if isinstance(pattern, dict) and len(pattern) == 1 else (None, None)
    if not isinstance(text, str) or not isinstance(content, str):
        raise UserError(f"{where}: expected a pattern and a content, found {step!r:.60}", HINT)
    if not text:
        raise UserError(f"{where}: a Replace step has an empty pattern, which is found without end", HINT)
    # An expression may match nothing in front of every character.
    return max(1.0, len(content) / len(text)) if kind == "String" else 1.0 + len(content)
