"""What the store in SQLite does when its disk is full or broken, its folder taken, or its process killed."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from greenroom.transport.errors import DataFolderLocked, StoreFailed, StoreFull
from greenroom.transport.store.apsw_connection import connect_apsw
from greenroom.transport.store.connection import Connection
from greenroom.transport.store.folder import DataFolder
from greenroom.transport.store.records import (
    Append,
    Drop,
    Gone,
    Lease,
    ResultRow,
    Synchronous,
    Unlease,
)
from greenroom.transport.store.sqlite import SqliteStore
from greenroom.transport.store.writer import MARK_STEP

FULL, NORMAL = Synchronous.FULL, Synchronous.NORMAL
MIB = 1 << 20


def append(base: int, blob: bytes = b"body", count: int = 1, mailbox: str = "work") -> Append:
    return Append(base, count, mailbox, 0, 0, "client", blob)


# ---- the folder ----


def test_the_folder_is_private(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        store = SqliteStore(tmp_path / "deep" / "data", ballast_bytes=MIB)
        store.open()
    finally:
        os.umask(old)
    folder = tmp_path / "deep" / "data"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    names = {"store.db", "store.db-wal", "lock", "ballast", "confirmed"}
    assert {path.name for path in folder.iterdir()} == names
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert int((folder / "lock").read_text()) == os.getpid()
    assert (folder / "ballast").stat().st_size == MIB
    store.close()


def test_d7_the_log_is_written_over_itself_and_synced_before_sqlite_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After an fsync that failed, what can be read of it may not be on disk; tests of the simulated disk say why.
    store = SqliteStore(tmp_path, connect=connect_apsw(), ballast_bytes=0)
    base = store.open().next_position
    store.commit([append(base, bytes(3 * MIB))], FULL)
    store.crash()
    log = tmp_path / "store.db-wal"
    left = log.read_bytes()
    written = bytearray()
    deeds: list[str] = []
    pwrite, fsync = os.pwrite, os.fsync

    def is_log(descriptor: int) -> bool:
        return os.path.samestat(os.fstat(descriptor), log.stat())

    def spy_write(descriptor: int, data: bytes, offset: int) -> int:
        if is_log(descriptor):
            assert offset == len(written)
            data = data[: MIB // 3]  # a write may be short
            written.extend(data)
            deeds.append("write")
        return pwrite(descriptor, data, offset)

    def spy_sync(descriptor: int) -> None:
        fsync(descriptor)
        if is_log(descriptor):
            deeds.append("sync")

    def connect(database: str) -> Connection:
        deeds.append("connect")
        return connect_apsw()(database)

    monkeypatch.setattr(os, "pwrite", spy_write)
    monkeypatch.setattr(os, "fsync", spy_sync)
    store = SqliteStore(tmp_path, connect=connect, ballast_bytes=0)
    store.open()
    assert written == left
    assert [deed for deed in deeds if deed != "write"] == ["sync", "connect"]
    assert deeds.index("sync") == len(deeds) - 2
    assert [row.base for row in store.read_ready("work", 0, 0, 9)] == [base]
    store.close()


@pytest.mark.live
def test_a_second_broker_is_told_the_pid_of_the_first(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from greenroom.transport.store.sqlite import SqliteStore\n"
    code += f"s = SqliteStore(Path({str(tmp_path)!r})); s.open(); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "open\n"
        with pytest.raises(DataFolderLocked) as refused:
            SqliteStore(tmp_path).open()
        assert refused.value.pid == first.pid
        assert refused.value.folder == str(tmp_path)
        first.kill()
    store = SqliteStore(tmp_path, ballast_bytes=0)
    assert store.open().epoch == 2
    store.close()


@pytest.mark.live
def test_a_forked_child_does_not_keep_the_folder(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, ballast_bytes=0)
    store.open()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)  # until the parent has looked
        os._exit(0)
    try:
        os.close(reading)
        store.close()
        again = SqliteStore(tmp_path, ballast_bytes=0)
        again.open()
        again.close()
    finally:
        os.close(writing)
        os.waitpid(child, 0)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailed, match=r"could not open the data folder .*file"):
        SqliteStore(tmp_path / "file" / "data").open()


# ---- a full disk ----


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)]
    mounted = subprocess.run(mount, capture_output=True, check=False, text=True)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill_up(path: Path) -> None:
    """Write a file until the disk is full."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def publish_until_full(store: SqliteStore, base: int) -> int:
    """Publish until there is no room; return the first position that was refused."""
    for at in range(base, base + 100_000, 10):
        try:
            store.commit([append(at, os.urandom(30_000), 10)], FULL)
        except StoreFull:
            return at
    raise AssertionError("the disk was never full")


