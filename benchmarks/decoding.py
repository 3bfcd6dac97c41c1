"""Compare constrained beam search with `generate` and `prefix_allowed_tokens_fn`, in users per
second.

Both answer test users of amazon-industrial with 50 beams and the same model, which has about two
million parameters and random weights. Measured are the default prompts, prompts as long as
MiniOneRec's, and a vocabulary of 152,064 rows in place of the base's own. The two take turns, and
the reported ratio is the median over rounds. With softmax over the full vocabulary both must return
the same SIDs and scores, or the script fails. Softmax over the allowed tokens would cost `generate`
one more operation, so both of sidtune's rates are divided by the same runs of `generate`. The last
line of the output is the time to build the trie of a million items.

    SIDTUNE_DATA=folder python benchmarks/decoding.py
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import PreTrainedModel

from sidtune.base.ragged import Ragged
from sidtune.base.terminal import quiet_libraries
from sidtune.config.search import MAX_TOKENS, Normalize
from sidtune.data.catalogue import read_texts
from sidtune.decoding.answers import Answers, make_answers
from sidtune.decoding.decoder import make_decoder
from sidtune.decoding.prompts import Prompts
from sidtune.decoding.search import Search
from sidtune.decoding.trie import build_trie, distinct_sids
from sidtune.inputs import Inputs
from sidtune.model.load import load_model
from sidtune.model.new_base import create_base
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config

BEAMS, ROUNDS = 50, 5
# Users of one round: what takes generate some seconds, and ours several full batches.
GENERATE_USERS, OUR_USERS = (
    {"8k": 32, "8k, long": 24, "152k": 8},
    {
        "8k": 324,
        "8k, long": 324,
        "152k": 162,
    },
)
# Its fastest here: batches of 1, 4, 8 and 16 users gave 10.8, 10.7, 10.0 and 8.0 users per second
# at 8.6k rows.
GENERATE_BATCH = 4
LARGE_VOCABULARY = 152_064
# As long as MiniOneRec's examples, which are 150 tokens on average, and like them mostly the same
# for everyone.
LONG_WORDING = {
    "sid_next": {
        "prompt": [
            (
                "Below is a task for an assistant that knows the catalogue of a shop. Every item of"
                " the shop is named by a short code of three parts, and items that are alike have"
                " codes that begin alike. Read what the customer has bought so far, oldest first,"
                " think of what the customer may need next, and answer with the code of exactly one"
                " item of the catalogue. Write the code alone, without any comment.\n\nThe"
                " purchases so far:\n"
            ),
            "{history_sids}",
            "\nThe code of the item that the customer will most likely buy next:\n",
        ],
        "separator": ", ",
        "response": ["{target_sid}"],
    }
}
MILLION = 1_000_000
PREDICTION = (
    "Written down before the first run of this script, from timings of the parts: generate runs"
    " each prompt 50 times and looks its beams up one by one; ours runs 34 prompt tokens and 100"
    " beam tokens a user, and 101 rows of the head. At 8.6k rows the head is half of that: 15 to 20"
    " times with the full vocabulary, 30 with the trie's. At 152k rows the head is nearly all: 12"
    " to 20 times, and over 100 with the trie's."
)
TOLERANCE = 1e-4
OUTCOME = Path(__file__).with_suffix(".json")

SidPath = tuple[int, ...]
Beams = tuple[list[SidPath], list[float]]
Found = dict[int, tuple[list[int], list[float]]]


def main() -> None:
    """Time all, print the table and leave the JSON."""
    quiet_libraries()
    data = Path(os.environ.get("SIDTUNE_DATA", "../shared/data")) / "amazon-industrial"
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        create_base(base, read_texts(data / "Industrial_and_Scientific.item.json"))
        (base / "long.yaml").write_text(yaml.safe_dump(LONG_WORDING), encoding="utf-8")
        inputs = Inputs(config_of(data, base))
        model = load_model(inputs.config.model, inputs.vocabulary, seed=0).eval()
        long = questions(Inputs(config_of(data, base, base / "long.yaml")))
        asked, answers = questions(inputs)
        results = {
            "8k": compare(model, asked, answers, "8k"),
            "8k, long": compare(model, *long, "8k, long"),
        }
        model.resize_token_embeddings(LARGE_VOCABULARY, mean_resizing=False)
        results["152k"] = compare(model, asked, answers, "152k")
    report(results, trie_of_a_million())


def questions(inputs: Inputs) -> tuple[Ragged, Answers]:
    """The prompts of all test users, and what may be answered."""
    prompts = Prompts(inputs.bundle, inputs.vocabulary.tokenizer)
    asked, _ = prompts.encode(inputs.mixture.source("test").rows.history)
    return asked, make_answers(inputs.bundle, prompts)


def config_of(data: Path, base: Path, template: Path | None = None) -> Config:
    """A configuration that trains nothing; it names the files and the base."""
    files = {
        "items": "Industrial_and_Scientific.item.json",
        "index": "Industrial_and_Scientific.index.json",
    }
    files |= {"train": "train.csv", "valid": "valid.csv", "test": "test.csv"}
    named = {name: str(data / file) for name, file in files.items()}
    tree: dict[str, Any] = {
        "output_dir": "unused",
        "model": {"base": str(base), "from_scratch": True},
        "data": named,
    }
    tree["template"] = {"file": str(template)} if template else {}
    return parse_config(tree, "benchmark")


def compare(model: PreTrainedModel, asked: Ragged, answers: Answers, row: str) -> dict[str, float]:
    """Users per second of generate and of ours, and the medians of the ratios, over alternating
    rounds.
    """
    random = np.random.default_rng(0)
    rates: dict[str, list[float]] = {"generate": [], "full": [], "trie": []}
    for _ in range(ROUNDS):
        users = asked.take(random.permutation(len(asked))[: OUR_USERS[row]])
        few = users.take(np.arange(GENERATE_USERS[row]))
        began = time.perf_counter()
        expected = list(generate(model, answers, few))
        rates["generate"].append(len(few) / (time.perf_counter() - began))
        for name in ("full", "trie"):
            began = time.perf_counter()
            found = ours(model, answers, users, "full" if name == "full" else "trie")
            rates[name].append(len(users) / (time.perf_counter() - began))
            if name == "full":
                check(found, expected, sid_paths(answers))
    result = {name: statistics.median(values) for name, values in rates.items()}
    for name in ("full", "trie"):
        ratios = [
            mine / theirs for mine, theirs in zip(rates[name], rates["generate"], strict=True)
        ]
        result |= {f"{name} ratio": statistics.median(ratios), f"{name} least ratio": min(ratios)}
    return result | {
        "vocabulary": len(model.get_output_embeddings().weight),
        "tokens": float(asked.lengths.mean()),
    }


def ours(model: PreTrainedModel, answers: Answers, users: Ragged, normalize: Normalize) -> Found:
    """Numbers of SIDs, and scores, of every user."""
    decoder = make_decoder(model)
    search = Search(answers.trie, BEAMS, normalize, MAX_TOKENS)
    found: Found = {}
    for batch in search.batches(decoder, users.lengths):
        sids, scores = search.run(decoder, users.take(batch))
        found |= dict(
            zip(batch.tolist(), zip(sids.tolist(), scores.tolist(), strict=True), strict=True)
        )
    return found


def generate(model: PreTrainedModel, answers: Answers, users: Ragged) -> Iterator[Beams]:
    """The usual way, in batches."""
    paths = sid_paths(answers)
    allowed = allowed_after(paths)
    for start in range(0, len(users), GENERATE_BATCH):
        prompts = [users[row] for row in range(start, min(start + GENERATE_BATCH, len(users)))]
        found, scored = constrained_beams(model, prompts, allowed, BEAMS, len(paths[0]))
        yield from (
            ([tuple(path) for path in beams], row)
            for beams, row in zip(found.tolist(), scored.tolist(), strict=True)
        )


def allowed_after(paths: Sequence[SidPath]) -> dict[SidPath, list[int]]:
    """The tokens that may follow each prefix of a SID."""
    allowed: dict[SidPath, set[int]] = {}
    for path in paths:
        for at in range(len(path)):
            allowed.setdefault(path[:at], set()).add(path[at])
    return {prefix: sorted(tokens) for prefix, tokens in allowed.items()}


@torch.no_grad()
def constrained_beams(
    model: Any, prompts: list[Any], allowed: dict[SidPath, list[int]], beams: int, depth: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The usual way: `generate` with a dictionary from prefix to allowed tokens, looked up for each
    beam at every step.

    Args:
        prompts: token ids.
        allowed: of `allowed_after`.
        depth: tokens of a SID.

    Returns:
        Tokens of the SIDs, `(prompts, beams, depth)`, and their scores, `(prompts, beams)`.
    """
    ids, mask = left_padded(prompts)
    width = ids.shape[1]
    output = model.generate(
        ids,
        attention_mask=mask,
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=depth,
        do_sample=False,
        length_penalty=0.0,
        eos_token_id=None,
        pad_token_id=0,
        prefix_allowed_tokens_fn=lambda _, row: allowed[tuple(row[width:].tolist())],
        return_dict_in_generate=True,
        output_scores=True,
    )
    found = output.sequences[:, width:].view(len(ids), beams, -1)
    return found, output.sequences_scores.view(len(ids), beams)


