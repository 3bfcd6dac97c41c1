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

    file: ExpandedPath | None = Field(
        default=None, description="templates that replace the built-in ones, see docs/templates.md"
    )
    format: Literal["plain", "chat"] = Field(
        default="plain",
        description=(
            "`plain`, or `chat`: the tokenizer's own chat template around prompt and response"
        ),
    )


class EncodingConfig(Section):
    """Maximum example length, and the cache folder of encoded examples."""

    cutoff_len: Annotated[int, Field(ge=8, le=MOST)] = Field(
        default=512,
        description=(
            "longest example in tokens; longer ones lose their oldest history items,"
            " whole items at a time"
        ),
    )
    cache_dir: ExpandedPath = Field(
        default=Path("~/.cache/sidtune"),
        description=(
            "folder of encoded examples and of what the checks found in the rows; safe to delete"
        ),
    )
