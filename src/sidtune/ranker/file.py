"""The ranker's one file beside a model: tensors of its sources, and its trees or weights as
text.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sidtune.base.errors import UserError
from sidtune.base.faults import in_words
from sidtune.base.hashing import digest
from sidtune.base.storage import replacing
from sidtune.config.rank import SourceName
from sidtune.data.catalogue import Catalogue
from sidtune.ranker.ranker import Ranker
from sidtune.ranker.scorers import Mixture, Scorer, Trees
from sidtune.ranker.sources import SOURCES
from sidtune.ranker.sources.base import Source
from sidtune.ranker.tree_text import refuse_broken_trees

FILE = "ranker.safetensors"
FORMAT_VERSION: Final = 4
ENTRY = "sidtune"
# Tensors with a row for each item: kind of numbers, and dimensions.
BY_ITEM = {
    "vectors": ("f", 2),
    "numbers": ("i", 2),
    "users": ("i", 1),
    "newest": ("f", 1),
    "places": ("f", 1),
}


class _Scorer(BaseModel):
    """Weights of a mixture, and trees beside it."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    weights: dict[SourceName, float]
    trees: str | None = None
    columns: tuple[str, ...] = ()
    weight: Annotated[float, Field(ge=0)] = 1.0

    @classmethod
    def of(cls, scorer: Scorer) -> _Scorer:
        trees, weights = scorer.trees, dict(scorer.mixture.weights)
        if trees is None:
            return cls(weights=weights)
        return cls(weights=weights, trees=trees.text, columns=trees.columns, weight=scorer.weight)

    def made(self) -> Scorer:
        mixture = Mixture(self.weights)
        if self.trees is None:
            return Scorer(mixture)
        refuse_broken_trees(self.trees, self.columns)
        return Scorer(mixture, Trees(self.trees, self.columns), self.weight)


class _Told(BaseModel):
    """What the file's header says."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[4]
    catalogue: str
    items: Annotated[int, Field(ge=1)]
    sources: tuple[SourceName, ...]
    scorer: _Scorer
    without_model: _Scorer | None
    beams: Annotated[int, Field(ge=1)]
    later: bool = False


def catalogue_digest(catalogue: Catalogue) -> str:
    """What rankers and evaluations know a catalogue by: ids and SIDs, in order."""
    return digest([catalogue.ids, catalogue.sids])


def write_ranker(ranker: Ranker, catalogue: Catalogue, folder: Path) -> Path:
    """Write the file into a model's folder, as a whole or not at all."""
    told = _Told(
        version=FORMAT_VERSION,
        catalogue=catalogue_digest(catalogue),
        items=len(catalogue.ids),
        sources=tuple(ranker.sources),
        scorer=_Scorer.of(ranker.scorer),
        without_model=_Scorer.of(ranker.without_model) if ranker.without_model else None,
        beams=ranker.beams,
        later=ranker.later,
    )
    tensors = {
        f"{name}/{part}": np.ascontiguousarray(tensor)
        for name, source in ranker.sources.items()
        for part, tensor in source.tensors().items()
    }
    path = folder / FILE
    needed = sum(tensor.nbytes for tensor in tensors.values())
    with replacing(path, needed) as aside:
        safetensors.numpy.save_file(tensors, aside, metadata={ENTRY: told.model_dump_json()})
    return path


def _header(file: Any) -> _Told:
    return _Told.model_validate_json((file.metadata() or {}).get(ENTRY, ""))


def is_readable(path: Path) -> bool:
    """Whether a file is a ranker as this version writes them."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            _header(file)
    except (safetensors.SafetensorError, OSError, TypeError, ValueError):
        return False
    return True


def read_ranker(folder: Path, catalogue: Catalogue | None) -> Ranker | None:
    """The ranker of a model's folder; None where there is none.

    Args:
        catalogue: the model's; None to take whatever catalogue it was fitted with.

    Raises:
        UserError: for a damaged file, and for one that was fitted with another catalogue.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    again = f"Run `sidtune rank {folder}` again, or use --no-rank."
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            told = _header(file)
            tensors = {name: file.get_tensor(name) for name in file.offset_keys()}
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path} is no ranker of this version: {place}: {in_words(first)}", again
        ) from None
    except (safetensors.SafetensorError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", again) from None
    if catalogue and told.catalogue != catalogue_digest(catalogue):
        raise UserError(f"{path} was fitted with another catalogue than the model has now", again)
    try:
        _refuse_other_sizes(tensors, told.items)
        sources = {
            name: SOURCES[name].load(_of(name, tensors)) for name in SOURCES if name in told.sources
        }
        _refuse_other_columns(told, sources)
        scorer = told.scorer.made()
        without = told.without_model.made() if told.without_model else None
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}", again) from None
    return Ranker(sources, scorer, without, told.beams, told.later)


def _of(name: str, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    prefix = f"{name}/"
    return {
        key.removeprefix(prefix): tensor
        for key, tensor in tensors.items()
        if key.startswith(prefix)
    }


def _refuse_other_columns(told: _Told, sources: Mapping[SourceName, Source]) -> None:
    known = {name for source in sources.values() for name in source.columns}
    for scorer in (told.scorer, told.without_model):
        if scorer and not known.issuperset(scorer.columns):
            raise ValueError("the trees read features of other sources")
        if scorer and not sources.keys() >= scorer.weights.keys():
            raise ValueError("a weight is of another source")


def _refuse_other_sizes(tensors: Mapping[str, NDArray[Any]], items: int) -> None:
    for key, tensor in tensors.items():
        name = key.rpartition("/")[2]
        if name.endswith(".indptr") and tensor.shape != (items + 1,):
            raise ValueError(f"{key} is of another number of items")
        if name in BY_ITEM:
            if (tensor.dtype.kind, tensor.ndim) != BY_ITEM[name] or len(tensor) != items:
                raise ValueError(f"{key} is of another shape or type")
            if name == "numbers" and (tensor.min() < 0 or tensor.max() >= items):
                raise ValueError(f"{key} holds numbers that there are not")
