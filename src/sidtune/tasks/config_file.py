"""Reading YAML configurations with dotted overrides, reporting all errors at once, and writing
resolved ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from sidtune.base.errors import UserError, did_you_mean
from sidtune.base.faults import in_words
from sidtune.config.data import DataConfig
from sidtune.config.model import ModelConfig
from sidtune.config.section import Section
from sidtune.config.sids import SidsRun
from sidtune.files.yaml_files import parse_yaml, read_yaml
from sidtune.tasks import TASKS
from sidtune.tasks.config import Config
from sidtune.tasks.keys import all_keys

CONFIG_HINT = "`sidtune explain` lists all keys; `sidtune explain KEY` says what one means."
NEWLINE = "\n"
S = TypeVar("S", bound=Section)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `section.key=value` overrides.

    Raises:
        UserError: for a missing or broken file, an unknown key or a value of the wrong type.
    """
    return parse_config(read_tree(path, overrides), str(path))


def read_tree(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The nested mappings of a YAML file, with `section.key=value` overrides; not yet validated."""
    tree = read_yaml(path)
    for override in overrides:
        _apply(tree, override)
    return tree


def parse_sids(tree: Mapping[str, Any], where: str) -> SidsRun:
    """As `parse_config`, for what `sidtune sids` reads: neither an index nor rows nor a model need
    be given.
    """
    data = tree.get("data")
    faults = [
        f"{prefix}{name}: unknown key{did_you_mean(str(name), section.model_fields)}"
        for prefix, section, given in (("", Config, tree), ("data.", DataConfig, data))
        for name in (given if isinstance(given, Mapping) else ())
        if name not in section.model_fields
    ]
    try:
        run = SidsRun.model_validate(tree)
    except ValidationError as error:
        faults.append(_faults(error, SidsRun))
    if faults:
        raise UserError(f"{where}: {NEWLINE.join(faults)}", CONFIG_HINT)
    return run


def parse_part(tree: Mapping[str, Any], part: type[S], where: str) -> S:
    """As `parse_config`, for a command that reads some sections: the others may be incomplete.

    Args:
        part: the sections that are read, as fields.

    Raises:
        UserError: as `parse_config`; also where a section of the part is missing.
    """
    for name in tree:
        if name not in Config.model_fields:
            raise UserError(
                f"{where}: {name}: unknown key{did_you_mean(str(name), Config.model_fields)}",
                CONFIG_HINT,
            )
    try:
        return part.model_validate(
            {name: value for name, value in tree.items() if name in part.model_fields}
        )
    except ValidationError as error:
        raise UserError(f"{where}: {_faults(error, part)}", CONFIG_HINT) from None


def parse_config(tree: Mapping[str, Any], where: str) -> Config:
    """Validate a configuration given as nested mappings; one `UserError` lists all errors."""
    faults: list[str] = []
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        faults.append(_faults(error, Config))
    faults += _option_faults(tree.get("tasks"), "tasks")
    if isinstance(rl := tree.get("rl"), Mapping):
        faults += _option_faults(rl.get("tasks"), "rl.tasks")
    if faults:
        raise UserError(f"{where}: {NEWLINE.join(faults)}", CONFIG_HINT)
    return config


def _option_faults(tasks: Any, key: str) -> Iterator[str]:
    """Errors in the options of known tasks; unknown tasks are reported with the configuration."""
    for name, given in tasks.items() if isinstance(tasks, Mapping) else ():
        if name in TASKS:
            try:
                TASKS[name].options.model_validate(given or {})
            except ValidationError as error:
                yield _faults(error, TASKS[name].options, f"{key}.{name}.")


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML for `load_config`, without keys that have no effect in its
    mode.
    """
    tree = config.model_dump(mode="json")
    tree["tasks"] = {name: options.model_dump() for name, options in config.task_options().items()}
    idle = "max_tokens" if config.training.layout == "padded" else "micro_batch_size"
    del tree["training"][idle]
    if config.data.items is None:
        del tree["data"]["description_tokens"]
    if not config.training.weight_decay:
        del tree["training"]["decay_embeddings"]
    for section, key in config.said_by_stages():
        del tree[section][key]
    if config.sids:
        tree["sids"] = config.sids.resolved()
    else:
        del tree["sids"]
    tree["stages"] = [stage.model_dump(exclude_none=True) for stage in config.stages]
    if config.eval.ranking.every is None:
        tree["eval"]["ranking"] = {"every": None}
    if config.model.from_scratch:
        del tree["model"]["new_rows"]
    if "lora" not in config.tunings:
        del tree["model"]["lora"], tree["model"]["quantize"]
    if "model" not in config.rank.used:
        del tree["rank"]["beams"]
    if config.rl.rollout == "beams":
        del tree["rl"]["temperature"]
    if config.rl.updates == 1:
        del tree["rl"]["clip"]
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def with_absolute_paths(section: S) -> S:
    """The same configuration, or section, with absolute paths.

    `model.base` is a path if a local folder has that name; otherwise it is a Hub name and stays
    unchanged.
    """
    changes: dict[str, Any] = {}
    for name, value in section:
        if isinstance(value, Path):
            changes[name] = value.absolute()
        elif isinstance(value, Section):
            changes[name] = with_absolute_paths(value)
    if isinstance(section, ModelConfig) and Path(section.base).is_dir():
        changes["base"] = str(Path(section.base).absolute())
    return section.model_copy(update=changes)


def _apply(tree: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    keys = dotted.split(".")
    if not equals or not all(keys):
        raise UserError(
            f"override {override!r}: expected section.key=value, such as training.epochs=3",
            "Override keys as in `sidtune train run.yaml training.epochs=3`.",
        )
    for key in keys[:-1]:
        if tree.get(key) is None:
            tree[key] = {}
        tree = tree[key]
        if not isinstance(tree, dict):
            raise UserError(
                f"override {override!r}: {key} is a value, not a section",
                "`sidtune explain` lists all keys.",
            )
    try:
        tree[keys[-1]] = parse_yaml(text, "override")
    except UserError:
        tree[keys[-1]] = text


def _faults(error: ValidationError, root: type[BaseModel], prefix: str = "") -> str:
    """One line per error with dotted key names; the errors of all members of a union become one."""
    messages: dict[str, list[str]] = {}
    other_kinds: dict[str, list[str]] = {}
    found: dict[str, str] = {}
    sections: set[str] = set()
    for fault in error.errors():
        if fault["type"] == "default_factory_not_called":
            continue  # the error it depends on is listed separately
        # Stages are counted from 1, like their folders.
        keys = [str(part + 1) if isinstance(part, int) else part for part in fault["loc"]]
        if fault["type"] == "extra_forbidden":
            *outer, last = keys
            key = prefix + ".".join([*_without_union(outer), last])
            known = _section_of(root, outer).model_fields
            messages[key] = [f"unknown key{did_you_mean(last, known)}"]
            continue
        key = prefix + (".".join(_without_union(keys)) or "configuration")
        of_key = messages.setdefault(key, [])
        if fault["type"].endswith(("_type", "_parsing")) or fault["type"] == "literal_error":
            of_key = other_kinds.setdefault(key, [])
        of_key.append(in_words(fault))
        if fault["type"] == "missing":
            continue
        if isinstance(fault["input"], dict):
            sections.add(key)
        else:
            found[key] = f", found {_shown(fault['input'])}"
    # A section where a value could stand, too: what is wrong in it says more than that it is no
    # such value.
    told = {key for key in sections if any(inner.startswith(f"{key}.") for inner in messages)}
    return "\n".join(
        f"{key}: {'; or '.join(said) or _expected(key, other_kinds[key])}{found.get(key, '')}"
        for key, said in messages.items()
        if key not in told
    )


def _expected(key: str, said: Sequence[str]) -> str:
    """What a key takes, by what was said of each kind of value that the given one is not."""
    if len(said) > 1 and key in all_keys():
        return f"expected {all_keys()[key].type}"
    return "; or ".join(said)


def _shown(value: object) -> str:
    """A value as it appears in a message."""
    # Python refuses to format more than 4,300 decimal digits; hexadecimal has no limit.
    text = hex(value) if isinstance(value, int) and value.bit_length() > 64 else repr(value)
    return text[:200]


def _without_union(keys: Sequence[str]) -> list[str]:
    """Without the members of unions that pydantic names in the location; they are none of the
    user's keys.
    """
    named = [key for key in keys if re.fullmatch(r"[a-z_][a-z0-9_]*|[0-9]+", key)]
    return [key for key in named if key not in ("int", "float", "str", "bool")]


def _section_of(root: type[BaseModel], keys: Sequence[str]) -> type[BaseModel]:
    """The section that these keys lead to; members of unions among them lead nowhere."""
    section = root
    for key in keys:
        if field := section.model_fields.get(key):
            section = next(_sections(field.annotation), section)
    return section


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a type allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)
