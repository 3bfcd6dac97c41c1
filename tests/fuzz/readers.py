"""Every reader of outside files: a valid file of its own, how it is called, and what holds for
whatever it accepts.

To add a reader: one entry in `READERS`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import safetensors.torch
import torch
import yaml
from tests.fuzz.reader import Files, Reader, json_bytes, lines_bytes, parquet_bytes
from tests.unit.ranker import making
from tests.unit.reporting.making import write_run
from transformers import TrainerState

from sidtune.base.errors import UserError
from sidtune.base.ragged import Ragged
from sidtune.config.model import ModelConfig
from sidtune.config.rank import SOURCE_NAMES, RankConfig
from sidtune.data.catalogue import Catalogue, read_catalogue, read_texts
from sidtune.data.disagreements import disagreements
from sidtune.data.instructions import INSTRUCTIONS, read_instructions
from sidtune.data.leave_one_out import read_interactions
from sidtune.data.preferences import PREFERENCES, read_preferences
from sidtune.data.rows import load_rows
from sidtune.decoding.answers import read_candidates
from sidtune.decoding.stream import histories
from sidtune.encoding.chat import make_frame
from sidtune.encoding.corpus import cached_task
from sidtune.encoding.encoded import Encoded
from sidtune.encoding.frame import Frame
from sidtune.encoding.remember import remembered
from sidtune.evaluation import compare
from sidtune.events.readers import FORMATS
from sidtune.files.ids import CODES
from sidtune.files.literals import parse_list
from sidtune.files.weight_files import INDEX, OLD_WEIGHTS, WEIGHTS, load_weights
from sidtune.model.base_files import weight_faults
from sidtune.model.load import load_model
from sidtune.model.tuning.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_settings
from sidtune.ranker.file import read_ranker, write_ranker
from sidtune.ranker.pairs import Asked
from sidtune.ranker.ranker import Ranker, fit_sources
from sidtune.ranker.scorers import Mixture, Scorer, Trees
from sidtune.ranker.table import tabulate
from sidtune.reporting import page
from sidtune.reporting.record import read_records
from sidtune.reporting.write import make_page
from sidtune.runs.bundle import (
    CATALOGUE,
    RECOMMENDER_FILE,
    Bundle,
    PromptIds,
    read_bundle,
    write_bundle,
)
from sidtune.runs.checkpoints import IDENTITY, MANIFEST, compare_identity, newest_complete
from sidtune.runs.resumed import STATE, refuse_broken_state
from sidtune.setup.look import look_at
from sidtune.sids.items import Items, read_items
from sidtune.sids.vectors.given import read_vectors
from sidtune.tasks.config_file import dump_config, load_config, parse_config
from sidtune.templates import FORMS, as_tree, load_templates, parse_template
from sidtune.tokenizer.load import load_model_config as load_header
from sidtune.tokenizer.load import load_tokenizer
from sidtune.tokenizer.segments import segment_tokenizers
from sidtune.tokenizer.vocabulary import extend_vocabulary

IDS = ["1", "2", "x y", "ü"]
TITLES = ["Blue Mug, 12 oz", "[Red] {Tent}", "مرحبا </s>", "=1+1"]
SIDS = [("<a_1>", "<b_1>"), ("<a_1>",), ("<a_2>", "<b_1>"), ("<a_2>", "<b_1>")]
SHOP = Catalogue(IDS, TITLES, TITLES, SIDS)
ROWS = [("u", ["1", "2"], "x y"), ("v", ["2"], "ü"), ("u", ["1", "2", "x y"], "1")]
RANKED = making.catalogue(12)
VALUE = {"a": [1, 2.5, None], "b": "ü"}

# --- data ---


def _items() -> Files:
    descriptions = ["", "['short', 'the longest']", ["a", "b"], None]
    pairs = zip(TITLES, descriptions, strict=True)
    items = {item: {"title": t, "description": d} for item, (t, d) in zip(IDS, pairs, strict=True)}
    return {
        "s.item.json": json_bytes(items),
        "s.index.json": json_bytes(dict(zip(IDS, map(list, SIDS), strict=True))),
    }


def _read_items(folder: Path) -> None:
    shop = read_catalogue(folder / "s.item.json", folder / "s.index.json")
    assert len(shop.ids) == len(shop.titles) == len(shop.descriptions) == len(shop.sids) > 0
    assert all(
        isinstance(text, str) and text.strip() for text in (*shop.titles, *shop.descriptions)
    )
    assert all(sid and all(isinstance(token, str) for token in sid) for sid in shop.sids)
    "".join([*shop.ids, *shop.titles, *shop.descriptions, *shop.sid_tokens]).encode()
    assert shop.positions(pa.array(shop.ids)).tolist() == list(range(len(shop.ids)))
    read_texts(folder / "s.item.json")


def _read_sid_items(folder: Path) -> None:
    (file,) = (path for path in folder.iterdir() if path.name in ("s.item.json", "s.parquet"))
    items = read_items(file)
    assert len(items) == len(set(items.ids)) == len(items.titles) == len(items.texts) > 0
    assert all(isinstance(text, str) for text in (*items.titles, *items.texts))
    "".join([*items.ids, *items.texts]).encode()


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(8, dtype=np.float32).reshape(4, 2))
    return file.getvalue()


def _read_vectors(folder: Path) -> None:
    (file,) = folder.iterdir()
    vectors = read_vectors(file, Items(IDS, TITLES, TITLES))
    assert vectors.shape[0] == 4
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors.sum(dtype=np.float64))


def _csv(history: str = "history") -> bytes:
    lines = [f"user_id,{history},item_id,item_title,history_item_title"]
    for user, items, target in ROWS:
        titles = [TITLES[IDS.index(item)] for item in items]
        cells = [user, items, target, TITLES[IDS.index(target)], titles]
        lines.append(",".join('"' + str(cell).replace('"', '""') + '"' for cell in cells))
    return "\n".join(lines).encode() + b"\n"


def _table(numbers: bool = False) -> pa.Table:
    users, items, targets = zip(*ROWS, strict=True)
    history = [[str(IDS.index(i) + 1) for i in entry] if numbers else entry for entry in items]
    return pa.table(
        {"user_id": users, "history": history, "item_id": targets, "more": [1.5, None, 2.0]}
    )


def _read_rows(folder: Path) -> None:
    (path,) = folder.iterdir()
    rows = load_rows(path, SHOP)
    assert len(rows.users) == len(rows.history) == len(rows.target) > 0
    assert all(rows.users.to_pylist())
    assert rows.users.type == CODES
    assert rows.history.lengths.min() > 0
    assert all(
        part.min() >= 0 and part.max() < len(IDS) for part in (rows.history.values, rows.target)
    )
    assert all(isinstance(entry.found, str) for entry in disagreements(path, SHOP))


def _read_interactions(folder: Path) -> None:
    (path,) = folder.iterdir()
    found = read_interactions(path, SHOP)
    assert len(found.users) == len(found.items) > 0
    assert found.items.lengths.min() > 0
    assert found.items.values.min() >= 0


def _look(folder: Path) -> None:
    """Whatever a file holds, looking at it says what it is, or why that is not known."""
    for path in sorted(folder.iterdir()):
        found = look_at(path)
        if found.role is None:
            raise UserError(found.note or "no role", "")
        assert found.rows > 0
        assert found.shared < found.rows


LOOKED_AT = {
    "e.inter": b"user_id:token\titem_id:token\tt:float\nu\t1\t2.5\n",
    "ratings.csv": b"userId,movieId,rating,timestamp\n1,2,3.5,4\n",
    "r.jsonl": lines_bytes([{"user_id": "u", "parent_asin": "1", "timestamp": 5}] * 2),
    "a.inter.json": json_bytes({"u": ["1", "2", "3", "4"]}),
    "a.index.json": json_bytes({"1": ["<a_1>", "<b_2>"], "2": ["<a_1>", "<b_3>"]}),
    "a.item.json": json_bytes({"1": {"title": "A"}}),
    "a_attributes.json": json_bytes({"1": [5, "ü"], "2": []}),
    "s.txt": b"1 2 3\n2 3\n",
    "log.csv": b"user_id,item_id,time\nu,1,2020-01-01\n",
    "train.parquet": parquet_bytes(
        pa.table({"user_id": ["u"], "history": [["1"]], "item_id": ["2"]})
    ),
}


def _of_format(name: str, file: str, content: bytes) -> Reader:
    """Events of a public data set."""

    def read(folder: Path) -> None:
        for table in FORMATS[name].events(folder / file):
            table.validate(full=True)
            assert table.num_rows
            assert {"user", "item"} <= set(table.column_names) or name == "recbole"

    return Reader(lambda: {file: content}, read)


def _read_attributes(folder: Path) -> None:
    for table in FORMATS["sequences"].items(folder / "a.json"):
        table.validate(full=True)
        assert "id" in table.column_names


PREFERENCE = {"user": "u", "user_preference": "mugs", "split": "valid"}
PREFERENCE["context"] = {"history_items": ["1", 2], "target_item": "ü"}  # type: ignore[assignment]


def _read_preferences(folder: Path) -> None:
    (path,) = folder.iterdir()
    table = read_preferences(path)
    assert table.schema.equals(PREFERENCES)
    table.validate(full=True)
    assert table.num_rows
    assert not any(column.null_count for column in table.columns)
    assert all(
        row["history"] and row["preference"].strip() and row["user_id"] for row in table.to_pylist()
    )


def _read_instructions(folder: Path) -> None:
    table = read_instructions(folder / "i.jsonl")
    assert table.schema.equals(INSTRUCTIONS)
    table.validate(full=True)
    assert all(row["prompt"] and row["response"] for row in table.to_pylist())


def _read_candidates(folder: Path) -> None:
    found = read_candidates(folder / "c.txt")
    assert all(item == item.strip() != "" for item in found)
    pa.array(found, pa.string())


def _read_histories(folder: Path) -> None:
    nobody: Any = None
    for user, items in histories(nobody, None, folder / "h.jsonl"):
        pa.array(items, pa.string())
        json.dumps(user, allow_nan=False)


def _read_cell(folder: Path) -> None:
    try:
        text = (folder / "cell").read_bytes().decode()
        assert all(isinstance(entry, str) for entry in parse_list(text))
    except UnicodeDecodeError as error:
        raise UserError("no text", "") from error
    except ValueError as error:
        raise UserError(str(error), "") from error


# --- configuration and wording ---

CONFIG = b"""# a comment
output_dir: out
seed: 7
model: &m {base: bases/small, residual_dropout: 0.1}
data:
  items: s.item.json
  index: s.index.json
  train: train.csv
  valid: valid.csv
  description_tokens: 10
