"""The store's thread: groups of commits, reads between them, and what fails together."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from greenroom.transport.broker.events import Persist, Persisted, ReadRows, RowsRead, Sweep
from greenroom.transport.errors import DataFolderLocked, StoreCorrupt, StoreFull
from greenroom.transport.store.memory import MemoryStore
from greenroom.transport.store.records import Committed, PastGone, Record, Recovered, Row, Synchronous
from greenroom.transport.wire.storekeeper import GROUP_RECORDS_MAX, Answer, Broken, NoRoom, Room, StoreKeeper
from greenroom.transport.wire.wakeup import Wakeup

PATIENCE_SECONDS = 10.0


class GatedStore(MemoryStore):
    """A store whose commits wait for a gate, and which writes down what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)
        self.committing = threading.Semaphore(0)
        self.log: list[str] = []
        self.full = False
        self.corrupt = False

    def commit(self, records: Sequence[Record], synchronous: Synchronous) -> Committed:
        self.committing.release()
        assert self.gate.acquire(timeout=PATIENCE_SECONDS)
        numbers = [record.positions[0] for record in records if isinstance(record, PastGone)]
        if self.full:
            self.log.append(f"full {numbers}")
            raise StoreFull("no room")
        self.log.append(f"{synchronous.name} {numbers}")
        return super().commit(records, synchronous)

    def read_rows(self, positions: Sequence[int]) -> list[Row]:
        if self.corrupt:
            raise StoreCorrupt("a row is damaged")
        self.log.append(f"read {list(positions)}")
        return []

    def has_room(self) -> bool:
        return not self.full

    def sweep(self, now_wall: int, limit: int) -> int:
        self.log.append(f"sweep {now_wall} {limit}")
        return 0


class Keeping:
    """A keeper, its store, and its answers."""

    def __init__(self) -> None:
        self.store = GatedStore()
        self._wakeup = Wakeup()
        self.keeper = StoreKeeper(self.store, self._wakeup, lambda: 17)
        self.keeper.open()

    def persist(self, serial: int, synchronous: Synchronous = Synchronous.NORMAL, records: int = 1) -> None:
        self.keeper.submit(Persist(serial, [PastGone([serial])] * records, synchronous))

    def answers(self, count: int) -> list[Answer]:
        """Wait until so many answers have come."""
        found: list[Answer] = []
        patience = threading.Event()
        for _ in range(5_000):
            found += self.keeper.collect()
            if len(found) >= count:
                return found
            patience.wait(0.002)
        raise AssertionError(f"only {found} came")


@pytest.fixture
def keeping() -> Iterator[Keeping]:
    keeping = Keeping()
    yield keeping
    for _ in range(100):
        keeping.store.gate.release()
    keeping.keeper.close()


def test_what_came_during_a_commit_goes_into_the_next_one_together(keeping: Keeping) -> None:
    keeping.persist(1)
    assert keeping.store.committing.acquire(timeout=PATIENCE_SECONDS)
    keeping.persist(2)
    keeping.persist(3, Synchronous.FULL)
    keeping.persist(4)
    for _ in range(2):
        keeping.store.gate.release()
    assert keeping.answers(2) == [Persisted(1), Persisted(4)]
    assert keeping.store.log == ["NORMAL [1]", "FULL [2, 3, 4]"]


def test_a_read_sees_what_was_persisted_before_it_and_nothing_after(keeping: Keeping) -> None:
    keeping.persist(1)
    assert keeping.store.committing.acquire(timeout=PATIENCE_SECONDS)
    keeping.persist(2)
    keeping.keeper.submit(ReadRows(7, [5]))
    keeping.persist(3)
    for _ in range(3):
        keeping.store.gate.release()
    assert keeping.answers(4) == [Persisted(1), Persisted(2), RowsRead(7, []), Persisted(3)]
    assert keeping.store.log == ["NORMAL [1]", "NORMAL [2]", "read [5]", "NORMAL [3]"]


def test_a_commit_has_a_limit_of_records(keeping: Keeping) -> None:
    keeping.persist(1)
    assert keeping.store.committing.acquire(timeout=PATIENCE_SECONDS)
    for serial in (2, 3, 4):
        keeping.persist(serial, records=GROUP_RECORDS_MAX // 2)
    for _ in range(3):
        keeping.store.gate.release()
    assert keeping.answers(3) == [Persisted(1), Persisted(3), Persisted(4)]


def test_d29_a_full_store_fails_everything_that_was_asked_for_until_the_driver_resumes(keeping: Keeping) -> None:
    keeping.store.full = True
    keeping.persist(1)
    assert keeping.store.committing.acquire(timeout=PATIENCE_SECONDS)
    keeping.persist(2)
    keeping.store.gate.release()
    assert keeping.answers(1) == [NoRoom(1, "no room")]
    keeping.store.full = False
    keeping.persist(3)
    keeping.keeper.submit(ReadRows(7, [5]))
    assert keeping.answers(1) == [RowsRead(7, [])]
    keeping.keeper.resume()
    keeping.persist(4)
    keeping.store.gate.release()
    assert keeping.answers(1) == [Persisted(4)]
    assert keeping.store.log == ["full [1]", "read [5]", "NORMAL [4]"]


def test_it_tells_whether_there_is_room_and_sweeps_by_the_wall_clock(keeping: Keeping) -> None:
    keeping.keeper.submit(Sweep(100))
    keeping.store.full = True
    keeping.keeper.ask_for_room()
    assert keeping.answers(1) == [Room(False)]
    assert keeping.store.log == ["sweep 17 100"]


def test_g15_a_damaged_row_ends_the_store(keeping: Keeping) -> None:
    keeping.store.corrupt = True
    keeping.keeper.submit(ReadRows(7, [5]))
    (broken,) = keeping.answers(1)
    assert isinstance(broken, Broken)
    assert "a row is damaged" in broken.reason


def test_a_store_that_cannot_be_opened_says_why_to_whoever_opens_it() -> None:
    class Locked(MemoryStore):
        def open(self) -> Recovered:
            raise DataFolderLocked(folder="/data", pid=5)

    with pytest.raises(DataFolderLocked, match="process 5"):
        StoreKeeper(Locked(), Wakeup(), lambda: 0).open()