def left_padded(prompts: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, `(users, length)`."""
    width = max(map(len, prompts))
    ids, mask = (
        torch.zeros(len(prompts), width, dtype=torch.long),
        torch.zeros(len(prompts), width, dtype=torch.long),
    )
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.from_numpy(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids, mask


def sid_paths(answers: Answers) -> list[SidPath]:
    """The SIDs as tokens, by number."""
    paths: dict[int, SidPath] = {}
    prefixes: list[SidPath] = [()]
    for level in answers.trie.levels:
        following = []
        for node, prefix in enumerate(prefixes):
            for child in range(int(level.starts[node]), int(level.starts[node + 1])):
                following.append((*prefix, int(level.tokens[level.columns[child]])))
                if level.sids[child] >= 0:
                    paths[int(level.sids[child])] = following[-1]
        prefixes = following
    return [paths[number] for number in range(len(paths))]


def check(found: Found, expected: Sequence[Beams], paths: Sequence[SidPath]) -> None:
    """The same scores in the same order, and the same SIDs but for those tied with the last place,
    to 1e-4.
    """
    for user, (sids, scores) in enumerate(expected):
        numbers, mine = found[user]
        worst = max(abs(a - b) for a, b in zip(mine, scores, strict=True))
        assert worst < TOLERANCE, f"user {user}: scores differ by {worst}"
        own = dict(zip((paths[number] for number in numbers), mine, strict=True))
        for sid, score in zip(sids, scores, strict=True):
            assert score < scores[-1] + TOLERANCE or abs(own[sid] - score) < TOLERANCE, (
                f"user {user}: {sid}"
            )


def trie_of_a_million() -> float:
    """Seconds from a million items' SIDs, of four levels with 256 tokens each, to the trie."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 256, (MILLION, 4)).tolist()
    sids = [
        tuple(f"<{level}_{code}>" for level, code in zip("abcd", row, strict=True)) for row in codes
    ]
    ids = {
        f"<{level}_{code}>": 1000 + 256 * place + code
        for place, level in enumerate("abcd")
        for code in range(256)
    }
    began = time.perf_counter()
    build_trie(distinct_sids(sids, ids)[0], closing=0)
    return time.perf_counter() - began


def report(results: dict[str, dict[str, float]], million: float) -> None:
    """Print the table; keep the JSON."""
    print(f"users per second with {BEAMS} beams")
    print(f"{'vocabulary':>10}  {'prompt':>6}  {'generate':>9}  {'full':>16}  {'trie':>16}")
    for row in results.values():
        cells = [f"{row[name]:>8.1f} {row[f'{name} ratio']:>6.1f}x" for name in ("full", "trie")]
        print(
            f"{row['vocabulary']:>10,}  {row['tokens']:>6.0f}  {row['generate']:>9.2f}  {cells[0]} "
            f" {cells[1]}"
        )
    print(f"building the trie of {MILLION:,} items: {million:.1f} s")
    tree = {
        "prediction": PREDICTION,
        "rounds": ROUNDS,
        "beams": BEAMS,
        "results": results,
        "million_seconds": million,
    }
    OUTCOME.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