tasks: {sid_next: {}, item_feature: {weight: 0.5, directions: one}, fusion:}
training: {learning_rate: 1e-3, epochs: 2, max_tokens: auto, warmup: 0.1}
loss: {over: allowed, label_smoothing: 0.1}
eval: {every: 5, ranking: {every: 1}}
stages: [{tuning: frozen, steps: 3}, {tuning: full, learning_rate: 1.0e-4}]
"""


def _read_config(folder: Path) -> None:
    config = load_config(folder / "c.yaml")
    assert dump_config(parse_config(yaml.safe_load(dump_config(config)), "again")) == dump_config(
        config
    )


def _override(folder: Path) -> None:
    text = (folder / "override").read_bytes().decode("utf-8", "replace")
    load_config(folder / "c.yaml", [text])


TEMPLATES = {
    "sid_next": [
        {"prompt": ["Bought: ", "{history_sids}", " {{now}}"], "response": ["{target_sid}"]},
        {
            "prompt": ["{history_titles} and {history_sids}"],
            "response": ["{target_sid}"],
            "separator": ", ",
        },
    ],
    "title_next": {"prompt": ["{history_titles}"], "response": ["{target_title}"]},
}


def _read_templates(folder: Path) -> None:
    for form, wordings in load_templates(folder / "t.yaml").items():
        assert form in FORMS
        assert wordings
        assert [parse_template(form, as_tree(wording), "again") for wording in wordings] == list(
            wordings
        )
        "".join(text for wording in wordings for text in wording.literals).encode()


# --- beside a model ---


@cache
def _written(write: Callable[[Path], object]) -> Files:
    """The files that something of ours writes into a folder."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        return {
            str(p.relative_to(name)): p.read_bytes()
            for p in sorted(Path(name).rglob("*"))
            if p.is_file()
        }


