"""The text of a first configuration: its keys with a comment each, and what a run of it takes."""

from __future__ import annotations

import os
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sidtune.base.storage import GIB
from sidtune.setup.choose import Chosen
from sidtune.setup.estimate import TRAINED_BYTES, Estimate, base_parameters, fits
from sidtune.setup.look import Role
from sidtune.setup.machine import Machine
from sidtune.tasks.keys import all_keys

EPOCHS = 3
WIDTH = 98
EXAMPLE_BASE = "Qwen/Qwen3-0.6B"
# A base of so many parameters needs less memory for activations, even where its weights fit.
LARGE = 3_000_000_000


# What a file is, in place of the help of its key.
FILES: Mapping[str, tuple[Role, str]] = {
    "events.files": ("events", "who had what, and when"),
    "catalogue.file": ("catalogue", "the items and their texts"),
    "data.train": ("train", "rows to train on: a user's history, and the item that came next"),
    "data.valid": ("valid", "rows that choose the best model"),
    "data.test": ("test", "rows for the evaluation at the end; training never reads them"),
    "data.interactions": ("interactions", "whole histories, split by leaving one out"),
    "data.items": ("items", "titles and descriptions of the items"),
    "data.index": ("index", "the semantic IDs of the items"),
}


class Off(NamedTuple):
    """A key that is shown, and does not count."""

    value: Any


def text_of(
    chosen: Chosen, name: str, command: str, machine: Machine, takes: Estimate, file: Path
) -> str:
    """The configuration of a run.

    Args:
        name: of the run; it lies in `runs/NAME`.
        command: that writes this file, for its head.
        takes: what the run will take.
        file: that the text is for.
    """
    head = [
        # A name may hold a line break, which would end the comment.
        " ".join(f"Written by `{command}`.".split()),
        "",
        f"    sidtune run {' '.join(shlex.quote(str(file)).split())}",
        "",
        *textwrap.wrap(f"On this machine ({machine.text}) all stages take {takes.text}.", WIDTH),
        "`sidtune explain KEY` says more about a key, docs/configuration.md lists all.",
    ]
    tree: dict[str, Any] = {"output_dir": f"runs/{name}"}
    if "events" in chosen:
        tree["events"] = _events(chosen)
        if "catalogue" in chosen:
            tree["catalogue"] = _catalogue(chosen)
    if data := _data(chosen):
        tree["data"] = data
    if not {"catalogue", "items", "index"} & chosen.tables.keys():
        tree["sids"] = {"vectors": "co_occurrence"}
    tree |= _model(chosen, machine)
    notes = _notes(chosen)
    lines = [*(f"# {line}".rstrip() for line in head), *_lines(tree, notes, "")]
    return "\n".join(lines) + "\n"


def _events(chosen: Chosen) -> dict[str, Any]:
    table = chosen.tables["events"]
    dated = table.format != "sequences"
    return {
        "files": _path(table.path),
        **({"format": table.format} if table.format else {}),
        **chosen.columns,
        "k_core": chosen.k_core or Off(5),
        "split": chosen.split if dated else "leave_one_out",
        **({"min_rating": Off(4)} if dated else {}),
    }


def _catalogue(chosen: Chosen) -> dict[str, Any]:
    table = chosen.tables["catalogue"]
    return {
        "file": _path(table.path),
        **({"format": table.format} if table.format else {}),
        # Given SIDs name all items, also those that nobody had.
        **({"keep_untouched": True} if "index" in chosen else {}),
    }


def _data(chosen: Chosen) -> dict[str, Any]:
    found: dict[str, Any] = {
        role: _path(table.path)
        for role, table in chosen.tables.items()
        if role not in ("events", "catalogue")
    }
    if "index" in chosen and chosen.tables["index"].shared:
        found["unique_sids"] = True
    return found


def _model(chosen: Chosen, machine: Machine) -> dict[str, Any]:
    if chosen.base is None:
        size = chosen.size
        return {
            "model": Off({"base": EXAMPLE_BASE}),
            "training": Off({"epochs": size.epochs, "batch_size": size.batch_size}),
        }
    parameters = base_parameters(chosen.base)
    whole = fits(parameters, machine)
    training: dict[str, Any] = {
        "epochs": EPOCHS,
        "batch_size": 128,
        "learning_rate": 3e-4 if whole else 1e-2,
    }
    if whole and (parameters > LARGE or not fits(2 * parameters, machine)):
        training["gradient_checkpointing"] = True
    return {
        "model": {"base": chosen.base, "tuning": "full" if whole else "frozen"},
        "training": training,
    }


def _notes(chosen: Chosen) -> dict[str, str]:
    """Comments that say more about these files than the help of the key."""
    size = chosen.size
    notes = {name: note for name, (role, note) in FILES.items() if role in chosen}
    notes |= dict.fromkeys(("events.format", "catalogue.format"), "how the public data set is read")
    notes |= {
        "sids": "no texts are known of the items, so their SIDs come from who has what",
    }
    if "index" in chosen:
        shared = chosen.tables["index"].shared
        notes["data.unique_sids"] = (
            f"{shared:,} items share the SID of another: each gets one token more, so that every"
            " item can be generated"
        )
        notes["catalogue.keep_untouched"] = "the semantic IDs name items that nobody had, too"
    if chosen.base is None:
        notes["model"] = (
            "Left out, a small model is trained from scratch, which needs no GPU. Its settings"
            f" follow from the number of training targets, here about {chosen.targets:,}: hidden"
            f" size {size.hidden}, {size.epochs} epochs. To fine-tune a pretrained model instead:"
        )
        notes["training"] = "The length of training and the size of its steps, to change them:"
    elif parameters := base_parameters(chosen.base):
        notes["model.tuning"] = (
            "`full` trains all parameters, which takes about"
            f" {parameters * TRAINED_BYTES / GIB:.0f} GiB; `frozen` trains only the rows of the SID"
            " tokens"
        )
    return notes


def _lines(tree: Mapping[str, Any], notes: Mapping[str, str], prefix: str) -> Iterator[str]:
    indent = "" if not prefix else "  "
    for name, value in tree.items():
        key = prefix + name
        off = isinstance(value, Off)
        inner = value.value if isinstance(value, Off) else value
        if not prefix:
            yield ""
        note = notes.get(key, "" if isinstance(inner, dict) else _first_sentence(key))
        yield from (f"{indent}# {line}" for line in textwrap.wrap(note, WIDTH - len(indent)))
        if isinstance(inner, dict) and not off:
            yield f"{name}:"
            yield from _lines(inner, notes, f"{key}.")
        else:
            yield f"{indent}{'# ' if off else ''}{name}: {_scalar(inner)}"


def _first_sentence(key: str) -> str:
    """The help of a key up to its first full stop."""
    return all_keys()[key].help.partition(". ")[0]


def _scalar(value: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(value, float):
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{float(mantissa):.1f}e{int(exponent)}"
    text = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10_000
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _path(path: Path) -> str:
    """A path as a configuration names it: relative to this folder where it lies below it."""
    whole = path.absolute()
    below = whole.is_relative_to(Path.cwd()) and "$" not in str(path)
    return os.path.relpath(whole) if below else str(whole)
