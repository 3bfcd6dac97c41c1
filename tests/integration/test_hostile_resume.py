"""Going on from a checkpoint that somebody forged, manifest and all: nothing of it runs, and it is
refused in words.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
from tests.running import dies, run
from tests.tiny_data import tiny_config
from tests.unit.model.test_hostile_models import Bomb

from sidtune.base.errors import UserError
from sidtune.runs.checkpoints import MANIFEST
from sidtune.runs.resumed import STATE
from sidtune.tasks.config import Config


def broken_off(folder: Path) -> tuple[Config, Path]:
    """A run that died behind its first checkpoint."""
    config = tiny_config(folder, eval={"every": 2, "save_total_limit": 3, "patience": 9})
    dies(config, 3)
    return config, config.output_dir / "checkpoint-2"


def forge(checkpoint: Path, name: str, content: bytes) -> None:
    """Put something else in a file's place, and make the manifest agree."""
    (checkpoint / name).write_bytes(content)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    manifest[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))


def test_forged_files_of_a_checkpoint(tmp_path: Path) -> None:
    config, checkpoint = broken_off(tmp_path)
    canary = tmp_path / "canary"
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors", STATE):
        whole = (checkpoint / name).read_bytes()
        forge(checkpoint, name, pickle.dumps(Bomb(canary), 2))
        with pytest.raises(UserError, match=r"damaged weights|cannot be read"):
            run(config)
        forge(checkpoint, name, whole)
    assert not canary.exists()
    assert run(config).steps > 2, "with every file in its place again it goes on"


def test_a_checkpoint_that_is_never_read_to_its_end(tmp_path: Path) -> None:
    config, checkpoint = broken_off(tmp_path)
    for name, become in ((STATE, os.mkfifo), (MANIFEST, lambda path: path.symlink_to("/dev/zero"))):
        whole = (checkpoint / name).read_bytes()
        (checkpoint / name).unlink()
        become(checkpoint / name)
        with pytest.raises(UserError, match=f"checkpoint-2: {name} cannot be read"):
            run(config)
        (checkpoint / name).unlink()
        (checkpoint / name).write_bytes(whole)


def test_a_state_that_names_a_best_model_elsewhere(tmp_path: Path) -> None:
    """A path in a file is where the run was; only the name counts."""
    config, checkpoint = broken_off(tmp_path)
    away = tmp_path / "elsewhere" / checkpoint.name
    away.mkdir(parents=True)
    state = json.loads((checkpoint / STATE).read_text())
    state |= {"best_model_checkpoint": str(away), "best_metric": 0.0, "best_global_step": 2}
    forge(checkpoint, STATE, json.dumps(state).encode())
    assert run(config).best_step == 2, "the run's own checkpoint, which was taken for the best"
    assert list(away.iterdir()) == []
