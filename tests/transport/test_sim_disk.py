"""The real store on the simulated disk: what it keeps when the disk does its worst, and that we would notice.

The contract of a store is tried on the simulated disk in tests/contract, as on every engine.
"""

from __future__ import annotations

import errno
import gc
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import apsw
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from greenroom.transport.errors import StoreCorrupt, StoreError, StoreFailed, StoreFull
from greenroom.transport.message import Envelope
from greenroom.transport.sim.broker import SimBroker
from greenroom.transport.sim.disk import Choose, DiskStopped, SimDisk
from greenroom.transport.sim.faults import Fault, Faults
from greenroom.transport.sim.files import SECTOR_BYTES, SimFile, SimFiles
from greenroom.transport.sim.mount import Mount
from greenroom.transport.sim.peers import Network, SimClient
from greenroom.transport.store.base import Store
from greenroom.transport.store.records import Append, Drop, Gone, Lease, Record, ResultRow, Synchronous, Unlease
from greenroom.transport.store.sqlite import SqliteStore

FULL, NORMAL = Synchronous.FULL, Synchronous.NORMAL
MANY = 1 << 30
LOG, DATABASE = "store.db-wal", "store.db"

ordinary = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def append(base: int, blob: bytes = b"body", count: int = 1) -> Append:
    return Append(base, count, "work", 0, 0, "client", blob)


def held(store: Store) -> list[tuple[int, bytes, int]]:
    return [(row.base, row.blob, row.gone) for row in store.read_ready("work", 0, 0, MANY)]


def answering(answers: Any) -> Choose:
    """Answer from Hypothesis: 0 first, so that a failure shrinks to a cut that leaves little."""
    return lambda question, most: answers.draw(st.integers(0, most), label=question)


@pytest.fixture(scope="module")
def used() -> Iterator[SimDisk]:
    """A disk with a store that was opened once, to be copied: its tables are made only once."""
    with SimDisk(log_bytes=60_000) as disk:
        disk.store().open()
        disk.crash()
        yield disk


# ---- power cuts ----


class Step(NamedTuple):
    """One commit: a message, and maybe the end of an older one."""

    synchronous: Synchronous
    blob_bytes: int
    ends: int


STEPS = st.lists(
    st.builds(Step, st.sampled_from(Synchronous), st.sampled_from([0, 10, 700, 5000, 20_000]), st.integers(0, 3)),
    max_size=12,
)


class Life(NamedTuple):
    """What a process does before it ends: at a call of the disk's, at a sync that fails, or after its last commit."""

    steps: list[Step]
    stop_after: int
    fail_after: int
    power: bool


LIVES = st.lists(
    st.builds(
        Life,
        STEPS,
        st.sampled_from([MANY, 3, 9, 20, 33, 50, 80, 130]),
        st.sampled_from([MANY, 0, 1, 2, 4, 7]),
        st.booleans(),
    ),
    max_size=4,
)


def records_of(step: Step, base: int, lease: int, before: list[tuple[int, bytes, int]]) -> list[Record]:
    """What the step commits; "half" would be a message without its lease, or the end without the beginning."""
    records: list[Record] = [append(base, bytes([base % 251]) * step.blob_bytes, 2), Lease(lease, "child", [base])]
    if before and step.ends:
        records.append(Drop([before[0][0]]) if step.ends == 1 else Gone(before[-1][0], 1))
    return records


def applied(records: list[Record], before: list[tuple[int, bytes, int]]) -> list[tuple[int, bytes, int]]:
    after = {message[0]: message for message in before}
    for record in records:
        match record:
            case Append():
                after[record.base] = (record.base, record.blob, 0)
            case Drop():
                for base in record.bases:
                    del after[base]
            case Gone():
                after[record.base] = (record.base, after[record.base][1], record.mask)
            case _:
                pass
    return sorted(after.values())


