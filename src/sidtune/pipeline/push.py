"""`sidtune push`: a finished model to the Hub, without configuration and local paths."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from sidtune.base.errors import UserError
from sidtune.files.pointers import SMALL_FILES
from sidtune.files.text import parse_json
from sidtune.files.yaml_files import read_yaml
from sidtune.runs.bundle import CATALOGUE, RECOMMENDER_FILE, refuse_other_folders
from sidtune.runs.files import CONFIG
from sidtune.runs.model_card import CARD

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
OTHERS = (CARD, CATALOGUE, RECOMMENDER_FILE, *SMALL_FILES)
# Keys of Transformers' files that hold the folder a model was loaded from.
PLACES = ("_name_or_path", "name_or_path")
# Weights hold numbers behind their header; everything else is looked at as a whole.
LOOKED_AT = 1 << 24
LOGIN = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write."


@dataclass(frozen=True)
class Upload:
    """What is uploaded.

    Args:
        folder: holds exactly these files.
        files: name → bytes, in the order of names.
    """

    folder: Path
    files: dict[str, int]


@contextmanager
def gathered(model: Path) -> Iterator[Upload]:
    """The files of a model that others need, in a folder of their own that is removed afterwards.

    Configuration, logs, checkpoints and evaluations are not among them.

    Raises:
        UserError: for a folder without a finished model, and where a file holds a path of this
            machine.
    """
    refuse_other_folders(model)
    if not (model / RECOMMENDER_FILE).is_file():
        raise UserError(
            f"{model} has no {RECOMMENDER_FILE}, which every model of sidtune has",
            "Give a run's folder: output_dir.",
        )
    found = {path for pattern in WEIGHTS for path in model.glob(pattern)}
    found |= {model / name for name in OTHERS if (model / name).is_file()}
    with tempfile.TemporaryDirectory(prefix="sidtune-push-") as aside:
        folder = Path(aside)
        for path in sorted(found):
            _copy(path, folder / path.name)
        _refuse_local_paths(folder, model)
        yield Upload(folder, {path.name: path.stat().st_size for path in sorted(folder.iterdir())})


def refuse_name(repo: str) -> None:
    """Refuse what is no name of a repository."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"{repo}: {error}", "Give OWNER/NAME.") from None


def push(upload: Upload, repo: str, private: bool) -> str:
    """Upload, in one commit, and return the address of the repository.

    Args:
        repo: `OWNER/NAME`, which is made if it does not exist.
        private: whether a new one is private.

    Raises:
        UserError: where the Hub refuses, or cannot be reached.
    """
    api = HfApi()
    try:
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id,
            folder_path=upload.folder,
            commit_message="Upload a model of sidtune",
        )
    except OfflineModeIsEnabled:
        raise UserError(f"{repo}: HF_HUB_OFFLINE is set", "Unset it to upload.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = LOGIN if status in (401, 403) else "Try again later."
        reason = error.server_message or str(error).splitlines()[0][:200]
        raise UserError(f"{repo}: the Hub refuses ({status}): {reason}", hint) from None
    except OSError as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"{repo}: the Hub cannot be reached: {reason}", "Try again.") from None
    return str(address)


def _copy(path: Path, target: Path) -> None:
    """A file as it is uploaded: weights are linked where that is possible."""
    if path.suffix != ".json":
        try:
            os.link(path.resolve(), target)
        except OSError:
            shutil.copyfile(path, target)
        return
    text = path.read_text(encoding="utf-8")
    content = parse_json(text, str(path))
    if isinstance(content, dict) and any(name in content for name in PLACES):
        kept = {name: value for name, value in content.items() if name not in PLACES}
        text = json.dumps(kept, indent=2, ensure_ascii=False) + "\n"
    target.write_text(text, encoding="utf-8")


def _refuse_local_paths(folder: Path, model: Path) -> None:
    places = [path for path in _local_paths(model) if len(path.parts) > 2]
    for file in sorted(folder.iterdir()):
        with file.open("rb") as stream:
            content = stream.read(LOOKED_AT)
        for place in places:
            # As it is, or as JSON and YAML write other letters than ASCII.
            if os.fsencode(place) in content or json.dumps(str(place))[1:-1].encode() in content:
                raise UserError(
                    f"{file.name} holds a path of this machine: {place}",
                    f"Remove it from {model / file.name}; nothing was uploaded.",
                )


def _local_paths(model: Path) -> Iterator[Path]:
    """Folders of this user and this run, and every path that its configuration names."""
    yield from (Path.home(), Path.cwd(), model.absolute(), model.resolve())
    if (model / CONFIG).is_file():
        yield from _paths(read_yaml(model / CONFIG))


def _paths(tree: Any) -> Iterator[Path]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _paths(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _paths(value)
    elif isinstance(tree, str) and Path(tree).is_absolute():
        yield Path(tree)
