"""The store's thread: commits and reads in the order they were asked for, grouped while the disk is busy.

Owns the only thread that touches a store. Group commit: everything that was asked for while the last commit
ran goes into the next one, up to the first read, which must see what was persisted before it and nothing
after it.

A commit for which there is no room fails *with everything behind it*: the core may have built later records
upon the earlier ones. From the failure on the thread commits nothing until `resume` comes through the
queue, which the driver puts there when it tells the core; so PersistFailed covers exactly what was asked
for and not committed. A damaged or failing store ends the thread: `Broken` is the last answer.

Answers are collected by the driver's thread with `collect`; a Wakeup tells it that there are some.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from ..broker.events import (
    DeadRead,
    Persist,
    Persisted,
    ReadDead,
    ReadDue,
    ReadReady,
    ReadResults,
    ReadRows,
    ReadStates,
    ResultsRead,
    RowsRead,
    StatesRead,
    Sweep,
)
from ..errors import GreenroomError, StoreFull
from ..store.base import Store
from ..store.records import Record, Recovered, Synchronous
from .wakeup import Wakeup

#: Records in one commit. More wait for the next: a commit that never ends confirms nothing.
GROUP_RECORDS_MAX: Final = 20_000

Read = ReadReady | ReadDue | ReadRows | ReadResults | ReadDead | ReadStates


class NoRoom(msgspec.Struct, frozen=True):
    """The Persist `first` and all behind it were not committed, and nothing will be before `resume`."""

    first: int
    reason: str


class Broken(msgspec.Struct, frozen=True):
    """The store cannot be used any more."""

    reason: str


class Room(msgspec.Struct, frozen=True):
    """The answer to `ask_for_room`."""

    regained: bool


class _AskForRoom(msgspec.Struct, frozen=True):
    pass


class _Resume(msgspec.Struct, frozen=True):
    pass


Answer = Persisted | RowsRead | ResultsRead | DeadRead | StatesRead | NoRoom | Broken | Room
_Job = Persist | Read | Sweep | _AskForRoom | _Resume | None


class StoreKeeper:
    """A store with a thread of its own. `now_wall` is read for reads of results and for sweeps."""

    def __init__(self, store: Store, wakeup: Wakeup, now_wall: Callable[[], int]) -> None:
        self._store = store
        self._wakeup = wakeup
        self._now_wall = now_wall
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._answers: deque[Answer] = deque()
        self._opened: queue.SimpleQueue[Recovered | BaseException] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="greenroom-store", daemon=True)

    def open(self) -> Recovered:
        """Open the store in its thread, and return what it remembers. Raises what `Store.open` raises."""
        self._thread.start()
        opened = self._opened.get()
        if isinstance(opened, BaseException):
            self._thread.join()
            raise opened
        return opened

    def submit(self, job: Persist | Read | Sweep) -> None:
        """Queue a commit, a read or a sweep."""
        self._jobs.put(job)

    def ask_for_room(self) -> None:
        """Ask whether the store has its ballast again; answered with Room."""
        self._jobs.put(_AskForRoom())

    def resume(self) -> None:
        """What was submitted before this and after a NoRoom has failed; what comes now may be committed."""
        self._jobs.put(_Resume())

    def collect(self) -> list[Answer]:
        """Return the answers that are there, in order."""
        answers: list[Answer] = []
        while self._answers:
            answers.append(self._answers.popleft())
        return answers

    def close(self) -> None:
        """Finish what was submitted, close the store and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    # --- in the store's thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._opened.put(self._store.open())
        except BaseException as error:  # whoever called `open` learns of it
            self._opened.put(error)
            return
        try:
            self._serve()
        except GreenroomError as error:
            self._answer(Broken(f"{type(error).__name__}: {error}"))
        except Exception as error:  # the broker stops and says so: what the store holds is not known any more
            self._answer(Broken(f"the store failed unexpectedly: {type(error).__name__}: {error}"))
        finally:
            self._store.close()

    def _serve(self) -> None:
        failing = False
        pending: deque[_Job] = deque()
        while True:
            if not pending:
                pending.append(self._jobs.get())
            while not self._jobs.empty():
                pending.append(self._jobs.get())
            job = pending.popleft()
            if job is None:
                return
            if isinstance(job, Persist):
                if not failing:
                    failing = not self._commit(job, pending)
            elif isinstance(job, _Resume):
                failing = False
            elif isinstance(job, _AskForRoom):
                self._answer(Room(self._store.has_room()))
            elif isinstance(job, Sweep):
                self._store.sweep(self._now_wall(), job.limit)
            else:
                self._answer(self._read(job))

    def _commit(self, first: Persist, pending: deque[_Job]) -> bool:
        """Commit `first` with the Persists right behind it; False if there was no room."""
        records: list[Record] = list(first.records)
        synchronous: Synchronous = first.synchronous
        last = first.serial
        while pending and len(records) < GROUP_RECORDS_MAX:
            following = pending[0]
            if not isinstance(following, Persist):
                break
            records += following.records
            synchronous = max(synchronous, following.synchronous)
            last = following.serial
            pending.popleft()
        try:
            committed = self._store.commit(records, synchronous)
        except StoreFull as error:
            self._answer(NoRoom(first.serial, str(error)))
            return False
        self._answer(Persisted(last, committed.duplicates))
        return True

    def _read(self, job: Read) -> RowsRead | ResultsRead | DeadRead | StatesRead:
        store = self._store
        if isinstance(job, ReadReady):
            rows = store.read_ready(job.mailbox, job.priority, job.after, job.messages_max)
            return RowsRead(job.token, rows)
        if isinstance(job, ReadDue):
            return RowsRead(job.token, store.read_due((job.after_due, job.after_base), job.messages_max))
        if isinstance(job, ReadRows):
            return RowsRead(job.token, store.read_rows(job.positions))
        if isinstance(job, ReadResults):
            return ResultsRead(job.token, store.read_results(job.ids, self._now_wall()))
        if isinstance(job, ReadStates):
            return StatesRead(job.token, store.read_states(job.mailboxes))
        return DeadRead(
            job.token,
            store.read_dead(after=job.after, limit=job.limit, mailbox=job.mailbox, name=job.name, ids=job.ids),
        )

    def _answer(self, answer: Answer) -> None:
        self._answers.append(answer)
        self._wakeup.wake()