def play(disk: SimDisk, lives: list[Life], choose: Choose, *, lies: bool = False) -> None:
    """Live these lives on the disk. Raises AssertionError where what is found is nothing that may be."""
    #: What each commit left, from the last one that was synced; and leases, by their messages.
    states: list[list[tuple[int, bytes, int]]] = [[]]
    leased: dict[int, int] = {}
    #: The oldest of them that may be found: the last one that was answered, unless the power goes.
    oldest = 0
    for life in [*lives, Life([], MANY, MANY, False)]:
        store = disk.store()
        answered = oldest
        if lies:
            disk.lie(times=MANY)
        if life.stop_after != MANY:
            disk.stop(after=life.stop_after)
        if life.fail_after != MANY:
            disk.fail("sync", after=life.fail_after)
        with suppress(DiskStopped, StoreFailed):
            recovered = store.open()
            found = held(store)
            assert found in states[oldest:], "this is nothing that a commit left, or older than what was answered"
            states, answered = [found], 0
            leases = {lease.positions[0]: lease.lease for lease in recovered.leases}
            assert all(leases.get(base) == leased[base] for base, _, _ in found), "a message without its lease"
            for n, step in enumerate(life.steps):
                base, lease = recovered.next_position + 2 * n, recovered.next_lease + n
                leased[base] = lease
                records = records_of(step, base, lease, states[-1])
                states.append(applied(records, states[-1]))
                store.commit(records, step.synchronous)
                if step.synchronous is FULL:
                    states = states[-1:]
                answered = len(states) - 1
        if life.power:
            disk.power_cut(choose)
        else:
            disk.crash()
        oldest = 0 if life.power else answered


@ordinary
@given(lives=LIVES, answers=st.data())
def test_d7_what_was_answered_survives_any_power_cut_and_nothing_is_half(
    used: SimDisk, lives: list[Life], answers: Any
) -> None:
    choose = answering(answers)
    with used.fork(choose) as disk:
        play(disk, lives, choose)


def test_with_syncs_that_lie_the_same_lives_lose_what_was_answered(used: SimDisk) -> None:
    # Otherwise the property above would prove nothing.
    def is_lost(lives: list[Life]) -> bool:
        with used.fork() as disk:
            try:
                play(disk, lives, lambda question, most: 0, lies=True)
            except (AssertionError, StoreCorrupt):
                return True
            return False

    smallest = find(LIVES, is_lost, settings=settings(max_examples=2000, phases=[Phase.generate, Phase.shrink]))
    # One message is enough: synced by its commit, or by the open that found it after a crash.
    assert [step.blob_bytes for life in smallest for step in life.steps] == [0]
    assert any(life.power for life in smallest)
    kept_running = LIVES.filter(lambda lives: not any(life.power for life in lives))
    with pytest.raises(NoSuchExample):
        find(kept_running, is_lost, settings=settings(max_examples=50))


@ordinary
@given(lost=st.integers(0, 8), more=st.integers(1, 3))
def test_a_torn_end_beyond_the_last_sync_is_dropped_without_a_word(used: SimDisk, lost: int, more: int) -> None:
    with used.fork() as disk:
        disk.log_bytes = 1 << 20  # nothing is moved, and so nothing else is synced
        store = disk.store()
        base = store.open().next_position
        store.commit([append(base)], FULL)
        for n in range(1, more + 1):
            store.commit([append(base + n, bytes(100))], NORMAL)

        def choose(question: str, most: int) -> int:
            if question.startswith("sectors"):
                return min(lost, most)
            return most  # everything got there, but for the end of the last of them

        disk.power_cut(choose)
        store = disk.store()
        store.open()
        left = [row[0] for row in held(store)]
        assert left == [base + n for n in range(len(left))]
        # A sector that is missing may by chance be what was there before; not all of them are.
        assert len(left) in {0: (more + 1,), 7: (more,), 8: (more,)}.get(lost, (more, more + 1))


# ---- the end of a process ----


def short_life(disk: SimDisk) -> None:
    """Something of everything: log and database, synced and not, and an end."""
    store = disk.store()
    recovered = store.open()
    for n in range(6):
        store.commit([append(recovered.next_position + n, b"x" * 9000)], NORMAL if n % 2 else FULL)
    held(store)
    store.close()


