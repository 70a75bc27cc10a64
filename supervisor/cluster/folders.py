"""Where a node keeps its pages: one folder a node session, for this user only.

`$XDG_RUNTIME_DIR/greenroom/nodes` where there is one, else `~/.greenroom/nodes`: not in the data folder of a broker,
since a node may know none of it, and on memory where the system offers that, since pages need to survive processes
and not the power.
"""

from __future__ import annotations

import os
from pathlib import Path


def nodes_folder() -> Path:
    """The folder above all nodes' folders."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) / "greenroom" if runtime else Path.home() / ".greenroom"
    return base / "nodes"


def node_folder(session: str) -> Path:
    """The folder of the node with this session id."""
    if not session or "/" in session or session.startswith("."):
        raise ValueError(f"{session!r} is no node's session id")
    return nodes_folder() / session
