"""Run the contestants of the training benchmark in parallel processes that make their steps in
turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoModelForCausalLM, set_seed

from contestants import Job, Report, Tuning, config_of
from sidtune.data.catalogue import Catalogue, read_texts
from sidtune.inputs import Inputs
from sidtune.model.new_base import create_base

# Rows of the embedding that are added to the base, as a Qwen base keeps spare ones; none for the
# natural vocabulary.
VOCABULARIES = {"8.5k": None, "152k": 152_064}
MICRO_BATCH = 16
FILES = {
    "items": "Industrial_and_Scientific.item.json",
    "index": "Industrial_and_Scientific.index.json",
    "train": "train.csv",
    "valid": "valid.csv",
}
OPENING = (
    "The following is a request to an assistant that knows the catalogue of a shop. Every item of"
    " the shop is named by a short code of three parts, and items that are alike have codes that"
    " begin alike. Read everything with care, then give an answer that fulfils the request, without"
    " any comment.\n\nRequest:\n"
)
WORKER = Path(__file__).with_name("contestants.py")


@dataclass(frozen=True)
class Work:
    """One configuration: vocabulary, hidden size, examples per step, tuning, and the prompts:
    `ours` or `long`.
    """

    vocabulary: str
    hidden: int
    batch: int
    tuning: Tuning
    prompts: str = "ours"

    @property
    def name(self) -> str:
        """As `--only` takes it."""
        name = f"{self.vocabulary}/{self.hidden}/{self.batch}/{self.tuning}"
        return name if self.prompts == "ours" else f"{name}/{self.prompts}"

    @property
    def size(self) -> tuple[str, int, int]:
        """What its time depends on."""
        return self.vocabulary, self.hidden, self.batch


class Place:
    """Bases and encoded examples, made when they are first asked for.

    Args:
        folder: temporary.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = Path(os.environ.get("SIDTUNE_DATA", "../shared/data")) / "amazon-industrial"

    def job(
        self,
        work: Work,
        contestant: str,
        steps: int,
        train: Path | None = None,
        task: str | None = None,
    ) -> Job:
        """What a contestant is given; `train` and `task` in place of all rows and the default
        mixture.
        """
        return Job(
            contestant=contestant,
            tuning=work.tuning,
            batch=work.batch,
            micro_batch=min(MICRO_BATCH, work.batch),
            steps=steps,
            base=str(self._base(work.vocabulary, work.hidden)),
            data={name: str(self.data / file) for name, file in FILES.items()}
            | ({"train": str(train)} if train else {}),
            tasks=(task,) if task else (),
            cache=str(self.folder / "cache"),
            template=str(self._long_wordings()) if work.prompts == "long" else "",
        )

    def encode(self, job: Job) -> None:
        """Fill the cache, so that no contestant encodes."""
        Inputs(config_of(job)).mixture.train()

    def catalogue(self, work: Work) -> Catalogue:
        """Items and SIDs."""
        return Inputs(config_of(self.job(work, "stock", 1))).catalogue

    def _long_wordings(self) -> Path:
        """Our wordings behind an opening as long as those that instruction tuning usually has."""
        file = self.folder / "long.yaml"
        wordings = yaml.safe_load(
            resources.files("sidtune.templates").joinpath("en.yaml").read_text("utf-8")
        )
        for wording in wordings.values():
            wording["prompt"] = [OPENING + wording["prompt"][0], *wording["prompt"][1:]]
        file.write_text(yaml.safe_dump(wordings), encoding="utf-8")
        return file

    def _base(self, vocabulary: str, hidden: int) -> Path:
        """Four layers with random weights, and spare rows where the vocabulary says so."""
        natural = self.folder / f"base-{hidden}"
        if not natural.exists():
            create_base(
                natural,
                read_texts(self.data / "Industrial_and_Scientific.item.json"),
                hidden=hidden,
            )
        rows = VOCABULARIES[vocabulary]
        if rows is None:
            return natural
        large = self.folder / f"base-{hidden}-{rows}"
        if not large.exists():
            set_seed(0)
            model = AutoModelForCausalLM.from_pretrained(natural)
            model.resize_token_embeddings(rows, mean_resizing=False)
            model.save_pretrained(large)
            for file in natural.glob("*token*"):
                (large / file.name).write_bytes(file.read_bytes())
            (large / "chat_template.jinja").write_bytes(
                (natural / "chat_template.jinja").read_bytes()
            )
        return large


class Worker:
    """A contestant's process.

    Args:
        job: what it is given.
        log: where its standard error goes.
    """

    def __init__(self, job: Job, log: Path) -> None:
        self.log = log
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        if job.device == "cpu":
            # Nothing else, whatever the machine has.
            environment["CUDA_VISIBLE_DEVICES"] = ""
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(asdict(job))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w", encoding="utf-8"),
            env=environment,
            text=True,
            encoding="utf-8",
        )

    def ready(self) -> None:
        """Wait until everything is built."""
        assert self._hear() == {"ready": True}

    def step(self) -> Report:
        """Let it make a step."""
        self._say("go")
        return Report(**self._hear())

    def close(self) -> None:
        """Let it end, and end it where it does not."""
        if self.process.poll() is None:
            self._say("stop")
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"{self.log.stem} ended early:\n{self.log.read_text(encoding='utf-8')[-4000:]}"
            )
        heard: dict[str, Any] = json.loads(line)
        return heard


def alternate(place: Place, jobs: Sequence[Job]) -> dict[str, list[Report]]:
    """The reports of every contestant, a step of each in turn."""
    place.encode(jobs[-1])
    workers = {job.contestant: Worker(job, place.folder / f"{job.contestant}.log") for job in jobs}
    reports: dict[str, list[Report]] = {name: [] for name in workers}
    try:
        for worker in workers.values():
            worker.ready()
        for _ in range(jobs[0].steps):
            for name, worker in workers.items():
                reports[name].append(worker.step())
    finally:
        for worker in workers.values():
            worker.close()
    return reports