def test_d29_a_full_disk_refuses_publishes_settles_on_and_recovers(small_disk: Path) -> None:
    folder = small_disk / "data"
    store = SqliteStore(folder)
    recovered = store.open()
    base, lease = recovered.next_position, recovered.next_lease
    assert (folder / "ballast").stat().st_size == 2 * MIB
    assert store.has_room()
    end = publish_until_full(store, base)
    assert not (folder / "ballast").exists()
    assert not store.has_room()
    rows = list(range(base, end, 10))
    assert [row.base for row in store.read_ready("work", 0, 0, 1 << 40)] == rows
    # Lease and settle everything, a message at a time: none of it is refused.
    for at in rows:
        store.commit([Lease(lease + at, "child", list(range(at, at + 10)))], FULL)
        for place in range(9):
            store.commit([Gone(at, (2 << place) - 1)], FULL)
        store.commit([Drop([at]), Unlease([lease + at])], FULL)
    # Nothing was freed outside: what the messages took is given back.
    assert store.has_room()
    assert (folder / "ballast").stat().st_size == 2 * MIB
    again = publish_until_full(store, end)
    assert again - end > (end - base) // 2
    store.close()
    store = SqliteStore(folder)
    assert sum(tally.ready for tally in store.open().tallies) == again - end
    store.close()


def test_d29_a_store_opens_on_a_disk_that_is_full(small_disk: Path) -> None:
    folder = small_disk / "data"
    store = SqliteStore(folder)
    base = store.open().next_position
    store.commit([append(base)], FULL)
    store.close()
    hog = small_disk / "hog"
    fill_up(hog)
    store = SqliteStore(folder)
    assert store.open().epoch == 2
    assert not store.has_room()
    store.commit([Drop([base])], FULL)
    assert not store.has_room()
    hog.unlink()
    assert store.has_room()
    store.commit([append(base + 1)], FULL)
    store.close()


def test_d29_the_room_that_the_ballast_gave_is_no_room_for_publishes(small_disk: Path) -> None:
    folder = DataFolder(small_disk / "data")
    folder.take()
    (small_disk / "hog").write_bytes(bytes(6 * MIB - 64 * 1024))
    folder.release_ballast()
    assert not folder.renew_ballast()
    (small_disk / "hog").write_bytes(bytes(4 * MIB))
    assert folder.renew_ballast()
    folder.give_back()


# ---- a disk that fails ----


