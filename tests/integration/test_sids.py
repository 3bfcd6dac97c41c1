"""From a catalogue to recommendations of an item that came later, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.asking import call, message
from tests.tiny_data import TITLES, tiny_tree

from sidtune.runs.bundle import CATALOGUE, read_bundle


def configured(folder: Path) -> tuple[Path, dict[str, Any]]:
    """A configuration without an index."""
    tree = tiny_tree(folder, sids={"levels": [2, 2, 8]})
    del tree["data"]["index"]
    (folder / "shop.yaml").write_text(yaml.safe_dump(tree))
    return folder / "shop.yaml", tree


def made(config: Path, *overrides: str) -> dict[str, Any]:
    result = call("sids", config, *overrides, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def catalogue(path: Path, **new: str) -> Path:
    records = {str(at): {"title": title} for at, title in enumerate(TITLES)}
    path.write_text(json.dumps(records | {item: {"title": title} for item, title in new.items()}))
    return path


def test_sids_are_made_once_and_reported(tmp_path: Path) -> None:
    config, _ = configured(tmp_path)
    shown = call("sids", config).output
    assert "8 items, 8 SIDs: 0 items share theirs" in " ".join(shown.split())
    assert "the default of data.index" in " ".join(shown.split())
    assert "Nothing to do" in call("sids", config).output
    assert made(config)["unchanged"]
    assert not made(config, "sids.seed=7")["unchanged"]
    index = made(config)["index"]
    assert json.loads(call("sids", "report", index, "--json").stdout)["items"] == 8
    assert "Gini" in call("sids", "report", Path(index).parent).output


def test_the_long_form_is_the_short_one(tmp_path: Path) -> None:
    config, _ = configured(tmp_path)
    assert (
        made(config)["index"] == json.loads(call("sids", "fit", config, "--json").stdout)["index"]
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sids.quantiser=x", "sids.quantiser: unknown key; did you mean quantizer?"),
        ("data.itms=x", "data.itms: unknown key; did you mean items?"),
        ("sdis.seed=1", "sdis: unknown key; did you mean sids?"),
        ("sids.levels=[1, 2]", "sids.levels"),
        ("sids.vectors=encoder", "vectors: encoder needs sids.encoder"),
        ("sids.encoder=x", "encoder has no effect with these vectors; it belongs to encoder"),
        ("sids.vectors={text: 0}", "sids.vectors"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, override: str, said: str) -> None:
    config, _ = configured(tmp_path)
    assert said in message("sids", config, override)


def test_a_trained_model_recommends_items_that_came_later(tmp_path: Path) -> None:
    config, tree = configured(tmp_path)
    index = made(config)["index"]
    trained = call("train", config, f"data.index={index}")
    assert trained.exit_code == 0, trained.output
    run = Path(tree["output_dir"])
    before = read_bundle(run)
    sealed = (run / "final_checkpoint" / CATALOGUE).read_bytes()
    new = catalogue(tmp_path / "new.item.json", later="Blue Mug, 12 oz")
    tokens = {token for sid in before.catalogue.sids for token in sid}
    result = call("sids", "assign", index, "--items", new, "--model", run)
    grown = [path for path in (run / "sids").iterdir() if path != Path(index).parent]
    sid = json.loads((grown[0] / "index.json").read_text())["later"] if grown else []
    if result.exception and "does not" in str(result.exception):
        # Nothing is half done: neither a folder nor a catalogue.
        assert (not grown, read_bundle(run).catalogue == before.catalogue) == (True, True)
        pytest.fail(
            f"the nearest free SID of an equal title should have known tokens: {result.exception}"
        )
    assert result.exit_code == 0, result.output
    assert set(sid) <= tokens
    after = read_bundle(run)
    assert after.catalogue.ids == [*before.catalogue.ids, "later"]
    assert after.catalogue.sids[:-1] == before.catalogue.sids
    assert after.users.tolist() == [*before.users.tolist(), 0]
    asked = call("recommend", run, "--history", "0,1", "-k", "9", "--json")
    assert "later" in {item["item_id"] for item in json.loads(asked.stdout)["items"]}, asked.output
    # The sealed checkpoint stays as it was sealed.
    assert (run / "final_checkpoint" / CATALOGUE).read_bytes() == sealed


def test_a_model_is_renewed_all_or_nothing(tmp_path: Path) -> None:
    config, tree = configured(tmp_path)
    # So many last codes that eight items cannot have taught all of them.
    index = made(config, "sids.levels=[2, 2, 32]")["index"]
    assert call("train", config, f"data.index={index}", "training.max_steps=2").exit_code == 0
    run = Path(tree["output_dir"])
    before = (run / CATALOGUE).read_bytes()
    many = {f"n{at}": f"Blue Mug, 12 oz number {at}" for at in range(20)}
    new = catalogue(tmp_path / "new.item.json", **many)
    said = message("sids", "assign", index, "--items", new, "--model", run)
    assert "new items have SID tokens that the model does not" in said
    assert "with the new index as data.index" in said
    assert (run / CATALOGUE).read_bytes() == before
    assert [path.name for path in (run / "sids").iterdir()] == [Path(index).parent.name]
    assert "is a checkpoint" in message(
        "sids",
        "assign",
        index,
        "--items",
        catalogue(new, n="Jam"),
        "--model",
        run / "final_checkpoint",
    )
    other = made(config, "sids.seed=3", "sids.levels=[4, 4, 8]")["index"]
    assert "of the model's 8 items have another SID" in message(
        "sids", "assign", other, "--items", new, "--model", run
    )


def test_without_a_catalogue_every_stage_works_on_the_items_of_the_rows(tmp_path: Path) -> None:
    config, tree = configured(tmp_path)
    data = tree["data"]
    del data["items"]
    # An item that only validation has.
    with Path(data["valid"]).open("a") as file:
        file.write("new,['Mug'],Late,[0],late,['<a_0>'],<a_0>\n")
    tree |= {"sids": {"vectors": "co_occurrence", "levels": [2, 2, 8]}, "tasks": {"sid_next": None}}
    tree["training"] |= {"max_steps": 2}
    config.write_text(yaml.safe_dump(tree))
    assert "is not given, and there are no SIDs" in message("train", config)
    ran = call("run", config)
    assert ran.exit_code == 0, ran.output
    run = Path(tree["output_dir"])
    assert read_bundle(run).catalogue.ids == [*map(str, range(len(TITLES))), "late"]
    index = made(config)["index"]
    for command in (
        ("train", config, f"output_dir={tmp_path / 'again'}", f"data.index={index}"),
        ("evaluate", run, "--split", "valid"),
        ("baselines", config, "--simple"),
        ("rank", run),
        ("sids", "report", index),
        ("recommend", run, "--history", "0,late", "-k", "3"),
    ):
        done = call(*command)
        assert done.exit_code == 0, (command, done.output)
    assert "0 errors" in call("check", config).output
    new = catalogue(tmp_path / "new.item.json", later="Blue Mug, 12 oz")
    assert "know nothing of items that no training row has" in message(
        "sids", "assign", index, "--items", new
    )
