"""The inputs named by a configuration, loaded lazily and once."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedConfig

from sidtune.base.errors import UserError
from sidtune.data.catalogue import Catalogue
from sidtune.data.popularity import popularity
from sidtune.data.rows import Split
from sidtune.decoding.prompts import with_prompt_ids
from sidtune.encoding.build import Mixture, load_catalogue
from sidtune.encoding.frame import Frame
from sidtune.model.initialise import ItemTexts
from sidtune.runs.bundle import RECOMMENDER_FILE, Bundle, read_bundle
from sidtune.tasks.config import Config
from sidtune.tasks.sid_sequence_reversed import FORM as REVERSED
from sidtune.templates import Template
from sidtune.tokenizer.load import load_model_config, load_tokenizer
from sidtune.tokenizer.vocabulary import Vocabulary, extend_vocabulary


class Inputs:
    """The inputs of `train`, `check` and `preview`; an invalid input raises `UserError` on first
    access.

    Args:
        trust_remote_code: allow Python code shipped with the base to run.
    """

    def __init__(self, config: Config, trust_remote_code: bool = False) -> None:
        self.config, self.trust_remote_code = config, trust_remote_code
        # The text around prompt and response, set before the mixture is used by a run that has
        # fixed it.
        self.frame: Frame | None = None

    @cached_property
    def catalogue(self) -> Catalogue:
        """Items, texts and SIDs."""
        return load_catalogue(self.config)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The base's tokenizer, extended by the SID tokens."""
        tokenizer = load_tokenizer(self.config.model.base, self.trust_remote_code)
        # With from_scratch, no row of the base is used.
        rows = (
            0
            if self.config.model.from_scratch
            else int(self.model_config.get_text_config().vocab_size)
        )
        return extend_vocabulary(tokenizer, self.catalogue.sid_tokens, rows)

    @cached_property
    def model_config(self) -> PreTrainedConfig:
        """The model's configuration; weights are not read."""
        return load_model_config(self.config.model.base, self.trust_remote_code)

    @property
    def item_texts(self) -> ItemTexts | None:
        """Titles and SIDs as tokens, if new rows are initialised from them."""
        if self.config.model.new_rows == "mean":
            return None
        tokens = self.mixture.encoder.item_tokens
        return ItemTexts(tokens("title", False), tokens("sid", False))

    @cached_property
    def text_vectors(self) -> NDArray[np.float32] | None:
        """Vectors of the items' texts, `(items, d)`; None where there are no texts."""
        # It takes a second to import, and few runs need it.
        from sidtune.ranker.texts import text_vectors

        return text_vectors(self.config.data.items, self.config.sids, self.catalogue, left_out=None)

    @cached_property
    def bundle(self) -> Bundle:
        """The files saved with the trained model's weights."""
        config, task = self.config, self.config.evaluation_task
        template, cutoff_len = self.mixture.templates[task][0], config.encoding.cutoff_len
        users, longest = (
            self._users(),
            self.mixture.remembered("longest-read", self._longest_history),
        )
        return with_prompt_ids(
            Bundle(
                catalogue=self.catalogue,
                users=users,
                task=task,
                template=template,
                format=config.template.format,
                cutoff_len=cutoff_len,
                longest_history=longest,
                frame=self.mixture.frame,
                reversed_template=self._backwards(),
            ),
            self.vocabulary.tokenizer,
        )

    def _backwards(self) -> Template | None:
        """How the model reads histories backwards: as it is trained to, or as its base was, with
        the same items.
        """
        config = self.config
        if REVERSED in config.tasks:
            return self.mixture.templates[REVERSED][0]
        base = Path(config.model.base)
        if config.model.from_scratch or not (base / RECOMMENDER_FILE).is_file():
            return None
        try:
            before = read_bundle(base)
        except UserError:
            # Its weights are a base like any other.
            return None
        same = self.catalogue.names_as(before.catalogue)
        return before.reversed_template if same else None

    def _users(self) -> NDArray[np.int64]:
        def count() -> object:
            return popularity(self.mixture.source("train").rows, len(self.catalogue.ids)).tolist()

        return np.array(self.mixture.remembered("popularity", count), np.int64)

    def _longest_history(self) -> int:
        splits: tuple[Split, ...] = ("train", "valid")
        rows = 1 + max(
            int(self.mixture.source(split).rows.history.lengths.max()) for split in splits
        )
        return min(rows, self.config.data.longest_history or rows)

    @cached_property
    def mixture(self) -> Mixture:
        """Templates, tasks and their examples."""
        return Mixture(self.config, self.catalogue, self.vocabulary, self.frame)