def model_folder(folder: Path) -> None:
    wording = load_templates()["sid_next"][0]
    frame, ids = (
        Frame(True, "<s>", "|", " ", "</s>", False, (" ", "\n"), ("", "\n")),
        PromptIds([0, 7], [], [9]),
    )
    write_bundle(
        Bundle(SHOP, np.array([3, 0, 1, 2]), "sid_next", wording, "chat", 99, 9, frame, ids), folder
    )


def _read_bundle(folder: Path) -> None:
    found = read_bundle(folder)
    again = folder / "out"
    again.mkdir()
    write_bundle(found, again)
    assert read_bundle(again).catalogue == found.catalogue
    assert (read_bundle(again).frame, read_bundle(again).prompt_ids) == (
        found.frame,
        found.prompt_ids,
    )
    assert found.frame.chat == (found.format == "chat")
    assert found.users.min() >= 0
    "".join([*found.catalogue.ids, *found.catalogue.titles, *found.catalogue.sid_tokens]).encode()


def evaluation(folder: Path) -> None:
    keys = {"row": [1, 2, 3], "user_id": ["u", "v", "u"], "target": ["1", "2", "ü"]}
    table = pa.table(
        keys | {"sid_rank": [1, 0, 5], "item_rank": [2, 0, 0], "scores": [[0.5], [], [1.0]]}
    )
    pyarrow.parquet.write_table(table, folder / "test.predictions.parquet", compression="none")
    settings = {
        "beams": 10,
        "normalize": "full",
        "exclude_history": False,
        "candidates_sha256": None,
    }
    (folder / "test.json").write_bytes(json_bytes({"settings": settings, "rows": 3}))


