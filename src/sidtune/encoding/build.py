"""Builds the encoded examples of the configured task mixture."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from sidtune import __version__
from sidtune.base.errors import UserError
from sidtune.base.hashing import digest, file_digest
from sidtune.base.terminal import progress
from sidtune.data.catalogue import Catalogue, read_catalogue, tell_apart
from sidtune.data.rows import Split, drawn
from sidtune.encoding.chat import make_frame
from sidtune.encoding.corpus import FORMAT_VERSION, EncodedTask, cached_task, encode_in_chunks
from sidtune.encoding.encoded import Encoded
from sidtune.encoding.encoder import Encoder
from sidtune.encoding.frame import Frame
from sidtune.encoding.remember import remembered
from sidtune.tasks import TASKS
from sidtune.tasks.base import ITEM_TEXTS, Part, Source, TaskOptions
from sidtune.tasks.config import Config
from sidtune.tasks.source import load_source
from sidtune.templates import load_templates
from sidtune.tokenizer.segments import segment_tokenizers
from sidtune.tokenizer.vocabulary import Vocabulary


class Mixture:
    """Builds, encodes and caches the configured tasks.

    Input files are read only for examples that are not in the cache.

    Args:
        frame: the text around every example; None derives it from the configured format.
    """

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        vocabulary: Vocabulary,
        frame: Frame | None = None,
    ) -> None:
        self.config, self.catalogue, self.vocabulary = config, catalogue, vocabulary
        self.templates = load_templates(config.template.file)
        if not catalogue.has_texts:
            self._refuse_texts()
        segments = segment_tokenizers(vocabulary.tokenizer, catalogue.sid_tokens)
        self.frame = frame or make_frame(vocabulary.tokenizer, segments, config.template.format)
        self.encoder = Encoder(
            segments,
            self.frame,
            catalogue,
            self.templates,
            config.encoding.cutoff_len,
            config.data.description_tokens,
            config.seed,
        )
        self._sources: dict[Split, Source] = {}

    def _refuse_texts(self) -> None:
        """Refuse templates that use item texts without data.items."""
        for name in dict.fromkeys([self.config.evaluation_task, *self.config.tasks]):
            for form in TASKS[name].forms:
                named = {slot for template in self.templates[form] for slot in template.names}
                if wanting := sorted(named & ITEM_TEXTS):
                    raise UserError(
                        f"{self.config.template.file}: {form} uses {{{wanting[0]}}}, but data.items"
                        " is not given",
                        "Set data.items to the file with the items' titles, or remove the"
                        " placeholder.",
                    )

    def train(self) -> list[EncodedTask]:
        """The encoded training examples of every task of the mixture.

        Raises:
            UserError: if a task has no example.
        """
        encoded = [
            self._encoded(name, "train", options)
            for name, options in self.config.task_options().items()
        ]
        for task in encoded:
            if not len(task):
                message, remedy = (
                    f"task {task.name} has no training example",
                    "Remove it from `tasks`.",
                )
                if task.counts.dropped:
                    message += f": all {task.counts.dropped:,} exceed encoding.cutoff_len"
                    remedy = "Raise encoding.cutoff_len, or remove the task from `tasks`."
                raise UserError(message, remedy)
        return encoded

    def valid(self) -> list[EncodedTask]:
        """The encoded validation examples: those of the evaluation task, then a fixed sample of
        each other task.
        """
        options, question = self.config.task_options(), self.config.evaluation_task
        limits = {question: self.config.eval.max_rows} | {
            name: self.config.eval.task_rows for name in options if name != question
        }
        encoded = []
        for name, limit in limits.items():
            given = options.get(name, TASKS[name].options())
            encoded.append(self._encoded(name, "valid", given.model_copy(update={"sample": limit})))
        if not len(encoded[0]):
            path, cutoff = self.config.data.rows_file("valid"), self.config.encoding.cutoff_len
            raise UserError(
                f"{path}: no row fits encoding.cutoff_len={cutoff}", "Raise encoding.cutoff_len."
            )
        return [task for task in encoded if len(task)]

    def parts(self, name: str, split: Split, options: TaskOptions) -> list[Part]:
        """The examples of one task before encoding, sampled according to the options."""
        task, source = TASKS[name], self.source(split)
        size = task.size(source)
        cap = min(
            limit for limit in (options.sample, self._sample(split), size) if limit is not None
        )
        seed = zlib.crc32(f"{name} {split}".encode()) ^ self.config.seed
        return list(task.build(source, drawn(size, cap, seed), options, seed))

    def _sample(self, split: Split) -> int | None:
        """The value of `data.sample`, which applies to training only."""
        return self.config.data.sample if split == "train" else None

    def source(self, split: Split) -> Source:
        """The source of the tasks for a split, read once."""
        if split not in self._sources:
            self._sources[split] = load_source(self.config.data, self.catalogue, split)
        return self._sources[split]

    def remembered(self, name: str, compute: Callable[[], Any]) -> Any:
        """A small JSON value computed from the rows, cached until files, tasks or
        tokenizer change.
        """
        return remembered(name, self._everything, self.config.encoding.cache_dir, compute)

    def identity(self) -> dict[str, Any]:
        """Readable settings and hashes that must be equal when a run is resumed."""
        tasks = {
            f"task {name}": digest(self._fingerprint(name, "train", given))[:12]
            for name, given in self.config.task_options().items()
        }
        # The rendered frame is saved with the run, so the template itself must be compared to
        # detect a change.
        template = (
            {"chat template": digest(self.vocabulary.tokenizer.chat_template)[:12]}
            if self.frame.chat
            else {}
        )
        question = self.config.evaluation_task
        # Its prompts choose the best model, although no task trains them.
        asked = {} if question in self.config.task_options() else {"evaluation": self._question}
        return self._files | tasks | asked | {"vocabulary": self._tokenizer[:12]} | template

    @property
    def _question(self) -> str:
        """A digest of the prompts of evaluation."""
        question = self.config.evaluation_task
        return digest(self._fingerprint(question, "train", TASKS[question].options()))[:12]

    def _encoded(self, name: str, split: Split, options: TaskOptions) -> EncodedTask:
        def encode() -> Iterator[Encoded]:
            parts = self.parts(name, split, options)
            chunks = encode_in_chunks(self.encoder, parts)
            return progress(
                chunks,
                f"encoding {name} ({split})",
                sum(map(len, parts)),
                lambda c: len(c.rows) + c.dropped,
            )

        return cached_task(
            name, self._fingerprint(name, split, options), self.config.encoding.cache_dir, encode
        )

    def _fingerprint(self, name: str, split: Split, options: TaskOptions) -> dict[str, Any]:
        templates = {
            form: [asdict(template) for template in self.templates[form]]
            for form in TASKS[name].forms
        }
        longest = self.config.data.longest_history
        return {
            "version": FORMAT_VERSION,
            "task": name,
            "split": split,
            # The weight changes how often examples are seen, not the examples.
            "options": options.model_dump(exclude={"weight"}),
            "sample": self._sample(split),
            "dedup": self.config.data.dedup,
            "unique_sids": self.config.data.unique_sids,
            "description_tokens": self.config.data.description_tokens,
            **({} if longest is None else {"history": longest}),
            "cutoff_len": self.config.encoding.cutoff_len,
            "seed": self.config.seed,
            "template": json.loads(json.dumps(templates)),
            "frame": asdict(self.frame),
            "tokenizer": self._tokenizer,
            "files": self._files,
        }

    @cached_property
    def _everything(self) -> dict[str, Any]:
        """The fingerprint of values computed from the rows; includes paths, since findings contain
        them, and the evaluation task, whose prompts are looked at although no task may train them.
        """
        data = self.config.data
        test = {} if data.test is None else {"data.test": file_digest(data.test)}
        return {
            "sidtune": __version__,
            "data": data.model_dump(mode="json"),
            "model.base": self.config.model.base,
            **self.identity(),
            "evaluation": self._question,
            **test,
        }

    @cached_property
    def _files(self) -> dict[str, str]:
        named = {name: getattr(self.config.data, name) for name in DATA_FILES}
        return {
            f"data.{name}": file_digest(path)[:12]
            for name, path in named.items()
            if path is not None
        }

    @cached_property
    def _tokenizer(self) -> str:
        tokenizer = self.vocabulary.tokenizer
        return digest(
            [tokenizer.backend_tokenizer.to_str(), tokenizer.bos_token_id, tokenizer.eos_token_id]
        )


# Files that examples are built from; test rows are never used.
DATA_FILES = ("items", "index", "train", "valid", "interactions", "preferences", "instructions")


def load_catalogue(config: Config) -> Catalogue:
    """The catalogue of a configuration."""
    for name in (*DATA_FILES, "test"):
        path: Path | None = getattr(config.data, name)
        # Unlike `Path.is_file`, this never raises.
        if path is not None and not os.path.isfile(path):
            raise UserError(
                f"data.{name}: no such file: {path}", "Paths are relative to the current folder."
            )
        if path is not None and not os.access(path, os.R_OK):
            raise UserError(
                f"data.{name}: {path} is not readable", "Change its permissions, or use a copy."
            )
    catalogue = read_catalogue(config.data.items, config.data.index)
    return tell_apart(catalogue, config.data.index) if config.data.unique_sids else catalogue
