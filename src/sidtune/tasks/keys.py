"""Every key of the configuration with its help, type and default, read from one JSON Schema.

The help of a key stands in its field's `description`, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from sidtune.base.errors import UserError, did_you_mean
from sidtune.config.section import MOST
from sidtune.tasks import DEFAULT_TASKS, TASKS
from sidtune.tasks.base import TaskOptions
from sidtune.tasks.config import Config

Schema = dict[str, Any]
# What earlier stages provide (see `sidtune run`), so a file may leave it out.
PROVIDED = {"Config": {"model", "data"}, "ModelConfig": {"base"}, "DataConfig": {"index"}}
REQUIRED = "required"
SHOWN_LIKE = 5


@dataclass(frozen=True)
class Key:
    """A key, or a section of keys.

    Args:
        name: with the sections it lies in, such as `training.group_by`.
        help: what it means, in Markdown of code spans alone.
        type: the values it takes, in words.
        default: as YAML writes it, or `required`; empty for a section that is always there.
        is_section: whether it holds keys itself.
    """

    name: str
    help: str
    type: str
    default: str
    is_section: bool


class _Untitled(GenerateJsonSchema):
    """Without titles, which repeat the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        return False


def json_schema() -> Schema:
    """The JSON Schema of a configuration file, for editors: a section may be empty."""
    schema = _whole()
    for name, value in schema["properties"].items():
        if "$ref" in value:
            schema["properties"][name] = {"anyOf": [value, {"type": "null"}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@cache
def all_keys() -> Mapping[str, Key]:
    """Every section and key by name, in the order of the configuration."""
    schema = _whole()
    return MappingProxyType({key.name: key for key in _keys(schema, schema["$defs"], "")})


def find_key(name: str) -> Key:
    """The key of this name, or the only one that ends with it.

    Raises:
        UserError: names what it may have meant.
    """
    keys = all_keys()
    if name in keys:
        return keys[name]
    ending = [key for key in keys if key.endswith(f".{name}")]
    if len(ending) == 1:
        return keys[ending[0]]
    if ending:
        raise UserError(
            f"several keys are called {name}: {', '.join(ending)}", "Give the whole name of one."
        )
    last = name.rpartition(".")[2]
    near = [key for key in keys if did_you_mean(last, [key.rpartition(".")[2]])]
    meant = did_you_mean(name, keys) or (
        f"; did you mean {' or '.join(near[:SHOWN_LIKE])}?" if near else ""
    )
    raise UserError(f"no key is called {name}{meant}", "`sidtune explain` lists all keys.")


def _whole() -> Schema:
    """The schema of the configuration with the options of every task; what earlier stages provide
    is not required.
    """
    schema = Config.model_json_schema(schema_generator=_Untitled)
    for name, provided in PROVIDED.items():
        part = schema if name == "Config" else schema["$defs"][name]
        part["required"] = [key for key in part["required"] if key not in provided]
    tasks: Schema = {}
    for name, task in TASKS.items():
        options = task.options.model_json_schema(schema_generator=_Untitled)
        tasks[name] = {
            "description": task.help,
            "anyOf": [
                {key: value for key, value in options.items() if key != "title"},
                {"type": "null"},
            ],
        }
    schema["properties"]["tasks"] = {
        "type": "object",
        "description": (
            "a mapping from each task to its options; only the tasks that it names are trained."
            f" Left out: {', '.join(f'`{name}`' for name in DEFAULT_TASKS)}, or the tasks of the"
            " run that `model.base` names"
        ),
        "properties": tasks,
        "additionalProperties": False,
    }
    return schema


def _keys(section: Schema, parts: Mapping[str, Schema], prefix: str) -> Iterator[Key]:
    required = section.get("required", ())
    for name, value in section["properties"].items():
        inner = _section(value, parts)
        described = value.get("description") or (inner or {}).get("description", "")
        default = REQUIRED if name in required else _shown(value.get("default"))
        if inner and (name in required or isinstance(value.get("default", {}), dict)):
            default = ""
        yield Key(
            prefix + name,
            " ".join(described.split()),
            "a section" if inner else _told(value, parts),
            default,
            bool(inner),
        )
        if inner:
            yield from _keys(inner, parts, f"{prefix}{name}.")


def _section(value: Schema, parts: Mapping[str, Schema]) -> Schema | None:
    """The section that a key holds, if it holds one, a list of them, or one or null."""
    others = [one for one in value.get("anyOf", ()) if one.get("type") != "null"]
    if len(others) == 1:
        return _section(others[0], parts)
    if value.get("type") == "array":
        return _section(value.get("items", {}), parts)
    found = parts[value["$ref"].rpartition("/")[2]] if "$ref" in value else value
    return found if "properties" in found else None


def _shown(default: Any) -> str:
    """A default as YAML writes it."""
    if isinstance(default, str):
        return default
    return json.dumps(default, ensure_ascii=False)


def _told(value: Schema, parts: Mapping[str, Schema]) -> str:
    """The values that a schema allows, in words."""
    if "$ref" in value:
        return f"{{{', '.join(parts[value['$ref'].rpartition('/')[2]]['properties'])}}}"
    if "anyOf" in value:
        told = dict.fromkeys(_told(one, parts) for one in value["anyOf"])
        return (", or " if any(" or " in one for one in told) else " or ").join(told)
    if "enum" in value or "const" in value:
        names = [_shown(one) for one in value.get("enum", [value.get("const")])]
        return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    kind = value.get("type")
    if kind == "array":
        inner = value.get("prefixItems") or [value.get("items", {})]
        many = f"list of {len(inner)}: " if "prefixItems" in value else "list of "
        return many + ", ".join(dict.fromkeys(_told(one, parts) for one in inner))
    if kind == "object":
        settings = value.get("additionalProperties")
        called = value.get("propertyNames")
        key = _told(called, parts) if isinstance(called, dict) else "name"
        if not isinstance(settings, dict) or not settings:
            return f"mapping from {key} to its settings"
        return f"mapping from {key} to {_told(settings, parts)}"
    words = {"integer": "whole number", "number": "number", "boolean": "true or false"}
    words |= {"string": value.get("format", "text"), "null": "null"}
    return words.get(str(kind), "any value") + _bounds(value)


def _bounds(value: Schema) -> str:
    signs = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    told = [
        f"{words} {value[sign]:,.7g}"
        for sign, words in signs.items()
        if sign in value and abs(value[sign]) < MOST
    ]
    return f" {' and '.join(told)}" if told else ""


def option_keys(options: type[TaskOptions]) -> list[str]:
    """The names of options that a task has beside those of every task."""
    return [name for name in options.model_fields if name not in TaskOptions.model_fields]