@cache
def yardstick() -> compare.Evaluated:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        evaluation(Path(name))
        return compare.read_evaluated(Path(name), "test")


def _read_evaluation(folder: Path) -> None:
    # Few resamples: the figures are not what is looked at.
    found = compare.compare(yardstick(), [compare.read_evaluated(folder, "test")], resamples=50)
    assert all(np.isfinite([d.first, d.other, d.low, d.high]).all() for d in found[0].differences)
    assert all(0 <= value <= 1 for d in found[0].differences for value in (d.first, d.other))
    json.dumps(compare.as_json(found), allow_nan=False)


RUN_FILES = tuple(
    f"run/{name}"
    for name in ("plan.json", "metrics.jsonl", "ranker.json", "config.yaml", "evaluation/test.json")
)


@cache
def _run() -> Files:
    return _written(lambda folder: write_run(folder / "run"))


def _report_run(folder: Path) -> None:
    # The library takes seconds, and is not what is looked at.
    with patch.object(page, "chart_library", lambda: ""):
        text = make_page(read_records([folder / "run"]))
    assert text.endswith("</html>")


IDENTITY_TREE = {
    "data.train": "0123",
    "seed": 7,
    "stages": [{"tuning": "full"}],
}


def _read_checkpoint(folder: Path) -> None:
    newest, _ = newest_complete(folder)
    if newest is None:
        raise UserError("none is complete", "")
    compare_identity(newest, IDENTITY_TREE)


