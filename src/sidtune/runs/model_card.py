"""The model card: the README.md of a model folder, with the Hub's metadata, what was trained on
what, results, and how to use the model with and without sidtune.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from sidtune.files.ids import join_ids

CARD = "README.md"
TAGS = ("recommender-system", "generative-recommendation", "semantic-ids", "sidtune")
SHOWN_METRICS = ("HR@10", "NDCG@10", "HR@50")
RESULTS = re.compile(
    r"(?<=<!-- results -->\n)(<!-- of (\w+) -->\n)?.*?(?=<!-- end of results -->)", re.DOTALL
)
NO_RESULTS = "None yet: `sidtune evaluate` writes them here.\n"

INTRODUCTION = """# {title}

A recommender over semantic IDs (SIDs), trained with sidtune. It reads the SIDs of the items in a
user's history and writes the SID of the next item. It recommends only the {items:,} items that its
catalogue holds, `sid_catalogue.parquet`.
"""
USE = """
## Recommend

```python
from sidtune import Recommender

folder = "."  # this folder; from the Hub: huggingface_hub.snapshot_download("OWNER/NAME")
recommender = Recommender.load(folder)
history = {history}  # item ids, oldest first
for item in recommender.recommend([history], k=10)[0]:
    print(item.item_id, item.title, item.sid, item.score)
```

On the command line: `sidtune recommend FOLDER --history {joined}`. `sid_recommender.json` describes
the prompt, and `ranker.safetensors`, if there is one, puts the lists in their final order.

## Load it plainly
"""
WITH_IDS = """
The checkpoint is an ordinary one of Transformers. With Transformers only, using SIDs:

```python
import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
with open(f"{{folder}}/sid_recommender.json", encoding="utf-8") as file:
    prompt = json.load(file)["prompt_ids"]
history = [{sid}]  # SIDs, oldest first
ids = list(prompt["before"])
for place, sid in enumerate(history):
    ids += prompt["separator"] if place else []
    ids += tokenizer.convert_tokens_to_ids(sid)
ids += prompt["after"]
written = model.generate(torch.tensor([ids]), max_new_tokens={tokens})[0, len(ids) :]
print(tokenizer.decode(written))
```

Use the token ids from the file; do not tokenise the prompt as one text. Tokenizers of the Llama-2
type would add a space after every SID, which the training prompts do not contain, and a chat
template may write the current date. Without a search over the catalogue's SIDs the model may write
one that no item has.
"""
WITHOUT_IDS = """
`AutoModelForCausalLM` and `AutoTokenizer` load the checkpoint. Its prompts contain item texts in
addition to SIDs, each tokenised separately: use sidtune to prompt it.
"""
ADAPTER_CARD = """# An adapter of a recommender over semantic IDs

