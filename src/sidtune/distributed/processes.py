"""Coordination between the processes of a run."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from transformers import TrainingArguments

from sidtune.base.errors import PeerLost, UserError
from sidtune.distributed.launch import backend

T = TypeVar("T")
# Ranks wait while the first one encodes: long enough for millions of rows.
ENCODING = datetime.timedelta(hours=4)


def largest(value: int, arguments: TrainingArguments) -> int:
    """The maximum of `value` over all ranks (all-reduce)."""
    if arguments.world_size == 1:
        return value
    found = torch.tensor(value, device=arguments.device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def by_first(find: Callable[[], T], arguments: TrainingArguments) -> T:
    """Run `find` on rank 0 and broadcast its result to all ranks.

    Raises:
        UserError: on all ranks, if `find` raises it on rank 0.
    """
    found: list[T | UserError | None] = [None]
    if arguments.process_index == 0:
        try:
            found = [find()]
        except UserError as error:
            found = [error]
    if arguments.world_size > 1:
        dist.broadcast_object_list(found, device=arguments.device)
    if isinstance(found[0], UserError):
        raise found[0]
    return found[0]  # type: ignore[return-value]


@contextmanager
def alone_if_needed() -> Iterator[None]:
    """A process group within the context: the launcher's, or one of this process alone."""
    if dist.is_initialized():
        yield
        return
    store: Any = dist  # whose exports are not declared for mypy
    dist.init_process_group(backend(), store=store.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def all_or_none(
    work: Callable[[], None], arguments: TrainingArguments, group: dist.ProcessGroup | None = None
) -> None:
    """Run `work` on every rank, and wait until all have finished.

    Args:
        group: a process group with a timeout of its own; None for the default group.

    Raises:
        UserError: on all ranks, if `work` raises it on one.
    """
    mine: UserError | None = None
    try:
        work()
    except UserError as error:
        mine = error
    errors: list[UserError | None] = [mine]
    if arguments.world_size > 1:
        errors *= arguments.world_size
        dist.all_gather_object(errors, mine, group)
    first = next((met for met in errors if met), None)
    if first:
        raise first


def first_goes_ahead(work: Callable[[], T], arguments: TrainingArguments) -> T:
    """Run `work` on local rank 0 of each machine first; other ranks wait, at most `ENCODING`, then
    run it.

    Raises:
        UserError: on all ranks, if `work` raises it on a local rank 0.
    """
    if arguments.world_size == 1:
        return work()
    patient = dist.new_group(backend="gloo", timeout=ENCODING)
    done: list[T] = []
    all_or_none(
        lambda: done.append(work()) if arguments.local_process_index == 0 else None,
        arguments,
        patient,
    )
    return done[0] if done else work()


@contextmanager
def noticing_lost_peers() -> Iterator[None]:
    """Turn the error of a failed collective into one that says that another process has ended.

    Raises:
        PeerLost: where the connection to another process broke.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise PeerLost(
            "another process of this run has ended or cannot be reached"
            f" ({str(error).splitlines()[0][:120]})",
            "See the output of that process for the cause. Run the same command again to resume"
            " from the newest complete checkpoint.",
        ) from None
