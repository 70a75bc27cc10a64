"""`greenroom report`: what to paste into a bug report."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import click

from .options import json_option
from .output import print_json

PACKAGES = ("greenroom", "pyzmq", "msgspec", "msgpack", "cloudpickle", "click", "rich", "psutil", "uuid-utils")


@click.command()
@json_option()
def report(as_json: bool) -> None:
    """Print versions and the machine, for a bug report. No setting's value and no secret is in it."""
    from ...transport.store.connection import sqlite_version
    from ...transport.wire.link import libzmq_version

    facts: dict[str, str] = {name: _version(name) for name in PACKAGES}
    facts["libzmq"] = libzmq_version()
    facts["sqlite"] = sqlite_version()
    facts["python"] = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    facts["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    facts["cores"] = str(os.cpu_count() or 0)
    facts["settings"] = ", ".join(sorted(name for name in os.environ if name.startswith("GREENROOM_"))) or "none"
    if as_json:
        print_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {value}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
