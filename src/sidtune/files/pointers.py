"""Detects Git LFS pointers, which stand in for large files that were not downloaded."""

from __future__ import annotations

from pathlib import Path

from sidtune.base.errors import UserError, some

POINTERS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
# Files that are read before the weights.
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)


def refuse_pointers(folder: Path) -> None:
    """Refuse a folder whose configuration or tokenizer files are Git LFS pointers.

    Raises:
        UserError: names the files.
    """
    pointers = [name for name in SMALL_FILES if is_pointer(folder / name)]
    if pointers:
        raise UserError(f"{folder}: {pointing(pointers)}", pull(folder))


def is_pointer(path: Path) -> bool:
    """Whether a file is a Git LFS pointer."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(100).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(POINTERS)


def pointing(names: list[str]) -> str:
    """The error message for such files."""
    what = (
        "is a Git LFS pointer, not the file itself"
        if len(names) == 1
        else "are Git LFS pointers, not the files"
    )
    return f"{some(names)} {what}"


def pull(folder: Path) -> str:
    """The hint for such files."""
    return f"Run `git lfs pull` in {folder}, or download the files again."