@pytest.mark.parametrize("deed", ["open", "create", "read", "write", "truncate", "sync", "delete"])
def test_a_process_that_ends_at_a_call_says_nothing_more(deed: Any) -> None:
    with SimDisk(log_bytes=50_000) as disk:
        short_life(disk)
        calls = disk.calls(deed)
    assert calls
    for after in range(calls):
        with SimDisk(log_bytes=50_000) as disk:
            disk.stop(deed, after=after)
            with pytest.raises(DiskStopped):
                short_life(disk)
            disk.crash()
            store = disk.store()
            store.open()
            held(store)
            store.close()


def test_a_store_that_was_thrown_away_writes_nothing_when_it_is_collected(used: SimDisk) -> None:
    with used.fork() as disk:
        store: Any = disk.store()
        base = store.open().next_position
        store.commit([append(base)], NORMAL)
        before = disk.image()
        assert len(before[LOG]) > 4096
        store = None
        gc.collect()
        disk.crash()
        assert disk.image() == before
        # The one that lives is not disturbed by the one that is dead.
        dead = disk.store()
        dead.open()
        disk.crash()
        alive = disk.store()
        alive.open()
        with pytest.raises(DiskStopped):
            dead.commit([append(base + 1)], FULL)
        with pytest.raises(DiskStopped):
            dead.read_ready("work", 0, 0, 9)
        dead.crash()
        del dead
        alive.commit([append(base + 1)], FULL)
        with pytest.raises(StoreError):
            disk.store().open()


def test_a_broker_whose_power_was_cut_has_every_message_that_it_confirmed() -> None:
    with SimDisk() as disk:
        sim = SimBroker(disk.store(), eager=False)
        network = Network(sim)
        client = SimClient(network, "client")
        client.connect()
        sim.settle()
        client.read()
        envelopes = [Envelope(f"id{n}", "task", "msgpack", b"body") for n in range(20)]
        for envelope in envelopes[:10]:
            client.publish("work", [envelope])
        sim.settle()
        client.read()
        assert [confirm.refusal for confirm in client.confirms.values()] == [0] * 10
        for envelope in envelopes[10:]:
            client.publish("work", [envelope])
        disk.stop()
        with pytest.raises(DiskStopped):
            sim.settle()
        disk.power_cut()
        network.replace(SimBroker(disk.store(), now=sim.now))
        assert network.sim.broker.desk.mailboxes["work"].depth == 10


# ---- a full disk ----


@ordinary
@given(room=st.integers(0, 400_000), sizes=st.lists(st.sampled_from([10, 3000, 30_000]), min_size=1, max_size=30))
def test_d29_a_full_disk_refuses_and_goes_on_when_room_returns(used: SimDisk, room: int, sizes: list[int]) -> None:
    with used.fork() as disk:
        store = disk.store()
        recovered = store.open()
        base, lease = recovered.next_position, recovered.next_lease
        disk.capacity = disk.used + room
        there: list[int] = []
        for n, size in enumerate(sizes):
            try:
                store.commit([append(base + n, bytes(size))], FULL)
                there.append(base + n)
            except StoreFull:
                # From here on publishes are refused by the broker; what ends messages has the ballast's room.
                assert not store.has_room()
                store.commit([Lease(lease, "child", there[:1])], FULL)
                store.commit([Unlease([lease]), Drop(there[:1]), ResultRow("id", 3, b"result", 0)], FULL)
                del there[:1]
                break
        assert [row[0] for row in held(store)] == there
        disk.capacity = None
        assert store.has_room()
        store.commit([append(base + 100)], FULL)
        disk.power_cut()
        store = disk.store()
        store.open()
        assert [row[0] for row in held(store)] == [*there, base + 100]


