"""Recommendations by vLLM or SGLang, from a folder that `sidtune export` wrote.

    python recommend.py 12 7                    # vLLM, in this process
    python recommend.py 12 7 --server http://127.0.0.1:30000    # an SGLang server

It needs the engine alone: copy it into a program of your own.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

Scored = list[tuple[tuple[int, ...], float]]


class Sids:
    """Prompts from item ids, and item ids from generated tokens.

    Args:
        folder: holds `catalogue.json` and `prompt.json`.
    """

    def __init__(self, folder: Path) -> None:
        catalogue = json.loads((folder / "catalogue.json").read_text(encoding="utf-8"))
        self.prompt = json.loads((folder / "prompt.json").read_text(encoding="utf-8"))
        self.depth = len(catalogue["levels"])
        self.sid_of = {item: tuple(sid) for item, sid in catalogue["items"].items()}
        self.items_of: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for item, sid in self.sid_of.items():
            self.items_of[sid].append(item)

    def prompt_ids(self, history: list[str]) -> list[int]:
        """The prompt of a history, oldest item first."""
        around = self.prompt["token_ids"]
        ids: list[int] = list(around["before"])
        for place, item in enumerate(history[-self.prompt["longest_history"] :]):
            ids += [*(around["separator"] if place else []), *self.sid_of[item]]
        return [*ids, *around["after"]]

    def items(self, beams: Scored, k: int) -> list[tuple[str, float]]:
        """The items of the best beams; beams that are no SID of the catalogue are passed over."""
        best = sorted(beams, key=lambda beam: -beam[1])
        return [(item, score) for sid, score in best for item in self.items_of.get(sid, ())][:k]


def by_vllm(folder: Path, prompt: list[int], beams: int) -> Scored:
    """Beam search along the trie: each step asks for the next token of every beam.

    vLLM's own beam search asks as often. Given a grammar of all SIDs it reads that anew for each
    beam and step, which takes longer than the model.
    """
    from safetensors.numpy import load_file
    from vllm import LLM, SamplingParams

    # A step sees so many tokens of the whole vocabulary, and vLLM gives no more than it is told of.
    seen = 2 * beams
    llm = LLM(model=str(folder), max_logprobs=seen, enable_prefix_caching=True)
    params = SamplingParams(max_tokens=1, temperature=0.0, logprobs=seen, detokenize=False)
    trie = load_file(folder / "trie.safetensors")
    # Tokens, their log-probability, and the node that they lead to.
    found: list[tuple[tuple[int, ...], float, int]] = [((), 0.0, 0)]
    for level in range(len(trie) // 2):
        starts, tokens = trie[f"starts.{level}"].tolist(), trie[f"tokens.{level}"].tolist()
        asked: Any = [{"prompt_token_ids": [*prompt, *sid]} for sid, _, _ in found]
        longer = []
        for (sid, score, node), answer in zip(found, llm.generate(asked, params), strict=True):
            known = answer.outputs[0].logprobs[0]
            for child in range(starts[node], starts[node + 1]):
                if tokens[child] in known:
                    one = known[tokens[child]].logprob
                    longer.append(((*sid, tokens[child]), score + one, child))
        found = sorted(longer, key=lambda beam: -beam[1])[:beams]
    return [(sid, score) for sid, score, _ in found]


def by_sglang(server: str, prompt: list[int], depth: int, beams: int) -> Scored:
    """SGLang's beam search, over the whole vocabulary."""
    body = {
        "input_ids": prompt,
        "sampling_params": {"beam_width": beams, "n": beams, "max_new_tokens": depth},
    }
    headers = {"Content-Type": "application/json"}
    request = Request(f"{server}/generate", json.dumps(body).encode(), headers)
    with urlopen(request) as response:
        results = json.load(response)["meta_info"]["beam_results"]
    return [(tuple(beam["output_ids"]), beam["meta_info"]["sequence_score"]) for beam in results]


def main() -> None:
    """Print a list for one history."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("history", nargs="+", metavar="ITEM", help="item ids, oldest first")
    parser.add_argument("-k", type=int, default=10, help="items wanted")
    parser.add_argument("--beams", type=int, default=50, help="beams of the search")
    parser.add_argument("--server", help="address of an SGLang server; without it, vLLM is used")
    options = parser.parse_args()
    folder = Path(__file__).parent
    sids = Sids(folder)
    unknown = [item for item in options.history if item not in sids.sid_of]
    if unknown:
        parser.error(f"not in the catalogue: {', '.join(unknown)}")
    prompt = sids.prompt_ids(options.history)
    beams = (
        by_sglang(options.server, prompt, sids.depth, options.beams)
        if options.server
        else by_vllm(folder, prompt, options.beams)
    )
    for item, score in sids.items(beams, options.k):
        print(f"{score:10.4f}  {item}")


if __name__ == "__main__":
    main()
