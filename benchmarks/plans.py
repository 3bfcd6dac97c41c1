"""Plan large runs without running them: memory of large shapes, and steps over many rows.

Memory is estimated as `sidtune train --dry-run` does it, for the shapes of Qwen2.5-0.5B,
Qwen2.5-1.5B and Qwen3-8B. Steps are made by the planner and laid out in prefix trees, for a made-up
shop whose users have histories of up to 20 items. Rows of 10^7 are planned in full. A step of 10^8
rows is drawn in the same way from ten times as many users, so only the number of steps differs; it
is not planned again. Hours are computed from the tokens, not measured.

    python benchmarks/plans.py
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Qwen2Config, Qwen3Config

from sidtune.base.terminal import quiet_libraries
from sidtune.batching.layouts import Example, Layout, MicroBatch
from sidtune.batching.plan import Plan
from sidtune.batching.steps import Steps
from sidtune.config.model import LoraConfig, ModelConfig
from sidtune.config.training import StateKind
from sidtune.model.load import outline
from sidtune.model.optimizer.moments import optimizer_bytes
from sidtune.model.tuning.quantised import Kind
from sidtune.training.guards.memory import USED_SHARE
from sidtune.training.memory.estimate import Memory, memory_of, sharded_memory_of

OUTCOME = Path(__file__).with_suffix(".json")
GIB = 2**30
VOCABULARY, SIDS = 151_936, 768
SMALL: Any = {"vocab_size": VOCABULARY, "tie_word_embeddings": True, "num_key_value_heads": 2}
SHAPES: dict[str, Any] = {
    "0.5B": lambda: Qwen2Config(
        hidden_size=896,
        num_hidden_layers=24,
        intermediate_size=4864,
        num_attention_heads=14,
        **SMALL,
    ),
    "1.5B": lambda: Qwen2Config(
        hidden_size=1536,
        num_hidden_layers=28,
        intermediate_size=8960,
        num_attention_heads=12,
        **SMALL,
    ),
    "8B": lambda: Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=4096,
        num_hidden_layers=36,
        intermediate_size=12288,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=False,
    ),
}
RANK, WIDTH, PASS_TOKENS, LABEL_SHARE = 32, 1024, 8192, 0.2
CARDS = (24, 80)
# Numbers of GPUs that weights are divided among.
SHARDS = (2, 8, 64)
# Dense bfloat16 products per second, as their makers state them: RTX 4090 and H100.
FLOPS = {24: 165e12, 80: 989e12}
MFU = 0.4
ROWS, MEASURED = (10**7, 10**8), (10**6, 10**7)
# GPUs, examples per step.
WORLDS = ((1, 128), (8, 1024), (64, 8192))
LONGEST, SEEN = 20, 4
# Tokens: of the prompt before and after the history, of an item, and of the labels.
BEFORE, AFTER, ITEM, LABELS = 20, 8, 4, 4


def main() -> None:
    """Print the tables and leave the JSON."""
    argparse.ArgumentParser(description=str(__doc__).partition("\n")[0]).parse_args()
    quiet_libraries()
    planner = [planned(rows) for rows in MEASURED]
    steps = [simulated(gpus, size) for gpus, size in WORLDS]
    memory = [row for shape in SHAPES for row in memory_rows(shape)]
    sharded = [row for shape in ("1.5B", "8B") for row in sharded_rows(shape)]
    states = [row for shape in SHAPES for row in state_rows(shape)]
    hours = [row for shape in SHAPES for row in hour_rows(shape, memory, steps)]
    OUTCOME.write_text(
        json.dumps(
            {
                "planner": planner,
                "steps": steps,
                "memory": memory,
                "sharded": sharded,
                "states": states,
                "hours": hours,
            },
            indent=1,
        )
        + "\n",
        encoding="utf-8",
    )


# --- memory ---


def memory_rows(shape: str) -> list[dict[str, Any]]:
    """Estimates of one shape for each tuning, in GiB."""
    rows = []
    for tuning in ("full", "lora"):
        for checkpointing in (False, True):
            config = ModelConfig(base="none", tuning=tuning, lora=LoraConfig(rank=RANK))
            sid_ids = torch.arange(VOCABULARY, VOCABULARY + SIDS)
            kinds: tuple[Kind | None, ...] = (None, "nf4") if tuning == "lora" else (None,)
            for kind in kinds:
                model = outline(config, SHAPES[shape](), VOCABULARY + SIDS, sid_ids, torch.bfloat16)
                parameters = sum(weight.numel() for weight in model.parameters())
                found = memory_of(model, one_pass(), True, checkpointing, kind)
                rows.append(
                    {
                        "shape": shape,
                        "parameters": parameters,
                        "tuning": f"{tuning}, {kind}" if kind else tuning,
                        "checkpointing": checkpointing,
                        "state": found.state / GIB,
                    }
                    | of_pass(found)
                )
                print(json.dumps(rows[-1]), flush=True)
    return rows


def sharded_rows(shape: str) -> list[dict[str, Any]]:
    """Estimates of one shape with all weights trained and sharded, in GiB on each GPU."""
    rows = []
    config = ModelConfig(base="none", tuning="full")
    sid_ids = torch.arange(VOCABULARY, VOCABULARY + SIDS)
    for gpus, checkpointing in product(SHARDS, (False, True)):
        model = outline(config, SHAPES[shape](), VOCABULARY + SIDS, sid_ids, torch.bfloat16)
        found = sharded_memory_of(model, one_pass(), True, checkpointing, gpus)
        rows.append(
            {
                "shape": shape,
                "gpus": gpus,
                "checkpointing": checkpointing,
                "shards": (found.weights + found.gradients + found.optimizer) / GIB,
                "gathered": found.exchange / GIB,
            }
            | of_pass(found)
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def state_rows(shape: str) -> list[dict[str, Any]]:
    """What the optimizer holds of one shape with all weights trained, in GiB, and what a step
    copies to the GPU and back where that is offloaded.
    """
    config = ModelConfig(base="none", tuning="full")
    sid_ids = torch.arange(VOCABULARY, VOCABULARY + SIDS)
    model = outline(config, SHAPES[shape](), VOCABULARY + SIDS, sid_ids, torch.bfloat16)
    rows = []
    for kind in get_args(StateKind):
        size = optimizer_bytes(model, kind) / GIB
        rows.append({"shape": shape, "state": kind, "gib": size, "copied": 2 * size})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def of_pass(found: Memory) -> dict[str, Any]:
    """What a pass adds to the state, all of it in GiB, and the cards that hold it."""
    return {
        "activations": found.activations / GIB,
        "logits": found.logits / GIB,
        "total": found.total / GIB,
        "fits": [card for card in CARDS if found.total <= USED_SHARE * card * GIB],
    }


def one_pass() -> MicroBatch:
    """A pass of the default size in rows of prefix trees."""
    rows = PASS_TOKENS // WIDTH
    labels = int(PASS_TOKENS * LABEL_SHARE)
    whole = np.zeros((rows, WIDTH), np.int64)
    each = np.zeros(labels, np.int64)
    return MicroBatch(whole, None, whole, whole, each, each, each, each, PASS_TOKENS)


# --- steps ---


@dataclass
class Shop:
    """As `Corpus`, of rows that are made when they are asked for.

    A user of n + 1 items has n rows, whose histories grow by an item each.
    """

    rows: int

    @cached_property
    def _lies(self) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
        random = np.random.default_rng(self.rows)
        counts = random.integers(1, LONGEST + 1, self.rows // (LONGEST // 2) + LONGEST)
        users = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[: self.rows]
        starts = np.cumsum(counts) - counts
        places = np.arange(len(users)) - starts[users] + 1
        return users, places.astype(np.int8)

    @cached_property
    def histories(self) -> NDArray[np.int64]:
        """The user of each row."""
        return self._lies[0].astype(np.int64)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        return BEFORE + AFTER + LABELS + ITEM * self._lies[1].astype(np.int64)

    @cached_property
    def label_counts(self) -> NDArray[np.int64]:
        """Labels of each row."""
        return np.full(len(self.lengths), LABELS, np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> Example:
        user, place = (int(values[row]) for values in self._lies)
        items = np.random.default_rng(user).integers(1_000, 100_000, (LONGEST + 1, ITEM))
        asked = [np.arange(BEFORE), items[:place].ravel(), np.arange(AFTER), items[place]]
        ids = np.concatenate(asked).astype(np.int32)
        return ids, np.array([[len(ids) - LABELS, len(ids)]], np.int32), 0


def plan_of(shop: Shop, batch_size: int) -> Plan:
    """One task, users grouped, as by default."""
    return Plan(shop.histories, [len(shop)], [1], batch_size, "user", 0)


def planned(rows: int) -> dict[str, float]:
    """Seconds and memory of planning an epoch, which every rank does at its start."""
    shop = Shop(rows)
    plan = plan_of(shop, 1024)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    plan.step(0)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    found = {"rows": len(shop), "seconds": round(seconds, 2), "megabytes": round(peak / 1024)}
    print(json.dumps(found), flush=True)
    return found


def simulated(gpus: int, batch_size: int) -> dict[str, Any]:
    """A few steps of an epoch of 10^7 rows, as every rank makes them."""
    shop: Any = Shop(MEASURED[-1])
    plan = plan_of(shop, batch_size)
    # Costs of a pass and of a token as for hidden size 1536.
    layout = Layout("tree", PASS_TOKENS, 0, pass_cost=100, token_cost=12 * 1536)
    before, busiest, mean, passes = [], [], [], []
    for number in np.linspace(0, plan.steps_per_epoch - 2, SEEN).astype(int):
        ranks = [
            Steps(shop, plan, layout, rank, gpus)[int(number)]["micro_batches"]
            for rank in range(gpus)
        ]
        computed = [sum(batch.input_ids.size for batch in batches) for batches in ranks]
        before.append(int(shop.lengths[plan.step(int(number))].sum()))
        busiest.append(max(computed))
        mean.append(np.mean(computed))
        passes.append([len(batches) for batches in ranks])
    found = {
        "gpus": gpus,
        "batch_size": batch_size,
        "tokens": float(np.mean(before)),
        "computed": float(np.mean(mean) * gpus),
        "busiest_over_mean": float(np.sum(busiest) / np.sum(mean)),
        "passes": float(np.mean([np.mean(step) for step in passes])),
        "most_passes": max(max(step) for step in passes),
        "steps": {rows: -(-rows // batch_size) for rows in ROWS},
    }
    print(json.dumps(found), flush=True)
    return found


def hour_rows(
    shape: str, memory: list[dict[str, Any]], steps: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Hours of an epoch for what fits a card, at the stated share of its products."""
    found = []
    for card, worlds in ((24, (1,)), (80, (1, 8, 64))):
        fitting = [row for row in memory if row["shape"] == shape and card in row["fits"]]
        if not fitting:
            continue
        # The first that fits: full before LoRA, and without before with checkpointing.
        row = fitting[0]
        # Forward 2, backward 4 or, without gradients of weights, 2 operations per parameter and
        # token; a second forward pass with checkpointing.
        each = (6 if row["tuning"] == "full" else 4) + 2 * row["checkpointing"]
        for step in steps:
            if step["gpus"] not in worlds:
                continue
            busiest = step["computed"] / step["gpus"] * step["busiest_over_mean"]
            seconds = each * row["parameters"] * busiest / (FLOPS[card] * MFU)
            found.append(
                {
                    "shape": shape,
                    "card": card,
                    "gpus": step["gpus"],
                    "tuning": row["tuning"],
                    "checkpointing": row["checkpointing"],
                    "hours": {
                        rows: seconds * count / 3600 for rows, count in step["steps"].items()
                    },
                }
            )
            print(json.dumps(found[-1]), flush=True)
    return found


if __name__ == "__main__":
    main()
