"""What only the store in memory can do: break as a test tells it to."""

from __future__ import annotations

import pytest

from greenroom.transport.errors import StoreFailed, StoreFull
from greenroom.transport.store import memory
from greenroom.transport.store.memory import MemoryDisk, MemoryStore
from greenroom.transport.store.records import Append, Drop, Gone, Synchronous

FULL, NORMAL = Synchronous.FULL, Synchronous.NORMAL


def append(base: int, size: int = 10) -> Append:
    return Append(base, 1, "work", 0, 0, "client", bytes(size))


def left(disk: MemoryDisk) -> list[int]:
    store = MemoryStore(disk)
    store.open()
    rows = store.read_ready("work", 0, 0, 1 << 40)
    store.close()
    return [row.base for row in rows]


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_failed_commit_is_on_the_disk_or_not_as_the_test_wants(is_kept: bool) -> None:
    store = MemoryStore()
    base = store.open().next_position
    store.commit([append(base)], FULL)
    disk = store.disk
    disk.failure, disk.failure_keeps = "the disk is broken", is_kept
    for more in (1, 2):
        with pytest.raises(StoreFailed, match="the disk is broken"):
            store.commit([append(base + more)], FULL)
    store.crash()
    with pytest.raises(StoreFailed):
        MemoryStore(disk).open()
    disk.failure = ""
    # The store that met it goes on refusing; a new one finds what the disk kept.
    with pytest.raises(StoreFailed):
        store.commit([], FULL)
    assert left(disk) == [base, base + 1][: 1 + is_kept]


def test_a_power_cut_undoes_what_was_not_synced_in_every_way_it_was_changed() -> None:
    store = MemoryStore()
    base = store.open().next_position
    store.commit([append(base), append(base + 1)], FULL)
    store.commit([Drop([base]), Gone(base + 1, 1), append(base + 2)], NORMAL)
    store.commit([Drop([base + 2, base + 1]), append(base + 3)], NORMAL)
    assert left(store.crash(power=True)) == [base, base + 1]


@pytest.mark.parametrize(("kept", "more"), [(0.0, 0), (0.5, 2), (0.75, 3), (1.0, 4)])
def test_a_power_cut_leaves_as_many_of_the_commits_that_were_not_synced_as_a_test_wants(kept: float, more: int) -> None:
    store = MemoryStore()
    base = store.open().next_position
    store.commit([append(base)], FULL)
    for number in range(4):
        store.commit([append(base + 1 + number)], NORMAL)
    # The oldest of them: a disk writes them in their order.
    assert left(store.crash(power=True, kept=kept)) == [base + number for number in range(1 + more)]


def test_changes_that_were_never_synced_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "UNDO_MAX", 50)
    store = MemoryStore()
    base = store.open().next_position
    for more in range(120):
        store.commit([append(base + more)], NORMAL)
        assert len(store.disk.undo) <= 50
    assert left(store.crash(power=True)) == list(range(base, base + 102))


def test_d29_a_small_disk_counts_what_is_written_to_it() -> None:
    store = MemoryStore(MemoryDisk(room_bytes=10_000, ballast_bytes=4_000))
    base = store.open().next_position
    for accepted in range(10):
        store.commit([append(base + accepted, 936)], FULL)
    with pytest.raises(StoreFull):
        store.commit([append(base + 10, 936)], FULL)
    assert not store.has_room()
    for more in range(4):
        store.commit([append(base + 20 + more, 936)], FULL)
    with pytest.raises(StoreFull):
        store.commit([append(base + 30)], FULL)
    store.disk.room_bytes = 6_000
    assert store.has_room()
    assert store.disk.room_bytes == 2_000
    store.close()