def test_d29_a_write_that_finds_no_room_undoes_its_commit_and_no_other(used: SimDisk) -> None:
    refused = 0
    for after in range(40):
        with used.fork() as disk:
            store = disk.store()
            base = store.open().next_position
            disk.fail("write", errno.ENOSPC, after=after)
            there: list[int] = []
            for n in range(4):
                try:
                    store.commit([append(base + n, bytes(9000))], FULL)
                    there.append(base + n)
                except StoreFull:
                    refused += 1
            assert [row[0] for row in held(store)] == there
            assert store.has_room()
            disk.power_cut()
            store = disk.store()
            store.open()
            assert [row[0] for row in held(store)] == there
    assert refused > 20


# ---- errors ----


@pytest.mark.parametrize("deed", ["sync", "write"])
def test_an_error_of_the_disk_is_the_end_of_the_store_and_nothing_is_answered_after_it(
    used: SimDisk, deed: Any
) -> None:
    failures = 0
    for after in range(20):
        with used.fork() as disk:
            store = disk.store()
            base = store.open().next_position
            disk.fail(deed, errno.EIO, after=after)
            answered = -1
            with suppress(StoreFailed):
                for n in range(12):
                    store.commit([append(base + n, bytes(9000))], FULL)
                    answered = n
            for n in range(answered + 1, 12):
                failures += 1
                with pytest.raises(StoreFailed):
                    store.commit([append(base + n, bytes(9000))], FULL)
            disk.power_cut()
            store = disk.store()
            store.open()
            # The one that failed may be there or not.
            left = [row[0] for row in held(store)]
            assert left in ([base + n for n in range(answered + more)] for more in (1, 2))
    assert failures > 100


@ordinary
@given(after=st.integers(0, 12), answers=st.data())
def test_after_a_failed_sync_nothing_is_answered_whatever_of_it_got_to_the_disk(
    used: SimDisk, after: int, answers: Any
) -> None:
    choose = answering(answers)
    with used.fork(choose) as disk:
        store = disk.store()
        base = store.open().next_position
        disk.fail("sync", errno.EIO, after=after)
        answered = 0
        with suppress(StoreFailed):
            for answered in range(9):
                store.commit([append(base + answered, bytes(9000))], FULL)
            answered = 9
        for use in (lambda: store.commit([append(base + 20)], FULL), lambda: held(store)):
            if answered < 9:
                with pytest.raises(StoreFailed):
                    use()
        store.close()
        disk.power_cut(choose)
        store = disk.store()
        store.open()
        left = [row[0] for row in held(store)]
        assert left in ([base + n for n in range(answered)], [base + n for n in range(answered + 1)])


def test_d7_what_is_answered_after_a_restart_does_not_stand_on_a_log_that_was_never_written(used: SimDisk) -> None:
    seen = 0
    for after in range(10):
        with used.fork() as disk:
            store = disk.store()
            base = store.open().next_position
            disk.fail("sync", errno.EIO, after=after, file=LOG)
            with suppress(StoreFailed):
                for n in range(9):
                    store.commit([append(base + n, bytes(9000))], FULL)
            disk.crash()
            # The system shows what it could not write to whoever reads, and syncs go well from now on.
            store = disk.store()
            later = store.open().next_position
            before = held(store)
            seen += len(before)
            store.commit([append(later)], FULL)
            disk.power_cut()
            store = disk.store()
            store.open()
            assert held(store) == [*before, (later, b"body", 0)]
    assert seen


def test_d7_a_new_store_is_not_undone_by_the_journal_that_made_it() -> None:
    # The log is moved by each commit, and begun anew by the next: there is no second copy of the first ones.
    with SimDisk(log_bytes=1) as disk:
        disk.store().open()
        syncs = disk.calls("sync")
    for after in range(syncs):
        with SimDisk(log_bytes=1) as disk:
            store = disk.store()
            disk.fail("sync", errno.EIO, after=after)
            answered = 0
            with suppress(StoreFailed):
                base = store.open().next_position
                for answered in range(4):
                    store.commit([append(base + answered)], FULL)
                answered = 4
            disk.power_cut(lambda question, most: 0 if question.startswith("how many") else most)
            store = disk.store()
            store.open()
            assert len(held(store)) >= answered


