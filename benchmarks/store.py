"""How fast the stores commit, apart from everything else: `python benchmarks/store.py [sqlite|memory] [folder]`.

One line a measurement: what one commit holds, how many of it a second, how long commits took, and the processor's
time for each. A row of 256 messages of 70 bytes with its lease is settled one commit later, or when 1,000 more have
come ("backlog"). The folder decides which disk is measured; each commit is synced.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import uuid_utils

from greenroom.transport.store.base import Store
from greenroom.transport.store.memory import MemoryStore
from greenroom.transport.store.records import (
    Append,
    Drop,
    Lease,
    Record,
    ResultRow,
    Session,
    Synchronous,
    Unlease,
)
from greenroom.transport.store.sqlite import SqliteStore

CLIENT, CHILD = "client-0123456789abcdef", "child-0123456789abcdef"


def measure(name: str, store: Store, items: int, commits: int, records: Callable[[int], list[Record]]) -> None:
    """Commit `commits` times what `records` makes, and print what it cost."""
    took: list[float] = []
    processor = 0.0
    for turn in range(commits):
        batch = records(turn)
        start, busy = time.perf_counter(), time.process_time()
        store.commit(batch, Synchronous.FULL)
        took.append(time.perf_counter() - start)
        processor += time.process_time() - busy
    took.sort()
    rate = items * commits / sum(took)
    middle, late, last = (took[int(commits * part)] * 1000 for part in (0.5, 0.99, 0.9999))
    print(
        f"{name:<45} {rate:>11,.0f}/s   commit p50 {middle:.2f}, p99 {late:.2f}, max {last:.1f} ms"
        f"   {processor / commits / items * 1e6:.2f} us each"
    )


def rows(store: Store, messages: int, rows_a_commit: int, backlog: int) -> Callable[[int], list[Record]]:
    """Make rows that are leased at once and settled `backlog` commits later."""
    recovered = store.open()
    position, lease = recovered.next_position, recovered.next_lease
    blob = os.urandom(70 * messages)
    waiting: deque[list[Record]] = deque()

    def commit(turn: int) -> list[Record]:
        nonlocal position, lease
        records: list[Record] = []
        settles: list[Record] = []
        for _ in range(rows_a_commit):
            positions = list(range(position, position + messages))
            records.append(Append(position, messages, "celery", 0, 0, CLIENT, blob))
            records.append(Lease(lease, CHILD, positions))
            settles += [Drop([position]), Unlease([lease])]
            position += messages
            lease += 1
        waiting.append(settles)
        return records + waiting.popleft() if turn >= backlog else records

    return commit


def main() -> None:
    """Measure everything once."""
    engine = sys.argv[1] if len(sys.argv) > 1 else "sqlite"
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        places = iter(range(99))

        def new() -> Store:
            return MemoryStore() if engine == "memory" else SqliteStore(Path(folder, str(next(places))))

        for messages, rows_a_commit, backlog in ((256, 1, 1), (256, 4, 1), (256, 4, 1000), (1, 100, 1), (1, 100, 1000)):
            store = new()
            name = f"{rows_a_commit} rows of {messages}, backlog {backlog}"
            commits = 1000 + backlog
            measure(name, store, messages * rows_a_commit, commits, rows(store, messages, rows_a_commit, backlog))
            store.close()

        store = new()
        base = store.open().next_position
        measure(
            "1 message with its lease and its session",
            store,
            1,
            1000,
            lambda turn: [
                Append(base + turn, 1, "celery", 0, 0, CLIENT, bytes(70)),
                Lease(base + turn, CHILD, [base + turn]),
                Session(CLIENT, turn, b"outcome", turn),
            ],
        )
        measure(
            "256 results",
            store,
            256,
            500,
            lambda turn: [ResultRow(str(uuid_utils.uuid7()), 3, bytes(60), 1 + turn) for _ in range(256)],
        )
        store.close()


if __name__ == "__main__":
    main()
