"""Codebooks: a SID is one row of each, and their sum stands for the item's vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sidtune.sids.kmeans import Codes, Floats, chunks, nearest

ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Layer:
    """One layer of what is done to vectors before they are quantised: `x @ weight.T + bias`, then
    ReLU if asked for.

    Args:
        weight: `(out, in)`.
        bias: `(out,)`.
        relu: whether negative outputs become 0.
    """

    weight: Floats
    bias: Floats
    relu: bool = False


@dataclass(frozen=True)
class Codebooks:
    """What quantises vectors: the layers that they pass, then one codebook a level.

    Product codes are a case of it: the codebook of a level is zero outside its part of the
    dimensions.

    Args:
        levels: a codebook `(size, d)` for each level.
        layers: none where vectors are quantised as they are.
        skip: whether the layers' output is added to the vectors instead of replacing them.
    """

    levels: list[Floats]
    layers: list[Layer] = field(default_factory=list)
    skip: bool = False

    @property
    def sizes(self) -> list[int]:
        """How many codes each level has."""
        return [len(level) for level in self.levels]

    def project(self, vectors: Floats) -> Floats:
        """Vectors `(n, d)` through the layers: what the codebooks quantise, `(n, latent)`."""
        if not self.layers:
            return vectors
        parts = [
            self._through(vectors[at : at + ROWS_AT_ONCE])
            for at in range(0, len(vectors), ROWS_AT_ONCE)
        ]
        found: Floats = np.concatenate(parts)
        return found

    def encode(self, latents: Floats) -> Codes:
        """The codes of latents, `(n, levels)`: at each level the row nearest to what the levels
        before left over.
        """
        codes = np.empty((len(latents), len(self.levels)), np.int32)
        for rows in chunks(len(latents), max(self.sizes)):
            left = latents[rows].copy()
            for level, book in enumerate(self.levels):
                codes[rows, level] = nearest(left, book)
                left -= book[codes[rows, level]]
        return codes

    def left_over(self, latents: Floats, codes: Codes, levels: int) -> Floats:
        """Latents less the rows of their first so many levels, `(n, latent)`."""
        left = latents.copy()
        for level in range(levels):
            left -= self.levels[level][codes[:, level]]
        return left

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Everything by name, for a safetensors file."""
        found: dict[str, NDArray[np.generic]] = {
            f"levels.{at}": level for at, level in enumerate(self.levels)
        }
        for at, layer in enumerate(self.layers):
            found |= {f"layers.{at}.weight": layer.weight, f"layers.{at}.bias": layer.bias}
            found[f"layers.{at}.relu"] = np.array([layer.relu])
        return found | {"skip": np.array([self.skip])}

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[np.generic]]) -> Codebooks:
        """What `tensors` gave."""
        levels = [_floats(tensors[f"levels.{at}"]) for at in _numbers(tensors, "levels")]
        layers = [
            Layer(
                _floats(tensors[f"layers.{at}.weight"]),
                _floats(tensors[f"layers.{at}.bias"]),
                bool(tensors[f"layers.{at}.relu"][0]),
            )
            for at in _numbers(tensors, "layers")
        ]
        return cls(levels, layers, bool(tensors["skip"][0]))

    def _through(self, vectors: Floats) -> Floats:
        found = vectors
        for layer in self.layers:
            found = found @ layer.weight.T + layer.bias
            if layer.relu:
                found = np.maximum(found, 0)
        return vectors + found if self.skip else found


def _floats(tensor: NDArray[np.generic]) -> Floats:
    return np.ascontiguousarray(tensor, np.float32)


def _numbers(tensors: Mapping[str, object], kind: str) -> Sequence[int]:
    """The numbers of the tensors of a kind, ascending."""
    return sorted({int(name.split(".")[1]) for name in tensors if name.startswith(f"{kind}.")})