class FailingFile(apsw.VFSFile):
    """A file whose writes or syncs fail on demand."""

    def __init__(self, disk: FailingDisk, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self.disk = disk
        self.is_log = bool(flags[1] & apsw.SQLITE_OPEN_WAL)

    def xSync(self, flags: int) -> None:
        self.disk.meet("sync")
        super().xSync(flags)

    def xWrite(self, data: Any, offset: int) -> None:
        self.disk.meet("write")
        if self.is_log and offset + len(data) > self.disk.log_bytes_max:
            raise OSError(errno.ENOSPC, "No space left on device")
        inner: Any = super()
        inner.xWrite(data, offset)


class FailingDisk(apsw.VFS):
    """The real file system, which fails a call when it is told to."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "")
        self.name = name
        self.error: OSError | None = None
        self.call = ""
        self.calls = 0
        self.after = 0
        self.log_bytes_max = 1 << 40

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        return FailingFile(self, name, flags)

    def meet(self, call: str) -> None:
        if call == self.call:
            self.calls += 1
            if self.error is not None and self.calls > self.after:
                raise self.error

    def fail(self, call: str, number: int, after: int = 0) -> None:
        self.call, self.calls, self.after = call, 0, after
        self.error = OSError(number, os.strerror(number))


@pytest.fixture
def failing_disk() -> Iterator[FailingDisk]:
    """A disk that does not fail yet."""
    disk = FailingDisk("failing")
    yield disk
    disk.unregister()


@pytest.mark.parametrize("call", ["sync", "write"])
def test_an_io_error_is_fatal_and_a_restart_recovers(tmp_path: Path, failing_disk: FailingDisk, call: str) -> None:
    store = SqliteStore(tmp_path, connect=connect_apsw(failing_disk.name), ballast_bytes=0)
    base = store.open().next_position
    store.commit([append(base)], FULL)
    failing_disk.fail(call, errno.EIO)
    with pytest.raises(StoreFailed, match="Nobody knows what the disk holds"):
        store.commit([append(base + 1)], FULL)
    failing_disk.error = None
    # It is never tried again, though it would succeed now.
    with pytest.raises(StoreFailed):
        store.commit([append(base + 2)], FULL)
    with pytest.raises(StoreFailed):
        store.read_ready("work", 0, 0, 9)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    store.close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    store = SqliteStore(tmp_path, ballast_bytes=0)
    store.open()
    # The commit that failed may be there or not, the one before it is.
    left = [row.base for row in store.read_ready("work", 0, 0, 9)]
    assert left in ([base], [base, base + 1])
    store.close()


def test_an_fsync_that_fails_while_the_log_is_moved_is_fatal(tmp_path: Path, failing_disk: FailingDisk) -> None:
    folder = DataFolder(tmp_path, ballast_bytes=0)
    store = SqliteStore(folder, connect=connect_apsw(failing_disk.name))
    base = store.open().next_position
    folder.log_bytes = 100_000
    # The sync of the commit succeeds; the next one is of the log's move.
    failing_disk.fail("sync", errno.EIO, after=1)
    with pytest.raises(StoreFailed, match="could not move the log"):
        store.commit([append(base, bytes(200_000))], FULL)
    with pytest.raises(StoreFailed):
        store.commit([], FULL)
    store.close()


def test_d29_no_space_while_writing_is_not_fatal(tmp_path: Path, failing_disk: FailingDisk) -> None:
    store = SqliteStore(tmp_path, connect=connect_apsw(failing_disk.name), ballast_bytes=MIB)
    base = store.open().next_position
    store.commit([append(base), append(base + 1)], FULL)
    for after in range(4):
        failing_disk.fail("write", errno.ENOSPC, after)
        with pytest.raises(StoreFull):
            store.commit([append(base + 2, bytes(50_000))], FULL)
        assert not (tmp_path / "ballast").exists()
        failing_disk.error = None
        assert store.has_room()
    store.commit([Drop([base]), append(base + 2)], FULL)
    store.close()
    store = SqliteStore(tmp_path, ballast_bytes=0)
    store.open()
    assert [row.base for row in store.read_ready("work", 0, 0, 9)] == [base + 1, base + 2]
    store.close()


def test_d29_without_ballast_settles_go_on_as_long_as_the_log_can_be_moved(
    tmp_path: Path, failing_disk: FailingDisk
) -> None:
    store = SqliteStore(tmp_path, connect=connect_apsw(failing_disk.name), ballast_bytes=MIB)
    base = store.open().next_position
    store.commit([append(base + at) for at in range(0, 2000, 10)], FULL)
    failing_disk.log_bytes_max = (tmp_path / "store.db-wal").stat().st_size
    with pytest.raises(StoreFull):
        store.commit([append(base + 9000)], FULL)
    for at in range(base, base + 2000, 10):
        store.commit([Drop([at])], FULL)
    assert store.read_ready("work", 0, 0, 9) == []
    store.close()


def test_d29_a_sweep_waits_for_room(tmp_path: Path, failing_disk: FailingDisk) -> None:
    store = SqliteStore(tmp_path, connect=connect_apsw(failing_disk.name), ballast_bytes=MIB)
    store.open()
    store.commit([ResultRow("id", 3, b"value", 5)], FULL)
    failing_disk.fail("write", errno.ENOSPC)
    assert store.sweep(9, 10) == 0
    failing_disk.error = None
    assert [result.id for result in store.read_results(["id"], 0)] == ["id"]
    assert store.sweep(9, 10) == 1
    store.close()


def test_the_log_is_moved_before_it_is_large(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path, ballast_bytes=0)
    store = SqliteStore(folder)
    base = store.open().next_position
    folder.log_bytes = MIB
    for at in range(base, base + 300):
        store.commit([append(at, os.urandom(10_000))], NORMAL)
    assert (tmp_path / "store.db").stat().st_size > 2 * MIB
    assert (tmp_path / "store.db-wal").stat().st_size < 2 * MIB
    store.close()


def test_a_mask_goes_with_its_row(tmp_path: Path, failing_disk: FailingDisk) -> None:
    store = SqliteStore(tmp_path, connect=connect_apsw(failing_disk.name), ballast_bytes=0)
    base = store.open().next_position
    store.commit([append(base, count=9), append(base + 10, count=9), Gone(base, 1), Gone(base + 10, 1)], FULL)
    failing_disk.fail("write", errno.ENOSPC)
    with pytest.raises(StoreFull):
        store.commit([Drop([base])], FULL)
    failing_disk.error = None
    store.commit([Gone(base, 3), Drop([base]), Gone(base, 7)], FULL)
    store.commit([append(base + 20, count=9), Gone(base + 20, 1), Drop([base + 20, base + 10])], FULL)
    twice = [Append(base + n, 2, "work", 0, 0, "", b"", "id") for n in (30, 40)]
    store.commit([*twice, Gone(base + 40, 1)], FULL)
    store.close()
    database = sqlite3.connect(tmp_path / "store.db")
    assert database.execute("SELECT base FROM rows").fetchall() == [(base + 30,)]
    assert database.execute("SELECT base FROM gone").fetchall() == []
    database.close()


def test_numbers_are_marked_in_steps_so_that_few_commits_are_synced_for_it(
    tmp_path: Path, failing_disk: FailingDisk
) -> None:
    store = SqliteStore(tmp_path, connect=connect_apsw(failing_disk.name), ballast_bytes=0)
    recovered = store.open()
    # This one is above the mark of the open.
    base, lease = recovered.next_position + MARK_STEP, recovered.next_lease + MARK_STEP
    failing_disk.call = "sync"
    store.commit([append(base), Lease(lease, "child", [base])], NORMAL)
    assert failing_disk.calls == 1
    for more in range(1, 100):
        store.commit([append(base + more), Lease(lease + more, "child", [base])], NORMAL)
    assert failing_disk.calls == 1
    store.close()


def test_a_commit_that_comes_to_nothing_does_not_touch_the_disk(tmp_path: Path, failing_disk: FailingDisk) -> None:
    store = SqliteStore(tmp_path, connect=connect_apsw(failing_disk.name), ballast_bytes=0)
    base = store.open().next_position
    failing_disk.call = "write"
    store.commit([], FULL)
    store.commit([append(base), Lease(1 << 15, "child", [base]), Drop([base]), Unlease([1 << 15])], FULL)
    assert failing_disk.calls == 0
    store.commit([append(base + 1)], FULL)
    assert failing_disk.calls > 0
    store.close()


# ---- kill -9 ----

WRITER = """
import sys
from pathlib import Path
from greenroom.transport.store.records import Append, Drop, Lease, Synchronous, Unlease
from greenroom.transport.store.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]), ballast_bytes=0)
recovered = store.open()
base, lease = recovered.next_position, recovered.next_lease
for turn in range(100_000):
    at = base + 4 * turn
    records = [Append(at, 4, "work", 0, 0, "client", b"x" * 700), Lease(lease + turn, "child", [at, at + 1])]
    if turn % 2:
        records += [Drop([at - 4]), Unlease([lease + turn - 1])]
    store.commit(records, Synchronous.FULL if turn % 3 else Synchronous.NORMAL)
    print(at, lease + turn, flush=True)
