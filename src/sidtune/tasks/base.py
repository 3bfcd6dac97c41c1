"""Base classes of tasks, and the parts (columns of placeholder values) that tasks pass to the
encoder.
"""

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

# Passes per epoch; each pass takes memory. For more, raise `training.epochs`.
MOST_PASSES = 1_000
ItemField = Literal["sid", "title", "description"]
# Placeholders filled with titles or descriptions of items.
ITEM_TEXTS = frozenset(
    {"title", "description", "history_titles", "target_title", "target_description"}
)


@dataclass(frozen=True)
class Items:
    """Values of a placeholder for items: one item per example, or a list of items (`many`).

    Args:
        positions: catalogue positions of the items, n lists; of length 1 unless `many`.
        field: which text of each item is inserted.
    """

    positions: Ragged
    field: ItemField
    many: bool = False

    def take(self, rows: NDArray[np.integer]) -> Items:
        """The column at the given examples."""
        return Items(self.positions.take(rows), self.field, self.many)


@dataclass(frozen=True)
class Texts:
    """Values of a placeholder for text from the data.

    Args:
        values: `(n,)` strings.
        sids: whether SID tokens in the strings are encoded as tokens; everything else is text.
    """

    values: pa.Array
    sids: bool = False

    def take(self, rows: NDArray[np.integer]) -> Texts:
        """The column at the given examples."""
        return Texts(self.values.take(pa.array(rows)), self.sids)


Column = Items | Texts


@dataclass(frozen=True)
class Placeholders:
    """The placeholders that a template must contain, in prompt and in response."""

    prompt: tuple[str, ...]
    response: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """Examples of one template, column by column.

    Args:
        form: template name, the key in the template file.
        columns: placeholder → n values.
        rows: `(n,)`, index of each example in the task's source, before sampling.
        histories: `(n,)`, a key of each example's history and the placeholder it is written with;
            None if there is no history.
        context: `(n,)`, for sequences, whose items are all targets: the number of leading items
            that are only context. None if the whole response is the label.
        newest_first: whether lists of items are ordered from newest to oldest.
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
        """Drop the oldest `counts[i]` items of each history or sequence; a sequence keeps at least
        one target.
        """
        columns = dict(self.columns)
        for name, column in columns.items():
            if isinstance(column, Items) and column.many:
                drop = Ragged.drop_back if self.newest_first else Ragged.drop_front
                columns[name] = Items(drop(column.positions, counts), column.field, many=True)
        context = self.context
        if context is not None:
            left = self.history_lengths - counts
            context = (
                np.minimum(context, left) if self.newest_first else np.maximum(context - counts, 0)
            )
        return replace(self, columns=columns, context=context)

    @property
    def history_lengths(self) -> NDArray[np.int64]:
        """Number of items in each example's history, `(n,)`; zeros without a history."""
        for column in self.columns.values():
            if isinstance(column, Items) and column.many:
                # The last item of a sequence is only a target, never part of a history.
                return column.positions.lengths - (self.context is not None)
        return np.zeros(len(self), np.int64)


@dataclass(frozen=True)
class Source:
    """The data that tasks are built from, for one split.

    Args:
        preferences, instructions: tables of the readers; empty if no file is configured.
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
        """Sequences of `sid_sequence`: whole histories in training, single rows otherwise, as in
        evaluation.
        """
        return joined(self.rows) if self.split == "train" else one_by_one(self.rows)

    @cached_property
    def reversed_sequences(self) -> Sequences:
        """Sequences of `sid_sequence_reversed`: whole histories in training.

        Otherwise the item before each target, predicted from the target.
        """
        return backward(self.rows) if self.split == "train" else one_back(self.rows)


class TaskOptions(BaseModel):
    """Options of every task in the configuration.

    `weight` is the number of passes over the task's examples per epoch; for a fractional weight, a
    new sample is drawn each epoch. `sample` limits the number of rows the task is built from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weight: Annotated[float, Field(gt=0, le=MOST_PASSES)] = Field(
        default=1.0,
        description=(
            "passes over its examples per epoch, at most 1,000. With a fraction, each epoch draws a"
            " new share of the examples"
        ),
    )
    sample: Annotated[int, Field(ge=1, le=MOST)] | None = Field(
        default=None, description="the largest number of its rows; `data.sample` is another limit"
    )


class Task(ABC):
    """Turns rows, items or preferences into parts.

    Code that treats tasks differently reads these attributes instead of task names.

    Attributes:
        help: what it makes of a prompt, in a line.
        options: model of the task's configuration options.
        forms: names of the templates it needs, and the placeholders that each must contain.
        needs: the key of `data` with the file it is built from, if it needs more than the rows.
        is_sequence: whether an example is a whole history with every item a target.
        recommends: whether it can be the evaluation task: its response is the next item's SID.
    """

    help: ClassVar[str]
    options: ClassVar[type[TaskOptions]] = TaskOptions
    forms: ClassVar[Mapping[str, Placeholders]]
    needs: ClassVar[str | None] = None
    is_sequence: ClassVar[bool] = False
    recommends: ClassVar[bool] = False

    @abstractmethod
    def size(self, source: Source) -> int:
        """Number of rows (or items, or records) in the source for this task."""

    @abstractmethod
    def build(
        self, source: Source, rows: NDArray[np.int64], options: TaskOptions, seed: int
    ) -> Sequence[Part]:
        """Build the parts from the chosen `rows`, in order."""

    @property
    def needs_texts(self) -> bool:
        """Whether it uses titles or descriptions of items."""
        return any(ITEM_TEXTS & {*needs.prompt, *needs.response} for needs in self.forms.values())


def history_columns(rows: Rows, chosen: NDArray[np.int64]) -> dict[str, Column]:
    """Placeholder values of interaction rows: the history and its target, by SID, title and
    description.
    """
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
    """A task with one example per interaction row."""

    def size(self, source: Source) -> int:
        """Number of interaction rows."""
        return len(source.rows.target)

    def build(
        self, source: Source, rows: NDArray[np.int64], options: TaskOptions, seed: int
    ) -> Sequence[Part]:
        """One part per template."""
        columns, users = history_columns(source.rows, rows), source.rows.users
        return [
            Part(form, columns, rows, history_keys(users, self.forms[form].prompt[0])[rows])
            for form in self.chosen_forms(options)
        ]

    def chosen_forms(self, options: TaskOptions) -> Sequence[str]:
        """The template names selected by the options; all of them by default."""
        return list(self.forms)
