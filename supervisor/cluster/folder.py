"""The runtime folder of a worker node, and the folders that dead nodes left (spec D13, D16).

Owns what lies in such a folder (`folders` says where it is) and who may read and remove it. In it, mode 0700, are

    lock        locked (flock) by the node's parent, and with its descriptor by its spawners and children
    about       the node's name, its broker and its pid, as JSON
    *.page      the pages

The kernel lets go of the lock when the last process of the node has ended, so whoever gets it knows that the pages
change no more, and is the only one to report them. A folder is only reported to the brokers that its node served;
one that nobody came for in `KEPT_SECONDS` is removed, since its leases were judged without it long ago.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ...transport.page import PageContents, page_path, read_pages
from ...transport.wire.address import parse_address
from .folders import node_folder, nodes_folder

#: A broker that is down keeps its leases, so pages are kept as long as somebody may need to repair it.
KEPT_SECONDS = 7 * 86_400


class About(msgspec.Struct, frozen=True):
    """Whose folder it is."""

    node: str
    broker: str
    pid: int


class NodeFolder:
    """The folder of one node, locked by this process; `lock` is the lock's descriptor, to be handed to children."""

    def __init__(self, path: Path, lock: int) -> None:
        """Use `create` or `abandoned_folders`."""
        self.path = path
        self.lock = lock

    @classmethod
    def create(cls, session: str, node: str, brokers: Sequence[str]) -> NodeFolder:
        """Make the folder of this node, whole at once. Raises OSError."""
        nodes = nodes_folder()
        nodes.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = nodes / f".{session}"
        unfinished.mkdir(mode=0o700)
        lock = _lock(unfinished)
        assert lock is not None, "nobody else knows of this folder"
        about = About(node=node, broker=broker_key(brokers), pid=os.getpid())
        (unfinished / "about").write_bytes(msgspec.json.encode(about))
        path = node_folder(session)
        unfinished.rename(path)
        return cls(path, lock)

    def page(self, node: str, incarnation: int, number: int) -> str:
        """Return the path of a child's page."""
        return page_path(self.path, node, incarnation, number)

    def pages(self) -> list[PageContents]:
        """Return what the pages say. Only for a folder of a dead node: those of living processes are left out."""
        return read_pages(self.path)

    def close(self, *, keep: bool = True) -> None:
        """Let go of the folder; remove it unless pages in it wait to be reported and are to be kept for that."""
        if not keep or not any(self.path.glob("*.page")):
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def broker_key(addresses: Sequence[str]) -> str:
    """Return what is the same for all spellings of brokers on this machine: a port, else the address."""
    keys: list[str] = []
    for address in addresses:
        parsed = parse_address(address)
        keys.append(f"tcp:{parsed.port}" if parsed.kind == "tcp" and parsed.is_local() else str(parsed))
    return " ".join(sorted(keys))


def abandoned_folders(brokers: Sequence[str]) -> list[NodeFolder]:
    """Return the folders of dead nodes that served these brokers, locked; remove those that nobody needs."""
    folders: list[NodeFolder] = []
    key = broker_key(brokers)
    for path in sorted(nodes_folder().glob("*")):
        lock = _lock(path)
        if lock is None:
            continue
        folder = NodeFolder(path, lock)
        try:
            about = msgspec.json.decode((path / "about").read_bytes(), type=About)
            old = time.time() - path.stat().st_mtime > KEPT_SECONDS
        except (OSError, msgspec.MsgspecError):
            # Its node died while it made it; it had no children.
            about, old = None, True
        if old or not any(path.glob("*.page")):
            shutil.rmtree(path, ignore_errors=True)
        elif about is not None and about.broker == key:
            folders.append(folder)
            continue
        os.close(lock)
    return folders


def _lock(folder: Path) -> int | None:
    """Lock a folder; None if somebody has it, or it is gone."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
        else:
            return descriptor
    return None
