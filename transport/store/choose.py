"""Which engine a setting names.

Owns `choose_store`, the only place where an engine is picked by its name.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import StoreError
from .base import Store
from .memory import MemoryStore
from .sqlite import SqliteStore

KNOWN = "a folder's path, sqlite:///folder (relative), sqlite:////folder (absolute) or memory://"


def choose_store(place: str | Path) -> Store:
    """Return the store, not yet opened, that a path or URL names.

    Raises StoreError for a URL that names none.
    """
    if isinstance(place, Path):
        return SqliteStore(place)
    scheme, separator, rest = place.partition("://")
    if not separator:
        if place:
            return SqliteStore(Path(place))
        raise StoreError(f"the store has no name; give {KNOWN}")
    if scheme == "memory":
        if rest.strip("/"):
            raise StoreError("the store memory:// takes nothing behind it: nobody else can reach it")
        return MemoryStore()
    if scheme == "sqlite":
        # As everywhere that SQLite has URLs: an empty host, a slash, and then the path.
        host, _, path = rest.partition("/")
        if host or not path:
            raise StoreError(f"the store {place!r} names no folder; give {KNOWN}")
        return SqliteStore(Path(path))
    # The rest of a URL may hold a password, so only its scheme is told.
    raise StoreError(f"nothing is known of a store {scheme}://; give {KNOWN}")
