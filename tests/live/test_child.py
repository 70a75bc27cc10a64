"""Real children against a real broker: what they run, and what they leave behind when they are killed.

The test stands in for the parent: it has the other end of the pipe and stamps the page.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from greenroom.actors.errors import ActorFailed, SoftTimeLimitExceeded
from greenroom.actors.worker.child import EXIT_ABANDONED
from greenroom.actors.worker.control import (
    BodyEnded,
    BodyStarted,
    ChildConfig,
    FromChild,
    Leaving,
    LimitsChanged,
    Ready,
    StopChild,
    ToChild,
    Unusable,
)
from greenroom.transport.broker.settings import BrokerSettings
from greenroom.transport.clock import boot_now
from greenroom.transport.page import HeardStamp, PageContents, read_page
from greenroom.transport.store.memory import MemoryStore
from greenroom.transport.verbs import ChildKind
from greenroom.transport.wire.server import BrokerServer

from . import child_app
from .child_app import app

pytestmark = [pytest.mark.live, pytest.mark.skipif(sys.platform != "linux", reason="/proc, and Linux's clocks")]

PATIENCE_SECONDS = 20.0
_words: msgspec.msgpack.Decoder[FromChild] = msgspec.msgpack.Decoder(FromChild)
SECOND = 1_000_000
T = TypeVar("T")

PROGRAM = """
import sys
import msgspec
from greenroom.actors.worker.child import run_child
from greenroom.actors.worker.control import ChildConfig

sys.path.insert(0, sys.argv[3])
sys.exit(run_child(msgspec.json.decode(sys.argv[1], type=ChildConfig), int(sys.argv[2])))
"""


def eventually(what: Callable[[], T]) -> T:
    """Return what `what` returns once that is true. Fails the test when it never is."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not (found := what()):
        assert time.monotonic() < until, "it did not happen in time"
        threading.Event().wait(0.005)
    return found


