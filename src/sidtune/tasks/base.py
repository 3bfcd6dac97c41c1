"""What every task is made of: columns of placeholders, and the parts that carry them to the encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from sidtune.base.ragged import Ragged
from sidtune.config.section import MOST
from sidtune.data.catalogue import Catalogue
from sidtune.data.history_keys import history_keys
from sidtune.data.rows import Rows, Split
from sidtune.data.sequences import Sequences, backward, joined, one_back, one_by_one

# `training.epochs` goes on from there; every pass takes memory.
MOST_PASSES = 1_000
ItemField = Literal["sid", "title", "description"]
# Placeholders that are written with the titles or descriptions of items.
ITEM_TEXTS = frozenset({"title", "description", "history_titles", "target_title", "target_description"})


@dataclass(frozen=True)
class Items:
    """A placeholder that stands for one item an example, or for a list of items (`many`).

    Args:
        positions: catalogue positions of the items, n lists; of length 1 unless `many`.
        field: what is written of each item.
    """

    positions: Ragged
    field: ItemField
    many: bool = False

    def take(self, rows: NDArray[np.integer]) -> Items:
        """The column at the given examples."""
        return Items(self.positions.take(rows), self.field, self.many)


@dataclass(frozen=True)
class Texts:
    """A placeholder that stands for text out of the data.

    Args:
        values: `(n,)` strings.
        sids: whether SID tokens in them are read as tokens; everything else is text.
    """

    values: pa.Array
    sids: bool = False

    def take(self, rows: NDArray[np.integer]) -> Texts:
        """The column at the given examples."""
        return Texts(self.values.take(pa.array(rows)), self.sids)


Column = Items | Texts


@dataclass(frozen=True)
class Placeholders:
    """What the wording of a form must hold, in prompt and in response."""

    prompt: tuple[str, ...]
    response: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """Examples of one form, column by column.

    Args:
        form: key of the wording in the template file.
        columns: placeholder → values, n of each.
        rows: `(n,)`, where each example stands in the task's source, before sampling.
        histories: `(n,)`, a key of the history each example is about and the way it is written; None without any.
        context: `(n,)`, where every item of the response is a target of its own: how many items at its start are only
            read. None where the response as a whole is the label.
        newest_first: whether lists of items run from the newest to the oldest.
    """

    form: str
    columns: Mapping[str, Column]
    rows: NDArray[np.int64]
    histories: NDArray[np.int64] | None = None
    context: NDArray[np.int64] | None = None
    newest_first: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: NDArray[np.integer]) -> Part:
        """The part at the given examples."""
        columns = {name: column.take(chosen) for name, column in self.columns.items()}
        return replace(
            self,
            columns=columns,
            rows=self.rows[chosen],
            histories=None if self.histories is None else self.histories[chosen],
            context=None if self.context is None else self.context[chosen],
        )

    def drop_oldest(self, counts: NDArray[np.int64]) -> Part:
        """Every history, or sequence, without its oldest `counts[i]` items; of a sequence something stays a target."""
        columns = dict(self.columns)
        for name, column in columns.items():
            if isinstance(column, Items) and column.many:
                drop = Ragged.drop_back if self.newest_first else Ragged.drop_front
                columns[name] = Items(drop(column.positions, counts), column.field, many=True)
        context = self.context
        if context is not None:
            left = self.history_lengths - counts
            context = np.minimum(context, left) if self.newest_first else np.maximum(context - counts, 0)
        return replace(self, columns=columns, context=context)

    @property
    def history_lengths(self) -> NDArray[np.int64]:
        """Items of each example's history, `(n,)`; zeros where the form has none."""
        for column in self.columns.values():
            if isinstance(column, Items) and column.many:
                # The last item of a sequence has none behind it that it could be the history of.
                return column.positions.lengths - (self.context is not None)
        return np.zeros(len(self), np.int64)


@dataclass(frozen=True)
class Source:
    """Everything a task may draw on, for one split.

    Args:
        preferences, instructions: the readers' tables, empty where the configuration names no file.
        preference_rows: the interactions of `preferences`, resolved against the catalogue.
    """

    catalogue: Catalogue
    rows: Rows
    preferences: pa.Table
    preference_rows: Rows
    instructions: pa.Table
    split: Split

    @cached_property
    def sequences(self) -> Sequences:
        """`rows` as `sid_sequence` asks them: whole histories in training, elsewhere row by row as evaluation does."""
        return joined(self.rows) if self.split == "train" else one_by_one(self.rows)

    @cached_property
    def reversed_sequences(self) -> Sequences:
        """`rows` as `sid_sequence_reversed` asks them: elsewhere than in training what came before each target."""
        return backward(self.rows) if self.split == "train" else one_back(self.rows)


class TaskOptions(BaseModel):
    """What can be said of every task in the configuration.

    `weight` is the number of passes over the task's examples in one epoch; a fraction draws a new share each epoch.
    `sample` caps the rows the task is built from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weight: Annotated[float, Field(gt=0, le=MOST_PASSES)] = 1.0
    sample: Annotated[int, Field(ge=1, le=MOST)] | None = None


class Task(ABC):
    """Turns rows, items or preferences into parts.

    A task says itself what it is; whatever treats tasks differently asks for these attributes.

    Attributes:
        options: what the configuration may say of the task.
        forms: the templates that it needs, and the placeholders that each must hold.
        needs: the key of `data` whose file it is made from, besides the rows.
        is_sequence: whether an example is a whole history, every item of it a target.
        recommends: whether evaluation and `recommend` can use it: its response is the next item's SID.
    """

    options: ClassVar[type[TaskOptions]] = TaskOptions
    forms: ClassVar[Mapping[str, Placeholders]]
    needs: ClassVar[str | None] = None
    is_sequence: ClassVar[bool] = False
    recommends: ClassVar[bool] = False

    @abstractmethod
    def size(self, source: Source) -> int:
        """How many rows (or items, or records) the source holds for this task."""

    @abstractmethod
    def build(self, source: Source, rows: NDArray[np.int64], options: TaskOptions, seed: int) -> Sequence[Part]:
        """The parts made of the chosen `rows`, in order."""

    @property
    def needs_texts(self) -> bool:
        """Whether it is made of titles or descriptions of items."""
        return any(ITEM_TEXTS & {*needs.prompt, *needs.response} for needs in self.forms.values())


def history_columns(rows: Rows, chosen: NDArray[np.int64]) -> dict[str, Column]:
    """What every form over interaction rows may mention: the history and its target, by SID, title and description."""
    history = rows.history.take(chosen)
    target = Ragged.column(rows.target).take(chosen)
    return {
        "history_sids": Items(history, "sid", many=True),
        "history_titles": Items(history, "title", many=True),
        "target_sid": Items(target, "sid"),
        "target_title": Items(target, "title"),
        "target_description": Items(target, "description"),
    }


class HistoryTask(Task):
    """A task with one example for each interaction row."""

    def size(self, source: Source) -> int:
        """Number of interaction rows."""
        return len(source.rows.target)

    def build(self, source: Source, rows: NDArray[np.int64], options: TaskOptions, seed: int) -> Sequence[Part]:
        """One part for each form."""
        columns, users = history_columns(source.rows, rows), source.rows.users
        return [
            Part(form, columns, rows, history_keys(users, self.forms[form].prompt[0])[rows])
            for form in self.chosen_forms(options)
        ]

    def chosen_forms(self, options: TaskOptions) -> Sequence[str]:
        """The forms that the options ask for: all of them, unless a task says otherwise."""
        return list(self.forms)
