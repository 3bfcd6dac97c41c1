"""Servers of tests: in this process, and reached over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import uvicorn

from sidtune.config.search import RankOptions
from sidtune.decoding.recommender import Recommender
from sidtune.serving.engine import Engine
from sidtune.serving.server import bound
from tests.asking import call

SECONDS = 120


def engine_of(folder: Path, **options: Any) -> Engine:
    """The engine of a model's folder."""
    return Engine(Recommender.load(folder, device="cpu"), RankOptions(), **options)


def recommended(folder: Path, histories: list[list[str]], *options: object) -> list[Any]:
    """What `sidtune recommend` prints."""
    lines = "".join(json.dumps({"history": history}) + "\n" for history in histories)
    done = call("recommend", folder, "--input", "-", "--json", *options, stdin=lines)
    return [json.loads(line)["items"] for line in done.stdout.splitlines()]


@contextmanager
def running(app: Any) -> Iterator[str]:
    """The address of a server in a thread of its own."""
    listener = bound("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=[[listener]])
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(SECONDS)


class Client:
    """One connection that is kept, to a server of this machine."""

    def __init__(self, port: int) -> None:
        self.connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and answer."""
        headers = {"Content-Type": "application/json"}
        self.connection.request("POST", path, json.dumps(body), headers)
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())

    def wait(self) -> None:
        """Until the server listens."""
        for _ in range(SECONDS * 20):
            try:
                self.connection.connect()
            except OSError:
                threading.Event().wait(0.05)
            else:
                return
        raise TimeoutError
