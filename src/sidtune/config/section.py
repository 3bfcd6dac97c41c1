"""Base class and field types of the configuration sections."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# Upper bound of integer keys; prevents overflow.
MOST = 2**31 - 1


# File systems allow 255 bytes per name and 4,095 per path, and a run writes files below its folder.
LONGEST_NAME, LONGEST_PATH = 255, 3_000


def expanded(text: str) -> str:
    """Expand environment variables and `~`; refuse unset variables and invalid paths."""
    if "\0" in text or text.encode("utf-8", "replace") != text.encode("utf-8", "surrogatepass"):
        raise ValueError("contains a character that is not allowed in a path")
    if os.path.isabs(text) and len(text) <= LONGEST_PATH and os.path.lexists(text):
        # Saved configurations contain expanded paths: a `$` in them is part of the name.
        return text
    missing = [name for name in re.findall(r"\$\{?(\w+)", text) if name not in os.environ]
    if missing:
        raise ValueError(
            f"the environment variable {missing[0]} is not set (export {missing[0]}=…)"
        )
    path = os.path.expanduser(os.path.expandvars(text))
    if len(os.fsencode(path)) > LONGEST_PATH or any(
        len(os.fsencode(part)) > LONGEST_NAME for part in path.split("/")
    ):
        raise ValueError(
            f"path too long: at most {LONGEST_NAME} bytes per name and {LONGEST_PATH:,} in total"
        )
    return path


ExpandedPath = Annotated[Path, AfterValidator(lambda path: Path(expanded(str(path))))]


Positive = Annotated[int, Field(ge=1, le=MOST)]


Share = Annotated[float, Field(gt=0, lt=1)]


DropoutRate = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A section of the configuration; immutable, and unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )
