"""The command `sidtune serve`: reloads and stops without a lost request."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.asking import call, message
from tests.serving import SECONDS, Client, recommended

from sidtune.serving.server import bound
from sidtune.tasks.config import Config

HISTORIES = [["3", "1"], ["1"], ["0", "2", "4", "6"]]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Future[int]:
    """Where the command listens, once it does: a free port that nobody can take before."""
    found: Future[int] = Future()

    def noted(host: str, number: int) -> socket.socket:
        listener = bound(host, number)
        found.set_result(listener.getsockname()[1])
        return listener

    monkeypatch.setattr("sidtune.serving.server.bound", noted)
    return found


def test_a_server_is_reloaded_and_stopped_without_a_lost_request(
    config: Config, ranked: Path, tmp_path: Path, port: Future[int]
) -> None:
    """Clients ask without pause while the folder becomes another one, SIGHUP and SIGTERM come."""
    model = tmp_path / "model"
    model.symlink_to(config.output_dir)
    expected = {
        generation: [
            [item["item_id"] for item in items] for items in recommended(folder, HISTORIES)
        ]
        for generation, folder in ((1, config.output_dir), (2, ranked))
    }
    assert expected[1] != expected[2]
    reloaded, stopping, faults = threading.Event(), threading.Event(), list[Any]()
    counts = {1: 0, 2: 0}

    def ask(worker: int, again: Callable[[], bool]) -> None:
        client = Client(port.result(SECONDS))
        client.wait()
        while again():
            status, answer = client.post("/recommend", {"history": HISTORIES[worker]})
            if status != 200:
                faults.append((status, answer))
                return
            generation = answer["generation"]
            counts[generation] += 1
            if generation == 2:
                reloaded.set()
            if [item["item_id"] for item in answer["items"]] != expected[generation][worker]:
                faults.append((generation, answer))

    def drive() -> None:
        try:
            Client(port.result(SECONDS)).wait()
            with ThreadPoolExecutor(3) as pool:
                workers = [
                    pool.submit(ask, each, lambda: not reloaded.is_set()) for each in range(3)
                ]
                model.unlink()
                model.symlink_to(ranked)
                os.kill(os.getpid(), signal.SIGHUP)
                for worker in workers:
                    worker.result()
                # In flight when the server is asked to stop.
                last = [Client(port.result()) for _ in range(3)]
                for client in last:
                    client.wait()
                answers = [
                    pool.submit(client.post, "/recommend", {"history": HISTORIES[0]})
                    for client in last
                ]
                while not any(answer.done() for answer in answers):
                    threading.Event().wait(0.001)
                stop()
                faults.extend(answer.result() for answer in answers if answer.result()[0] != 200)
        finally:
            stop()

    def stop() -> None:
        """Once, and not when the server is gone: then the signal would end the tests."""
        if not stopping.is_set():
            stopping.set()
            os.kill(os.getpid(), signal.SIGTERM)

    driver = threading.Thread(target=drive)
    driver.start()
    done = call("serve", model, "--port", 0)
    stopping.set()
    driver.join()
    assert done.exit_code == 0, done.output
    assert not faults
    assert min(counts.values()) > 0
    assert f"POST http://127.0.0.1:{port.result()}/recommend" in done.output
    assert f"curl http://127.0.0.1:{port.result()}/recommend -H" in done.output
    assert "reloaded: generation 2, 8 items" in done.output


def test_mistakes_of_the_command(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        said = message("serve", config.output_dir, "--port", port)
    assert f"cannot listen at 127.0.0.1, port {port}" in said
    assert "no such folder" in message("serve", "nothing", "--port", 0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = message("serve", config.output_dir)
    assert "sidtune serve needs fastapi, uvicorn, prometheus_client" in said
    assert "pip install 'sidtune[serve]'" in said


def _memory(port: int) -> float:
    """Megabytes that a server has, by its own metrics."""
    connection = Client(port).connection
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    return float(re.findall(r"^process_resident_memory_bytes (\S+)", text, re.M)[0]) / 1e6


@pytest.mark.long
def test_an_hour_of_load(ranked: Path) -> None:
    """Nothing lost, and memory steady, with a reload every tenth of the time.

    `SIDTUNE_LOAD_SECONDS` makes it shorter.
    """
    seconds = float(os.environ.get("SIDTUNE_LOAD_SECONDS", "3600"))
    command = [sys.executable, "-m", "sidtune", "serve", str(ranked), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    lines = (re.search(r"^POST http://127.0.0.1:(\d+)/", line) for line in server.stdout)
    port = next(int(line[1]) for line in lines if line)
    until = time.monotonic() + seconds
    counts: Counter[int] = Counter()

    def ask(worker: int) -> None:
        client = Client(port)
        client.wait()
        while time.monotonic() < until:
            number = next(numbers)
            body: dict[str, Any] = {"history": HISTORIES[number % len(HISTORIES)], "k": 3}
            if number % 5 == 0:
                body["candidates"] = [str(item) for item in range(8) if item != number % 7]
            status, _ = client.post("/recommend", body)
            counts[status] += 1

    numbers = iter(range(sys.maxsize))
    Client(port).wait()
    with ThreadPoolExecutor(8) as pool:
        workers = [pool.submit(ask, worker) for worker in range(8)]
        memory = []
        for _ in range(9):
            time.sleep(seconds / 10)
            memory.append(_memory(port))
            server.send_signal(signal.SIGHUP)
        for done in workers:
            done.result()
    server.terminate()
    assert server.wait(60) == 0
    print(f"{counts[200]:,} requests in {seconds:,.0f} s; MB: {[round(each) for each in memory]}")
    assert set(counts) == {200}
    assert max(memory[4:]) < 1.1 * max(memory[1:4])
