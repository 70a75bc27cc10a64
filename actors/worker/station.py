"""The station: what every pool of a child stands on, under one lock.

Owns the consumer and the I/O that it asks for: the line to the broker, the page, the pipe to the parent. A pool takes
bodies from it and brings outcomes; whoever holds the lock may do its I/O, in whatever thread. It decides nothing.

Order, for the sake of evidence: an outcome is pending in the page before it is told to the consumer; a Settle is in
the page before it is sent, and only then is what was pending cleared; entries are marked as settled last.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, cast

import msgspec

from ...transport.clock import Now
from ...transport.errors import OperationalError
from ...transport.message import Outcome
from ...transport.page_marks import Page
from ...transport.peer import attachment
from ...transport.requests import FetchState
from ...transport.verbs import Applied, Credit, FromBroker, Op, Progress, Reply, Request, Return, Settle, ToBroker
from .consumer import Consumer
from .control import FromChild, LimitsChanged, StopChild, ToChild
from .events import (
    Detached,
    Effect,
    Event,
    GiveBack,
    Held,
    Interrupt,
    MarkSettled,
    MemoryMeasured,
    Reattach,
    Received,
    Say,
    Stop,
    Tick,
    Welcomed,
)
from .hands import AnyLine, AnyPipe
from .states import Fetches, Told
from .underway import StatesUnderway
from .witness import BodyWitness

#: How long an idle child sleeps at most before it looks at the time.
IDLE_MILLISECONDS: Final = 1_000
#: The same for one that is about to leave, or waits for its node to hear the broker.
HURRIED_MILLISECONDS: Final = 50

_encode: Final = msgspec.msgpack.Encoder().encode
_Raw: Final = msgspec.Raw


def _settle(outcomes: list[Outcome], number: int) -> Settle:
    return Settle(number, outcomes)


class Station:
    """One child's consumer with its hands and ears.

    Only its owner may call it: whoever holds `lock`, or the one thread that has said so with `use`.
    """

    def __init__(
        self,
        consumer: Consumer,
        line: AnyLine,
        page: Page,
        pipe: AnyPipe,
        clock: Callable[[], Now],
    ) -> None:
        self.lock = threading.Lock()
        self.consumer = consumer
        self.page = page
        self.clock = clock
        #: Set once there is nothing left to do: why.
        self.over: str | None = None
        #: The parent has gone, or the broker will not have this session: there is nobody to settle with.
        self.abandoned = False
        #: Every Settle up to this number is committed.
        self.applied = 0
        #: The number of the newest Settle.
        self.settled = 0
        self.interrupt: Callable[[Interrupt], None] = lambda _: None
        self.limits_changed: Callable[[LimitsChanged], None] = lambda _: None
        self.attached: Callable[[], None] = lambda: None
        #: Ends the process while bodies run: they are not waited for.
        self.end_now: Callable[[str], None] = lambda _: None
        #: Writes down which bodies run, where there is a log of events.
        self.witness: BodyWitness | None = None
        self._line = line
        self._pipe = pipe
        self._states = StatesUnderway()
        self._fetches = Fetches()
        self._attachment = line.attachment
        self._do: Callable[[Callable[[], None]], None] = self._do_locked
        self._measures_memory = consumer.settings.max_memory_kib > 0
        self._one_runner = len(page.runners) == 1

    # --- bodies --------------------------------------------------------------------------------------------------

    def next_body(self, boot: int, runner: int = 0) -> Held | None:
        """Take what this runner runs next, and mark it as started; None: nothing may be started now."""
        page = self.page
        held = self.consumer.next_body(boot, page.heard(), runner)
        if held is not None:
            page.runners[runner].started(held.delivery.position, held.lease)
            if self.witness is not None:
                self.witness.started(held)
        return held

    def finished(self, outcome: Outcome, began: int, boot: int, runner: int = 0, *, marked: bool = False) -> None:
        """Take what became of this runner's body; settle if it is time for that.

        `marked`: its runner has marked it as finished.
        """
        page = self.page
        if self.witness is not None:
            self.witness.finished(outcome)
        outcome.runtime = boot - began
        encoded = _encode(outcome)
        page.pend(encoded)
        if not marked:
            page.runners[runner].finished()
        if self.consumer.finished(outcome, encoded, boot, runner):
            self.settle(boot)

    def settle(self, boot: int) -> None:
        """Send every outcome that waits."""
        consumer, page = self.consumer, self.page
        before = self.settled
        while (batch := consumer.take_settle()) is not None:
            outcomes = cast("list[Outcome]", [_Raw(encoded) for encoded in batch.encoded])
            number = self._attachment.add(partial(_settle, outcomes))
            placed = page.put_settle(number, self._attachment.encoded(number))
            marks = consumer.sent(number, batch, placed, boot)
            # What found no place stays among the pending, as far as it fitted there, until it is applied; and with it
            # what came after it.
            if marks is not None and not consumer.outcomes:
                page.clear_pending()
            if marks is not None:
                self._mark_settled(marks)
            if batch.credit is not None:
                self._attachment.say(Credit(batch.credit))
            self.settled = number
        self._line.send()
        if self._measures_memory and self.settled != before:
            # As Celery: the most that the process ever had, which is all that a system tells without a search.
            kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            self.apply(MemoryMeasured(kib))

    # --- for any thread, owner or not ----------------------------------------------------------------------------

    def progress(self, held: Held, result: bytes) -> None:
        """Send a state that a body has named, unless too many are underway."""
        position, lease = held.delivery.position, held.lease

        def send() -> None:
            if self._states.fits(len(result)):
                number = self._say_numbered(lambda number: Progress(number, [position], [lease], [result]))
                self._states.said(number, len(result))
                self._line.send()

        self._do(send)

    def fetch(self, mailbox: str, told: Told) -> None:
        """Ask for the state of this actor, after all that is settled."""

        def ask() -> None:
            if self.over is not None and self.abandoned:
                told.set_exception(OperationalError(f"the broker cannot be asked any more: {self.over}"))
                return
            self.settle(self.clock().boot)
            params = _Raw(_encode(FetchState(mailbox)))
            # A request's answer is no Applied: nobody waits for it before this child leaves.
            number = self._attachment.add(lambda number: Request(number, Op.STATE, params))
            self._fetches.asked(number, told)
            self._line.send()

        self._do(ask)

    def tell_parent(self, word: FromChild) -> None:
        """Send a word to the parent."""
        self._do(lambda: self._pipe.send(word))

    def use(self, do: Callable[[Callable[[], None]], None]) -> None:
        """From now on there is one owner, who does what others ask for through `do`; without it they take the lock."""
        self._do = do

    def _do_locked(self, action: Callable[[], None]) -> None:
        with self.lock:
            action()

    # --- what happens --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to attach."""
        self._line.start()

    def pump(self, timeout_milliseconds: int = 0) -> None:
        """Take in what the broker and the parent have said, after waiting for it so long at most."""
        if timeout_milliseconds:
            self._line.wait(timeout_milliseconds)
        for news in self._line.receive():
            self._hear(news)
        words = self._pipe.receive()
        for word in words:
            self._obey(word)
        if self._pipe.closed:
            # The parent is gone: nobody vouches for this child, and nobody reports it.
            self.over = self.over or "the parent is gone"
            self.abandoned = True
        if self.abandoned:
            self._fetches.give_up(self.over or "")

    def idle(self) -> None:
        """There is nothing to start: settle, look at the time, and wait for something to happen."""
        self.settle(self.clock().boot)
        timeout = self.patience
        self.tick()
        if self.over is None:
            self.pump(min(timeout, self.patience))

    def glance(self) -> None:
        """Take in what has come, without waiting."""
        self.pump()
        self.tick()

    def tick(self) -> None:
        """Let the consumer look at the time, and at when the node has heard the broker."""
        self.apply(Tick(self.page.heard()))

    @property
    def patience(self) -> int:
        """How long (milliseconds) it may wait for something to happen; nobody tells when the node has heard."""
        consumer = self.consumer
        return HURRIED_MILLISECONDS if consumer.is_deaf or consumer.stopping is not None else IDLE_MILLISECONDS

    def apply(self, event: Event) -> None:
        """Tell the consumer, and do what it says."""
        effects = self.consumer.apply(event, self.clock())
        if effects:
            for effect in effects:
                self._carry_out(effect)
            self._line.send()

    def leave(self, reason: str) -> None:
        """Say goodbye. What is in the page is reported by the parent, whether it arrives or not."""
        self._pipe.flush()
        if not self.abandoned:
            self._line.leave(reason)
        self._line.close()

    def _hear(self, news: object) -> None:
        if isinstance(news, attachment.Passed):
            self._pass(news.verbs)
        elif isinstance(news, attachment.Attached):
            self.apply(Welcomed())
        elif isinstance(news, attachment.Detached):
            self.apply(Detached())
        elif isinstance(news, attachment.Refused):
            self.over = self.over or f"the broker refused: {news.reason}"
            self.abandoned = True

    def _pass(self, verbs: Sequence[FromBroker]) -> None:
        for verb in verbs:
            if type(verb) is Applied and verb.number > self.applied:
                self.applied = verb.number
            elif type(verb) is Reply:
                self._fetches.replied(verb)
        self.page.drop_settles(self.applied)
        self._states.applied(self.applied)
        was_attached = self.consumer.attached
        self.apply(Received(verbs))
        if self.consumer.attached and not was_attached:
            if self.consumer.is_deaf:
                # The node may have heard the broker before.
                self.tick()
            self.attached()

    def _obey(self, word: ToChild) -> None:
        if isinstance(word, StopChild):
            # Before anything else: whatever ends this process from now on, it was asked to end.
            self.page.mark_orderly()
            self.apply(Stop("stopped by its node", cold=word.cold))
        else:
            self.limits_changed(word)

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Say):
            self._attachment.say(effect.verb)
        elif isinstance(effect, GiveBack):
            self._say_numbered(lambda number: Return(number, effect.positions, effect.window, effect.leases))
        elif isinstance(effect, Interrupt):
            self.interrupt(effect)
        elif isinstance(effect, MarkSettled):
            self._mark_settled(effect.runners)
            if not self.consumer.outcomes:
                self.page.clear_pending()
        elif isinstance(effect, Reattach):
            self._line.lose(effect.reason)
        else:
            self.page.mark_orderly()
            self.over = effect.reason
            if self.consumer.running:
                self.settle(self.clock().boot)
                self.end_now(effect.reason)

    def _say_numbered(self, make: Callable[[int], ToBroker]) -> int:
        number = self._attachment.add(make)
        self.consumer.said(number)
        return number

    def _mark_settled(self, runners: list[int]) -> None:
        if self._one_runner:
            self.page.runners[0].settled(len(runners))
            return
        for runner in runners:
            self.page.runners[runner].settled()
