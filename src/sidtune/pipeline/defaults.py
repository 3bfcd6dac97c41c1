"""The configuration of a run, completed by what earlier stages left under its `output_dir`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sidtune.base.errors import UserError
from sidtune.config.data import SPLITS
from sidtune.config.events import PrepareConfig
from sidtune.config.sids import SidsRun
from sidtune.events.prepare import Prepared, find_prepared
from sidtune.pipeline.recipe import Recipe, recipe_for
from sidtune.runs.bundle import CATALOGUE
from sidtune.runs.files import CONFIG
from sidtune.sids.fit import index_file
from sidtune.sids.index import is_complete
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config, parse_part, parse_sids, read_tree

Tree = dict[str, Any]
ROWS = (*SPLITS, "interactions")
# Stands for what a stage is still to make; nothing reads it.
LATER = "made-by-an-earlier-stage"


class Request(NamedTuple):
    """What a command was asked to do.

    Args:
        path: the configuration file.
        overrides: `section.key=value` texts.
        tree: the file with the overrides.
        prepared: where the rows of `tree` come from; None where they are not those of `events`.
    """

    path: Path
    overrides: Sequence[str]
    tree: Tree
    prepared: Prepared | None = None

    @classmethod
    def read(cls, path: Path, overrides: Sequence[str] = ()) -> Request:
        """Read the file and look for faults, before any stage begins.

        Raises:
            UserError: lists all faults of the configuration.
        """
        request = cls(path, overrides, read_tree(path, overrides))
        refuse_faults(request.tree, str(path))
        return request

    def command(self, name: str) -> str:
        """Another command with the same arguments, as one types it."""
        return f"sidtune {name} {shlex.join([str(self.path), *self.overrides])}"

    def with_data(self, **files: Path) -> Request:
        """The same with these keys of `data`."""
        data = {**(self.tree.get("data") or {}), **{key: str(file) for key, file in files.items()}}
        return self._replace(tree={**self.tree, "data": data})


def refuse_faults(tree: Tree, where: str) -> None:
    """Look for the faults of a configuration of which no stage is done yet.

    Raises:
        UserError: lists all of them.
    """
    parse_config(_as_if_made(tree), where)


def load_run(path: Path, overrides: Sequence[str] = (), model: bool = True) -> Config:
    """Read a configuration; what it does not say of `data` is what `sidtune prepare` and `sidtune
    sids` left under `output_dir`, and what it does not say of `model` follows from them.

    Args:
        model: whether the command needs a model.

    Raises:
        UserError: for all faults of the configuration at once; then for a stage that has not been
            run with these settings, with its command.
    """
    request = with_index(with_rows(Request.read(path, overrides)))
    tree = with_model(request).tree if model else _as_if_made(request.tree)
    return parse_config(tree, str(path))


def load_sids(path: Path, overrides: Sequence[str] = ()) -> SidsRun:
    """As `load_run`, for what `sidtune sids` reads."""
    request = Request(path, overrides, read_tree(path, overrides))
    parse_sids(request.tree, str(path))
    return sids_run(with_rows(request))


def wants_rows(request: Request) -> bool:
    """Whether rows come from `events`."""
    data = request.tree.get("data") or {}
    return bool(request.tree.get("events")) and not any(data.get(name) for name in ROWS)


def wants_index(request: Request) -> bool:
    """Whether the index is one of ours."""
    return not (request.tree.get("data") or {}).get("index")


def wants_model(request: Request) -> bool:
    """Whether model and training follow from the size of the data."""
    return not (request.tree.get("model") or {}).get("base")


def with_rows(request: Request) -> Request:
    """Rows and items that `sidtune prepare` left, where `data` has none."""
    if not wants_rows(request):
        return request
    made = find_prepared(parse_part(request.tree, PrepareConfig, str(request.path)))
    if made is None:
        raise _not_made(request, "the events are not prepared", "prepare")
    return with_prepared(request, made)


def with_prepared(request: Request, made: Prepared) -> Request:
    """The same with these rows, and these items where there is a catalogue of texts."""
    given = request.tree.get("data") or {}
    filled = request.with_data(**made.rows)._replace(prepared=made)
    if not given.get("items") and request.tree.get("catalogue"):
        return filled.with_data(items=made.catalogue)
    return filled


def sids_run(request: Request) -> SidsRun:
    """What `sidtune sids` makes an index of; without a catalogue of texts, the events' items."""
    tree = request.tree
    sids, data = tree.get("sids") or {}, tree.get("data") or {}
    if wants_rows(request) or not tree.get("events") or sids.get("catalogue") or data.get("items"):
        return parse_sids(tree, str(request.path))
    # Found once: every file of events is read as a whole for it.
    made = request.prepared or find_prepared(parse_part(tree, PrepareConfig, str(request.path)))
    catalogue = {"catalogue": str(made.catalogue)} if made else {}
    return parse_sids({**tree, "sids": {**sids, **catalogue}}, str(request.path))


def with_index(request: Request) -> Request:
    """The index that `sidtune sids` left, where `data` has none."""
    if not wants_index(request):
        return request
    index = index_file(sids_run(request))
    if not is_complete(index.parent):
        raise _not_made(request, "data.index is not given, and there are no SIDs", "sids")
    return request.with_data(index=index)


def with_model(request: Request) -> Request:
    """Model and training by the size of the data, where `model.base` is not given; the base model
    is made where it is not there. A base that sidtune trained brings its tasks.
    """
    if not wants_model(request):
        return with_tasks(request)
    recipe = recipe_of(request)
    recipe.make_base()
    return request._replace(tree={**request.tree, **recipe.sections(request.tree)})


def with_tasks(request: Request) -> Request:
    """The tasks of `model.base`, where that is a run's result and no task is named: with others the
    model would be asked what it never learned.
    """
    named = str(request.tree["model"]["base"])
    base = Path(os.path.expanduser(os.path.expandvars(named)))
    trained = all((base / name).is_file() for name in (CONFIG, CATALOGUE))
    if request.tree.get("tasks") or not trained:
        return request
    return request._replace(tree={**request.tree, "tasks": read_tree(base / CONFIG).get("tasks")})


def recipe_of(request: Request) -> Recipe:
    """The recipe for the data of a request, whose rows and index are known."""
    return recipe_for(parse_config(_as_if_made(request.tree), str(request.path)))


def _not_made(request: Request, what: str, command: str) -> UserError:
    return UserError(
        f"{request.path}: {what} with these settings",
        f"Run `{request.command(command)}`, or `{request.command('run')}` for all stages.",
    )


def _as_if_made(tree: Tree) -> Tree:
    """The configuration as it will be once every stage is done, so that its faults are found
    before.
    """
    data, model = tree.get("data") or {}, tree.get("model") or {}
    if not isinstance(data, dict) or not isinstance(model, dict):
        return tree
    data = dict(data)
    if tree.get("events") and not any(data.get(name) for name in ROWS):
        data["interactions"] = LATER
    if tree.get("catalogue") and not data.get("items"):
        data["items"] = LATER
    data["index"] = data.get("index") or LATER
    return {**tree, "data": data, "model": {**model, "base": model.get("base") or LATER}}
