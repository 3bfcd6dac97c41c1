"""Refuses tokenizer files that would crash the process, and turns failures of the Rust code into
messages.
"""

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

# Maximum growth of text over all Replace steps; those of real tokenizers keep or shorten it.
MOST_GROWTH = 256
DETOURS = ("fast_tokenizer_files", "gguf_file", "_spm_precompiled_charsmap")
HINT = "Use the tokenizer that the model was published with."


def refuse_deadly(base: str) -> None:
    """Refuse a tokenizer that would crash the process or exhaust memory, which cannot be caught
    later.

    The library allocates the length stated at the start of a `precompiled_charsmap` and aborts if
    it cannot. It replaces an empty pattern endlessly, and the growth of consecutive Replace steps
    multiplies. Settings that contain such a table, or name another file to read, would bypass this
    check and are refused too.

    Raises:
        UserError: names the file and the fault.
    """
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        settings, path = _read(base, name)
        for detour in DETOURS:
            if detour in settings:
                raise UserError(f"{path} sets {detour}, which is not supported", "Remove this key.")
    tree, path = _read(base, "tokenizer.json")
    for key, inner in (("normalizer", "normalizers"), ("decoder", "decoders")):
        growth = 1.0
        for step in _steps(tree.get(key), inner, f"{path}: {key}"):
            if "precompiled_charsmap" in step:
                _refuse_lying_table(step["precompiled_charsmap"], f"{path}: {key}")
            if step["type"] == "Replace":
                growth *= _growth(step, f"{path}: {key}")
        if growth > MOST_GROWTH:
            raise UserError(
                f"{path}: {key}: its Replace steps make text {growth:,.0f} times as long", HINT
            )


@contextlib.contextmanager
def refusing_faults(name: str) -> Iterator[None]:
    """Turn exceptions and panics of the tokenizers library into a `UserError`.

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
    """Whether this is an ordinary exception or a Rust panic, whose class is no `Exception` and
    cannot be imported.
    """
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"


def decode(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    """The text of token ids, special tokens included."""
    with refusing_faults(tokenizer.name_or_path):
        return str(tokenizer.decode(ids, skip_special_tokens=False))


def _read(base: str, name: str) -> tuple[dict[str, Any], str]:
    """The JSON object in a file of a base, downloaded if necessary, and its path; empty if there is
    no such file.
    """
    try:
        path = cached_file(
            base,
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError):
        path = None  # Loading the tokenizer reports what is wrong with the name.
    if path is None:
        return {}, name
    tree = read_json(Path(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a JSON object at the top level", HINT)
    return tree, path


def _steps(component: Any, inner: str, where: str) -> Iterator[dict[str, Any]]:
    """A normalizer or decoder and all nested ones."""
    pending = [] if component is None else [component]
    while pending:
        step = pending.pop()
        # The library guesses the type of a step without one.
        if not isinstance(step, dict) or not isinstance(step.get("type"), str):
            raise UserError(f"{where}: expected an object with a type, found {step!r:.60}", HINT)
        yield step
        nested = step.get(inner, [])
        if not isinstance(nested, list):
            raise UserError(f"{where}: expected a list of {inner}, found {nested!r:.60}", HINT)
        pending.extend(nested)


def _refuse_lying_table(table: Any, where: str) -> None:
    """Check the stated length of a table: its first part is preceded by its size in bytes (32 bits,
    little endian).
    """
    try:
        content = base64.b64decode(table, validate=True)
    except (TypeError, ValueError):
        raise UserError(f"{where}: precompiled_charsmap is not valid base64", HINT) from None
    if len(content) < 4 or int.from_bytes(content[:4], "little") > len(content) - 4:
        raise UserError(f"{where}: precompiled_charsmap is shorter than its stated length", HINT)


def _growth(step: dict[str, Any], where: str) -> float:
    """The maximum factor by which a `Replace` step lengthens text."""
    pattern, content = step.get("pattern"), step.get("content")
    kind, text = (
        next(iter(pattern.items()))
        if isinstance(pattern, dict) and len(pattern) == 1
        else (None, None)
    )
    if not isinstance(text, str) or not isinstance(content, str):
        raise UserError(f"{where}: expected a pattern and a content, found {step!r:.60}", HINT)
    if not text:
        raise UserError(
            f"{where}: a Replace step has an empty pattern, which matches endlessly", HINT
        )
    # A regular expression may match the empty string before every character.
    return max(1.0, len(content) / len(text)) if kind == "String" else 1.0 + len(content)
