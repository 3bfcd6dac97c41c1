"""Requests per second and latencies of `sidtune serve` at 1, 4, 16 and 64 clients.

The model is made here: the demo's shop and base (hidden size 128, four layers), trained for a few
steps, with a ranker. Clients run in a process of their own; each sends its next request when the
last one is answered. Servers with the ranker, without it, and with batches of one request take
turns, and figures are medians over rounds. The seconds of CPU that the server took are counted too:
requests a CPU second say what batches save on a machine that has other work. Every answer must
equal that of `sidtune recommend` for the same history: the same items in the same order, and scores
to 1e-4. The last lines are the playground's search over a hundred thousand made-up titles.

    python benchmarks/serving.py [--model RUN] [--seconds 3] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

from sidtune.base.terminal import quiet_libraries

CLIENTS = (1, 4, 16, 64)
SERVERS: dict[str, tuple[str, ...]] = {
    "ranker": (),
    "model alone": ("--no-rank",),
    "ranker, batches of one": ("--batch", "1"),
}
# With more clients, batches of one are only slower.
MOST = {"ranker, batches of one": 16}
K, HISTORIES, LONGEST = 10, 200, 10
TITLES = 100_000
TOLERANCE = 1e-4
OUTCOME = Path(__file__).with_suffix(".json")

# History, seconds, and the raw answer.
Seen = tuple[int, float, bytes]


def main() -> None:
    """Measure, print the table and leave the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or made_model(Path(folder) / "demo")
        results = measure(model, options.seconds, options.rounds)
    report(results, search_of_many_titles(), options.seconds, options.rounds)


def search_of_many_titles() -> dict[str, float]:
    """Milliseconds of the playground's search, by what is typed."""
    from sidtune.data.catalogue import Catalogue
    from sidtune.playground.titles import Titles

    chance = random.Random(0)
    words = [
        "".join(chance.choices("abcdefghiklmnoprstu", k=chance.randint(3, 9))) for _ in range(5_000)
    ]
    names = [" ".join(chance.choices(words, k=chance.randint(4, 14))) for _ in range(TITLES)]
    ids = [str(number) for number in range(TITLES)]
    catalogue = Catalogue(ids, names, names, [])
    titles = Titles([(catalogue, np.arange(TITLES))])
    typed = {
        "one letter": "a",
        "three letters": "the",
        "a word": words[0],
        "two words": f"{words[0]} {words[1][:2]}",
    }
    found = {}
    for name, text in typed.items():
        times = []
        for _ in range(9):
            start = time.perf_counter()
            titles.find(text)
            times.append(1_000 * (time.perf_counter() - start))
        found[name] = round(statistics.median(times), 1)
    return found


def made_model(folder: Path) -> Path:
    """A run of the demo that is trained briefly."""
    from sidtune.commands.demo_shop import write_demo_events
    from sidtune.commands.demo_steps import item_texts, write_config
    from sidtune.model.new_base import create_base
    from sidtune.pipeline.defaults import Request
    from sidtune.pipeline.run import run

    quiet_libraries()
    paths = write_demo_events(folder / "data", 0, 600)
    create_base(folder / "base", item_texts(paths), hidden=128, layers=4, vocab=2000)
    overrides = ["training.max_steps=40", "eval.every=40"]
    run(Request.read(write_config(folder, paths), overrides))
    return folder / "run"


def measure(model: Path, seconds: float, rounds: int) -> dict[str, dict[int, Any]]:
    """For each server and number of clients: rates of all rounds, all latencies, and faults."""
    histories = made_histories(model)
    expected = {
        name: recommended(model, histories, [flag for flag in flags if flag == "--no-rank"])
        for name, flags in SERVERS.items()
    }
    results: dict[str, dict[int, Any]] = {
        name: {
            clients: {"rates": [], "by_cpu": [], "seconds": []}
            for clients in CLIENTS
            if clients <= MOST.get(name, clients)
        }
        for name in SERVERS
    }
    bodies = [json.dumps({"history": history, "k": K}).encode() for history in histories]
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawned) as pool:
        for _ in range(rounds):
            for name, flags in SERVERS.items():
                with served(model, flags) as port:
                    pool.submit(drive, port, 4, 1.0, bodies).result()
                    for clients, found in results[name].items():
                        before = cpu_seconds(port)
                        seen, took = pool.submit(drive, port, clients, seconds, bodies).result()
                        check(seen, expected[name])
                        found["rates"].append(len(seen) / took)
                        found["by_cpu"].append(len(seen) / (cpu_seconds(port) - before))
                        found["seconds"] += [each for _, each, _ in seen]
    return results


def made_histories(model: Path) -> list[list[str]]:
    """Histories of items drawn at random."""
    from sidtune.runs.bundle import read_bundle

    ids, chance = read_bundle(model).catalogue.ids, random.Random(0)
    return [chance.choices(ids, k=chance.randint(1, LONGEST)) for _ in range(HISTORIES)]


