"""`template` and `encoding`: the wording of examples, their longest length, and their cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sidtune.config.section import MOST, ExpandedPath, Section


class TemplateConfig(Section):
    """The wording of the tasks: a file whose entries replace ours, and plain text or the chat template."""

    file: ExpandedPath | None = None
    format: Literal["plain", "chat"] = "plain"


class EncodingConfig(Section):
    """The length that examples are cut to, and where encoded examples are kept."""

    cutoff_len: Annotated[int, Field(ge=8, le=MOST)] = 512
    cache_dir: ExpandedPath = Path("~/.cache/sidtune")