STATE_TREE = {
    "global_step": 3,
    "best_global_step": 3,
    "best_metric": 1.5,
    "best_model_checkpoint": "run/checkpoint-3",
}
STATE_TREE |= {
    "log_history": [{"step": 3, "loss": 2.0}],
    "stateful_callbacks": {"TrainerControl": {"args": {}}},
}


def _read_state(folder: Path) -> None:
    refuse_broken_state(folder / "checkpoint-3")
    state = TrainerState.load_from_json(str(folder / "checkpoint-3" / STATE))
    assert state.global_step == 3


def _checkpoint() -> Files:
    inside = {"weights": b"12345", IDENTITY: json_bytes(IDENTITY_TREE)}
    manifest = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in inside.items()
    }
    return {
        f"checkpoint-3/{name}": content
        for name, content in {**inside, MANIFEST: json_bytes(manifest)}.items()
    }


def trainer_folder(run: Path) -> Path:
    """A run's folder with one complete checkpoint, which is returned."""
    checkpoint = run / "checkpoint-3"
    checkpoint.mkdir()
    for name, content in _checkpoint().items():
        (run / name).write_bytes(content)
    return checkpoint


def chunks() -> Iterator[Encoded]:
    for ids, spans in (([[1, 2, 3], [4, 5]], [[1, 3], [1, 2]]), ([[6, 7, 8, 9]], [[1, 2, 3, 4]])):
        yield Encoded(
            Ragged.from_lists(ids),
            Ragged.from_lists(spans),
            np.arange(len(ids)),
            np.arange(len(ids)),
            1,
            2,
        )


def _cache(folder: Path) -> None:
    cached_task("t", {"a": 1}, folder, chunks)
    remembered("found", {"a": 1}, folder, lambda: VALUE)


def _read_cache(folder: Path) -> None:
    """Damage is mended without a word."""
    task = cached_task("t", {"a": 1}, folder, chunks)
    assert [task[i][0].tolist() for i in range(len(task))] == [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    assert (task.counts.labels, task.label_counts.tolist()) == (5, [2, 1, 2])
    assert remembered("found", {"a": 1}, folder, lambda: VALUE) == VALUE


WEIGHTS_OF = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}


def _one_file(folder: Path) -> None:
    safetensors.torch.save_file(WEIGHTS_OF, folder / WEIGHTS)


def _shards(folder: Path) -> None:
    for number, (name, value) in enumerate(WEIGHTS_OF.items()):
        safetensors.torch.save_file({name: value}, folder / f"part-{number}.safetensors")
    names = {name: f"part-{number}.safetensors" for number, name in enumerate(WEIGHTS_OF)}
    (folder / INDEX).write_bytes(json_bytes({"metadata": {"total_size": 30}, "weight_map": names}))


def _old_weights(folder: Path) -> None:
    torch.save(WEIGHTS_OF, folder / OLD_WEIGHTS)


def _read_weights(folder: Path) -> None:
    weight_faults(str(folder))
    found = load_weights(folder)
    assert all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()
    )


def _ranker(folder: Path) -> None:
    train, valid = making.made_up(60, len(RANKED.ids), 0)
    sources, _ = fit_sources(making.known(train, valid, len(RANKED.ids)), SOURCE_NAMES)
    beams = making.beams_of(valid, len(RANKED.ids))
    table = tabulate(sources, Asked(valid.history, len(RANKED.ids), beams), bar=False)
    trees = Trees.fit(table, valid.target, RankConfig(trees=3))
    mixture = Mixture({"text": 1.0})
    write_ranker(Ranker(sources, Scorer(mixture, trees), Scorer(mixture)), RANKED, folder)