sidtune trained this adapter (LoRA) and the rows of the semantic IDs' tokens. PEFT loads both:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
base = AutoModelForCausalLM.from_pretrained({base})
base.resize_token_embeddings({rows}, mean_resizing=False)
model = PeftModel.from_pretrained(base, ".")
```

`sidtune merge FOLDER OUT` writes the plain model, which `sidtune evaluate` and
`sidtune recommend` use. `sid_catalogue.parquet` maps items to semantic IDs;
`sid_recommender.json` describes the prompt.
"""


def adapter_card(base: str, rows: int) -> str:
    """The text of the card in the folder of an adapter.

    Args:
        base: folder or Hub name of the base model.
        rows: of the embedding that the adapter needs.
    """
    return ADAPTER_CARD.format(base=json.dumps(base, ensure_ascii=False), rows=rows)


@dataclass(frozen=True)
class Prompted:
    """What a card shows of the catalogue and the prompts.

    Args:
        items: number of items of the catalogue.
        item: id of an item, for the examples.
        sid: its SID.
        with_ids: whether the token ids around a history are constant and saved in
            `sid_recommender.json`.
    """

    items: int
    item: str
    sid: Sequence[str]
    with_ids: bool


@dataclass(frozen=True)
class Training:
    """What a card says of the training.

    Args:
        title: name of the run.
        base: hub name of the base model; None for one that is not on the Hub.
        model, data, settings: lines of tables, name → value.
        tasks: names, with their weights where these are not 1.
    """

    title: str
    base: str | None = None
    model: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    tasks: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


def model_card(prompted: Prompted, training: Training | None = None) -> str:
    """The text of the model card; without `training` that of a checkpoint."""
    about = training or Training("A recommender over semantic IDs")
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=list(TAGS),
        base_model=about.base,
        model_name=about.title,
    )
    text = INTRODUCTION.format(title=about.title, items=prompted.items)
    history = json.dumps([prompted.item], ensure_ascii=False)
    text += USE.format(history=history, joined=shlex.quote(join_ids([prompted.item])))
    text += (
        WITH_IDS.format(
            sid=json.dumps(list(prompted.sid), ensure_ascii=False), tokens=len(prompted.sid) + 1
        )
        if prompted.with_ids
        else WITHOUT_IDS
    )
    if training:
        text += "\n".join(["", *_trained(training), ""])
    return f"---\n{data.to_yaml()}\n---\n\n{text}"


def _trained(training: Training) -> Iterator[str]:
    for heading, rows in (
        ("Model", training.model),
        ("Data", training.data),
        ("Training", {"tasks": ", ".join(training.tasks), **training.settings}),
    ):
        yield from (f"## {heading}", "", "| | |", "| --- | --- |")
        yield from (f"| {name} | {value} |" for name, value in rows.items())
        yield ""
    yield from (
        "## Results",
        "",
        "<!-- results -->",
        NO_RESULTS.rstrip(),
        "<!-- end of results -->",
    )
    yield from (
        "",
        "## Limits",
        "",
        "It knows the items and the tastes of its training data alone, popular items best. Licences"
        " of the base model and of the data apply.",
    )


def with_results(card: str, split: str, report: Mapping[str, Any]) -> str | None:
    """A card with the results of an evaluation; None where they have no place: in a card without
    this section, and for a split that counts less than the one that is there.

    Args:
        report: as `SPLIT.json` holds it.
    """
    found = RESULTS.search(card)
    if found is None or (found[2] == "test" and split != "test") or split == "train":
        return None
    lines = "\n".join([f"<!-- of {split} -->", *_results(split, report), ""])
    parsed = ModelCard(card[: found.start()] + lines + card[found.end() :])
    about = parsed.data
    assert isinstance(about, ModelCardData)
    about.model_name = about.model_name or "recommender"
    about.eval_results = [
        EvalResult(
            task_type="recommendation",
            task_name="Sequential recommendation",
            dataset_type="private",
            dataset_name="its own data",
            dataset_split=split,
            metric_type=metric.lower(),
            metric_name=f"{metric} by item, {ranker}",
            metric_value=round(figures["item"][metric]["value"], 4),
        )
        for ranker, figures in list(report["rankers"].items())[:1]
        for metric in _shown(figures["item"])
    ]
    return str(parsed)


def _shown(figures: Mapping[str, Any]) -> list[str]:
    """The metrics of a card; shorter lists have the deepest that there are."""
    wanted = [metric for metric in SHOWN_METRICS if metric in figures]
    return wanted or [
        [metric for metric in figures if metric.startswith(kind)][-1] for kind in ("HR@", "NDCG@")
    ]


def _results(split: str, report: Mapping[str, Any]) -> Iterator[str]:
    first = next(iter(report["rankers"].values()))["item"]
    metrics = _shown(first)
    names = {"test": "test", "valid": "validation"}
    settings = report["settings"]
    hidden = ", items of the history excluded" if settings.get("exclude_history") else ""
    yield (
        f"{report['rows']:,} {names.get(split, split)} rows, ranked over {report['items']:,} items"
        f" with {settings.get('beams')} beams{hidden}. By item, with 95% intervals:"
    )
    yield ""
    yield f"| | {' | '.join(metrics)} |"
    yield f"| --- |{' --- |' * len(metrics)}"
    for ranker, figures in report["rankers"].items():
        cells = [_with_interval(figures["item"][metric]) for metric in metrics]
        yield f"| {ranker} | {' | '.join(cells)} |"
    yield ""
    yield (
        "*model* is the model's own order; *ranker*, if there is one, unites it with sources that"
        " need no training. The other lines are baselines."
    )


def _with_interval(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.4f} ({estimate['low']:.4f}–{estimate['high']:.4f})"
