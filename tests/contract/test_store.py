"""The promises of a store, one by one, over every engine."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from greenroom.transport.errors import DataFolderLocked, StoreFailed, StoreFull
from greenroom.transport.store.base import SESSION_KEPT, Store
from greenroom.transport.store.records import (
    Append,
    Committed,
    Dead,
    DeadCount,
    Drop,
    Gone,
    Lease,
    Past,
    PastGone,
    Purge,
    Recovered,
    ResultRow,
    ResultsGone,
    Revoked,
    Row,
    Session,
    Synchronous,
    Tally,
    Unlease,
)

FULL, NORMAL = Synchronous.FULL, Synchronous.NORMAL
HOUR = 3600 * 1_000_000


def append(base: int, count: int = 1, mailbox: str = "work", **more: Any) -> Append:
    fields: dict[str, Any] = {"priority": 0, "due": 0, "session": "client", "blob": b"body-%d" % base, **more}
    return Append(base, count, mailbox, **fields)


def bases(rows: list[Row]) -> list[int]:
    return [row.base for row in rows]


def opened(engine: Any) -> tuple[Store, Recovered]:
    store = engine.store()
    return store, store.open()


def again(engine: Any, store: Store, **crash: Any) -> tuple[Store, Recovered]:
    """Crash, and open what is left."""
    engine.crash(store, **crash)
    return opened(engine)


# ---- numbers ----


def test_d19_the_epoch_rises_at_each_open(engine: Any) -> None:
    store, recovered = opened(engine)
    epochs = [recovered.epoch]
    for crash in (False, True, False, True):
        if crash:
            engine.crash(store)
        else:
            store.close()
        store, recovered = opened(engine)
        epochs.append(recovered.epoch)
    assert epochs == sorted(set(epochs))
    assert epochs[0] >= 1
    store.close()


def test_a_number_is_never_used_again_when_everything_was_deleted(engine: Any) -> None:
    store, first = opened(engine)
    position, lease = first.next_position, first.next_lease
    assert position >= 1
    assert lease >= 1
    for start in range(position, position + 200_000, 50_000):
        store.commit([append(start, 4096), Lease(lease + start, "child", [start])], NORMAL)
        store.commit([Drop([start]), Unlease([lease + start])], NORMAL)
    # What comes and goes within one commit was used all the same.
    store.commit([append(position + 300_000), Drop([position + 300_000])], NORMAL)
    store.commit([Lease(lease + 400_000, "child", []), Unlease([lease + 400_000])], NORMAL)
    store, after = again(engine, store)
    assert after.next_position > position + 300_000
    assert after.next_lease > lease + 400_000
    assert after.tallies == []
    assert after.leases == []
    store.close()


def test_a_number_is_never_used_again_after_a_power_cut(powered: Any) -> None:
    store, first = opened(powered)
    last = first.next_position
    for _ in range(5):
        last += 30_000
        store.commit([append(last), Lease(last, "child", [last])], NORMAL)
    store, after = again(powered, store, power=True)
    assert after.next_position > last
    assert after.next_lease > last
    store.close()


# ---- accepting ----


def test_d6_a_session_keeps_its_number_and_outcomes_through_a_crash(engine: Any) -> None:
    store, _ = opened(engine)
    store.commit([Session("client", 1, b"one", 5), Session("other", 1, b"", 5)], FULL)
    store.commit([Session("client", 2, b"one,two", 6)], FULL)
    store, recovered = again(engine, store)
    assert recovered.sessions == [Session("client", 2, b"one,two", 6), Session("other", 1, b"", 5)]
    store.close()


def test_d6_a_session_is_forgotten_a_day_after_it_was_last_heard_of(engine: Any) -> None:
    store, _ = opened(engine)
    store.commit([Session("early", 1, b"", 5), Session("late", 1, b"", 6)], FULL)
    assert store.sweep(5 + SESSION_KEPT - 1, 10) == 0
    assert store.sweep(5 + SESSION_KEPT, 10) == 1
    store, recovered = again(engine, store)
    assert [session.session for session in recovered.sessions] == ["late"]
    assert SESSION_KEPT == 24 * HOUR
    store.close()


def test_d6_a_chosen_id_makes_one_message_within_its_window(engine: Any) -> None:
    store, recovered = opened(engine)
    base = recovered.next_position
    first = append(base, unique="order-1", unique_until=100)
    assert store.commit([first], FULL) == Committed([])
    store, _ = again(engine, store)
    duplicate = append(base + 1, unique="order-1", unique_until=100)
    other = append(base + 2, unique="order-2", unique_until=300)
    assert store.commit([duplicate, other, append(base + 3)], FULL) == Committed([base + 1])
    assert bases(store.read_ready("work", 0, 0, 10)) == [base, base + 2, base + 3]
    # Settled or not, the id is known until a sweep past its window.
    store.commit([Drop([base])], FULL)
    assert store.sweep(99, 10) == 0
    assert store.commit([append(base + 4, unique="order-1")], FULL) == Committed([base + 4])
    assert store.sweep(100, 10) == 1
    assert store.commit([append(base + 5, unique="order-1")], FULL) == Committed([])
    assert bases(store.read_ready("work", 0, 0, 10)) == [base + 2, base + 3, base + 5]
    store.close()


def test_d6_a_chosen_id_that_comes_twice_in_one_commit_makes_one_message(engine: Any) -> None:
    store, recovered = opened(engine)
    base = recovered.next_position
    twice: list[Any] = [append(base, unique="order"), append(base + 1, unique="order"), Gone(base + 1, 0)]
    assert store.commit([*twice, Lease(1, "child", [base, base + 1])], FULL) == Committed([base + 1])
    assert bases(store.read_rows([base, base + 1])) == [base]
    store.close()


def test_d7_a_message_and_its_lease_are_in_one_commit(engine: Any) -> None:
    store, recovered = opened(engine)
    base, lease = recovered.next_position, recovered.next_lease
    store.commit([append(base, 3), Lease(lease, "child", [base + 2, base])], FULL)
    store, recovered = again(engine, store)
    assert recovered.leases == [Lease(lease, "child", [base + 2, base])]
    assert recovered.tallies == [Tally("work", 0, 3, 0)]
    [row] = store.read_ready("work", 0, 0, 1)
    assert (row.base, row.count, row.gone, row.blob) == (base, 3, 0, b"body-%d" % base)
    store.close()


def test_d7_a_commit_that_cannot_be_done_has_done_nothing(engine: Any) -> None:
    store, recovered = opened(engine)
    base, lease = recovered.next_position, recovered.next_lease
    before: list[Any] = [append(base, 4), append(base + 4), Gone(base, 1), Lease(lease, "child", [base])]
    store.commit(before, FULL)
    unknown: Any = object()
    worse: list[Any] = [Gone(base, 3), Drop([base + 4]), append(base + 5), Unlease([lease]), ResultRow("id", 3, b"", 0)]
    attempts: list[Any] = [[*worse, unknown], [*worse, Purge("work", []), unknown]]
    for records in attempts:
        with pytest.raises(KeyError):
            store.commit(records, FULL)
        assert [row.gone for row in store.read_ready("work", 0, 0, 99)] == [1, 0]
        assert store.read_results(["id"], 0) == []
    store.commit([append(base + 5)], FULL)
    store, recovered = again(engine, store)
    assert recovered.leases == [Lease(lease, "child", [base])]
    assert recovered.tallies == [Tally("work", 0, 5, 0)]
    store.close()


def test_d8_a_message_has_a_history_only_from_its_first_bad_event_on(engine: Any) -> None:
    store, recovered = opened(engine)
    base = recovered.next_position
    store.commit([append(base, 3)], FULL)
    store, recovered = again(engine, store)
    assert recovered.pasts == []
    store.commit([Past(base + 1, b"one"), Past(base + 2, b"two"), Past(base + 1, b"more")], FULL)
    store, recovered = again(engine, store)
    assert recovered.pasts == [Past(base + 1, b"more"), Past(base + 2, b"two")]
    store.commit([PastGone([base + 1, base])], FULL)
    store, recovered = again(engine, store)
    assert recovered.pasts == [Past(base + 2, b"two")]
    store.close()


def test_d18_leases_are_there_after_a_restart_until_they_ended(engine: Any) -> None:
    store, recovered = opened(engine)
    base, lease = recovered.next_position, recovered.next_lease
    whole, scattered = list(range(base, base + 4096)), [base + 4096 + 7 * step for step in range(50)]
    store.commit([append(base, 4096), append(base + 4096, 400)], FULL)
    store.commit([Lease(lease, "one", whole), Lease(lease + 1, "two", scattered), Lease(lease + 2, "one", [])], FULL)
    store, recovered = again(engine, store)
    assert recovered.leases == [
        Lease(lease, "one", whole),
        Lease(lease + 1, "two", scattered),
        Lease(lease + 2, "one", []),
    ]
    store.commit([Unlease([lease, lease + 2])], FULL)
    store.commit([Lease(lease + 1, "two", scattered[:1])], FULL)
    store, recovered = again(engine, store)
    assert recovered.leases == [Lease(lease + 1, "two", scattered[:1])]
    store.close()


# ---- durability ----


def test_d30_every_commit_survives_the_process(engine: Any) -> None:
    store, recovered = opened(engine)
    base = recovered.next_position
    store.commit([append(base)], FULL)
    store.commit([append(base + 1)], NORMAL)
    store.commit([Drop([base])], NORMAL)
    store, recovered = again(engine, store)
    assert bases(store.read_ready("work", 0, 0, 9)) == [base + 1]
    store.close()


@pytest.mark.parametrize("seed", range(8))
def test_d30_a_synced_commit_survives_the_power_and_those_before_it(powered: Any, seed: int) -> None:
    store, recovered = opened(powered)
    base = recovered.next_position
    store.commit([append(base)], NORMAL)
    store.commit([append(base + 1)], FULL)
    for more in range(2, 6):
        store.commit([append(base + more, blob=b"x" * 3000)], NORMAL)
    store, recovered = again(powered, store, power=True, seed=seed)
    left = bases(store.read_ready("work", 0, 0, 9))
    # Of the others none may be there without all before it.
    assert left == list(range(base, base + len(left)))
    assert len(left) >= 2
    store.close()


def test_d30_an_unsynced_commit_may_be_lost_with_the_power(powered: Any) -> None:
    # Otherwise the tests of power cuts would prove nothing.
    lost = 0
    for seed in range(8):
        store, recovered = opened(powered)
        base = recovered.next_position
        store.commit([append(base, mailbox=f"run-{seed}", blob=b"x" * 20_000)], NORMAL)
        store, _ = again(powered, store, power=True, seed=seed)
        lost += not store.read_ready(f"run-{seed}", 0, 0, 9)
        store.close()
    assert lost


# ---- a full and a broken disk ----


def test_d29_a_full_disk_refuses_once_and_then_has_room_for_settles(engine: Any) -> None:
    store, recovered = opened(engine)
    base, lease = recovered.next_position, recovered.next_lease
    store.commit([append(base, 4), Lease(lease, "child", [base])], FULL)
    assert store.has_room()
    engine.fill(True)
    with pytest.raises(StoreFull):
        store.commit([append(base + 4)], FULL)
    assert not store.has_room()
    assert bases(store.read_ready("work", 0, 0, 9)) == [base]
    store.commit([Gone(base, 1), Unlease([lease]), Lease(lease + 1, "child", [base + 1])], FULL)
    assert not store.has_room()
    engine.fill(False)
    assert store.has_room()
    assert store.has_room()
    store.commit([append(base + 4)], FULL)
    store, recovered = again(engine, store)
    assert recovered.leases == [Lease(lease + 1, "child", [base + 1])]
    assert [(row.base, row.gone) for row in store.read_ready("work", 0, 0, 9)] == [(base, 1), (base + 4, 0)]
    store.close()


def test_a_store_that_failed_refuses_everything_after(engine: Any) -> None:
    store, recovered = opened(engine)
    base = recovered.next_position
    store.commit([append(base)], FULL)
    engine.fail()
    with pytest.raises(StoreFailed):
        store.commit([append(base + 1)], FULL)
    for use in (
        lambda: store.commit([], FULL),
        lambda: store.commit([append(base + 2)], FULL),
        lambda: store.read_ready("work", 0, 0, 1),
        lambda: store.read_due((0, 0), 1),
        lambda: store.read_rows([base]),
        lambda: store.read_results(["id"], 0),
        lambda: store.read_dead(),
        lambda: store.read_states(["actor:bank.Account:mia"]),
        lambda: store.count_dead(),
        lambda: store.sweep(0, 1),
        lambda: store.has_room(),
        lambda: store.open(),
    ):
        with pytest.raises(StoreFailed):
            use()
    store.close()


def test_a_store_that_is_not_open_refuses(engine: Any) -> None:
    store = engine.store()
    with pytest.raises(StoreFailed):
        store.commit([], FULL)
    store.open()
    store.close()
    store.close()
    with pytest.raises(StoreFailed):
        store.read_ready("work", 0, 0, 1)


def test_a_second_store_is_refused_and_told_who_has_the_first(engine: Any) -> None:
    store, _ = opened(engine)
    with pytest.raises(DataFolderLocked) as refused:
        engine.store().open()
    assert refused.value.pid == os.getpid()
    assert str(os.getpid()) in str(refused.value)
    store.close()
    opened(engine)[0].close()


# ---- rows ----


def test_ready_rows_are_read_ahead_by_mailbox_priority_and_position(engine: Any) -> None:
    store, recovered = opened(engine)
    base = recovered.next_position
    rows = [append(base + 300 * n, 256, "work", priority=n % 2) for n in range(40)]
    rows.append(append(base + 100_000, mailbox="work", due=7))
    rows.append(append(base + 100_001, mailbox="other"))
    store.commit(rows, FULL)
    even = [base + 300 * n for n in range(0, 40, 2)]
    assert bases(store.read_ready("work", 0, 0, 1 << 40)) == even
    assert bases(store.read_ready("work", 0, even[3], 1)) == even[4:5]
    assert bases(store.read_ready("work", 0, even[3], 256)) == even[4:5]
    assert bases(store.read_ready("work", 0, even[3], 257)) == even[4:6]
    assert bases(store.read_ready("work", 0, even[-1], 257)) == []
    assert bases(store.read_ready("work", 2, 0, 257)) == []
    # What is gone does not count.
    store.commit([Gone(even[4], (1 << 255) - 1)], FULL)
    assert bases(store.read_ready("work", 0, even[3], 256)) == even[4:6]
    [row, _] = store.read_ready("work", 0, even[3], 256)
    assert row.gone.bit_count() == 255
    store.commit([Gone(even[4], 0)], FULL)
    assert [row.gone for row in store.read_ready("work", 0, even[3], 256)] == [0]
    store.close()


def test_due_rows_are_read_by_time_then_position_over_all_mailboxes(engine: Any) -> None:
    store, recovered = opened(engine)
    base = recovered.next_position
    dues = [30, 10, 20, 10, 10, 0]
    store.commit([append(base + n, mailbox=f"box-{n % 2}", due=due) for n, due in enumerate(dues)], FULL)
    order = [base + n for n in (1, 3, 4, 2, 0)]
    assert bases(store.read_due((0, 0), 99)) == order
    assert bases(store.read_due((0, 0), 2)) == order[:2]
    assert bases(store.read_due((10, base + 3), 2)) == order[2:4]
    assert bases(store.read_due((10, base + 4), 9)) == order[3:]
    assert bases(store.read_due((30, base), 9)) == []
    store.commit([Drop([base + 4])], FULL)
    store, recovered = again(engine, store)
    assert bases(store.read_due((10, base + 3), 1)) == [base + 2]
    assert recovered.tallies == [Tally("box-0", 0, 0, 2), Tally("box-1", 0, 1, 2)]
    store.close()


def test_rows_are_found_by_any_of_their_positions(engine: Any) -> None:
    store, recovered = opened(engine)
    base = recovered.next_position
    store.commit([append(base, 10), append(base + 20, 5), append(base + 25)], FULL)
    assert bases(store.read_rows([base + 25, base + 9, base, base + 24, base + 10])) == [base, base + 20, base + 25]
    assert bases(store.read_rows([base + 10, base + 19, base + 26, 0])) == []
    store.commit([Drop([base + 20])], FULL)
    assert bases(store.read_rows([base + 21, base + 25])) == [base + 25]
    store.close()


def test_a_purge_spares_kept_rows_and_other_mailboxes_and_what_comes_after_it(engine: Any) -> None:
    store, recovered = opened(engine)
    base = recovered.next_position
    store.commit([append(base + n, 1) for n in range(3)], FULL)
    store.commit([append(base + 10, 4), append(base + 20, mailbox="other"), append(base + 30, due=9)], FULL)
    pasts = [Past(base + 1, b""), Past(base + 2, b""), Past(base + 13, b""), Past(base + 20, b"")]
    store.commit([Gone(base + 10, 1), *pasts], FULL)
    store.commit([append(base + 40), Drop([base]), Purge("work", [base + 2, base + 40]), append(base + 50)], NORMAL)
    store, recovered = again(engine, store)
    assert bases(store.read_ready("work", 0, 0, 99)) == [base + 2, base + 40, base + 50]
    assert store.read_due((0, 0), 9) == []
    assert recovered.tallies == [Tally("other", 0, 1, 0), Tally("work", 0, 3, 0)]
    assert [past.position for past in recovered.pasts] == [base + 2, base + 20]
    store.close()


# ---- results, dead letters, revocations ----


def test_a_result_is_kept_until_it_expires(engine: Any) -> None:
    store, _ = opened(engine)
    now = time.time_ns() // 1000
    kept, short = ResultRow("kept", 3, b"42", 0), ResultRow("short", 4, b"no", now + HOUR)
    store.commit([ResultRow("kept", 2, b"", 1), kept, short, ResultRow("gone", 3, b"", 0)], FULL)
    store.commit([ResultsGone(["gone", "never"])], FULL)
    ids = ["short", "gone", "kept", "short"]
    assert store.read_results(ids, now) == [short, kept]
    assert store.read_results(ids, now + HOUR) == [kept]
    assert store.sweep(now, 10) == 0
    assert store.sweep(now + HOUR, 10) == 1
    store, _ = again(engine, store)
    assert store.read_results(ids, now) == [kept]
    store.close()


def test_a_sweep_forgets_no_more_than_it_was_asked_to(engine: Any) -> None:
    store, recovered = opened(engine)
    base = recovered.next_position
    store.commit(
        [
            *(ResultRow(f"result-{n}", 3, b"", n + 1) for n in range(4)),
            *(append(base + n, unique=f"unique-{n}", unique_until=n) for n in range(2)),
            *(Revoked(f"revoked-{n}", n) for n in range(2)),
        ],
        FULL,
    )
    swept = [store.sweep(50, 3) for _ in range(4)]
    assert swept == [3, 3, 2, 0]
    store, recovered = again(engine, store)
    assert recovered.revoked == []
    assert store.read_results([f"result-{n}" for n in range(4)], 0) == []
    store.close()


def test_dead_letters_are_found_by_mailbox_task_and_id(engine: Any) -> None:
    store, _ = opened(engine)
    letters = [
        Dead(n, f"id-{n % 4}", f"box-{n % 2}", f"task-{n % 3}", "PoisonMessage", n, b"envelope", b"story")
        for n in range(1, 13)
    ]
    store.commit(letters, FULL)
    store, recovered = again(engine, store)
    assert recovered.dead == [DeadCount("box-0", 6), DeadCount("box-1", 6)]
    assert store.count_dead() == 12
    assert store.read_dead(limit=5) == letters[:5]
    assert store.read_dead(after=5, limit=2) == letters[5:7]
    assert [letter.position for letter in store.read_dead(mailbox="box-1", name="task-0")] == [3, 9]
    assert [letter.position for letter in store.read_dead(ids=["id-3", "id-0", "id-3"], after=3)] == [4, 7, 8, 11, 12]
    assert [letter.position for letter in store.read_dead(ids=["id-0", "id-1"], limit=3)] == [1, 4, 5]
    store.close()
