"""Commands of sidtune, as benchmarks run them."""

from __future__ import annotations

import subprocess
import sys


def sidtune(*arguments: str) -> str:
    """Run a command; what it printed where it was asked for JSON, and in full view otherwise."""
    command = [sys.executable, "-m", "sidtune", *arguments]
    stdout = subprocess.PIPE if "--json" in arguments else None
    done = subprocess.run(command, stdout=stdout, text=True, encoding="utf-8", check=False)
    if done.returncode:
        raise SystemExit(f"sidtune {arguments[0]} failed")
    return done.stdout or ""
