"""The page of evidence: what is visible when, at its limits, and after a real SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from greenroom.transport.message import Outcome, State
from greenroom.transport.page import (
    DamagedPage,
    HeardStamp,
    PageContents,
    page_path,
    read_page,
    read_pages,
    remove_page,
)
from greenroom.transport.page_layout import (
    PENDING_BYTES,
    PENDING_NUMBER,
    RING_ENTRIES_MAX,
    RING_ENTRIES_MIN,
    RUNNERS_MAX,
    ring_entries,
)
from greenroom.transport.page_marks import Page
from greenroom.transport.verbs import Settle


def make_page(folder: Path, *, runners: int = 1, outbox_bytes: int = 4096, number: int = 1) -> Page:
    return Page.create(
        page_path(folder, "celery@host", 3, number),
        session=f"node/{number}",
        node="celery@host",
        incarnation=3,
        runners=runners,
        heard=77,
        outbox_bytes=outbox_bytes,
    )


def settle(number: int, *positions: int, lease: int = 9, result: bytes = b"") -> bytes:
    outcomes = [Outcome(position, lease, State.SUCCESS, 1, result) for position in positions]
    return msgspec.msgpack.encode(Settle(number, outcomes))


def contents(page: Page) -> PageContents:
    read = read_page(page.path)
    assert isinstance(read, PageContents), read
    return read


def ring(page: Page) -> list[tuple[int, int, bool]]:
    return [(entry.position, entry.lease, entry.finished) for entry in contents(page).ring]


def test_a_page_names_its_child(tmp_path: Path) -> None:
    read = contents(make_page(tmp_path))
    assert (read.session, read.node, read.incarnation) == ("node/1", "celery@host", 3)
    assert read.process.pid == os.getpid()
    assert read.alive()
    assert (read.heard, read.orderly, read.outbox, read.ring) == (77, False, [], [])


def test_d13_started_and_finished_are_told_apart_by_runner(tmp_path: Path) -> None:
    page = make_page(tmp_path, runners=2)
    page.mark_started(0, 11, 1)
    page.mark_started(1, 12, 2)
    page.mark_finished(0)
    page.mark_started(0, 13, 3)
    assert ring(page) == [(11, 1, True), (13, 3, False), (12, 2, False)]


def test_d13_a_settled_delivery_is_no_evidence_any_more(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    for position in (1, 2, 3):
        page.mark_started(0, position, 9)
        page.mark_finished(0)
    assert page.put_settle(1, settle(1, 1, 2))
    page.runners[0].settled(2)
    read = contents(page)
    assert [entry.position for entry in read.ring] == [3]
    assert [[outcome.position for outcome in one.outcomes] for one in read.outbox] == [[1, 2]]
    page.drop_settles(1)
    assert contents(page).outbox == []


def test_d14_what_is_in_the_outbox_is_not_in_the_ring_of_the_report(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    for position in (1, 2):
        page.mark_started(0, position, 9)
        page.mark_finished(0)
    # Died after the frame was in the outbox, before its entries were marked settled.
    assert page.put_settle(1, settle(1, 1))
    report = contents(page).report(4, signal=9, oom=True, max_rss_kib=5, timed_out=[2])
    assert (report.number, report.session, report.signal, report.oom) == (4, "node/1", 9, True)
    assert (report.max_rss_kib, report.timed_out, report.pid) == (5, [2], os.getpid())
    assert [one.number for one in report.outbox] == [1]
    assert [(entry.position, entry.finished) for entry in report.ring] == [(2, True)]


def test_d14_the_same_position_under_another_lease_stays_in_the_ring(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    assert page.put_settle(1, settle(1, 5, lease=1))
    page.mark_started(0, 5, 2)
    assert ring(page) == [(5, 2, False)]


def test_d13_a_pending_outcome_survives_before_any_settle_was_made(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    page.mark_started(0, 1, 9)
    assert page.pend(msgspec.msgpack.encode(Outcome(1, 9, State.SUCCESS, 5, b"r")))
    read = contents(page)
    assert read.ring == []
    assert read.started == 1
    assert [(one.number, [(o.position, o.result) for o in one.outcomes]) for one in read.outbox] == [
        (PENDING_NUMBER, [(1, b"r")])
    ]
    page.mark_finished(0)
    assert page.put_settle(1, settle(1, 1))
    page.clear_pending()
    page.runners[0].settled(1)
    assert [one.number for one in contents(page).outbox] == [1]


def test_an_outcome_that_finds_no_room_among_the_pending_changes_nothing(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    small = msgspec.msgpack.encode(Outcome(1, 9, State.SUCCESS))
    large = msgspec.msgpack.encode(Outcome(2, 9, State.SUCCESS, 0, bytes(PENDING_BYTES)))
    room = PENDING_BYTES - (len(large) - PENDING_BYTES) - 8
    assert not page.pend(msgspec.msgpack.encode(Outcome(3, 9, State.SUCCESS, 0, bytes(room + 1))))
    assert page.pend(msgspec.msgpack.encode(Outcome(3, 9, State.SUCCESS, 0, bytes(room))))
    before = contents(page)
    assert not page.pend(small)
    assert contents(page) == before
    page.clear_pending()
    assert page.pend(small)
    assert [outcome.position for outcome in contents(page).outbox[0].outcomes] == [1]


def test_an_orderly_end_is_told(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    page.mark_orderly()
    assert contents(page).report(1, exit_code=0).orderly


def test_d19_the_parents_stamp_is_seen_by_the_child(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    stamp = HeardStamp(page.path)
    stamp.stamp(123_456_789)
    assert page.heard() == 123_456_789
    stamp.close()


def test_a_stamp_is_refused_on_what_is_no_page(tmp_path: Path) -> None:
    path = tmp_path / "x.page"
    path.write_bytes(bytes(8192))
    with pytest.raises(ValueError, match="not the page"):
        HeardStamp(str(path))


def test_d14_a_settle_that_finds_no_room_changes_nothing(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    assert page.put_settle(1, settle(1, 1))
    before = contents(page)
    assert not page.put_settle(2, settle(2, 2, result=bytes(4096)))
    assert contents(page) == before


def test_a_settle_fits_to_the_last_byte_of_the_outbox_and_not_one_more(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    spare = 4096 - 16 - len(settle(1, 1, result=bytes(1000))) + 1000
    assert len(settle(1, 1, result=bytes(spare))) == 4096 - 16
    assert not page.put_settle(1, settle(1, 1, result=bytes(spare + 1)))
    assert page.put_settle(1, settle(1, 1, result=bytes(spare)))
    assert len(contents(page).outbox[0].outcomes[0].result) == spare
    page.drop_settles(1)
    assert page.put_settle(2, settle(2, 2, result=bytes(spare)))
    assert contents(page).outbox[0].number == 2


def test_a_settle_that_would_fit_only_around_the_end_overwrites_nothing(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    assert page.put_settle(1, settle(1, 1, result=bytes(1000)))
    assert page.put_settle(2, settle(2, 2, result=b"2" * 2500))
    page.drop_settles(1)
    # It has room in all, but not in one piece behind the second, nor before it.
    assert not page.put_settle(3, settle(3, 3, result=bytes(1300)))
    assert page.put_settle(3, settle(3, 3, result=b"3" * 900))
    read = contents(page)
    assert [(one.number, one.outcomes[0].result) for one in read.outbox] == [(2, b"2" * 2500), (3, b"3" * 900)]


@pytest.mark.parametrize("runners", [1, 64, 65, 1000, RUNNERS_MAX])
def test_rings_of_many_runners_share_a_bounded_number_of_entries(runners: int) -> None:
    entries = ring_entries(runners)
    assert entries & (entries - 1) == 0
    assert RING_ENTRIES_MIN <= entries <= RING_ENTRIES_MAX
    assert entries * runners <= 2 * RING_ENTRIES_MIN * RUNNERS_MAX


@pytest.mark.parametrize("runners", [0, RUNNERS_MAX + 1])
def test_a_page_for_too_many_runners_is_refused(tmp_path: Path, runners: int) -> None:
    with pytest.raises(ValueError, match="runners"):
        make_page(tmp_path, runners=runners)


def test_a_page_that_stands_under_the_name_is_not_overwritten(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    page.mark_started(0, 1, 1)
    with pytest.raises(FileExistsError):
        make_page(tmp_path)
    assert ring(page) == [(1, 1, False)]
    assert [path.name for path in tmp_path.iterdir()] == [Path(page.path).name]


def test_a_missing_page_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    missing = read_page(str(tmp_path / "nothing.page"))
    assert isinstance(missing, DamagedPage)
    assert missing.missing
    path = tmp_path / "x.page"
    path.write_bytes(b"hello")
    damaged = read_page(str(path))
    assert isinstance(damaged, DamagedPage)
    assert not damaged.missing


def test_a_page_with_any_flipped_header_word_never_raises(tmp_path: Path) -> None:
    page = make_page(tmp_path, runners=2)
    page.mark_started(0, 1, 1)
    assert page.put_settle(1, settle(1, 1))
    raw = Path(page.path).read_bytes()
    path = tmp_path / "flipped.page"
    for word in (*range(16), 512, 513, 514):
        for value in (0, 1, 2**63, 2**64 - 1):
            changed = bytearray(raw)
            changed[word * 8 : word * 8 + 8] = value.to_bytes(8, sys.byteorder)
            path.write_bytes(changed)
            assert isinstance(read_page(str(path)), PageContents | DamagedPage)


def test_d16_pages_of_living_processes_and_of_others_are_passed_over(tmp_path: Path) -> None:
    make_page(tmp_path, number=1)
    dead = make_page(tmp_path, number=2)
    raw = bytearray(Path(dead.path).read_bytes())
    raw[3 * 8 : 4 * 8] = (1).to_bytes(8, sys.byteorder)  # a process with this pid, but not this start
    Path(dead.path).write_bytes(raw)
    (tmp_path / "damaged.page").write_bytes(b"x")
    assert [read.session for read in read_pages(tmp_path)] == ["node/2"]
    found = read_pages(tmp_path, node="celery@host", sessions={"node/2"})
    assert [read.session for read in found] == ["node/2"]
    assert read_pages(tmp_path, node="other@host") == []
    assert read_pages(tmp_path, sessions={"node/1"}) == []
    assert read_pages(tmp_path / "nowhere") == []
    remove_page(dead.path)
    remove_page(dead.path)
    assert read_pages(tmp_path) == []


class PageMachine(RuleBasedStateMachine):
    """A page against lists: what was started, finished, put and acknowledged, and not yet let go of."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.page = make_page(self.folder)
        self.entries: list[list[object]] = []
        self.outbox: list[tuple[int, bytes]] = []
        self.used = 0
        self.position = 0
        self.number = 0

    @precondition(lambda self: len(self.entries) < RING_ENTRIES_MAX and all(e[1] for e in self.entries))
    @rule(count=st.integers(1, 40))
    def run(self, count: int) -> None:
        for _ in range(count):
            self.start()
            self.page.mark_finished(0)
            self.entries[-1][1] = True
        self.start()

    def start(self) -> None:
        self.position += 1
        self.page.mark_started(0, self.position, 9)
        self.entries.append([self.position, False])
        del self.entries[:-RING_ENTRIES_MAX]

    @precondition(lambda self: bool(self.entries) and not self.entries[-1][1])
    @rule()
    def finish(self) -> None:
        self.page.mark_finished(0)
        self.entries[-1][1] = True

    @precondition(lambda self: any(entry[1] for entry in self.entries))
    @rule(size=st.integers(0, 1500))
    def put(self, size: int) -> None:
        finished = [entry for entry in self.entries if entry[1]]
        self.number += 1
        result = bytes([self.number % 256]) * size
        frame = settle(self.number, -1, result=result)
        if self.page.put_settle(self.number, frame):
            self.outbox.append((self.number, result))
            self.page.runners[0].settled(len(finished))
            del self.entries[: len(finished)]
        else:
            # Refused only when it could not have fitted anywhere: what is held, the frame and a skip at the
            # end.
            held = sum(len(settle(number, -1, result=held)) + 24 for number, held in self.outbox)
            assert held + 2 * (len(frame) + 24) > 4096

    @precondition(lambda self: bool(self.outbox))
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(self.outbox)))
        self.page.drop_settles(self.outbox[count - 1][0])
        del self.outbox[:count]

    @invariant()
    def what_is_read_is_what_was_marked(self) -> None:
        assert ring(self.page) == [(position, 9, finished) for position, finished in self.entries]
        assert [(one.number, one.outcomes[0].result) for one in contents(self.page).outbox] == self.outbox

    def teardown(self) -> None:
        self.page.close()
        remove_page(self.page.path)
        self.folder.rmdir()


