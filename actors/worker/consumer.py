"""The consumer: what a child holds, what it starts next, and what it gives back (spec D5, D11, D12, D19,
D28).

A machine without I/O. `apply(event, now)` takes what happens now and then; the methods under "the hot loop"
are the same kind of state change, made plain so that a body costs little. Its driver reads the clock, marks
the page, numbers and sends.

A delivery is here in one of these states, and leaves by one of the arrows:

    ready     waits, in order of arrival          -> running; given back
    running   its body runs in one runner         -> finished; never given back
    finished  has an outcome, not yet in a Settle -> sent

Nothing is started while

- there is no link, or the broker has not yet said Attached to the list of what is held;
- the child is in doubt (`trust`): its node has not heard the broker, or the child itself was not awake. It
  gives up its link and attaches again without credit; and while its node stays deaf, what it has not started
  is given back, for others to run;
- it is stopping;
- a Settle found no room in the page: its evidence would be overwritten;
- as many outcomes wait as one Settle takes.

A delivery of a lower epoch is ignored; one that this child runs already waits until that run is over.
Messages of one actor run one at a time and in order.

What can never happen: a delivery has two outcomes; one that started is given back; one that was given back
starts; more than `2 * WINDOW_MAX` are ready (the rest is given back at once).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from ...transport.clock import Now
from ...transport.codec import FRAME_BYTES_GOAL
from ...transport.message import Kind, Outcome
from ...transport.verbs import (
    Applied,
    Attach,
    Attached,
    Cancel,
    ChildKind,
    Credit,
    Deliver,
    FromBroker,
    Holding,
    Recall,
    Started,
)
from .events import (
    Batch,
    ConsumerSettings,
    Detached,
    Effect,
    Event,
    Finish,
    GiveBack,
    Held,
    Interrupt,
    LongBodies,
    MarkSettled,
    MemoryMeasured,
    Reattach,
    Received,
    Say,
    Stop,
    Tick,
    Welcomed,
)
from .trust import HEARD_MAX, PAUSE_NOTICED, Trust
from .window import BODY_WEIGHT, LONG_BODY, WINDOW_MAX, Window

#: How long an outcome may wait for more of its kind while bodies are short.
SETTLE_WITHIN = 2_000
#: How long a child that has nothing left to do waits for the broker's last word before it leaves.
LEAVE_PATIENCE = 5_000_000


class Consumer:
    """One child's part of the protocol."""

    def __init__(self, settings: ConsumerSettings) -> None:
        self.settings = settings
        slots = settings.slots
        self.window = Window(slots, slots if settings.kind == ChildKind.QUARANTINE else WINDOW_MAX)
        #: Set once: why the child will leave.
        self.stopping: Stop | None = None
        self._linked = False
        self._attached = False
        self._trust = Trust()
        #: Every runner's body is long: what comes now would wait behind them.
        self._stuck = False
        self._nothing_left_since = 0
        self._left = False
        self._epochs: dict[int, int] = {}
        self._ready: deque[Held] = deque()
        self._running: list[Held | None] = [None] * slots
        self._begun: list[int] = [0] * slots
        #: Deliveries of what runs here already, by position.
        self._again: dict[int, Held] = {}
        #: Actors (by mailbox) whose message runs, and what else waits for them.
        self._actors: dict[str, deque[Held]] = {}
        self._outcomes: list[Outcome] = []
        self._encoded: list[bytes] = []
        self._runners: list[int] = []
        self._outcome_bytes = 0
        self._oldest_outcome = 0
        self._outcomes_goal = 1
        self._done = 0
        self._several = slots > 1
        self._max_tasks = settings.max_tasks
        self._outcomes_max = settings.outcomes_max
        #: Settles that found no place in the page, and those after them: number, whose entries.
        self._unplaced: deque[tuple[int, list[int]]] = deque()
        self._number = 0
        self._applied = 0
        self._closed = True

    # --- the hot loop ---------------------------------------------------------------------------------------

    def next_body(self, boot: int, heard: int, runner: int = 0) -> Held | None:
        """Return what this free runner runs next, or None. `heard`: the stamp in the page.

        None also when nothing may be started: apply a Tick then, and carry out what it says.
        """
        if self._closed or not self._ready or len(self._outcomes) >= self._outcomes_max:
            return None
        if boot - heard > HEARD_MAX:
            self._trust.doubt()
            self._closed = True
            return None
        held: Held | None = self._ready.popleft()
        assert held is not None
        if held.delivery.envelope.kind:
            held = self._next_in_order(held)
            if held is None:
                return None
        self._running[runner] = held
        self._begun[runner] = boot
        if held.expires_at and boot >= held.expires_at:
            held.expired = True
        return held

    def finished(self, outcome: Outcome, encoded: bytes, boot: int, runner: int = 0) -> bool:
        """Take what became of this runner's body, also as it goes on the wire.

        True: send what `take_settle` has now.
        """
        held = self._running[runner]
        assert held is not None, "a runner that ran nothing has an outcome"
        assert held.delivery.position == outcome.position, "an outcome for another delivery than the runner's"
        self._running[runner] = None
        if self._stuck:
            self._stuck = self.window.stuck = False
        # `awake` in place, for each body a call less.
        trust = self._trust
        if boot - trust.awake_at > PAUSE_NOTICED:
            self.awake(boot)
        trust.awake_at = boot
        window = self.window
        weight = BODY_WEIGHT if self._done else 1.0
        window.body += (boot - self._begun[runner] - window.body) * weight
        outcomes = self._outcomes
        if not outcomes:
            self._oldest_outcome = boot
        outcomes.append(outcome)
        self._encoded.append(encoded)
        if self._several:
            self._runners.append(runner)
        self._outcome_bytes += len(encoded)
        if held.delivery.envelope.kind or self._again:
            self._release(held)
        self._done += 1
        if self._done == self._max_tasks:
            self._begin_stop(Stop("max tasks"))
        return (
            not self._ready
            or len(outcomes) >= self._outcomes_goal
            or boot - self._oldest_outcome >= SETTLE_WITHIN
            or self._outcome_bytes >= FRAME_BYTES_GOAL
        )

    def take_settle(self) -> Batch | None:
        """Return the outcomes that wait, for one Settle; None when there are none. Then call `sent`.

        What is more than a frame should hold is left for the next call.
        """
        if not self._outcomes:
            return None
        if self._outcome_bytes > FRAME_BYTES_GOAL and len(self._outcomes) > 1:
            return self._take_part()
        batch = Batch(self._encoded, self._runners)
        self._outcomes = []
        self._encoded = []
        self._runners = []
        self._outcome_bytes = 0
        if self.stopping is None and self._trust.is_whole:
            max_tasks = self.settings.max_tasks
            most = max(1, max_tasks - self._done) if max_tasks else WINDOW_MAX
            batch.credit = self.window.change(most)
            # A quarter of the window at a time, so that there is always something on its way.
            self._outcomes_goal = max(1, min(self.settings.outcomes_max, self.window.told // 4))
        return batch

    def sent(self, number: int, batch: Batch, placed: bool, boot: int) -> list[int] | None:
        """That batch has become Settle `number`; `placed`: the page has it.

        Returns the runners whose entries are to be marked as settled now, one an outcome; None: not yet.
        """
        self.window.settle_sent(number, boot)
        self._number = number
        runners = batch.runners or [0] * len(batch.encoded)
        if placed and not self._unplaced:
            return runners
        # Behind an outcome without a place all wait: a ring is settled from its oldest entry on.
        self._unplaced.append((number, runners))
        self._closed = True
        return None

    def said(self, number: int) -> None:
        """A numbered verb other than a Settle was sent: its answer is waited for before the child leaves."""
        self._number = number

    def awake(self, boot: int) -> None:
        """This process runs at this time. After a long silence it does not trust what it holds."""
        self._trust.awake(boot)
        self._closed = self._closed or not self._trust.is_whole

    # --- what a driver may look at --------------------------------------------------------------------------

    @property
    def attached(self) -> bool:
        """Whether the broker has looked at what is held, on the present link."""
        return self._attached

    @property
    def is_deaf(self) -> bool:
        """Whether only its node's silence keeps it from starting anything."""
        return self._attached and self._trust.waits_for_node

    @property
    def ready(self) -> int:
        """How many deliveries wait here for a runner."""
        return len(self._ready) + len(self._again) + sum(map(len, self._actors.values()))

    @property
    def running(self) -> list[Held]:
        """What runs."""
        return [held for held in self._running if held is not None]

    @property
    def outcomes(self) -> int:
        """How many outcomes wait for a Settle."""
        return len(self._outcomes)

    # --- events ---------------------------------------------------------------------------------------------

    def apply(self, event: Event, now: Now) -> list[Effect]:
        """Take one event; return what the driver must do, in order."""
        effects: list[Effect] = []
        self.awake(now.boot)
        if isinstance(event, Received):
            for verb in event.verbs:
                self._receive(verb, now, effects)
        elif isinstance(event, LongBodies):
            self._long(event.runners, now, effects)
        elif isinstance(event, Welcomed):
            self._welcomed(effects)
        elif isinstance(event, Detached):
            self._linked = self._attached = False
        elif isinstance(event, Tick):
            self._look_at_node(event.heard, now.boot, effects)
        elif isinstance(event, MemoryMeasured):
            if 0 < self.settings.max_memory_kib <= event.kib:
                self._begin_stop(Stop("max memory"))
        else:
            self._begin_stop(event)
        if self._stuck and self._ready and self.stopping is None:
            # It was on its way when the bodies became long, or one of them has lost its lease and counts no more.
            self.window.told = 0
            effects.append(GiveBack.of(self._take_all_ready(), 0))
        if self._trust.take_wish() and self._linked:
            self._linked = self._attached = False
            effects.append(Reattach("this child or its node was out of touch with the broker"))
        if self.stopping is not None:
            self._go_on_stopping(now, effects)
        self._set_closed()
        return effects

    def _receive(self, verb: FromBroker, now: Now, effects: list[Effect]) -> None:
        if type(verb) is Deliver:
            self._deliver(verb, now, effects)
        elif type(verb) is Applied:
            self._applied_up_to(verb.number, now, effects)
        elif type(verb) is Recall:
            self._recall(verb.positions, effects)
        elif type(verb) is Attached:
            self._attached = self._linked
            if self._attached:
                self._trust.confirmed(now.boot)
        elif type(verb) is Cancel:
            self._cancel(verb, effects)

    def _deliver(self, verb: Deliver, now: Now, effects: list[Effect]) -> None:
        epochs = self._epochs
        if verb.epoch < epochs.get(verb.partition, 0):
            # From a broker that has been replaced: its successor leases the messages anew.
            return
        epochs[verb.partition] = verb.epoch
        # Only what was handed out before can be here already.
        again = {one.position for one in verb.deliveries if one.redelivered}
        runs = self._leased_anew(again) if again else again
        room = 2 * WINDOW_MAX - self.ready
        lease, since, boot, ready = verb.lease, verb.since, now.boot, self._ready
        refused: list[Held] = []
        for delivery in verb.deliveries:
            held = Held(delivery, lease, boot + delivery.expires_in if delivery.expires_in else 0, False, since)
            if runs and delivery.position in runs:
                self._again[delivery.position] = held
                continue
            if room <= 0:
                refused.append(held)
                continue
            room -= 1
            ready.append(held)
        if refused:
            effects.append(GiveBack.of(refused, self._credit))

    def _leased_anew(self, positions: set[int]) -> set[int]:
        """Positions that may be here under an older lease: the new one counts. Return those that wait for a run."""
        runs = positions.intersection(held.delivery.position for held in self.running)
        if len(runs) < len(positions):
            self._take_ready(positions - runs)
        return runs

    def _applied_up_to(self, number: int, now: Now, effects: list[Effect]) -> None:
        self._applied = max(self._applied, number)
        self.window.applied(number, now.boot)
        runners: list[int] = []
        while self._unplaced and self._unplaced[0][0] <= number:
            runners += self._unplaced.popleft()[1]
        if runners:
            effects.append(MarkSettled(runners))

    def _recall(self, positions: list[int], effects: list[Effect]) -> None:
        given = self._take_ready(positions) if positions else self._take_all_ready()
        if given:
            effects.append(GiveBack.of(given, self._credit))

    def _cancel(self, verb: Cancel, effects: list[Effect]) -> None:
        for runner, held in enumerate(self._running):
            if held is not None and held.delivery.position == verb.position:
                effects.append(Interrupt(runner, verb.position, verb.how))
                return
        self._recall([verb.position], effects)

    def _long(self, runners: list[int], now: Now, effects: list[Effect]) -> None:
        started = [held.delivery.position for runner in runners if (held := self._running[runner]) is not None]
        if started:
            effects.append(Say(Started(started)))
        stuck = all(
            held is not None and now.boot - self._begun[runner] >= LONG_BODY
            for runner, held in enumerate(self._running)
        )
        # While another runner comes and goes, what waits does not wait for this body.
        if stuck and self.stopping is None:
            self._stuck = True
            told = self.window.told
            self.window.body_is_long()
            given = self._take_all_ready()
            if given:
                effects.append(GiveBack.of(given, self._credit))
            elif told != self.window.told:
                effects.append(Say(Credit(self._credit)))

    def _welcomed(self, effects: list[Effect]) -> None:
        self._linked = True
        self._attached = False
        self._trust.take_wish()
        settings = self.settings
        held = [Holding(one.delivery.position, one.lease, started=False) for one in self._all_ready()]
        held += [Holding(one.delivery.position, one.lease, started=True) for one in self.running]
        held += [Holding(one.position, one.lease, started=True) for one in self._outcomes]
        attach = Attach(
            mailboxes=settings.mailboxes,
            slots=0 if self.stopping else settings.slots,
            window=self._credit,
            kind=settings.kind,
            held=held,
            policies=settings.policies,
            actors=settings.actors,
            bounds=settings.bounds,
        )
        effects.append(Say(attach))

    def _look_at_node(self, heard: int, boot: int, effects: list[Effect]) -> None:
        trust = self._trust
        if trust.look(boot, heard):
            if self._linked and self.stopping is None:  # Also before Attached: the list has asked for nothing.
                effects.append(Say(Credit(self._credit)))
        elif self._attached and trust.is_hopeless(boot) and self.ready:
            effects.append(GiveBack.of(self._take_all_ready(), 0))

    # --- stopping -------------------------------------------------------------------------------------------

    def _begin_stop(self, stop: Stop) -> None:
        if self.stopping is None or (stop.cold and not self.stopping.cold):
            self.stopping = stop
            self._closed = True

    def _go_on_stopping(self, now: Now, effects: list[Effect]) -> None:
        assert self.stopping is not None
        given = self._take_all_ready()
        if given:
            effects.append(GiveBack.of(given, 0))
        elif self.window.told:
            effects.append(Say(Credit(0)))
        self.window.told = 0
        if self._left or (self.running and not self.stopping.cold):
            return
        self._nothing_left_since = self._nothing_left_since or now.boot
        answered = not self._outcomes and not given and self._applied >= self._number
        patience_over = now.boot - self._nothing_left_since >= LEAVE_PATIENCE
        if answered or patience_over or self.stopping.cold:
            self._left = True
            effects.append(Finish(self.stopping.reason))

    # --- small moves ----------------------------------------------------------------------------------------

    @property
    def _credit(self) -> int:
        """How much it asks for: nothing while it would not start it."""
        return self.window.told if self._trust.is_whole else 0

    def _set_closed(self) -> None:
        open_ = self._attached and self._trust.is_whole and self.stopping is None and not self._unplaced
        self._closed = not open_

    def _next_in_order(self, held: Held) -> Held | None:
        """Set aside what is for an actor that is busy; return the first that is not, or None."""
        while held.delivery.envelope.kind == Kind.ACTOR:
            mailbox = held.delivery.mailbox
            waiting = self._actors.get(mailbox)
            if waiting is None:
                self._actors[mailbox] = deque()
                return held
            waiting.append(held)
            if not self._ready:
                return None
            held = self._ready.popleft()
        return held

    def _release(self, held: Held) -> None:
        """What waited for the end of this delivery is ready again, before all that came later."""
        delivery = held.delivery
        if delivery.envelope.kind == Kind.ACTOR:
            self._ready.extendleft(reversed(self._actors.pop(delivery.mailbox, deque())))
        again = self._again.pop(delivery.position, None)
        if again is not None:
            self._ready.appendleft(again)

    def _all_ready(self) -> list[Held]:
        waiting = [held for one in self._actors.values() for held in one]
        return [*self._again.values(), *waiting, *self._ready]

    def _take_all_ready(self) -> list[Held]:
        taken = list(self._all_ready())
        self._ready.clear()
        self._again.clear()
        for waiting in self._actors.values():
            waiting.clear()
        return taken

    def _take_ready(self, positions: Collection[int]) -> list[Held]:
        """Take these away from what is ready; return those that were there."""
        wanted = frozenset(positions)
        taken = [held for held in self._all_ready() if held.delivery.position in wanted]
        if taken:
            for queue in (self._ready, *self._actors.values()):
                kept = [held for held in queue if held.delivery.position not in wanted]
                queue.clear()
                queue.extend(kept)
            for held in taken:
                self._again.pop(held.delivery.position, None)
        return taken

    def _take_part(self) -> Batch:
        """As many of the oldest outcomes as make one frame, and at least one."""
        count = size = 0
        for encoded in self._encoded:
            if count and size + len(encoded) > FRAME_BYTES_GOAL:
                break
            size += len(encoded)
            count += 1
        batch = Batch(self._encoded[:count], self._runners[:count])
        del self._outcomes[:count], self._encoded[:count], self._runners[:count]
        self._outcome_bytes -= size
        return batch
