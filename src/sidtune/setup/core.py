"""How many events a k-core leaves of those that were found."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from sidtune.base.errors import UserError
from sidtune.base.terminal import starting
from sidtune.config.events import EventsConfig
from sidtune.events.engine import NEEDED, opened_engine
from sidtune.events.files import matching_files
from sidtune.events.source import Source, given_events
from sidtune.events.steps import k_core, number_of
from sidtune.setup.choose import Chosen

# Larger files would take longer than people wait for a first configuration.
LARGEST = 1 << 28


def with_core(chosen: Chosen) -> Chosen:
    """The same with the number of events that `k_core` leaves, where counting is quick: in files
    that are not large, and with the packages of `sidtune prepare`.

    Items that a catalogue lacks count too, since the catalogue is not read.

    Raises:
        UserError: where no event is left, or the events cannot be read.
    """
    table = chosen.tables.get("events")
    if not table or not chosen.k_core or not all(map(find_spec, NEEDED["prepare"])):
        return chosen
    files = matching_files(table.path, "events.files")
    if sum(file.stat().st_size for file in files) > LARGEST:
        return chosen
    starting(f"Counting the events that k_core: {chosen.k_core} leaves")
    # The path is that of a file, where `$` is no variable.
    keys = {"files": table.path, "format": table.format, "k_core": chosen.k_core, **chosen.columns}
    config = EventsConfig.model_construct(None, **keys)
    left = _left(config, files)
    if not left:
        raise UserError(
            f"k_core: {chosen.k_core} leaves no event: every user or item has fewer in the end",
            "Give a smaller one, such as --k-core 2, or --k-core 0, which keeps all.",
        )
    return replace(chosen, left=left)


def _left(config: EventsConfig, files: list[Path]) -> int:
    assert config.cores
    with TemporaryDirectory() as name:
        folder = Path(name)
        with opened_engine(config.engine, folder, str(config.files)) as engine:
            events = given_events(config, Source(files, None), engine, folder).table
            named = events.select("user", "item").drop_null()
            return number_of(engine, k_core(engine, named, config.cores))
