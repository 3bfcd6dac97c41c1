"""The task `text_neighbours`: which items it is about, and which stand before them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny_data import TITLES, tiny_tree, write_rows

from sidtune.base.errors import UserError
from sidtune.config.sids import SidsConfig
from sidtune.data.catalogue import Catalogue
from sidtune.encoding.build import Mixture, load_catalogue
from sidtune.sids.items import Items
from sidtune.sids.vectors import VECTORS
from sidtune.sids.vectors.source import Source
from sidtune.sids.vectors.words import terms
from sidtune.tasks import text_neighbours
from sidtune.tasks.config import Config
from sidtune.tasks.config_file import parse_config
from sidtune.tokenizer.load import load_tokenizer
from sidtune.tokenizer.vocabulary import extend_vocabulary

# Neither stands in a training row; 9 and 10 are like each other, and that must not count.
NEW = {"8": "Blue Mug, 16 oz", "9": "Steel Pan", "10": "Steel Pan with lid, for the gas stove"}
NEWS = (8, 9, 10)
# Beyond the catalogue's order: item 5 is in a history only, item 6 is a target only.
ROWS = [("u0", [0, 1, 5], 2), ("u1", [2, 3], 4), ("u2", [1], 6), ("u3", [4], 7)]


def mixture(folder: Path, **options: Any) -> Mixture:
    tree = tiny_tree(folder) | {"tasks": {"sid_sequence": {}, "text_neighbours": options}}
    files = {name: Path(tree["data"][name]) for name in ("items", "index", "train")}
    index = json.loads(files["index"].read_text())
    items = json.loads(files["items"].read_text())
    write_rows(files["train"], ROWS, index)
    index |= {item: ["<a_2>", "<b_2>", f"<c_{item}>"] for item in NEW}
    items |= {item: {"title": title} for item, title in NEW.items()}
    files["index"].write_text(json.dumps(index))
    files["items"].write_text(json.dumps(items))
    return mixed(parse_config(tree, "test"))


def mixed(config: Config) -> Mixture:
    catalogue = load_catalogue(config)
    tokenizer = load_tokenizer(config.model.base)
    return Mixture(config, catalogue, extend_vocabulary(tokenizer, catalogue.sid_tokens))


def pairs(made: Mixture, **options: Any) -> list[list[list[int]]]:
    """Neighbour and item of every example, part by part; the other order must be the same."""
    task = text_neighbours.TextNeighbours()
    source = made.source("train")
    rows = np.arange(task.size(source))
    parts = task.build(source, rows, task.options(**options), 0)
    found = []
    for part in parts:
        positions: Any = part.columns["sequence_sids"]
        order = -1 if part.newest_first else 1
        assert part.form == ("sid_sequence_reversed" if part.newest_first else "sid_sequence")
        found.append([positions.positions[row].tolist()[::order] for row in range(len(part))])
    assert found[::2] == found[1::2]
    return found[::2]


@pytest.mark.parametrize("cells", [1, 16, 1 << 20])
def test_the_nearest_items_of_training_rows_stand_before_each_new_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: int
) -> None:
    monkeypatch.setattr(text_neighbours, "CELLS", cells)
    made = mixture(tmp_path)
    titles = [*TITLES, *NEW.values()]
    texts = [f"{title}\nA {title.lower()}." for title in TITLES] + list(NEW.values())
    ids = list(map(str, range(len(titles))))
    vectors = VECTORS["text"]().fit(Source(Items(ids, titles, texts), SidsConfig()))[0]
    expected = []
    for item in NEWS:
        cosines = {}
        for other in range(8):
            sizes = np.linalg.norm(vectors[item]) * np.linalg.norm(vectors[other])
            cosines[other] = float(vectors[item] @ vectors[other] / max(sizes, 1e-12))
        expected.append(sorted(cosines, key=lambda other: -cosines[other]))
    assert expected[0][0] == 0
    assert expected[2][0] == 2
    found = pairs(made, neighbours=3)
    # The steel pans have words in common with each other alone, and with the gas stove.
    ranked = [[known for part in found for known, item in part if item == new] for new in NEWS]
    assert ranked == [expected[0][:1], [], expected[2][:1]]


def test_both_items_are_targets_in_both_orders(tmp_path: Path) -> None:
    made = mixture(tmp_path, neighbours=1)
    parts = made.parts("text_neighbours", "train", made.config.task_options()["text_neighbours"])
    sids = ["<a_0><b_0><c_0>", "<a_2><b_2><c_8>"]
    for part, expected in zip(parts, (sids, sids[::-1]), strict=True):
        assert part.context is not None
        assert part.context.tolist() == [0, 0]
        encoded = made.encoder.encode(part)
        (start, *_, end), ids = encoded.label_spans[0].tolist(), encoded.input_ids[0].tolist()
        assert made.vocabulary.tokenizer.decode(ids[start:end]) == "".join(expected)
        assert end == len(ids)


def test_items_without_a_common_word_are_no_neighbours(tmp_path: Path) -> None:
    found = pairs(mixture(tmp_path), neighbours=100)
    alike = {new: {known for part in found for known, item in part if item == new} for new in NEWS}
    words = [set(terms(f"{title}\nA {title}")) for title in TITLES]
    for new, title in zip(NEWS, NEW.values(), strict=True):
        shared = {item for item, own in enumerate(words) if own & set(terms(title))}
        assert alike[new] == shared
    assert [len(alike[new]) for new in NEWS] == [1, 0, 1]


def test_items_of_which_no_word_is_known_make_no_examples(tmp_path: Path) -> None:
    """In a large catalogue such an item has no vector; they stood beside the same two items all."""
    made = mixture(tmp_path)
    rows = made.source("train").rows
    titles = [*TITLES, *(f"unheard{item} of{item}" for item in range(8, 1_300))]
    names = list(map(str, range(len(titles))))
    sids = [("<a_0>", f"<b_{item}>") for item in range(len(titles))]
    catalogue = Catalogue(names, titles, titles, sids)
    new = text_neighbours.unseen(catalogue, rows)
    assert len(new) == 1_292
    assert not text_neighbours.any_alike(catalogue, rows, new)
    titles[-1] = "Blue, Gas"
    # "Blue Mug" and "Gas Stove" are the only texts with its words.
    assert text_neighbours.any_alike(catalogue, rows, new)
    near = text_neighbours.nearest(catalogue, rows, new, 3)
    assert (near[:-1] == -1).all()
    assert sorted(near[-1].tolist()) == [-1, 0, 2]


def test_items_of_training_rows_alone_make_no_examples(tmp_path: Path) -> None:
    config = parse_config(tiny_tree(tmp_path) | {"tasks": {"text_neighbours": {}}}, "test")
    made, task = mixed(config), text_neighbours.TextNeighbours()
    assert task.size(made.source("train")) == 0
    assert not task.build(made.source("train"), np.arange(0), task.options(), 0)


def test_held_out_rows_make_no_examples(tmp_path: Path) -> None:
    assert text_neighbours.TextNeighbours().size(mixture(tmp_path).source("valid")) == 0


def test_it_needs_texts(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path) | {"tasks": {"sid_sequence": {}, "text_neighbours": {}}}
    del tree["data"]["items"]
    with pytest.raises(UserError, match=r"descriptions are needed by tasks\.text_neighbours"):
        parse_config(tree, "test")
