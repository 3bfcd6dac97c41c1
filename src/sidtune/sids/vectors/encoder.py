"""Texts as vectors by a pretrained encoder: its last hidden states over the tokens of a text,
pooled.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.base.hashing import digest, file_digest
from sidtune.base.terminal import progress
from sidtune.config.sids import SidsConfig
from sidtune.sids.items import Items
from sidtune.sids.kmeans import Floats
from sidtune.sids.vectors.pooling import Pooling, read_pooling
from sidtune.sids.vectors.source import Source, State, need_finite, unit

TEXTS_AT_ONCE = 64
# Of a state: SHA-256 of the encoder's files. Indexes of earlier versions have none.
DIGEST = "digest"


class Encoder:
    """A folder that Transformers reads; if it is one of sentence-transformers, with its pooling."""

    def fit(self, source: Source) -> tuple[Floats, State]:
        """Vectors `(n, hidden size)` of length 1, and by what the encoder is known again."""
        assert source.options.encoder
        vectors = self.place(source.items, State(), source.options)
        return vectors, State({DIGEST: _digest(source.options.encoder)})

    def place(self, items: Items, state: State, options: SidsConfig) -> Floats:
        """Vectors of other items; nothing is fitted.

        Raises:
            UserError: for a folder that Transformers does not read, for another encoder than that
                of the fitted items, for vectors that are not finite, and as `read_pooling`.
        """
        assert options.encoder
        _refuse_other(options.encoder, state)
        pooling = read_pooling(options.encoder)
        # One for each device; a tokenizer may not be used by two threads at once.
        loaded = [_load(options.encoder, device) for device in devices()]
        free: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
        for pair in loaded:
            free.put(pair)

        def encode(batch: list[int]) -> Floats:
            tokenizer, model = free.get()
            try:
                return _encoded([items.texts[at] for at in batch], tokenizer, model, pooling)
            finally:
                free.put((tokenizer, model))

        # Texts of similar length are batched together, so that there is little padding. The longest
        # come first: they show whether memory suffices, and the time that is told is an upper one.
        order = sorted(range(len(items)), key=lambda place: -len(items.texts[place]))
        batches = [order[at : at + TEXTS_AT_ONCE] for at in range(0, len(order), TEXTS_AT_ONCE)]
        found = np.zeros((len(items), loaded[0][1].config.hidden_size), np.float32)
        with ThreadPoolExecutor(len(loaded)) as pool:
            work = zip(batches, pool.map(encode, batches), strict=True)
            for batch, vectors in progress(work, "encoding", len(items), lambda done: len(done[0])):
                found[batch] = vectors
        need_finite(
            found,
            items,
            f"sids.encoder: {options.encoder}",
            "Its weights are damaged, or made for another precision: download them again, or make"
            " vectors yourself: sids.vectors: file.",
        )
        return unit(found)


def devices() -> list[str]:
    """Every visible GPU, or the CPU."""
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


def _refuse_other(folder: Path, state: State) -> None:
    """Raises `UserError` for a folder that is missing, or holds other files than when `state` was
    fitted.
    """
    if not folder.is_dir():
        raise UserError(
            f"sids.encoder: no such folder: {folder}",
            "Download the encoder first: `hf download NAME --local-dir FOLDER`.",
        )
    if state.tensors and not np.array_equal(state.tensors[DIGEST], _digest(folder)):
        raise UserError(
            f"sids.encoder: the files in {folder} are not those that the SIDs were made with, whose"
            " vectors may mean something else",
            "Put the files of then there, or make the SIDs of all items anew: `sidtune sids`.",
        )


def _digest(folder: Path) -> NDArray[np.uint8]:
    """Of all files but hidden ones, which programs that download leave, and compiled code."""
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    files = [
        (name.as_posix(), file_digest(folder / name))
        for name in names
        if not any(part.startswith((".", "__pycache__")) for part in name.parts)
    ]
    return np.frombuffer(bytes.fromhex(digest(files)), np.uint8)


def _load(folder: Path, device: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer, model = (
            AutoTokenizer.from_pretrained(folder),
            AutoModel.from_pretrained(folder, dtype=torch.float32),
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:300]
        raise UserError(
            f"sids.encoder: {folder} is no encoder that Transformers reads: {reason}",
            "Download it again, or make vectors yourself: sids.vectors: file.",
        ) from None
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, model.eval().to(device)


@torch.inference_mode()
def _encoded(texts: list[str], tokenizer: Any, model: Any, pooling: Pooling) -> Floats:
    longest = min(
        pooling.longest,
        tokenizer.model_max_length,
        getattr(model.config, "max_position_embeddings", pooling.longest),
    )
    batch = tokenizer(
        texts, padding=True, truncation=True, max_length=longest, return_tensors="pt"
    ).to(model.device)
    states = model(**batch).last_hidden_state.float()
    vectors: Floats = pooling.pool(states, batch["attention_mask"].bool()).cpu().numpy()
    return vectors
