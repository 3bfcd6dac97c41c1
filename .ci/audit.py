"""Known vulnerabilities of the installed packages; silent about the network where nobody answers.

Fails where an advisory names a version that mends it. Those that nothing mends yet are listed.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

SECONDS = 45
# How errors are called that come of the network.
UNANSWERED = (
    "ConnectionError",
    "refused",
    "Max retries",
    "ServiceError",
    "timed out",
    "Timeout",
    "HTTPError",
)
COMMAND = [
    sys.executable,
    "-m",
    "pip_audit",
    "--progress-spinner",
    "off",
    "--timeout",
    "10",
    "--format",
    "json",
]


def main() -> int:
    """Print what was found; 1 where something can be updated."""
    if importlib.util.find_spec("pip_audit") is None:
        print("pip-audit: not installed; delete .venv/.ready, and make sets it up")
        return 1
    packages = answer()
    if packages is None:
        print(f"pip-audit: failed, and not for want of an answer: {' '.join(COMMAND)}")
        return 1
    audited = [package for package in packages if "vulns" in package]
    if not audited:
        print("pip-audit: skipped, no service for advisories answers")
        return 0
    found = [(package, advisory) for package in audited for advisory in package["vulns"]]
    for package, advisory in found:
        mended = ", ".join(advisory["fix_versions"]) or "no version yet"
        print(
            f"pip-audit: {package['name']} {package['version']}: {advisory['id']}, mended in"
            f" {mended}"
        )
    print(
        f"pip-audit: {len(audited)} of {len(packages)} packages looked up, {len(found)} advisories"
    )
    return int(any(advisory["fix_versions"] for _, advisory in found))


def answer() -> list[dict[str, Any]] | None:
    """What pip-audit says of each package: of none where it could not ask, and None where it broke.

    Its own words are not shown: they name hosts.
    """
    try:
        done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=SECONDS, check=False)
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return []
    except (ValueError, KeyError):
        return [] if any(sign in done.stderr for sign in UNANSWERED) else None
    return packages


if __name__ == "__main__":
    sys.exit(main())
