"""`sidtune schema`: the JSON Schema of a configuration file."""

from __future__ import annotations

import typer

from sidtune.base.terminal import json_text


def schema() -> None:
    """Print the JSON Schema of a configuration file: editors complete its keys and show their help.

    Begin the file with `# yaml-language-server: $schema=sidtune.schema.json`, a path relative to
    the file.

    Example: `sidtune schema > sidtune.schema.json`
    """
    from sidtune.tasks.keys import json_schema

    typer.echo(json_text(json_schema(), indent=1))
