"""The training examples as prompts, each with the SID that answers it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.decoding.answers import Answers
from sidtune.encoding.corpus import Corpus, EncodedTask
from sidtune.reinforcement.paths import paths_of
from sidtune.tasks import TASKS


class PromptCorpus(Corpus):
    """One entry for each SID that the encoded examples are trained to answer with.

    An example of a whole history gives an entry for each of its items that follow another one.
    Examples that answer with something else, such as a title, give none.

    Args:
        sids: the distinct SIDs as vocabulary ids, by number.
        answers: the same, as the search follows them.

    Attributes:
        paths: of the SIDs.
        targets: `(entries,)`, numbers of the SIDs.

    Raises:
        UserError: for a task none of whose examples answers with a SID.
    """

    def __init__(self, tasks: Sequence[EncodedTask], sids: Ragged, answers: Answers) -> None:
        super().__init__(tasks)
        self.answers, self.paths = answers, paths_of(answers.trie)
        numbers = {tuple(sids[number].tolist()): number for number in range(len(sids))}
        tokens = np.unique(sids.values)
        found = [np.array(list(_entries(task, numbers, tokens)), np.int64) for task in tasks]
        for task, entries in zip(tasks, found, strict=True):
            if not len(entries):
                raise UserError(
                    f"rl.tasks: no example of {task.name} answers with a SID",
                    "Use tasks such as sid_next, sid_sequence, title_to_sid, or item_feature with"
                    " directions: title_to_sid.",
                )
        self.sizes = [len(entries) for entries in found]
        self.task_of = np.repeat(np.arange(len(tasks)), self.sizes)
        example, self._end, self.targets = np.concatenate(found).T
        self._example = example + self._starts[self.task_of]
        self.label_counts = self.paths.lengths[self.targets]
        self.lengths = self._end + self.label_counts
        self.histories = self.histories[self._example]

    def __len__(self) -> int:
        return len(self.targets)

    def prompt(self, index: int) -> NDArray[np.int32]:
        """The token ids before the first token of the SID, `(length,)`."""
        ids, _, _ = super().__getitem__(int(self._example[index]))
        # A copy, since torch warns of arrays that are read-only, such as those of a mapped file.
        return ids[: self._end[index]].copy()

    def __getitem__(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
        """Prompt and SID, whose tokens are the labels, as in `Corpus`."""
        prompt, target = self.prompt(index), self.targets[index]
        answer = self.paths.tokens[target, : self.paths.lengths[target]].astype(np.int32)
        ids = np.concatenate([prompt, answer])
        span = np.array([[len(prompt), len(ids)]], np.int32)
        return ids, span, int(self.task_of[index])


def _entries(
    task: EncodedTask, numbers: dict[tuple[int, ...], int], sid_tokens: NDArray[np.int32]
) -> Iterator[tuple[int, int, int]]:
    """Example, place of the first SID token, and number of the SID, for every SID of a response."""
    depths = sorted({len(path) for path in numbers}, reverse=True)
    known, whole = set(sid_tokens.tolist()), TASKS[task.name].is_sequence
    for example in range(len(task)):
        ids, spans = (values.tolist() for values in task[example])
        opening = next((at for at, token in enumerate(ids) if token in known), len(ids))
        for start, end in spans:
            place = next((at for at in range(start, end) if ids[at] in known), end)
            if whole and place == opening:
                # Without a history there is nothing to answer.
                continue
            paths = (tuple(ids[place : place + depth]) for depth in depths)
            number = next((numbers[path] for path in paths if path in numbers), None)
            if number is not None:
                yield example, place, number
