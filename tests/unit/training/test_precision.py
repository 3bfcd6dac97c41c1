"""Which precision `auto` means on which machine, and what is said where bfloat16 is emulated."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.tiny_data import tiny_config

from sidtune.base.errors import UserError
from sidtune.checks.run import run_checks
from sidtune.config.training import TrainingConfig
from sidtune.inputs import Inputs
from sidtune.model import bf16
from sidtune.runs.checkpoints import IDENTITY
from sidtune.training.precision import choose, settle

RECIPES = Path(__file__).parents[3] / "recipes"
MILAN, ZEN4, XEON = {"avx2", "avx512_f"}, {"avx512_f", "avx512_bf16"}, {"amx_tile", "amx_bf16"}
GRAVITON2, GRAVITON3 = {"neon", "fp16_arith"}, {"neon", "bf16"}


def machine(monkeypatch: pytest.MonkeyPatch, features: set[str], gpu: str | None = None) -> None:
    """A CPU that has these features, and a GPU that is `new` (has bfloat16), `old` (emulates it) or
    `ancient`.
    """
    monkeypatch.setattr(bf16, "cpu_features", lambda: features)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)

    def supported(including_emulation: bool = True) -> bool:
        return gpu == "new" or (gpu == "old" and including_emulation)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)


def training(precision: str) -> TrainingConfig:
    return TrainingConfig.model_validate({"precision": precision})


@pytest.mark.parametrize(
    ("features", "gpu", "hidden", "chosen"),
    [
        (MILAN, None, 512, "fp32"),
        (GRAVITON2, None, 512, "fp32"),
        (set(), None, 512, "fp32"),
        (ZEN4, None, 512, "bf16"),
        (XEON, None, 256, "bf16"),
        (GRAVITON3, None, 512, "bf16"),
        (ZEN4, None, 128, "fp32"),
        (MILAN, "new", 64, "bf16"),
        (ZEN4, "old", 512, "fp32"),
        (ZEN4, "ancient", 512, "fp32"),
    ],
)
def test_auto_is_bf16_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, features: set[str], gpu: str | None, hidden: int, chosen: str
) -> None:
    machine(monkeypatch, features, gpu)
    assert choose(training("auto"), hidden) == chosen
    assert choose(training("fp32"), hidden) == "fp32"
    assert settle(training("auto"), hidden, None) == chosen


def test_this_cpu_is_asked() -> None:
    """As the kernel lists it."""
    if platform.system() != "Linux":
        pytest.skip("/proc/cpuinfo is Linux's")
    listed = set(Path("/proc/cpuinfo").read_text().split())
    instructions = listed & {"avx512_bf16", "amx_bf16", "bf16"}
    assert bool(bf16.cpu_features() & bf16.BF16_INSTRUCTIONS) == bool(instructions)


def test_an_older_torch_leaves_it_to_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    if platform.system() != "Linux":
        pytest.skip("/proc/cpuinfo is Linux's")
    asked = bf16.cpu_features() & bf16.BF16_INSTRUCTIONS
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert bf16.cpu_features() & bf16.BF16_INSTRUCTIONS == asked


@pytest.mark.parametrize(
    ("features", "gpu", "said"),
    [
        (MILAN, None, "CPU has no bfloat16"),
        (ZEN4, None, None),
        (ZEN4, "old", "GPU has no bfloat16"),
        (MILAN, "new", None),
    ],
)
def test_check_warns_where_bf16_is_emulated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    features: set[str],
    gpu: str | None,
    said: str | None,
) -> None:
    machine(monkeypatch, features, gpu)
    found = run_checks(Inputs(tiny_config(tmp_path, training={"precision": "bf16"})))
    warnings = [f for f in found if f.where == "training.precision"]
    assert [f.severity for f in warnings] == ["warning"] * (said is not None)
    assert all(said and said in f.message and "auto" in f.remedy for f in warnings)
    found = run_checks(Inputs(tiny_config(tmp_path)))
    assert not [f for f in found if f.where == "training.precision"]


def checkpoint(folder: Path, kept: object) -> Path:
    (folder / IDENTITY).write_text(json.dumps({"training.precision": kept} if kept else {}))
    return folder


def test_the_choice_is_kept_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(monkeypatch, ZEN4)
    assert settle(training("auto"), 512, checkpoint(tmp_path, "fp32")) == "fp32"
    assert settle(training("auto"), 512, checkpoint(tmp_path, "bf16")) == "bf16"
    assert capsys.readouterr().err == ""
    machine(monkeypatch, MILAN)
    assert settle(training("auto"), 512, checkpoint(tmp_path, "bf16")) == "bf16"
    said = " ".join(capsys.readouterr().err.split())
    assert "is resumed in bf16, in which it began, but this CPU has no bfloat16" in said
    assert settle(training("fp32"), 512, checkpoint(tmp_path, "bf16")) == "fp32"
    assert "training.precision: bf16 in" in capsys.readouterr().err
    assert settle(training("auto"), 512, checkpoint(tmp_path, None)) == "fp32"
    assert "does not record the precision" in " ".join(capsys.readouterr().err.split())
    machine(monkeypatch, ZEN4, "ancient")
    with pytest.raises(UserError, match="this GPU does not support") as refusal:
        settle(training("auto"), 512, checkpoint(tmp_path, "bf16"))
    assert "training.precision: fp32" in refusal.value.hint
    with pytest.raises(UserError, match=r"unknown training.precision \['fp8'\]"):
        settle(training("auto"), 512, checkpoint(tmp_path, ["fp8"]))


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_recipe_depends_on_a_machine(recipe: Path) -> None:
    """But for those of models that only a certain machine holds, which its name says."""
    tree: dict[str, Any] = {"training": {}, "model": {"base": ""}, "data": {}}
    tree |= yaml.safe_load(recipe.read_text())
    tuned = {
        "precision",
        "layout",
        "max_tokens",
        "micro_batch_size",
        "workers",
        "gradient_checkpointing",
        "compile",
    }
    assert {name: tree["training"][name] for name in tuned & tree["training"].keys()} in (
        {},
        {"precision": "auto"},
        {"gradient_checkpointing": True} if recipe.stem.endswith("x80gb") else {},
    )
    paths = [
        tree["model"]["base"],
        tree["output_dir"],
        *(v for v in tree["data"].values() if isinstance(v, str)),
    ]
    assert not [path for path in paths if path.startswith(("/", "~"))]
    assert "cache_dir" not in tree.get("encoding", {})
