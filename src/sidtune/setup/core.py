"""How many events a k-core leaves of those that were found."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from sidtune.base.errors import UserError
from sidtune.base.terminal import starting
from sidtune.config.events import CatalogueConfig, EventsConfig, KCore
from sidtune.events.catalogue import read_items, write_verdicts
from sidtune.events.coding import with_codes
from sidtune.events.engine import NEEDED, opened_engine
from sidtune.events.files import matching_files
from sidtune.events.source import Source, given_events
from sidtune.events.steps import k_core, number_of, number_of_users
from sidtune.setup.choose import Chosen

# Larger files would take longer than people wait for a first configuration.
LARGEST = 1 << 28
# What is tried where a number that nobody gave leaves nothing.
LOWER = (3, 2, 0)


def with_core(chosen: Chosen, given: bool) -> Chosen:
    """The same with the number of events that `k_core` leaves, where counting is quick: in files
    that are not large, and with the packages of `sidtune prepare`.

    Events of items that the catalogue lacks, or leaves out, do not count, as in `sidtune prepare`.

    Args:
        given: whether the user chose `k_core`; otherwise it is lowered until events are left.

    Raises:
        UserError: where no event is left, or events or catalogue cannot be read.
    """
    table, items = chosen.tables.get("events"), chosen.tables.get("catalogue")
    if not table or not chosen.k_core or not all(map(find_spec, NEEDED["prepare"])):
        return chosen
    files = matching_files(table.path, "events.files")
    catalogue = matching_files(items.path, "catalogue.file") if items else []
    if sum(file.stat().st_size for file in (*files, *catalogue)) > LARGEST:
        return chosen
    starting(f"Counting the events that k_core: {chosen.k_core} leaves")
    # The path is that of a file, where `$` is no variable.
    keys = {"files": table.path, "format": table.format, "k_core": chosen.k_core, **chosen.columns}
    config = EventsConfig.model_construct(None, **keys)
    named = {"file": items.path, "format": items.format} if items else {}
    lower = () if given else tuple(core for core in LOWER if core < chosen.k_core)
    cores = (chosen.k_core, *lower)
    core, left, users = _left(
        config, files, CatalogueConfig.model_construct(None, **named) if items else None, cores
    )
    if not left:
        raise UserError(
            f"k_core: {chosen.k_core} leaves no event: every user or item has fewer in the end",
            "Give a smaller one, such as --k-core 2, or --k-core 0, which keeps all.",
        )
    return replace(chosen, k_core=core, left=left, users=users)


def _left(
    config: EventsConfig,
    files: list[Path],
    catalogue: CatalogueConfig | None,
    cores: tuple[int, ...],
) -> tuple[int, int, int]:
    """The first of the cores that leaves events, or the last, and how many events and users it
    leaves.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        with opened_engine(config.engine, folder, str(config.files)) as engine:
            given = given_events(config, Source(files, None), engine, folder)
            items = read_items(catalogue, given.columns["item"]) if catalogue else None
            judged = engine.read([write_verdicts(items, folder)]) if items else None
            events, _, _ = with_codes(engine, given.kept(engine).table, judged)
            if catalogue:
                events = events.filter(events["known"].notnull() & events["verdict"].isnull())
            named = events.select(user="user_code", item="item_code").drop_null()
            sound = engine.keep(named)
            if catalogue and not number_of(engine, sound):
                raise UserError(
                    f"no event of {config.files} is of an item of {catalogue.file}",
                    "Do both name items by the same ids? --k-core 0 writes a configuration without"
                    " counting.",
                )
            for core in cores:
                kept = k_core(engine, sound, KCore(user=core, item=core)) if core else sound
                left = number_of(engine, kept)
                if left:
                    break
            return core, left, number_of_users(engine, kept)