class Child:
    """A child process, and the test as its parent."""

    def __init__(self, folder: Path, broker: str, **options: Any) -> None:
        self.stamps = threading.Event()
        self._words: list[FromChild] = []
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE_SECONDS)
        self._pipe = ours
        self._received = b""
        settings: dict[str, Any] = {
            "app": "tests.live.child_app:app",
            "mailboxes": ["celery"],
            "loglevel": "WARNING",
            "settings": {"worker_redirect_stdouts": False},
            **options,
        }
        self.config = ChildConfig(
            broker=broker,
            node="celery@here",
            node_session=uuid.uuid4().hex,
            incarnation=1,
            number=1,
            page=str(folder / f"{uuid.uuid4().hex}.page"),
            **settings,
        )
        self.log = folder / f"{uuid.uuid4().hex}.log"
        environment = {**os.environ, "CHILD_GATE": str(folder / "gate")}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    PROGRAM,
                    msgspec.json.encode(self.config).decode(),
                    str(theirs.fileno()),
                    str(Path(__file__).parents[2]),
                ],
                pass_fds=[theirs.fileno()],
                stderr=log,
                env=environment,
            )
        theirs.close()
        self.hearing = True
        self._over = threading.Event()
        self._stamper = threading.Thread(target=self._stamp, daemon=True)
        self._stamper.start()

    def _stamp(self) -> None:
        while not Path(self.config.page).exists():
            if self._over.wait(0.005):
                return
        stamp = HeardStamp(self.config.page)
        while not self._over.wait(0.02):
            stamp.stamp(boot_now() if self.hearing else boot_now() - 7 * SECOND)

    def next_word(self) -> FromChild:
        while len(self._received) < 4 or len(self._received) < 4 + self._length():
            data = self._pipe.recv(65536)
            assert data, f"the child has closed its pipe:\n{self.log.read_text()}"
            self._received += data
        length = self._length()
        word: FromChild = _words.decode(self._received[4 : 4 + length])
        self._received = self._received[4 + length :]
        return word

    def _length(self) -> int:
        return int(struct.unpack(">I", self._received[:4])[0])

    def wait_until_ready(self) -> Child:
        word = self.next_word()
        assert isinstance(word, Ready), word
        return self

    def say(self, word: ToChild) -> None:
        encoded = msgspec.msgpack.encode(word)
        self._pipe.sendall(struct.pack(">I", len(encoded)) + encoded)

    def stop(self) -> None:
        """Stop in order, and check that it was in order."""
        self.say(StopChild())
        word = self.next_word()
        while not isinstance(word, Leaving):
            word = self.next_word()
        assert self.wait() == 0, self.log.read_text()
        page = self.page()
        assert page.orderly
        assert (page.outbox, page.ring) == ([], [])

    def wait(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def page(self) -> PageContents:
        page = read_page(self.config.page)
        assert isinstance(page, PageContents), page
        return page

    def close_pipe(self) -> None:
        self._pipe.close()

    def end(self) -> None:
        self._over.set()
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        self._pipe.close()
        self._stamper.join(PATIENCE_SECONDS)


class Site:
    """A broker in a thread, children, and an app that sends to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[Child] = []
        self.gate = folder / "gate"
        self.start_broker("tcp://127.0.0.1:0")
        app.conf.broker_url = self.server.address

    def start_broker(self, address: str) -> None:
        self.server = BrokerServer([address], MemoryStore(), BrokerSettings(), "b", data_folder=self.folder)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        assert self.server.wait_until_bound(PATIENCE_SECONDS)

    def stop_broker(self) -> None:
        self.server.stop()
        self.thread.join(PATIENCE_SECONDS)

    def child(self, **options: Any) -> Child:
        child = Child(self.folder, self.server.address, **options)
        self.children.append(child)
        return child

    def open_gate(self) -> None:
        self.gate.touch()

    def end(self) -> None:
        for child in self.children:
            child.end()
        app.sender.close()
        self.stop_broker()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    site = Site(tmp_path)
    yield site
    site.end()


POOLS = [("prefork", 1), ("solo", 1), ("threads", 3), ("asyncio", 3)]


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_child_runs_what_comes_and_stops_in_order(site: Site, pool: str, slots: int) -> None:
    child = site.child(pool=pool, slots=slots).wait_until_ready()
    assert child_app.add.delay(2, 3).get(timeout=PATIENCE_SECONDS) == 5
    with pytest.raises(KeyError, match="missing"):
        child_app.fail.delay().get(timeout=PATIENCE_SECONDS)
    assert child_app.again.delay().get(timeout=PATIENCE_SECONDS) == 2
    results = child_app.add.send_many([(n, 1) for n in range(300)])
    assert [result.get(timeout=PATIENCE_SECONDS) for result in results] == [n + 1 for n in range(300)]
    child.stop()


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_soft_limit_is_raised_in_the_body(site: Site, pool: str, slots: int) -> None:
    site.child(pool=pool, slots=slots).wait_until_ready()
    result = child_app.loop_until_soft_limit.delay()
    assert result.get(timeout=PATIENCE_SECONDS) == SoftTimeLimitExceeded.__name__
    waiting = child_app.wait_until_interrupted.apply_async(soft_time_limit=0.2)
    assert waiting.get(timeout=PATIENCE_SECONDS) == SoftTimeLimitExceeded.__name__
    assert child_app.add.delay(2, 3).get(timeout=PATIENCE_SECONDS) == 5


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_sigusr1_from_outside_is_a_soft_limit(site: Site, pool: str, slots: int) -> None:
    child = site.child(pool=pool, slots=slots).wait_until_ready()
    result = child_app.nap.delay(30) if pool == "prefork" else child_app.wait_until_interrupted.delay()
    eventually(lambda: child.page().ring)
    # The mark stands before the body's first line, and the signal counts only inside.
    threading.Event().wait(0.1)
    child.process.send_signal(signal.SIGUSR1)
    if pool == "prefork":
        with pytest.raises(SoftTimeLimitExceeded):
            result.get(timeout=PATIENCE_SECONDS)
    else:
        assert result.get(timeout=PATIENCE_SECONDS) == SoftTimeLimitExceeded.__name__


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_s15_sys_exit_ends_the_child_with_its_code_and_shows_who_did_it(site: Site, pool: str, slots: int) -> None:
    child = site.child(pool=pool, slots=slots).wait_until_ready()
    child_app.leave.delay(7)
    assert child.wait() == 7
    page = child.page()
    assert [entry.finished for entry in page.ring] == [False]
    assert not page.orderly


def test_s15_a_users_sigterm_kills_a_child_and_sigint_does_not(site: Site) -> None:
    child = site.child().wait_until_ready()
    child.process.send_signal(signal.SIGINT)
    assert child_app.add.delay(2, 3).get(timeout=PATIENCE_SECONDS) == 5
    child_app.die.delay(int(signal.SIGTERM))
    assert child.wait() == -signal.SIGTERM
    assert [entry.finished for entry in child.page().ring] == [False]


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_d13_a_body_that_kills_its_process_takes_no_earlier_outcome_with_it(site: Site, pool: str, slots: int) -> None:
    """What ended before is with the broker or in the page; of what had started, only the killer may be open."""
    adding = child_app.add.send_many([(n, 1) for n in range(50)])
    child_app.die.delay(int(signal.SIGKILL))
    child = site.child(pool=pool, slots=slots)
    assert child.wait() == -signal.SIGKILL
    page = child.page()
    open_bodies = [entry for entry in page.ring if not entry.finished]
    assert len(open_bodies) <= slots
    in_page = {outcome.position for settle in page.outbox for outcome in settle.outcomes}
    if slots == 1:
        assert [entry.finished for entry in page.ring] == [False]
        assert sum(result.ready() for result in adding) + len(in_page) >= 50


def test_d5_what_waits_behind_a_long_body_is_given_back_and_runs_elsewhere(site: Site) -> None:
    first = site.child().wait_until_ready()
    for _ in range(3):
        # Enough for the broker to know that naps are short, and for a window that is wider than a slot.
        for result in child_app.nap.send_many([(0,)] * 100):
            result.get(timeout=PATIENCE_SECONDS)
    long = child_app.nap.delay(30)
    eventually(lambda: first.page().ring)
    waiting = child_app.nap.send_many([(0,)] * 20)
    second = site.child().wait_until_ready()
    assert {result.get(timeout=PATIENCE_SECONDS) for result in waiting} == {second.process.pid}
    assert not long.ready()


def test_d5_a_child_with_a_long_body_hears_its_parent(site: Site) -> None:
    child = site.child().wait_until_ready()
    result = child_app.gate.delay()
    eventually(lambda: child.page().ring)
    child.say(StopChild())
    eventually(lambda: child.page().orderly)
    site.open_gate()
    assert result.get(timeout=PATIENCE_SECONDS) == child.process.pid
    assert isinstance(child.next_word(), Leaving)
    assert child.wait() == 0


def test_a_cold_stop_does_not_wait_for_the_body(site: Site) -> None:
    child = site.child().wait_until_ready()
    child_app.nap.delay(60)
    eventually(lambda: child.page().ring)
    child.say(StopChild(cold=True))
    assert child.wait() == 0
    page = child.page()
    assert page.orderly
    assert [entry.finished for entry in page.ring] == [False]


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_hard_limit_is_the_parents_to_keep(site: Site, pool: str, slots: int) -> None:
    child = site.child(pool=pool, slots=slots).wait_until_ready()
    assert child_app.with_hard_limit.delay().get(timeout=PATIENCE_SECONDS) == "in time"
    started = child.next_word()
    assert isinstance(started, BodyStarted)
    assert started.limit == 60 * SECOND
    assert abs(boot_now() - started.at) < 60 * SECOND
    assert child.next_word() == BodyEnded(started.position)


def test_new_default_limits_hold_from_the_next_body_on(site: Site) -> None:
    child = site.child().wait_until_ready()
    child.say(LimitsChanged(time_limit=0, soft_time_limit=SECOND // 5))
    result = child_app.add.delay(1, 1)
    assert result.get(timeout=PATIENCE_SECONDS) == 2
    with pytest.raises(SoftTimeLimitExceeded):
        child_app.nap.delay(30).get(timeout=PATIENCE_SECONDS)


def test_a_state_that_a_body_names_is_seen_while_it_runs(site: Site) -> None:
    site.child().wait_until_ready()
    result = child_app.progress.delay()
    eventually(lambda: result.state == "HALFWAY")
    assert result.info == {"percent": 50}
    site.open_gate()
    assert result.get(timeout=PATIENCE_SECONDS) == "done"


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_s22_a_hook_runs_after_the_state_was_stored(site: Site, pool: str, slots: int) -> None:
    site.child(pool=pool, slots=slots).wait_until_ready()
    assert child_app.hooked.delay().get(timeout=PATIENCE_SECONDS) == 1
    written = site.folder / "gate.hook"
    assert eventually(lambda: written.exists() and written.read_text()) == "SUCCESS True"


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_child_that_leaves_lets_the_hooks_of_its_last_task_come_to_their_end(
    site: Site, pool: str, slots: int
) -> None:
    child = site.child(pool=pool, slots=slots, max_tasks=1).wait_until_ready()
    assert child_app.hooked_slowly.delay().get(timeout=PATIENCE_SECONDS) == 1
    site.open_gate()
    assert child.next_word() == Leaving("max tasks")
    assert child.wait() == 0
    assert (site.folder / "gate.hook").read_text() == "done"


def test_a_body_that_cancels_every_task_of_the_loop_stops_no_other_body(site: Site) -> None:
    child = site.child(pool="asyncio", slots=4).wait_until_ready()
    plain, waiting = child_app.gate.delay(), child_app.wait_until_interrupted.delay()
    eventually(lambda: len(child.page().ring) == 2)
    child_app.cancel_everything.delay().get(timeout=PATIENCE_SECONDS)
    with pytest.raises(Exception, match=r"^$"):
        # It waited in the loop, and was cancelled like anybody there: that is its own end.
        waiting.get(timeout=PATIENCE_SECONDS)
    site.open_gate()
    assert plain.get(timeout=PATIENCE_SECONDS) == child.process.pid
    assert child_app.hooked.delay().get(timeout=PATIENCE_SECONDS) == 1
    child.stop()


def test_d19_nothing_starts_while_the_node_does_not_hear_its_broker(site: Site) -> None:
    child = site.child().wait_until_ready()
    assert child_app.add.delay(1, 1).get(timeout=PATIENCE_SECONDS) == 2
    child.hearing = False
    threading.Event().wait(0.1)
    started = child.page().started
    result = child_app.add.delay(1, 2)
    # A second child could not take it either: it is leased to the first. It must only not be started there.
    for _ in range(50):
        assert child.page().started == started
        threading.Event().wait(0.01)
    child.hearing = True
    assert result.get(timeout=PATIENCE_SECONDS) == 3


def test_a_child_attaches_again_to_a_broker_that_came_back(site: Site) -> None:
    child = site.child().wait_until_ready()
    assert child_app.add.delay(1, 1).get(timeout=PATIENCE_SECONDS) == 2
    address = site.server.address
    site.stop_broker()
    app.sender.close()
    site.start_broker(address)
    assert child_app.add.delay(1, 2).get(timeout=PATIENCE_SECONDS) == 3
    child.stop()


def test_a_child_leaves_after_its_last_task_and_gives_back_the_rest(site: Site) -> None:
    first = site.child(max_tasks=3).wait_until_ready()
    results = child_app.pid.send_many([()] * 5)
    assert first.next_word() == Leaving("max tasks")
    assert first.wait() == 0
    second = site.child().wait_until_ready()
    pids = [result.get(timeout=PATIENCE_SECONDS) for result in results]
    assert sorted(pids) == sorted([first.process.pid] * 3 + [second.process.pid] * 2)


def test_a_child_that_has_grown_too_large_leaves(site: Site) -> None:
    child = site.child(max_memory_kib=1).wait_until_ready()
    assert child_app.add.delay(1, 1).get(timeout=PATIENCE_SECONDS) == 2
    assert child.next_word() == Leaving("max memory")
    assert child.wait() == 0


def test_an_application_that_cannot_be_imported_is_told_to_the_parent(site: Site) -> None:
    child = site.child(app="no_such_module:app")
    word = child.next_word()
    assert isinstance(word, Unusable)
    assert "there is no module 'no_such_module'" in word.reason
    assert word.traceback == ""
    assert child.wait() != 0


def test_a_child_without_a_parent_ends(site: Site) -> None:
    child = site.child().wait_until_ready()
    child.close_pipe()
    assert child.wait() != 0


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_g7_a_child_without_a_parent_ends_nothing_that_runs(site: Site, pool: str, slots: int) -> None:
    child = site.child(pool=pool, slots=slots).wait_until_ready()
    child_app.gate.delay()
    eventually(lambda: child.page().ring)
    child.close_pipe()
    site.open_gate()
    assert child.wait() == EXIT_ABANDONED
    assert child.page().ring == [], "its outcome is in the page, or with the broker"


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_actors_live_in_a_child_of_their_own_and_keep_their_state(site: Site, pool: str, slots: int) -> None:
    child = site.child(pool=pool, slots=slots, kind=int(ChildKind.ACTORS)).wait_until_ready()
    home = app.ref(child_app.Counter, "home")
    for _ in range(3):
        home.tell(child_app.Counter.bump, 2)
    assert home.ask(child_app.Counter.bump).get(timeout=PATIENCE_SECONDS) == 7
    assert app.ref(child_app.Counter, "other").ask("bump").get(timeout=PATIENCE_SECONDS) == 1
    with pytest.raises(ActorFailed) as failed:
        home.ask(child_app.Counter.crash).get(timeout=PATIENCE_SECONDS)
    assert isinstance(failed.value.__cause__, ValueError)
    answers = [home.ask(child_app.Counter.slowly) for _ in range(5)]
    assert [answer.get(timeout=PATIENCE_SECONDS) for answer in answers] == [1, 2, 3, 4, 5]
    child.stop()
