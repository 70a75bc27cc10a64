"""A detour for links: what a worker and its broker say to each other passes through here, and can be held up or cut.

Owns one Unix socket, on which a worker finds its broker, and a thread that carries bytes both ways. While it holds,
nothing passes and nobody is told: connections stand, as behind a network that is parted. Bytes are kept, at most
BUFFER_BYTES a direction; then the sender fills its own buffers, as it would on any network.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from pathlib import Path
from typing import Final

BUFFER_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 1 << 16


class _Way:
    """One direction of a connection: what has come from one end and has not gone to the other."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.waiting = bytearray()


class Detour:
    """A socket at `path` that leads to the socket at `target`, until `close`."""

    def __init__(self, path: Path, target: Path) -> None:
        """Raises OSError."""
        self._target = str(target)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.setblocking(False)
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        self._holds = False
        self._cuts = False
        self._closed = False
        #: How often the thread was told something, and up to which of these it does as it was told.
        self._told = 0
        self._heeded = 0
        self._heeds = threading.Condition()
        self._ways: dict[socket.socket, _Way] = {}
        self._thread = threading.Thread(target=self._run, name="greenroom-detour", daemon=True)
        self._thread.start()

    @property
    def holds(self) -> bool:
        """Whether nothing passes now."""
        return self._holds

    def hold(self) -> None:
        """Let nothing pass from now on."""
        self._holds = True
        self._tell()

    def let_go(self) -> None:
        """Let everything pass, and first what has waited."""
        self._holds = False
        self._tell()

    def cut(self) -> None:
        """Break every connection, and lose what is underway on it."""
        self._cuts = True
        self._tell()

    def close(self) -> None:
        """Break every connection, and take no more."""
        self._closed = True
        os.write(self._wake, b".")
        self._thread.join()
        os.close(self._wake)
        os.close(self._woken)

    def _tell(self) -> None:
        """Have the thread look at what is wanted, and wait until it does so."""
        with self._heeds:
            self._told += 1
            wanted = self._told
            os.write(self._wake, b".")
            self._heeds.wait_for(lambda: self._heeded >= wanted or not self._thread.is_alive())

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed:
            told = self._told
            if self._cuts:
                self._cuts = False
                self._break_all()
            with selectors.DefaultSelector() as selector:
                selector.register(self._woken, selectors.EVENT_READ)
                if not self._holds:
                    self._watch(selector)
                with self._heeds:
                    self._heeded = told
                    self._heeds.notify_all()
                ready = selector.select()
            for key, mask in ready:
                if key.fileobj == self._woken:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._woken, _PIECE_BYTES)
                elif key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._ways:
                    self._carry(key.fileobj, mask)
        self._break_all()
        self._listener.close()

    def _watch(self, selector: selectors.BaseSelector) -> None:
        selector.register(self._listener, selectors.EVENT_READ)
        back = {way.target: way for way in self._ways.values()}
        for end, way in self._ways.items():
            mask = selectors.EVENT_READ if len(way.waiting) < BUFFER_BYTES else 0
            if back[end].waiting:
                mask |= selectors.EVENT_WRITE
            if mask:
                selector.register(end, mask)

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(self._target)
        except OSError:
            # Nobody is there: whoever has come learns it as he would without this.
            near.close()
            far.close()
            return
        near.setblocking(False)
        far.setblocking(False)
        self._ways[near] = _Way(near, far)
        self._ways[far] = _Way(far, near)

    def _carry(self, end: socket.socket, mask: int) -> None:
        way = self._ways[end]
        back = self._ways[way.target]
        try:
            if mask & selectors.EVENT_WRITE:
                del back.waiting[: end.send(back.waiting)]
            if mask & selectors.EVENT_READ:
                data = end.recv(_PIECE_BYTES)
                if not data:
                    # What it has said last is to arrive.
                    with contextlib.suppress(OSError):
                        way.target.setblocking(True)
                        way.target.settimeout(1.0)
                        way.target.sendall(way.waiting)
                    self._break(end)
                    return
                way.waiting += data
                with contextlib.suppress(BlockingIOError):
                    del way.waiting[: way.target.send(way.waiting)]
        except BlockingIOError:
            return
        except OSError:
            self._break(end)

    def _break(self, end: socket.socket) -> None:
        way = self._ways.pop(end)
        self._ways.pop(way.target, None)
        way.source.close()
        way.target.close()

    def _break_all(self) -> None:
        for end in list(self._ways):
            if end in self._ways:
                self._break(end)
