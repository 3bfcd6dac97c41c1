"""Every reader of outside files under thousands of hostile ones: a `UserError` or a sound result,
and nothing else.
"""

from __future__ import annotations

import contextlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.readers import READERS, yardstick
from tests.fuzz.survival import MEGABYTES, SECONDS, Outcome, outcome

from sidtune.base.errors import UserError

SHORT, LONG = 40, 1_000
WIDE = st.integers() | st.floats() | st.text(max_size=8) | st.booleans() | st.none()
ANY_JSON = st.recursive(
    WIDE, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner)
)


def survived(name: str, inputs: int, folder: Path) -> Outcome:
    reader = READERS[name]
    reader.files()  # before the watch begins, once for all inputs
    yardstick()
    folder.mkdir(exist_ok=True)
    found = outcome(partial(reader, name), range(inputs // reader.pace), folder)
    said = "\n".join(f"{name}, seed {seed}: {what}" for seed, what in found.faults[:3])
    assert not found.faults, f"{len(found.faults)} of {inputs} inputs: {said}"
    assert found.seconds < SECONDS
    assert found.megabytes < MEGABYTES
    return found


@pytest.mark.parametrize("name", READERS)
def test_hostile_files_are_read_right_or_refused(name: str, tmp_path: Path) -> None:
    found = survived(name, SHORT, tmp_path)
    assert found.accepted, "the valid file of seed 0 at least"


def test_the_ordinary_suite_reads_a_thousand() -> None:
    assert sum(SHORT // reader.pace for reader in READERS.values()) >= 1_000


@pytest.mark.long
def test_twenty_thousand_hostile_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        name: survived(name, LONG, tmp_path / str(number)) for number, name in enumerate(READERS)
    }
    for name, one in found.items():
        assert one.refused or READERS[name].mends, (
            f"{name}: nothing that was done to the file did any harm"
        )
    read, refused = (
        sum(getattr(one, what) for one in found.values()) for what in ("accepted", "refused")
    )
    assert read + refused >= 20_000
    seconds, megabytes = (
        max(getattr(one, what) for one in found.values()) for what in ("seconds", "megabytes")
    )
    with capsys.disabled():
        print(
            f"\n{read + refused:,} hostile files before {len(READERS)} readers: {refused:,}"
            f" refused, {read:,} read right; at most {seconds:.2f} s, and {megabytes:.0f} MB more"
        )


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if reader.json_file])
@settings(max_examples=25)
@given(value=ANY_JSON)
def test_json_of_any_shape(name: str, value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    reader, folder = READERS[name], tmp_path_factory.mktemp("any")
    for file, content in reader.files().items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
    assert reader.json_file is not None
    (folder / reader.json_file).write_bytes(json.dumps(value).encode())
    with contextlib.suppress(UserError):
        reader.read(folder)