"""


@pytest.mark.live
def test_d7_what_was_confirmed_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    epoch = 0
    confirmed: dict[int, int] = {}
    for round_number in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            said = [writer.stdout.readline() for _ in range(20 + 37 * round_number)]
            writer.send_signal(signal.SIGKILL)
            said += writer.stdout.readlines()
        numbers = [tuple(map(int, line.split())) for line in said if line.endswith("\n")]
        # Every second row is dropped by the commit after it.
        confirmed.update(numbers[0::2][-1:] if len(numbers) % 2 else [])  # type: ignore[arg-type]
        confirmed.update(numbers[1::2])  # type: ignore[arg-type]
        store = SqliteStore(tmp_path, ballast_bytes=0)
        recovered = store.open()
        assert recovered.epoch > epoch
        epoch = recovered.epoch
        rows = {row.base for row in store.read_ready("work", 0, 0, 1 << 40)}
        leases = {lease.positions[0]: lease.lease for lease in recovered.leases}
        assert rows == set(leases)
        missing = confirmed.keys() - rows
        # The commit under way at the kill may have dropped the last row that was told.
        assert missing <= {numbers[-1][0]}
        assert len(rows - confirmed.keys()) <= 1
        confirmed = dict.fromkeys(rows, 0)
        store.close()