def _read_ranker(folder: Path) -> None:
    ranker = read_ranker(folder, RANKED)
    if ranker is None:
        raise UserError("gone", "")
    items, scores = ranker.rank(Asked(Ragged.from_lists([[0, 3], [5]]), len(RANKED.ids)), 4)
    assert len(items) == 2
    assert len(items.values) == len(scores)
    assert items.values.max(initial=0) < len(RANKED.ids)


def _base(folder: Path) -> None:
    from tests.tiny_models import make_config, make_tokenizer

    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    make_config("qwen3", True, len(tokenizer)).save_pretrained(folder)


def _read_base(folder: Path) -> None:
    load_header(str(folder))
    tokenizer = load_tokenizer(str(folder))
    assert None not in (tokenizer.eos_token_id, tokenizer.pad_token_id)
    vocabulary = extend_vocabulary(tokenizer, SHOP.sid_tokens)
    segments = segment_tokenizers(tokenizer, SHOP.sid_tokens)
    make_frame(tokenizer, segments, "plain")
    for read in (segments.template, segments.data):
        assert [len(read(TITLES, first)) for first in (True, False)] == [len(TITLES)] * 2
    segments.cut(TITLES, 3)
    model = load_model(ModelConfig(base=str(folder), from_scratch=True), vocabulary, 0)
    assert len(model.get_input_embeddings().weight) >= len(tokenizer)


ADAPTER = json_bytes(
    {
        "peft_type": "LORA",
        "base_model_name_or_path": "base",
        "r": 4,
        "trainable_token_indices": {"embed_tokens": [3, 4, 9], "lm_head": [3, 4, 9]},
    }
)


def _read_adapter(folder: Path) -> None:
    found = read_settings(folder)
    assert found.base_model_name_or_path
    assert found.rows > 0


def _rows(name: str, content: bytes) -> Reader:
    return Reader(lambda: {name: content}, _read_rows)


