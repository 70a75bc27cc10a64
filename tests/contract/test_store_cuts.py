"""The power goes at every single write and sync of a run, and nothing that was confirmed is lost."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest

from greenroom.transport.sim.disk import DiskStopped, SimDisk
from greenroom.transport.store.base import Store
from greenroom.transport.store.records import (
    Append,
    Drop,
    Gone,
    Lease,
    Purge,
    Record,
    ResultRow,
    Synchronous,
    Unlease,
)

#: Small enough that the log is moved into the database several times in a run.
LOG_BYTES = 150_000


def commits(base: int, lease: int) -> list[tuple[list[Record], Synchronous]]:
    """A short life of a broker: of everything something, some of it not synced."""
    run: list[tuple[list[Record], Synchronous]] = []
    for turn in range(12):
        at = base + 10 * turn
        records: list[Record] = [Append(at, 10, "work", 0, 0, "client", bytes([turn]) * 9000)]
        records.append(Lease(lease + turn, "child", list(range(at, at + 10))))
        if turn >= 2:
            records.append(Unlease([lease + turn - 2]))
            records.append(Drop([at - 20]) if turn % 3 else Gone(at - 20, 5))
            records.append(ResultRow(f"result-{turn}", 3, bytes([turn]) * 50, 0))
        if turn == 9:
            records.append(Purge("work", [at, at - 10]))
        run.append((records, Synchronous.NORMAL if turn % 4 == 3 else Synchronous.FULL))
    return run


def contents(store: Store) -> list[Any]:
    ids = [f"result-{turn}" for turn in range(12)]
    return [store.read_ready("work", 0, 0, 1 << 40), store.read_results(ids, 0)]


def run(disk: SimDisk, seen: list[Any]) -> list[bool]:
    """Open, commit, and note in `seen` what each commit left. Return, for each that was confirmed, if it was synced."""
    confirmed: list[bool] = []
    store = disk.store()
    with suppress(DiskStopped):
        recovered = store.open()
        for records, synchronous in commits(recovered.next_position, recovered.next_lease):
            store.commit(records, synchronous)
            confirmed.append(synchronous is Synchronous.FULL)
            seen.append(contents(store))
        store.close()
    return confirmed


@pytest.mark.parametrize("seed", range(2))
def test_d7_no_confirmed_commit_is_lost_wherever_the_power_goes(seed: int) -> None:
    states: list[Any] = [[[], []]]
    with SimDisk(log_bytes=LOG_BYTES) as whole:
        assert len(run(whole, states)) == 12
        calls = whole.calls()
    assert calls > 200
    survivors: set[int] = set()
    for stop_at in range(calls):
        chance = random.Random(1000 * seed + stop_at)
        with SimDisk(log_bytes=LOG_BYTES) as disk:
            disk.stop(after=stop_at)
            confirmed = run(disk, [])
            synced = max((n for n, is_synced in enumerate(confirmed, 1) if is_synced), default=0)
            disk.power_cut(lambda question, most, chance=chance: chance.randint(0, most))  # type: ignore[misc]
            store = disk.store()
            store.open()
            left = contents(store)
            store.close()
        assert left in states[synced : len(confirmed) + 2], f"cut at call {stop_at}"
        survivors.add(states.index(left))
    # The cuts met every commit. One that was not synced is rarely left alone: its successor must be torn.
    assert survivors >= set(range(12)) - {4, 8}
