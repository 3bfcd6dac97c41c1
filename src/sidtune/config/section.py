"""What every section of the configuration is made of."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# Nobody counts further, and no integer of ours overflows.
MOST = 2**31 - 1


# File systems take 255 bytes a name and 4,095 a path, and runs write files below theirs.
LONGEST_NAME, LONGEST_PATH = 255, 3_000


def expanded(text: str) -> str:
    """Environment variables and `~` filled in; refuses variables that are not set, and what no path can be."""
    if "\0" in text or text.encode("utf-8", "replace") != text.encode("utf-8", "surrogatepass"):
        raise ValueError("holds a character that no path can have")
    if os.path.isabs(text) and len(text) <= LONGEST_PATH and os.path.lexists(text):
        # As a saved configuration has it: a `$` in the name of a folder stands for itself.
        return text
    missing = [name for name in re.findall(r"\$\{?(\w+)", text) if name not in os.environ]
    if missing:
        raise ValueError(f"the environment variable {missing[0]} is not set (export {missing[0]}=…)")
    path = os.path.expanduser(os.path.expandvars(text))
    if len(os.fsencode(path)) > LONGEST_PATH or any(len(os.fsencode(part)) > LONGEST_NAME for part in path.split("/")):
        raise ValueError(f"longer than a path may be ({LONGEST_NAME} bytes a name, {LONGEST_PATH:,} in all)")
    return path


ExpandedPath = Annotated[Path, AfterValidator(lambda path: Path(expanded(str(path))))]


Positive = Annotated[int, Field(ge=1, le=MOST)]


Share = Annotated[float, Field(gt=0, lt=1)]


DropoutRate = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """One block of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