def test_a_read_that_fails_at_open_is_told_and_passes(used: SimDisk) -> None:
    with used.fork() as disk:
        disk.fail("read", errno.EIO, after=3)
        with pytest.raises(StoreFailed):
            disk.store().open()
        disk.store().open()


# ---- damage ----


@ordinary
@given(answers=st.data(), file=st.sampled_from([DATABASE, LOG]))
def test_a_flipped_bit_is_found_or_does_no_harm(used: SimDisk, answers: Any, file: str) -> None:
    with used.fork() as disk:
        store = disk.store()
        base = store.open().next_position
        for n in range(8):
            store.commit([append(base + n, b"body-%d" % n * 300)], FULL)
        intact = held(store)
        if file == DATABASE:
            store.close()  # which moves the log into it
        # A power cut would take the number of the last commit with it, by which damage to the log is known from a
        # log that was torn.
        disk.crash()
        disk.flip(file, answers.draw(st.integers(0, 8 * len(disk.image()[file]) - 1)))
        store = disk.store()
        with suppress(StoreError):
            store.open()
            assert held(store) == intact


def test_a_bit_flipped_in_a_body_is_found(used: SimDisk) -> None:
    with used.fork() as disk:
        store = disk.store()
        base = store.open().next_position
        store.commit([append(base, b"precious")], FULL)
        store.close()
        disk.flip(DATABASE, 8 * disk.image()[DATABASE].index(b"precious"))
        store = disk.store()
        store.open()
        with pytest.raises(StoreCorrupt, match=f"row {base}"):
            held(store)


def test_a_folder_that_is_taken_away_loses_everything_at_the_next_open(used: SimDisk) -> None:
    with used.fork() as disk:
        store = disk.store()
        recovered = store.open()
        store.commit([append(recovered.next_position)], FULL)
        disk.remove()
        # Its files are open, and go on.
        store.commit([append(recovered.next_position + 1)], FULL)
        assert len(held(store)) == 2
        disk.crash()
        store = disk.store()
        assert store.open().epoch == 1
        assert held(store) == []


# ---- time ----


def test_slow_syncs_take_time_that_nobody_sleeps(used: SimDisk) -> None:
    with used.fork() as disk:
        store = disk.store()
        base = store.open().next_position
        disk.slow(250_000, after=1, times=2, file=LOG)
        for n in range(4):
            store.commit([append(base + n)], FULL)
        assert disk.take_time() == 500_000
        assert disk.take_time() == 0


# ---- the same again ----


def images(seed: int, *, restarts: int = 3) -> list[dict[str, bytes]]:
    seen: list[dict[str, bytes]] = []
    with SimDisk(seed=seed, log_bytes=40_000) as disk:
        for _ in range(restarts):
            store = disk.store()
            recovered = store.open()
            for n in range(10):
                store.commit([append(recovered.next_position + n, b"x" * 3000)], FULL)
            seen.append(disk.image())
            disk.power_cut()
    return seen


def test_the_same_calls_leave_the_same_bytes() -> None:
    first = images(7)
    apsw.randomness(100)
    assert images(7) == first
    # SQLite's random numbers are in the log, and no two logs are alike.
    assert images(8) != first
    assert len({image[LOG][16:24] for image in first}) == 3


def test_two_logs_of_a_disk_are_never_alike() -> None:
    # Or what is left of the first would be taken for the end of the second.
    salts: set[bytes] = set()
    with SimDisk() as disk:
        for _ in range(4):
            store = disk.store()
            store.open()
            salts.add(disk.image()[LOG][16:24])
            store.close()
            assert LOG not in disk.image()
    assert len(salts) == 4


def test_a_copy_goes_its_own_way(used: SimDisk) -> None:
    with used.fork() as one:
        store = one.store()
        base = store.open().next_position
        store.commit([append(base)], NORMAL)
        with one.fork() as other:
            store.commit([append(base + 1)], FULL)
            copied = other.store()
            copied.open()
            assert [row[0] for row in held(copied)] == [base]
            assert [row[0] for row in held(store)] == [base, base + 1]


