"""Documentation and recipes are true: keys, defaults, links and commands exist."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from typer.main import get_command

from sidtune.commands.main import app
from sidtune.pipeline.defaults import Request
from sidtune.tasks import TASKS
from sidtune.tasks.config import Config
from sidtune.tasks.keys import PROVIDED
from sidtune.templates import FORMS

ROOT = Path(__file__).parents[3]
# In Chinese a paragraph is one line, since forges turn a line break into a blank.
CHINESE = [*ROOT.glob("*.zh-CN.md"), *(ROOT / "docs").glob("*.zh-CN.md")]
PAGES = [*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
FIGURES = sorted((ROOT / "docs" / "figures").glob("*.py"))
# What each figure must say.
FACTS = {"flow": f"{len(TASKS)} tasks", "tree": "26 tokens in 4 examples, 13 computed"}


def keys(section: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Every configuration key with its default."""
    found: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        inner = next(iter(get_args(field.annotation)), None)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= keys(inner, f"{prefix}{name}.")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= keys(field.annotation, f"{prefix}{name}.")
        elif prefix + name != "tasks":
            provided = name in PROVIDED.get(section.__name__, ())
            default = "required" if field.is_required() else field.default
            found[prefix + name] = None if provided else default
    return found


def test_every_key_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (\S+) \|", text, re.MULTILINE))
    tasks = {name: rows.pop(name) for name in TASKS if name in rows}
    options = {name: rows.pop(name) for name in list(rows) if name.startswith("tasks.")}
    expected = {
        key: (
            str(default)
            if isinstance(default, str | Path | float | int) and not isinstance(default, bool)
            else default
        )
        for key, default in keys(Config).items()
    }
    documented = {
        key: {"true": True, "false": False, "null": None, "[]": ()}.get(value, value)
        for key, value in rows.items()
    }
    assert documented == expected
    assert not tasks, "tasks are described by what they do, not by a default"
    assert all(f"`{name}`" in text for name in TASKS)
    own = {
        f"tasks.{name}.{option}"
        for name, task in TASKS.items()
        for option in task.options.model_fields.keys() - {"weight", "sample"}
    }
    assert options.keys() == own | {"tasks.TASK.weight", "tasks.TASK.sample"}


@pytest.mark.parametrize(
    ("page", "part"),
    [("configuration.md", "passes over the mixture"), ("ranking.md", "how often the user had it")],
)
def test_generated_tables_are_current(page: str, part: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    draw = runpy.run_path(str(ROOT / "docs" / "reference.py"))["PAGES"][page]
    assert draw(text) == text, "run: python docs/reference.py"
    assert draw(text.replace(part, "an old text")) == text


def test_every_form_is_documented() -> None:
    text = (ROOT / "docs" / "templates.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \| (.+) \| (.+) \|", text, re.MULTILINE)
    documented = {
        form: tuple(tuple(re.findall(r"`(\w+)`", cell)) for cell in cells) for form, *cells in rows
    }
    assert documented == {form: (needs.prompt, needs.response) for form, needs in FORMS.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist_with_their_options(page: Path) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    text = page.read_text().replace("\\\n", " ")
    for name, rest in re.findall(r"\bsidtune ([a-z][a-z-]*)([^`\n]*)", text):
        if name not in commands and not rest.startswith(" --"):
            continue
        options = {
            option for parameter in chosen(commands[name], rest).params for option in parameter.opts
        }
        for option in re.findall(r"(?<!\S)(--?[A-Za-z][\w-]*)", rest):
            assert option in options or option == "--help", f"sidtune {name} {option}"


def chosen(command: Any, rest: str) -> Any:
    """The command itself, or the one of a group that the next word names; its first one where none
    is named.
    """
    inside = getattr(command, "commands", None)
    if not inside:
        return command
    return inside.get(rest.split()[0] if rest.split() else "", next(iter(inside.values())))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_recipes_load_and_open_with_their_command(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDTUNE_DATA", "/data")
    tree = Request.read(recipe).tree
    opening = recipe.read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in opening.splitlines())
    assert re.search(rf"sidtune (train|run) recipes/{recipe.name}", opening)
    assert re.search("minutes|measured", opening), "its time, and what it reaches"
    assert tree["output_dir"].startswith("runs/")


def test_there_are_recipes() -> None:
    assert RECIPES
    assert all(isinstance(yaml.safe_load(recipe.read_text()), dict) for recipe in RECIPES)


def test_the_project_speaks_of_itself_alone() -> None:
    """No path of one machine in what is shipped."""
    for folder in ("src", "docs", "recipes", "benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".md", ".yaml", ".json"}:
                assert not re.search(r"/(root|work|home)/", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("script", FIGURES, ids=lambda script: script.name)
def test_figures_are_what_their_scripts_draw(script: Path) -> None:
    drawn = runpy.run_path(str(script))["draw"]()
    assert script.with_suffix(".svg").read_text(encoding="utf-8") == drawn
    assert FACTS[script.stem] in drawn


def test_commands_in_figures_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    drawn = "".join(script.with_suffix(".svg").read_text(encoding="utf-8") for script in FIGURES)
    named = re.findall(r"sidtune ([\w-]+)", drawn)
    assert named
    assert set(named) <= set(commands)


def test_the_table_of_levers_is_what_was_measured() -> None:
    """No measured row is left out, none is added by hand, and levers without figures are named."""
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "quality.py"), run_name="quality")
    outcome = json.loads((ROOT / "benchmarks" / "quality.json").read_text())
    measured, page = outcome["levers"], (ROOT / "docs" / "quality.md").read_text()
    for levers in (measured, outcome["removed"]):
        assert "\n".join(benchmark["table"](levers)) in page
    missing = [lever.name for lever in benchmark["LEVERS"] if lever.title not in measured]
    named = re.findall(
        r"`(.+?)`", " ".join(re.findall(r"^Not measured yet: (.*)$", page, re.MULTILINE))
    )
    assert named == missing


def test_every_promise_names_tests_that_exist() -> None:
    tests = "\n".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")))
    rows = [
        line
        for line in (ROOT / "docs" / "reliability.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    promises = [
        row.split("|")[2]
        for row in rows
        if "test" in row.split("|")[2] and row.split("|")[1] != " promise "
    ]
    assert len(promises) > 25
    for cell in promises:
        for name in re.findall(r"`(\S+)`", cell):
            found = (
                (ROOT / name).is_file() if name.startswith("tests/") else f"def {name}(" in tests
            )
            assert found, name


@pytest.mark.parametrize(
    "page", [*sorted({*PAGES} - {*CHINESE}), ROOT / "CHANGELOG.md"], ids=lambda page: page.name
)
def test_prose_ends_at_a_hundred_characters(page: Path) -> None:
    """Tables, links and quoted output are exempt."""
    quoted = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        quoted ^= line.lstrip().startswith("```")
        exempt = quoted or line.startswith(("|", "    ")) or "](" in line
        assert exempt or len(line) <= 100, f"{page.name}, line {number}"
