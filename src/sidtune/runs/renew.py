"""Adds new items to a trained model by replacing its catalogue atomically."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sidtune.base.errors import UserError
from sidtune.base.storage import replacing
from sidtune.data.catalogue import Catalogue
from sidtune.runs.bundle import CATALOGUE, Bundle, read_bundle, write_catalogue
from sidtune.runs.checkpoints import MANIFEST
from sidtune.tokenizer.load import load_tokenizer

SHOWN = 5
TRAIN_AGAIN = "Train again, with the new index as data.index."


def renewed(
    folder: Path, ids: Sequence[str], titles: Sequence[str], sids: Sequence[tuple[str, ...]]
) -> Bundle:
    """A model's bundle with the items of an index added: its own items in their order, then the new
    ones.

    Raises:
        UserError: for a folder without a model or with a checkpoint, for an index that lacks an
            item of the model or gives it another SID, and for tokens that the model does not have.
    """
    if (folder / MANIFEST).is_file():
        raise UserError(
            f"{folder} is a checkpoint, whose files must keep matching their checksums",
            "Give the run's folder, output_dir.",
        )
    bundle = read_bundle(folder)
    own = bundle.catalogue
    sid_of = dict(zip(ids, sids, strict=True))
    _refuse_other_sids(own, sid_of, folder)
    known = set(own.ids)
    new = [place for place, item in enumerate(ids) if item not in known]
    _refuse_unknown_tokens(folder, [(ids[place], sids[place]) for place in new])
    catalogue = Catalogue(
        own.ids + [ids[place] for place in new],
        own.titles + [titles[place] for place in new],
        own.titles + [titles[place] for place in new],
        own.sids + [sids[place] for place in new],
    )
    return replace(
        bundle, catalogue=catalogue, users=np.append(bundle.users, np.zeros(len(new), np.int64))
    )


def renew_catalogue(folder: Path, bundle: Bundle) -> None:
    """Replace the catalogue in a model's folder atomically."""
    with replacing(folder / CATALOGUE) as aside:
        write_catalogue(bundle, aside)


def _refuse_other_sids(own: Catalogue, sid_of: dict[str, tuple[str, ...]], folder: Path) -> None:
    missing = [item for item in own.ids if item not in sid_of]
    changed = [
        item for item, sid in zip(own.ids, own.sids, strict=True) if sid_of.get(item, sid) != sid
    ]
    for what, found in (
        ("are not in the index", missing),
        ("have another SID in the index", changed),
    ):
        if found:
            shown = ", ".join(found[:SHOWN])
            raise UserError(
                f"{folder}: {len(found):,} of the model's {len(own.ids):,} items {what}: {shown}",
                "Use the index that the model was trained with, without data.unique_sids.",
            )


def _refuse_unknown_tokens(folder: Path, new: Sequence[tuple[str, tuple[str, ...]]]) -> None:
    vocabulary = load_tokenizer(str(folder)).get_vocab()
    lacking = [(item, [token for token in sid if token not in vocabulary]) for item, sid in new]
    lacking = [(item, tokens) for item, tokens in lacking if tokens]
    if lacking:
        shown = ", ".join(f"{item} ({' '.join(tokens)})" for item, tokens in lacking[:SHOWN])
        message = (
            f"{folder}: {len(lacking):,} of {len(new):,} new items have SID tokens that the model"
            f" does not: {shown}"
        )
        raise UserError(message, TRAIN_AGAIN)
