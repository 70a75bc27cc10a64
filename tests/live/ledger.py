"""The storm's book: what was confirmed, what has begun and ended and where, and what must be so.

Owns the checks; it starts and kills nothing. It reads the two files that clients and bodies write (`stormy`), and is
told of each process that was killed. The promises that it holds the cluster to:

- what was confirmed is done, or (early ack, and its process was killed) a failure that is told;
- an item with an early ack begins once at most;
- an item begins again only if the process in which it began before was killed;
- a batch that was not confirmed is there as a whole or not at all;
- every result is told to the client that waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from .stormy import items_of


class Violation(AssertionError):
    """Raised when a promise was not kept."""


class Item:
    """One call. Times are seconds of the wall clock."""

    __slots__ = ("done", "id", "name", "starts")

    def __init__(self, name: str) -> None:
        self.name = name
        #: The id of its message, once it was confirmed.
        self.id = ""
        #: (process, when) of each start.
        self.starts: list[tuple[int, float]] = []
        #: Processes in which it ended.
        self.done: list[int] = []

    @property
    def is_early(self) -> bool:
        """Whether it is acked before it runs."""
        return self.name.startswith("early:")


class _Tail:
    """Reads the lines that are added to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def lines(self) -> list[list[str]]:
        """The words of each line that is new and complete."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)
        return [line.split() for line in complete.decode().splitlines()]


class Ledger:
    """What is known so far; `read` learns what is new."""

    def __init__(self, work: Path, published: Path) -> None:
        self._work = _Tail(work)
        self._published = _Tail(published)
        self.items: dict[str, Item] = {}
        #: Killed processes that ran bodies, and when.
        self.killed: dict[int, float] = {}
        self.confirmed = 0
        self.starts = 0
        #: Confirmed, and not seen to be done.
        self.open: dict[str, Item] = {}
        #: Begun in the process that began it last, and not ended there.
        self.active: dict[str, Item] = {}
        #: Items that failed because their process was killed.
        self.failed: dict[str, Item] = {}
        #: Batches that were tried and not confirmed, by clients that were killed or told of a failure.
        self.unconfirmed: list[str] = []
        #: The latest try of each client, while it is not confirmed.
        self._tried: dict[str, str] = {}
        self._restarted: dict[str, Item] = {}

    @property
    def done(self) -> int:
        """Confirmed items that are done."""
        return self.confirmed - len(self.open) - len(self.failed)

    @property
    def twice(self) -> int:
        """Items that began more than once."""
        return len(self._restarted)

    def read(self) -> None:
        """Learn what is new. Raises Violation."""
        for words in self._published.lines():
            self._learn_of_client(words)
        for kind, name, pid, at in self._work.lines():
            item = self._item(name)
            if kind == "done":
                item.done.append(int(pid))
                self.open.pop(name, None)
                self.active.pop(name, None)
            else:
                self.starts += 1
                item.starts.append((int(pid), float(at)))
                self.active[name] = item
                if len(item.starts) > 1:
                    self._check_restart(item)

    def _learn_of_client(self, words: list[str]) -> None:
        kind, batch, *rest = words
        client = batch.partition(".")[0]
        if kind == "try":
            self._tried[client] = batch
        elif kind == "failed":
            self.unconfirmed.append(self._tried.pop(client))
        elif kind == "confirmed":
            del self._tried[client]
            for name, id in zip(items_of(batch), rest, strict=True):
                item = self._item(name)
                item.id = id
                self.confirmed += 1
                if not item.done:
                    self.open[name] = item
        else:
            raise Violation(f"a client waited in vain for result {rest[1]} of batch {batch}")

    def _item(self, name: str) -> Item:
        item = self.items.get(name)
        if item is None:
            item = self.items[name] = Item(name)
        return item

    def _check_restart(self, item: Item) -> None:
        self._restarted[item.name] = item
        if item.is_early:
            raise Violation(f"{item.name} has an early ack and began {len(item.starts)} times: {item.starts}")
        before = item.starts[-2][0]
        if before not in self.killed:
            raise Violation(f"{item.name} began again, and process {before}, where it ran, was not killed")

    # --- around a kill

    def client_killed(self, client: str) -> None:
        """This client says nothing more."""
        batch = self._tried.pop(client, None)
        if batch is not None:
            self.unconfirmed.append(batch)

    def interrupted(self, pids: Iterable[int]) -> list[Item]:
        """Items that had begun in these processes, and had not ended there."""
        gone = frozenset(pids)
        return [item for item in self.active.values() if item.starts[-1][0] in gone]

    def running(self) -> list[Item]:
        """Items that have begun and not ended, in processes that live."""
        return [item for item in self.active.values() if item.starts[-1][0] not in self.killed]

    def settle(self, items: Iterable[Item], failures: Callable[[list[str]], set[str]]) -> None:
        """Cross off which of these items have failed; `failures` says which of the ids have.

        Only what has an early ack may fail, and only because of a kill. Raises Violation.
        """
        ids = {item.id: item for item in items if item.name in self.open}
        failed = failures(list(ids)) if ids else set[str]()
        for id, item in ids.items():
            if id not in failed:
                continue
            if not item.is_early:
                raise Violation(f"{item.name} is acked late and failed; it began so: {item.starts}")
            if item.starts and item.starts[-1][0] not in self.killed:
                raise Violation(f"{item.name} failed, and process {item.starts[-1][0]}, where it ran, was not killed")
            self.failed[item.name] = item
            self.active.pop(item.name, None)
            del self.open[item.name]

    def check_unconfirmed(self) -> None:
        """What was not confirmed is there as a whole or not at all. Call it when nothing is left to run.

        Raises Violation.
        """
        for batch in self.unconfirmed:
            # An early one may have been taken by a process that was killed before it could say that it began.
            names = [name for name in items_of(batch) if name.startswith("late:")]
            done = [name for name in names if name in self.items and self.items[name].done]
            if done and len(done) < len(names):
                raise Violation(f"of batch {batch}, which was not confirmed, {len(done)} of {len(names)} items ran")
