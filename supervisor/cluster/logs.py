"""The log of a broker's or a node's own process: one line a record, one format, to stderr.

What the tasks log is the application's business (`app.log`); this is what the processes around them say.
"""

from __future__ import annotations

import logging
from typing import Final

from ...actors.log import ColorFormatter, terminal_has_colors
from .stderr import StderrHandler

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
FORMAT: Final = "[%(asctime)s: %(levelname)s/%(name)s] %(message)s"


def set_up_logging(level: str) -> None:
    """Log to stderr at this level, one of LEVELS, in place of what was set up before."""
    handler = StderrHandler()
    handler.setFormatter(ColorFormatter(FORMAT, use_color=terminal_has_colors(2)))
    logging.basicConfig(level=level, handlers=[handler], force=True)
