"""The public Python interface: names, documentation, and what importing it costs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.tiny_data import tiny_tree

import sidtune
from sidtune.base.errors import UserError

NAMES = [
    "Recommendation",
    "Recommender",
    "__version__",
    "check",
    "evaluate",
    "load_config",
    "train",
]


def test_the_names_stay_as_they_are() -> None:
    """The options of the command line are frozen by `tests/integration/test_cli.py`."""
    assert sorted(sidtune.__all__) == NAMES


@pytest.mark.parametrize("name", [name for name in sidtune.__all__ if name != "__version__"])
def test_public_names_are_documented(name: str) -> None:
    value = getattr(sidtune, name)
    assert inspect.getdoc(value)
    assert value.__module__.startswith("sidtune.")
    if inspect.isfunction(value):
        arguments = set(inspect.signature(value).parameters)
        assert all(f"{argument}:" in (inspect.getdoc(value) or "") for argument in arguments), name


def test_no_module_shadows_a_public_name() -> None:
    folder = Path(sidtune.__file__).parent
    modules = {path.name.removesuffix(".py") for path in folder.iterdir()}
    assert not modules & set(sidtune.__all__)


@pytest.mark.parametrize(
    ("module", "unloaded"),
    [
        ("sidtune", ("torch", "transformers", "pyarrow")),
        ("sidtune.reporting.write", ("torch", "transformers")),
    ],
)
def test_imports_that_take_seconds_wait(module: str, unloaded: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {unloaded} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        sidtune.fit  # noqa: B018


def test_the_functions_do_what_the_commands_do(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path, training={"max_steps": 2}, eval={"every": 2})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    config = sidtune.load_config(tmp_path / "run.yaml", ["training.batch_size=8"])
    assert config.training.batch_size == 8
    assert {finding.severity for finding in sidtune.check(config)} <= {"note", "warning"}
    result = sidtune.train(config)
    assert result is not None
    assert result.steps == 2
    report = sidtune.evaluate(result.folder, "valid", beams=5, baselines=False)
    assert report is not None
    assert list(report.rankers) == ["model"]
    (found,) = sidtune.Recommender.load(result.folder).recommend([["1", "2"]], k=3)
    assert len(found) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"split": "validation"}, "split is 'validation'"),
        ({"split": "tests"}, "split is 'tests'; did you mean test"),
        ({"limit": 0}, "limit is 0"),
        ({"limit": "5"}, "limit is '5'"),
        ({"beams": -1}, "beams is -1"),
        ({"beams": 2.5}, "beams is 2.5"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"normalize": "Full"}, "normalize is 'Full'; did you mean full"),
        ({"normalize": None}, "normalize is None"),
    ],
)
def test_strange_arguments_of_an_evaluation_are_refused(
    tmp_path: Path, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        sidtune.evaluate(tmp_path, **arguments)