MORE = [
    {"user_id": user, "history": items, "item_id": target, "x": 1} for user, items, target in ROWS
]
READERS: dict[str, Reader] = {
    "items": Reader(_items, _read_items, ("s.item.json",)),
    "index": Reader(_items, _read_items, ("s.index.json",)),
    "items for SIDs": Reader(_items, _read_sid_items, ("s.item.json",)),
    "items for SIDs.parquet": Reader(
        lambda: {
            "s.parquet": parquet_bytes(
                pa.table({"item_id": IDS, "title": TITLES, "genres": [["a"]] * 4})
            )
        },
        _read_sid_items,
    ),
    "vectors.npy": Reader(lambda: {"v.npy": _npy()}, _read_vectors),
    "vectors.parquet": Reader(
        lambda: {
            "v.parquet": parquet_bytes(pa.table({"item_id": IDS, "vector": [[0.5, 1.0]] * 4}))
        },
        _read_vectors,
    ),
    "rows.csv": _rows("r.csv", _csv()),
    "rows of MiniOneRec": _rows("r.csv", _csv("history_item_id")),
    "rows.csv.gz": _rows("r.csv.gz", gzip.compress(_csv())),
    "rows.jsonl": _rows("r.jsonl", lines_bytes(MORE)),
    "rows.parquet": _rows("r.parquet", parquet_bytes(_table())),
    "rows.parquet.gz": _rows("r.parquet.gz", gzip.compress(parquet_bytes(_table()))),
    "interactions": Reader(
        lambda: {
            "s.inter.json": json_bytes({"u": ["1", "x y", 2], "v": ["ü", 2.0], "7.0": ["1.0"]})
        },
        _read_interactions,
    ),
    "interactions.parquet": Reader(
        lambda: {
            "s.parquet": parquet_bytes(
                pa.table({"user_id": ["u", "7.0"], "items": [["1", "x y"], ["ü"]]})
            )
        },
        _read_interactions,
    ),
    "events of RecBole": _of_format(
        "recbole", "e.inter", b"user_id:token\titem_id:token\tt:float\nu\t1\t2.5\n"
    ),
    "events of MovieLens": _of_format(
        "movielens", "ratings.csv", b'userId,movieId,rating,timestamp\n1,"2",3.5,4\n'
    ),
    "events of old MovieLens": _of_format("movielens", "ratings.dat", b"1::2::3::4\n"),
    "events of Amazon": _of_format(
        "amazon", "e.jsonl", lines_bytes([{"user_id": "u", "parent_asin": "1"}] * 2)
    ),
    "events of old Amazon": _of_format(
        "amazon", "e.txt", b"{'reviewerID': 'u', 'asin': '1', 'helpful': [0, 1]}\n"
    ),
    "events in sequences": _of_format("sequences", "e.txt", "u 1 2 1\nv ü\n".encode()),
    "events in an object": _of_format(
        "sequences", "e.inter.json", json_bytes({"u": ["1", 2.0], "v": ["ü"]})
    ),
    "attributes of items": Reader(
        lambda: {"a.json": json_bytes({"1": [5, "ü"], "2": []})}, _read_attributes
    ),
    "files of a folder": Reader(lambda: LOOKED_AT, _look),
    "preferences.json": Reader(lambda: {"p.json": json_bytes([PREFERENCE] * 2)}, _read_preferences),
    "preferences.jsonl": Reader(
        lambda: {"p.jsonl": lines_bytes([PREFERENCE] * 2)}, _read_preferences
    ),
    "instructions": Reader(
        lambda: {"i.jsonl": lines_bytes([{"prompt": "a", "response": "b"}] * 2)}, _read_instructions
    ),
    "candidates": Reader(lambda: {"c.txt": "1\n x y \nü\n".encode()}, _read_candidates),
    "histories": Reader(
        lambda: {"h.jsonl": lines_bytes([{"user_id": "u", "history": ["1", 2]}, {"history": []}])},
        _read_histories,
    ),
    "list in a cell": Reader(lambda: {"cell": b"['a', \"it's\", 15.0, u'\\'[', 7]"}, _read_cell),
    "configuration": Reader(lambda: {"c.yaml": CONFIG}, _read_config),
    "override": Reader(
        lambda: {"c.yaml": CONFIG, "override": b"training.epochs=3"}, _override, ("override",)
    ),
    "templates": Reader(lambda: {"t.yaml": yaml.safe_dump(TEMPLATES).encode()}, _read_templates),
    "catalogue of a model": Reader(partial(_written, model_folder), _read_bundle, (CATALOGUE,)),
    "question of a model": Reader(
        partial(_written, model_folder), _read_bundle, (RECOMMENDER_FILE,)
    ),
    "adapter": Reader(lambda: {ADAPTER_CONFIG: ADAPTER, ADAPTER_WEIGHTS: b""}, _read_adapter),
    "evaluation": Reader(partial(_written, evaluation), _read_evaluation),
    "run of a report": Reader(_run, _report_run, RUN_FILES, pace=8),
    "manifest": Reader(_checkpoint, _read_checkpoint, (f"checkpoint-3/{MANIFEST}",)),
    "identity": Reader(_checkpoint, _read_checkpoint, (f"checkpoint-3/{IDENTITY}",)),
    "trainer state": Reader(lambda: {f"checkpoint-3/{STATE}": json_bytes(STATE_TREE)}, _read_state),
    "cache": Reader(partial(_written, _cache), _read_cache, mends=True),
    "weights": Reader(partial(_written, _one_file), _read_weights),
    "weights in parts": Reader(partial(_written, _shards), _read_weights),
    "old weights": Reader(partial(_written, _old_weights), _read_weights),
    "ranker": Reader(partial(_written, _ranker), _read_ranker, pace=4),
    "base": Reader(partial(_written, _base), _read_base, pace=8),
}
