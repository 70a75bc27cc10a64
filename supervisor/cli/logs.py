"""Logging of the command line: one line a record, to stderr, at the level that was asked for."""

from __future__ import annotations

import logging
import sys

import click

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
FORMAT = "[%(asctime)s: %(levelname)s/%(name)s] %(message)s"


def set_up_logging(level: str) -> None:
    """Log to stderr. An unknown level is a usage error."""
    name = level.upper()
    if name not in LEVELS:
        raise click.BadParameter(f"{level!r} is no level; one of {', '.join(LEVELS)}", param_hint="--loglevel")
    logging.basicConfig(level=name, format=FORMAT, stream=sys.stderr, force=True)