TestPageMachine = PageMachine.TestCase
TestPageMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)

CHILD = """
import os, signal, sys
import msgspec
from greenroom.transport.message import Outcome
from greenroom.transport.page_marks import Page
from greenroom.transport.verbs import Settle

page = Page.create(sys.argv[1], session="n/1", node="n", incarnation=1, runners=1, heard=0)
marks = page.runners[0]

def settle(number, *positions):
    return msgspec.msgpack.encode(Settle(number, [Outcome(p, 5, 3) for p in positions]))

def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run_child(path: Path, body: str) -> subprocess.Popen[bytes]:
    code = textwrap.dedent(CHILD) + textwrap.dedent(body)
    return subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)


@pytest.mark.live
@pytest.mark.parametrize(
    ("body", "ring_after", "outbox_after"),
    [
        ("marks.started(1, 5); die()", [(1, False)], []),
        ("marks.started(1, 5); marks.finished(); die()", [(1, True)], []),
        ("marks.started(1, 5); marks.finished(); page.put_settle(1, settle(1, 1)); die()", [], [[1]]),
        (
            (
                "marks.started(1, 5); marks.finished(); page.put_settle(1, settle(1, 1)); marks.settled();"
                "marks.started(2, 5); die()"
            ),
            [(2, False)],
            [[1]],
        ),
        (
            (
                "marks.started(1, 5); marks.finished(); page.put_settle(1, settle(1, 1)); marks.settled();"
                "page.drop_settles(1); die()"
            ),
            [],
            [],
        ),
    ],
)
def test_d13_marks_made_before_sigkill_are_read_after_it(
    tmp_path: Path, body: str, ring_after: list[tuple[int, bool]], outbox_after: list[list[int]]
) -> None:
    path = tmp_path / "child.page"
    child = run_child(path, body)
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    [read] = read_pages(tmp_path)
    assert read.process.pid == child.pid
    assert [(entry.position, entry.finished) for entry in read.ring] == ring_after
    assert [[outcome.position for outcome in one.outcomes] for one in read.outbox] == outbox_after


@pytest.mark.live
def test_d13_a_kill_at_any_moment_leaves_a_page_that_is_whole(tmp_path: Path) -> None:
    """A child marks at full speed, in batches of three: each delivery is in ring, outbox, or neither."""
    body = """
    print("up", flush=True)
    position = number = 0
    while True:
        number += 1
        batch = []
        for _ in range(3):
            position += 1
            marks.started(position, 5)
            marks.finished()
            batch.append(position)
        page.put_settle(number, settle(number, *batch))
        marks.settled(3)
        page.drop_settles(number - 2)
    """
    for attempt in range(5):
        path = tmp_path / f"child{attempt}.page"
        child = run_child(path, body)
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        deadline = time.monotonic() + 60
        while not (isinstance(read := read_page(str(path)), PageContents) and read.outbox):
            assert time.monotonic() < deadline
        child.kill()
        child.communicate(timeout=60)
        read = read_page(str(path))
        assert isinstance(read, PageContents), read
        assert not read.alive()
        held = [outcome.position for one in read.outbox for outcome in one.outcomes]
        held += [entry.position for entry in read.ring]
        # Without a gap and without a double: the newest deliveries, in order.
        assert held == list(range(held[0], held[0] + len(held)))
        assert [entry.finished for entry in read.ring[:-1]] == [True] * len(read.ring[:-1])
