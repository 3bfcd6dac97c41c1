"""`template` and `encoding`: templates, maximum example length and the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sidtune.config.section import MOST, ExpandedPath, Section


class TemplateConfig(Section):
    """The templates of the tasks: a file whose entries replace the built-in ones, and plain text or
    chat template.
    """

    file: ExpandedPath | None = None
    format: Literal["plain", "chat"] = "plain"


class EncodingConfig(Section):
    """Maximum example length, and the cache folder of encoded examples."""

    cutoff_len: Annotated[int, Field(ge=8, le=MOST)] = 512
    cache_dir: ExpandedPath = Path("~/.cache/sidtune")
