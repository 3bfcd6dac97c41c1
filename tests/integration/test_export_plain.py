"""`sidtune export --to vllm | sglang`: with engines that do what theirs document, the script of the
folder lists what `recommend` lists.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file
from tests.asking import call, message
from transformers import AutoModelForCausalLM, AutoTokenizer

from sidtune.base.errors import UserError
from sidtune.decoding.recommender import Recommender
from sidtune.exports import client
from sidtune.exports.plain import export_plain
from sidtune.exports.token_trie import token_trie

HISTORY = ["0", "2", "4", "6"]
BEAMS = 8
Beam = tuple[tuple[int, ...], float]


def best_tokens(model: Any, ids: list[int], count: int) -> list[tuple[int, float]]:
    """The most probable next tokens of the whole vocabulary, in plain Transformers."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1]
    best = logits.log_softmax(-1).topk(count)
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def open_beams(model: Any, prompt: list[int], depth: int, width: int) -> list[Beam]:
    """Beam search over the whole vocabulary, as SGLang describes its own."""
    beams: list[Beam] = [((), 0.0)]
    for _ in range(depth):
        longer = [
            ((*tokens, token), score + value)
            for tokens, score in beams
            for token, value in best_tokens(model, [*prompt, *tokens], 2 * width)
        ]
        beams = sorted(longer, key=lambda beam: -beam[1])[:width]
    return beams


def listed(
    folder: Path, *options: str, capsys: pytest.CaptureFixture[str]
) -> list[tuple[str, str]]:
    """What the script prints: item and score."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["recommend.py", *HISTORY, "--beams", str(BEAMS), *options])
        patch.setattr(client, "__file__", str(folder / "recommend.py"))
        client.main()
    return [tuple(line.split()[::-1]) for line in capsys.readouterr().out.splitlines()]  # type: ignore[misc]


def expected(run: Path, k: int) -> list[tuple[str, str]]:
    (items,) = Recommender.load(run, device="cpu").unranked().recommend([HISTORY], k=k, beams=BEAMS)
    return [(item.item_id, f"{item.score:.4f}") for item in items]


def test_vllm_lists_what_recommend_lists(
    ranked: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "engine"
    done = call("export", ranked, folder, "--to", "vllm")
    assert done.exit_code == 0, done.output
    assert f"python {folder}/recommend.py" in done.output.replace("\n", "")

    class LLM:
        def __init__(self, model: str, max_logprobs: int, enable_prefix_caching: bool) -> None:
            self.model = AutoModelForCausalLM.from_pretrained(model).eval()
            self.most = max_logprobs

        def generate(self, prompts: Any, params: Any) -> list[Any]:
            """Of each prompt one token, and the log-probabilities of the likeliest by id."""
            assert (params.max_tokens, params.temperature) == (1, 0.0)
            assert params.logprobs <= self.most
            answers = []
            for prompt in prompts:
                best = best_tokens(self.model, prompt["prompt_token_ids"], params.logprobs)
                known = {token: SimpleNamespace(logprob=value) for token, value in best}
                answers.append(SimpleNamespace(outputs=[SimpleNamespace(logprobs=[known])]))
            return answers

    engine = ModuleType("vllm")
    vars(engine).update(LLM=LLM, SamplingParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", engine)
    assert listed(folder, "-k", "5", capsys=capsys) == expected(ranked, 5)


@contextmanager
def sglang_server(folder: Path) -> Iterator[str]:
    """Answers `/generate` in the form of SGLang 0.5.23."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/generate"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            wanted = body["sampling_params"]
            assert set(wanted) == {"beam_width", "n", "max_new_tokens"}
            found = open_beams(
                model, body["input_ids"], wanted["max_new_tokens"], wanted["beam_width"]
            )
            beams = [
                {"output_ids": list(tokens), "meta_info": {"sequence_score": score}}
                for tokens, score in found[: wanted["n"]]
            ]
            content = json.dumps({"text": "", "meta_info": {"beam_results": beams}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_beams_of_sglang_outside_the_catalogue_are_passed_over(
    ranked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "engine"
    done = call("export", ranked, folder, "--to", "sglang")
    assert done.exit_code == 0, done.output
    assert f"--model-path {folder} --page-size 1" in done.output
    with sglang_server(folder) as address:
        found = listed(folder, "-k", "3", "--server", address, capsys=capsys)
    best = dict(expected(ranked, BEAMS))
    assert found
    assert all(best[item] == score for item, score in found)


def test_files_hold_the_catalogue_as_the_tokenizer_numbers_it(ranked: Path, tmp_path: Path) -> None:
    made = export_plain(ranked, tmp_path / "engine", "sglang")
    tokenizer: Any = AutoTokenizer.from_pretrained(made.folder)
    catalogue = Recommender.load(made.folder, device="cpu").bundle.catalogue
    tree = json.loads((made.folder / "catalogue.json").read_text())
    for item, sid in zip(catalogue.ids, catalogue.sids, strict=True):
        assert tuple(tokenizer.convert_ids_to_tokens(tree["items"][item])) == sid
    assert tree["levels"] == [sorted({p[d] for p in tree["items"].values()}) for d in range(3)]
    lines = (made.folder / "sids.txt").read_text().splitlines()
    encoded = tokenizer(lines, add_special_tokens=False)["input_ids"]
    paths = sorted({tuple(path) for path in tree["items"].values()})
    assert sorted(map(tuple, encoded)) == paths
    assert {
        name: array.tolist() for name, array in load_file(made.folder / "trie.safetensors").items()
    } == {name: array.tolist() for name, array in token_trie(paths).tensors().items()}


def test_a_history_is_cut_as_in_training(ranked: Path, tmp_path: Path) -> None:
    made = export_plain(ranked, tmp_path / "engine", "vllm")
    recommender = Recommender.load(ranked, device="cpu")
    sids = client.Sids(made.folder)
    for history in (HISTORY, HISTORY[:1], HISTORY * 20):
        (ids,) = recommender.prompts.encode(recommender.positions([history]))[0]
        assert sids.prompt_ids(history) == ids.tolist()


def test_what_the_engines_cannot_load(run: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert "exists" in message("export", run, tmp_path / "there", "--to", "vllm")
    for weights in run.glob("*.safetensors"):
        weights.rename(tmp_path / weights.name)
    with pytest.raises(UserError, match="has no model"):
        export_plain(run, tmp_path / "new" / "engine", "vllm")
    assert not (tmp_path / "new").exists()
