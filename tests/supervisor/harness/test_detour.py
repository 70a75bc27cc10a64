"""A detour for links: bytes pass, wait, and are lost, as it is told."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from greenroom.supervisor.harness.detour import BUFFER_BYTES, Detour

PATIENCE_SECONDS = 10.0
AT_ONCE_SECONDS = 0.1


class Ends:
    """A detour between two sockets."""

    def __init__(self, folder: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "far"))
        self.listener.listen()
        self.listener.settimeout(PATIENCE_SECONDS)
        self.folder = folder
        self.detour = Detour(folder / "near", folder / "far")

    def connect(self) -> tuple[socket.socket, socket.socket]:
        near = socket.socket(socket.AF_UNIX)
        near.settimeout(PATIENCE_SECONDS)
        near.connect(str(self.folder / "near"))
        far, _ = self.listener.accept()
        far.settimeout(PATIENCE_SECONDS)
        return near, far


@pytest.fixture
def ends() -> Iterator[Ends]:
    with tempfile.TemporaryDirectory() as folder:
        ends = Ends(Path(folder))
        yield ends
        ends.detour.close()
        ends.listener.close()


def read(end: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (piece := end.recv(1 << 16)):
        data += piece
    return data


def test_bytes_pass_both_ways_and_ends_are_told(ends: Ends) -> None:
    near, far = ends.connect()
    near.sendall(b"there")
    assert read(far, 5) == b"there"
    far.sendall(b"back")
    far.close()
    assert read(near, 99) == b"back"


def test_more_than_a_buffer_passes_to_one_who_reads_late(ends: Ends) -> None:
    near, far = ends.connect()
    data = bytes(range(256)) * (3 * BUFFER_BYTES // 256)
    near.setblocking(False)
    sent = near.send(data)
    near.settimeout(PATIENCE_SECONDS)
    got = b""
    while sent < len(data):
        got += far.recv(1 << 16)
        near.setblocking(False)
        try:
            sent += near.send(data[sent : sent + 65_536])
        except BlockingIOError:
            continue
    assert got + read(far, len(data) - len(got)) == data


def test_while_it_holds_nothing_passes_and_afterwards_all_of_it_does(ends: Ends) -> None:
    near, far = ends.connect()
    ends.detour.hold()
    near.sendall(b"wait")
    far.settimeout(AT_ONCE_SECONDS)
    with pytest.raises(TimeoutError):
        far.recv(4)
    far.settimeout(PATIENCE_SECONDS)
    ends.detour.let_go()
    assert read(far, 4) == b"wait"


def test_a_cut_breaks_connections_and_new_ones_pass(ends: Ends) -> None:
    near, far = ends.connect()
    ends.detour.cut()
    assert (near.recv(1), far.recv(1)) == (b"", b"")
    near, far = ends.connect()
    near.sendall(b"x")
    assert read(far, 1) == b"x"


def test_where_nobody_is_a_connection_ends(ends: Ends) -> None:
    ends.listener.close()
    near = socket.socket(socket.AF_UNIX)
    near.settimeout(PATIENCE_SECONDS)
    near.connect(str(ends.folder / "near"))
    assert near.recv(1) == b""
