"""Uploading a model, to a hub of our own on this machine."""

from __future__ import annotations

import base64
import json
import math
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import pytest
from tests.running import run
from tests.tiny_data import tiny_config
from typer.testing import CliRunner

from sidtune.base.errors import UserError
from sidtune.commands.main import app
from sidtune.pipeline.push import gathered, push
from sidtune.runs.files import CONFIG
from sidtune.runs.model_card import CARD

REPO = "me/shop"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's interface as one commit needs; `refuses` answers every request."""

    files: ClassVar[dict[str, bytes]] = {}
    created: ClassVar[list[dict[str, Any]]] = []
    refuses: ClassVar[int] = 0
    address: ClassVar[str] = ""

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        self.answer({"sha": "0" * 40, "id": REPO, "siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.refuses:
            self.answer({"error": "You may not"}, self.refuses)
        elif self.path.endswith("/repos/create"):
            self.created.append(json.loads(body))
            self.answer({"url": f"{self.address}/{REPO}", "id": "1", "name": REPO})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            each = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            self.answer({"files": each})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.files[entry["value"]["path"]] = content
            where = f"{self.address}/{REPO}/commit/1"
            self.answer({"success": True, "commitOid": "1", "commitUrl": where})
        else:
            self.answer({})

    def answer(self, content: dict[str, Any], status: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # As HF_ENDPOINT sets it before the library is imported.
    Hub.address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", Hub.address)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 30)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    Hub.files, Hub.created, Hub.refuses = {}, [], 0
    yield Hub
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("push")
    return run(tiny_config(folder, training={"max_steps": 1}, eval={"every": 1})).folder


def invoke(*words: object, answer: str = "") -> Any:
    return CliRunner().invoke(app, ["push", *map(str, words)], input=answer)


def test_what_others_need_is_uploaded_and_nothing_else(model: Path, hub: type[Hub]) -> None:
    result = invoke(model, REPO, "--yes")
    assert result.exit_code == 0, result.output
    assert "Uploaded: " in result.output
    needed = {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
    needed |= {"sid_catalogue.parquet", "sid_recommender.json"}
    assert needed <= hub.files.keys()
    assert not {"config.yaml", "metrics.jsonl", "sidtune.json", "manifest.json"} & hub.files.keys()
    assert not any("/" in name for name in hub.files), "no checkpoint, no evaluation"
    assert hub.files["model.safetensors"] == (model / "model.safetensors").read_bytes()
    everything = b"".join(hub.files.values())
    assert str(model.parent).encode() not in everything
    assert hub.created[0]["visibility"] == "private"


def test_it_asks_first(model: Path, hub: type[Hub]) -> None:
    result = invoke(model, REPO, answer="n\n")
    assert result.exit_code == 1
    kilobytes = math.ceil((model / "config.json").stat().st_size / 1_000)
    assert f"  config.json  {kilobytes} kB" in result.output
    assert "Nothing was uploaded" in result.output
    assert not hub.files
    assert invoke(model, REPO, "--public", answer="y\n").exit_code == 0
    assert hub.files


def test_a_path_of_this_machine_is_refused(
    model: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = (model / CARD).read_text()
    settings = (model / "config.json").read_text()
    (model / CARD).write_text(f"{ordinary}\nTrained on {model.parent}/data/train.csv\n")
    result = invoke(model, REPO, "--yes")
    (model / CARD).write_text(ordinary)
    assert isinstance(result.exception, UserError)
    assert f"README.md holds a path of this machine: {model.parent}" in str(result.exception)
    assert not hub.created
    place = {"_name_or_path": str(model.parent / "base")}
    (model / "config.json").write_text(json.dumps(json.loads(settings) | place))
    with gathered(model) as upload:
        assert "_name_or_path" not in (upload.folder / "config.json").read_text()
    (model / "config.json").write_text(settings)
    assert not upload.folder.exists()


def test_a_path_that_json_writes_otherwise_is_refused(model: Path, tmp_path: Path) -> None:
    run_of = shutil.copytree(model, tmp_path / "größe" / "run")
    settings = json.loads((run_of / "config.json").read_text(encoding="utf-8"))
    escaped = json.dumps(settings | {"trained_on": f"{run_of}/train.csv"})
    assert "größe" not in escaped
    (run_of / "config.json").write_text(escaped, encoding="utf-8")
    with (
        pytest.raises(UserError, match=r"config.json holds a path of this machine"),
        gathered(run_of),
    ):
        pass


@pytest.mark.parametrize(("status", "hint"), [(401, "hf auth login"), (500, "later")])
def test_a_hub_that_refuses(
    model: Path, hub: type[Hub], status: int, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.refuses = status
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with gathered(model) as upload, pytest.raises(UserError, match=f"refuses \\({status}") as error:
        push(upload, REPO, private=True)
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("name", "fault"), [(CONFIG, "not valid YAML"), ("generation_config.json", "not valid JSON")]
)
def test_a_broken_file_is_told(model: Path, tmp_path: Path, name: str, fault: str) -> None:
    run_of = shutil.copytree(model, tmp_path / "run")
    (run_of / name).write_text("{output_dir: [")
    with pytest.raises(UserError, match=f"{name}: {fault}"), gathered(run_of):
        pass


def test_mistakes(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "OWNER/NAME" in str(invoke(model, "a/b/c", "--yes").exception)
    assert "contains no model" in str(invoke(tmp_path, REPO, "--yes").exception)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in str(invoke(model, REPO, "--yes").exception)
