"""A small run whose encoded examples and losses are kept in `tests/golden/`, to notice a change of
either.

python -m tests.golden_run      # keeps them anew, after a change that was meant
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from sidtune.encoding.corpus import FORMAT_VERSION
from sidtune.inputs import Inputs
from sidtune.tasks.config_file import parse_config
from tests.running import losses, run
from tests.tiny_data import tiny_tree
from tests.tiny_models import make_config

FILE = Path(__file__).parent / "golden" / "run.json"
KEPT_EXAMPLES = 3


def make_golden_base(folder: Path) -> None:
    """A base that depends on no random number and on no trainer of tokenizers: single bytes, and
    cosines as weights.
    """
    symbols = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(
        models.BPE(vocab={symbol: number for number, symbol in enumerate(symbols)}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, **names
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        make_config("qwen3", True, len(symbols))
    )
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters(), start=1):
            if parameter.dim() > 1:
                places = torch.arange(parameter.numel(), dtype=torch.float64)
                parameter.copy_((0.1 * torch.cos(places * (number + 0.37))).view_as(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(folder: Path) -> dict[str, Any]:
    """The first examples of every default task, and the training losses of six steps."""
    make_golden_base(folder / "base")
    tree = tiny_tree(
        folder,
        training={"max_steps": 6, "batch_size": 16},
        eval={"every": 6},
        encoding={"cutoff_len": 400},
    )
    config = parse_config(tree, "golden")
    examples = {}
    for task in Inputs(config).mixture.train():
        pairs = [task[index] for index in range(KEPT_EXAMPLES)]
        examples[task.name] = [
            {"input_ids": ids.tolist(), "label_spans": spans.tolist()} for ids, spans in pairs
        ]
    run(config)
    return {"format_version": FORMAT_VERSION, "examples": examples, "losses": losses(config)}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as passing:
        FILE.write_text(json.dumps(measure(Path(passing))) + "\n", encoding="utf-8")
