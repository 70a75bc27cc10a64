"""The station: the page has what was not acknowledged, whatever finds room in it, and states take no room from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from greenroom.actors.worker.consumer import Consumer
from greenroom.actors.worker.events import ConsumerSettings, Held
from greenroom.actors.worker.io_loop import IoLoop
from greenroom.actors.worker.limits import Deadlines
from greenroom.actors.worker.station import Station
from greenroom.actors.worker.underway import STATES_MAX
from greenroom.transport import verbs
from greenroom.transport.clock import Now
from greenroom.transport.message import Delivery, Envelope, Outcome, State
from greenroom.transport.page import PageContents, read_page
from greenroom.transport.page_marks import Page
from greenroom.transport.peer import attachment
from greenroom.transport.peer.attachment import Attachment, Heard, LinkOpened, Start
from greenroom.transport.verbs import PROTOCOL_VERSION, Applied, Deliver, FromBroker, Role, Welcome
from greenroom.transport.wire.wakeup import Wakeup

BOOT = 1_000_000_000
NOW = Now(BOOT, BOOT)


class Line:
    """A line on which the test says what the broker says; nothing that is sent arrives anywhere."""

    def __init__(self) -> None:
        self.attachment = Attachment(role=Role.CHILD, node="n", session="s/1", addresses=("ipc:///x",))
        self.news: list[Any] = []

    def send(self) -> None:
        self.attachment.flush()

    def start(self) -> None:
        return

    def wait(self, timeout_milliseconds: int) -> list[int]:
        return []

    def receive(self) -> list[Any]:
        news, self.news = self.news, []
        return news


class Pipe:
    """A parent who says nothing."""

    closed = False

    def receive(self) -> Sequence[Any]:
        return ()


class Bench:
    """A station with a page, and a broker that is played."""

    def __init__(self, folder: Path, *, slots: int = 1, outbox_bytes: int = 512 << 10) -> None:
        self.path = str(folder / "1.page")
        page = Page.create(
            self.path, session="s/1", node="n", incarnation=1, runners=slots, heard=BOOT, outbox_bytes=outbox_bytes
        )
        self.line = Line()
        consumer = Consumer(ConsumerSettings(mailboxes=["celery"], slots=slots))
        self.station = Station(consumer, cast("Any", self.line), page, cast("Any", Pipe()), lambda: NOW)
        self.line.attachment.apply(Start(), NOW)
        self.line.attachment.apply(LinkOpened(1), NOW)
        self.say(Welcome(PROTOCOL_VERSION, "b", 1, 0, 1 << 20))
        self.say(verbs.Attached(1))

    def say(self, *said: FromBroker) -> None:
        effects = self.line.attachment.apply(Heard(1, list(said)), NOW)
        self.line.news += [effect for effect in effects if isinstance(effect, attachment.Attached | attachment.Passed)]
        self.station.pump()

    def begin(self, *positions: int) -> list[Held]:
        """Have these delivered and started, each in a runner of its own."""
        deliveries = [
            Delivery(position, Envelope(f"id{position}", "t", "msgpack", b""), "celery") for position in positions
        ]
        self.say(Deliver(0, 1, 7, deliveries))
        started: list[Held] = []
        for runner in range(len(positions)):
            held = self.station.next_body(BOOT, runner)
            assert held is not None
            started.append(held)
        return started

    def end(self, held: Held, runner: int = 0, *, size: int = 0) -> None:
        outcome = Outcome(held.delivery.position, held.lease, int(State.SUCCESS), 0, b"x" * size)
        self.station.finished(outcome, BOOT, BOOT, runner)
        self.station.settle(BOOT)

    def page(self) -> PageContents:
        page = read_page(self.path)
        assert isinstance(page, PageContents), page
        return page

    def in_page(self) -> set[int]:
        return {outcome.position for settle in self.page().outbox for outcome in settle.outcomes}


def test_d14_an_outcome_without_room_in_the_outbox_stays_pending_until_it_is_applied(tmp_path: Path) -> None:
    bench = Bench(tmp_path, slots=3, outbox_bytes=4096)
    first, second, third = bench.begin(1, 2, 3)
    bench.end(first, 0, size=3000)
    bench.end(second, 1, size=3000)
    assert bench.in_page() == {1, 2}
    # The outbox has room again, for the third, and nobody has acknowledged the second.
    bench.say(Applied(1))
    bench.end(third, 2, size=10)
    assert bench.in_page() == {2, 3}
    assert bench.page().ring == []
    bench.say(Applied(3))
    assert bench.in_page() == set()


def test_states_of_bodies_are_dropped_before_they_take_the_room_of_settles(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (held,) = bench.begin(1)
    for _ in range(STATES_MAX + 10):
        bench.station.progress(held, b"half way")
    assert bench.line.attachment.unanswered == STATES_MAX
    bench.end(held)
    bench.say(Applied(STATES_MAX))
    assert bench.line.attachment.unanswered == 1
    bench.station.progress(held, b"half way")
    assert bench.line.attachment.unanswered == 2


def test_g7_a_body_that_is_over_is_not_to_blame_before_its_outcome_is_taken(tmp_path: Path) -> None:
    bench = Bench(tmp_path, slots=2)
    wakeup = Wakeup()
    loop = IoLoop(
        bench.station,
        wakeup,
        Deadlines(lambda _: None, lambda: BOOT),
        lambda: BOOT,
        lambda runner, held: None,
        lambda position: None,
        lambda: None,
    )
    first, _ = bench.begin(1, 2)
    # Its thread says so; the owner's thread cannot run, since the other body keeps it from that.
    loop.ended(0, Outcome(first.delivery.position, first.lease, int(State.SUCCESS)))
    assert [(entry.position, entry.finished) for entry in bench.page().ring] == [(1, True), (2, False)]