def come_and_go() -> list[weakref.ref[Any]]:
    disk = SimDisk()
    disk.store().open()
    disk.power_cut()
    folder = disk.folder()
    store = SqliteStore(folder, connect=disk.connect)
    store.open()
    disk.close()
    return [weakref.ref(disk), weakref.ref(store), weakref.ref(folder)]


def test_nothing_is_left_of_many_disks() -> None:
    names = apsw.vfs_names()
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        refs = [ref for _ in range(30) for ref in come_and_go()]
        assert not any(ref() for ref in refs)
    finally:
        if enabled:
            gc.enable()
    assert apsw.vfs_names() == names
    assert not [c for c in apsw.connections() if c.db_names() and "greenroom-sim" in c.open_vfs]


# ---- the model of what survives ----


def test_of_unsynced_writes_any_may_survive_and_the_last_may_be_torn() -> None:
    file = SimFile("f")
    file.write(0, b"a" * 1024)
    file.sync()
    file.write(0, b"b" * 512)
    file.write(512, b"c" * 512)
    file.write(1024, b"d" * 1500)
    answers = iter([0b101, 1])
    assert bytes(file.data[512:1024]) == b"c" * 512
    file.cut(lambda question, most: next(answers))
    assert file.data == b"b" * 512 + b"a" * 512 + b"d" * 1024
    assert not file.changes


def test_what_lies_behind_a_lost_truncation_is_lost_with_it() -> None:
    file = SimFile("f")
    file.write(0, b"a" * 1024)
    file.sync()
    file.truncate(100)
    file.write(50, b"b" * 100)
    left = file.fork()
    left.cut(lambda question, most: 0b10)
    assert left.data == b"a" * 50 + b"b" * 50 + b"a" * 924
    left = file.fork()
    left.cut(lambda question, most: 0b11 if most > 1 else 0)
    assert left.data == b"a" * 50 + b"b" * 100
    file.truncate(20)
    file.cut(lambda question, most: 0b100)
    assert file.data == b"a" * 20


def test_a_failed_sync_is_never_made_up_for() -> None:
    file = SimFile("f")
    file.write(0, b"lost")
    file.drop_changes(lambda question, most: 0)
    file.write(SECTOR_BYTES, b"kept")
    file.sync()
    assert file.data[:4] == b"lost"
    file.cut(lambda question, most: most)
    assert file.data == bytes(SECTOR_BYTES) + b"kept"


def test_a_process_may_sync_again_after_a_failed_sync_and_nothing_comes_of_it() -> None:
    files, faults = SimFiles(), Faults()
    mount = Mount(files, faults, lambda question, most: 0)
    file = mount.open("f")
    mount.sync_names()
    mount.write(file, 0, b"lost")
    faults.arm(Fault("sync", "fail", errno.EIO, 0, 1, None))
    with pytest.raises(OSError, match="Input/output error"):
        mount.sync(file)
    mount.sync(file)
    assert mount.read(file, 0, 9) == b"lost"
    files.cut(lambda question, most: most)
    assert files.named["f"].data == b""


def test_names_survive_in_their_order_and_only_a_sync_of_the_directory_is_sure() -> None:
    files = SimFiles()
    files.create("old").write(0, b"1")
    files.sync()
    files.delete("old")
    files.create("new").sync()
    left = files.fork()
    left.cut(lambda question, most: 0)
    assert list(left.named) == ["old"]
    assert left.named["old"].data == b""
    left = files.fork()
    left.cut(lambda question, most: 1 if "creations" in question else 0)
    assert list(left.named) == []
    files.sync()
    files.cut(lambda question, most: 0)
    assert list(files.named) == ["new"]


def test_an_answer_out_of_bounds_is_refused() -> None:
    file = SimFile("f")
    file.write(0, b"x")
    with pytest.raises(ValueError, match="0 to 1"):
        file.cut(lambda question, most: 2)