def recommended(model: Path, histories: list[list[str]], flags: Sequence[str]) -> list[Any]:
    """What `sidtune recommend` answers."""
    lines = "".join(json.dumps({"history": history}) + "\n" for history in histories)
    command = [sys.executable, "-m", "sidtune", "recommend", str(model), "--input", "-", "--json"]
    done = subprocess.run(
        [*command, "-k", str(K), *flags],
        input=lines,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    return [json.loads(line)["items"] for line in done.stdout.splitlines()]


@contextmanager
def served(model: Path, flags: Sequence[str]) -> Iterator[int]:
    """A server in a process of its own; its port."""
    # On a slow machine, batches of one keep 64 clients waiting for longer than the usual limit.
    always = ("--port", "0", "--timeout", "120")
    command = [sys.executable, "-m", "sidtune", "serve", str(model), *always, *flags]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
    try:
        assert server.stdout is not None
        line = next(line for line in server.stdout if line.startswith("POST "))
        yield int(line.rpartition(":")[2].partition("/")[0])
    finally:
        server.terminate()
        if server.wait(60):
            raise SystemExit("the server did not stop as it should")


def cpu_seconds(port: int) -> float:
    """Seconds of CPU that a server has taken."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        text = response.read().decode()
    return float(re.findall(r"^process_cpu_seconds_total (\S+)", text, re.MULTILINE)[0])


def drive(port: int, clients: int, seconds: float, bodies: list[bytes]) -> tuple[list[Seen], float]:
    """Let clients ask for some seconds; what they saw, and how long it took. Runs in the clients'
    process.
    """

    async def all_of_them() -> tuple[list[Seen], float]:
        start = time.perf_counter()
        until = start + seconds
        seen = await asyncio.gather(
            *(client(port, until, bodies, worker) for worker in range(clients))
        )
        return [each for part in seen for each in part], time.perf_counter() - start

    return asyncio.run(all_of_them())


async def client(port: int, until: float, bodies: list[bytes], seed: int) -> list[Seen]:
    """One connection that asks again and again."""
    chance, seen = random.Random(seed), list[Seen]()
    reader, writer = await connected(port, until)
    while time.perf_counter() < until:
        number = chance.randrange(len(bodies))
        body = bodies[number]
        head = (
            "POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        start = time.perf_counter()
        writer.write(head.encode() + body)
        answered = await reader.readuntil(b"\r\n\r\n")
        assert answered.startswith(b"HTTP/1.1 200"), answered
        length = next(
            int(line.partition(b":")[2])
            for line in answered.splitlines()
            if line.lower().startswith(b"content-length")
        )
        content = await reader.readexactly(length)
        seen.append((number, time.perf_counter() - start, content))
    writer.close()
    return seen


async def connected(port: int, until: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection, as soon as the server listens."""
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.perf_counter() > until + 60:
                raise
            await asyncio.sleep(0.05)


def check(seen: Sequence[Seen], expected: Sequence[Any]) -> None:
    """Every answer is that of `recommend`."""
    for number, _, content in seen:
        found = json.loads(content)["items"]
        assert [item["item_id"] for item in found] == [
            item["item_id"] for item in expected[number]
        ], f"history {number}: other items"
        for mine, theirs in zip(found, expected[number], strict=True):
            assert abs(mine["score"] - theirs["score"]) < TOLERANCE, f"history {number}: scores"


def report(
    results: dict[str, dict[int, Any]], search: dict[str, float], seconds: float, rounds: int
) -> None:
    """The table, and the JSON beside this file."""
    tree: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "processes that ran or waited, at the end": round(os.getloadavg()[1], 1),
        "threads": os.environ.get("OMP_NUM_THREADS", "torch's own choice"),
        "seconds": seconds,
        "rounds": rounds,
        "k": K,
        "servers": {},
        "search of 100,000 titles, milliseconds": search,
    }
    for name, by_clients in results.items():
        first, first_by_cpu = (
            statistics.median(by_clients[1][kind]) for kind in ("rates", "by_cpu")
        )
        print(
            f"{name:24} {'requests/s':>10} {'times':>6} {'by CPU':>7} {'p50 ms':>8} {'p95 ms':>8}"
            f" {'p99 ms':>8}"
        )
        rows = {}
        for clients, found in by_clients.items():
            rate, by_cpu = (statistics.median(found[kind]) for kind in ("rates", "by_cpu"))
            p50, p95, p99 = (1_000 * np.percentile(found["seconds"], (50, 95, 99))).tolist()
            rows[clients] = {
                "requests a second": round(rate, 1),
                "times one client": round(rate / first, 2),
                "requests a CPU second": round(by_cpu, 1),
                "times one client by CPU": round(by_cpu / first_by_cpu, 2),
                "milliseconds": {"p50": round(p50, 1), "p95": round(p95, 1), "p99": round(p99, 1)},
                "requests": len(found["seconds"]),
            }
            print(
                f"  {clients:>3} clients {rate:>22.1f} {rate / first:>6.2f}"
                f" {by_cpu / first_by_cpu:>7.2f} {p50:>8.1f} {p95:>8.1f} {p99:>8.1f}"
            )
        tree["servers"][name] = rows
    for name, milliseconds in search.items():
        print(f"search, {name:16} {milliseconds:>18.1f} ms")
    OUTCOME.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
