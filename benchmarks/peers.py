"""The peers' libraries, in a virtual environment of their own: `peers.py install` makes it, `peers.py show` lists it.

The project's own environment stays free of them. benchmarks/.venv is not in git.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import venv
from pathlib import Path

VENV = Path(__file__).resolve().parent / ".venv"
PYTHON = VENV / "bin" / "python"
#: What pip is asked for.
LIBRARIES = ("celery[redis]>=5.4", "dramatiq[rabbitmq,redis]>=1.17", "huey>=2.5", "redis>=5")
INSTALL = "benchmarks/peers.py install"

_LIST = """
import importlib.metadata, json, platform
found = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
print(json.dumps({**found, "python": platform.python_version()}))
"""


@functools.cache
def installed() -> dict[str, str]:
    """Return the versions of all that is in the peers' environment; empty when there is none that runs."""
    try:
        told = subprocess.run([PYTHON, "-c", _LIST], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return {}
    versions: dict[str, str] = json.loads(told.stdout)
    return versions


def missing(library: str) -> str | None:
    """Say that a library is not there; None: it is."""
    return None if library in installed() else f"{library} is not installed ({INSTALL})"


def versions(*libraries: str) -> dict[str, str]:
    """Return the versions of these, and of the peers' Python."""
    found = installed()
    return {name: found[name] for name in (*libraries, "python") if name in found}


def install() -> None:
    """Make the environment and install the peers into it, or bring them up to date."""
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "--upgrade", *LIBRARIES], check=True)


def main() -> None:
    """Do what the command line says."""
    match sys.argv[1:]:
        case ["install"]:
            install()
        case ["show"]:
            pass
        case _:
            sys.exit(f"usage: {sys.argv[0]} install|show")
    for name, version in sorted(installed().items()):
        print(f"{name} {version}")


if __name__ == "__main__":
    main()
