"""The consumer of a child: each rule by name, and a machine that plays a broker against it."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from greenroom.actors.worker.consumer import LEAVE_PATIENCE, SETTLE_WITHIN, Consumer
from greenroom.actors.worker.events import (
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
from greenroom.actors.worker.trust import HEARD_MAX, KEEP_MAX, PAUSE_NOTICED
from greenroom.actors.worker.window import LONG_BODY, WINDOW_MAX, Window
from greenroom.transport.clock import Now
from greenroom.transport.message import Delivery, Envelope, Kind, Outcome, State
from greenroom.transport.verbs import (
    Applied,
    Attach,
    Attached,
    Cancel,
    ChildKind,
    Credit,
    Deliver,
    FromBroker,
    Recall,
    Started,
    TaskPolicy,
)

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Outcome).decode

START = 1_000_000_000


def delivery(
    position: int, *, redelivered: bool = False, expires_in: int = 0, mailbox: str = "celery", kind: int = Kind.TASK
) -> Delivery:
    envelope = Envelope(f"id{position}", "tasks.add", "msgpack", b"", kind=kind)
    return Delivery(position, envelope, mailbox, expires_in=expires_in, redelivered=redelivered)


@dataclass
class Rig:
    """A consumer with a clock and the numbers that an attachment would give."""

    slots: int = 1
    kind: int = ChildKind.POOL
    outcomes_max: int = 256
    max_tasks: int = 0
    max_memory_kib: int = 0
    boot: int = START
    heard: int = START
    number: int = 0
    consumer: Consumer = field(init=False)

    def __post_init__(self) -> None:
        self.consumer = Consumer(
            ConsumerSettings(
                mailboxes=["celery"],
                slots=self.slots,
                kind=self.kind,
                outcomes_max=self.outcomes_max,
                max_tasks=self.max_tasks,
                max_memory_kib=self.max_memory_kib,
                policies=[TaskPolicy("tasks.add", 1)],
                actors=["Counter"],
            )
        )

    def apply(self, event: Event) -> list[Effect]:
        effects = self.consumer.apply(event, Now(self.boot, self.boot))
        for effect in effects:
            if isinstance(effect, GiveBack):
                self.number += 1
                self.consumer.said(self.number)
        return effects

    def tick(self) -> list[Effect]:
        return self.apply(Tick(self.heard))

    def attach(self, *recalled: int) -> Attach:
        [effect] = self.apply(Welcomed())
        assert isinstance(effect, Say)
        assert isinstance(effect.verb, Attach)
        verbs: list[FromBroker] = [Recall([*recalled])] if recalled else []
        self.apply(Received([*verbs, Attached(1)]))
        return effect.verb

    def deliver(self, *deliveries: Delivery | int, lease: int = 1, epoch: int = 1) -> list[Effect]:
        out = [delivery(one) if isinstance(one, int) else one for one in deliveries]
        return self.apply(Received([Deliver(0, epoch, lease, out)]))

    def next(self, runner: int = 0) -> int | None:
        held = self.consumer.next_body(self.boot, self.heard, runner)
        return None if held is None else held.delivery.position

    def finish(self, runner: int = 0, took: int = 10, result: bytes = b"") -> bool:
        held = self.consumer._running[runner]  # pyright: ignore[reportPrivateUsage]
        assert held is not None
        self.boot += took
        self.heard = max(self.heard, self.boot - 1000)
        outcome = Outcome(held.delivery.position, held.lease, State.SUCCESS, took, result)
        return self.consumer.finished(outcome, encode(outcome), self.boot, runner)

    def settle(self, placed: bool = True) -> tuple[Batch, list[int] | None]:
        batch = self.consumer.take_settle()
        assert batch is not None
        self.number += 1
        return batch, self.consumer.sent(self.number, batch, placed, self.boot)

    def applied(self, number: int | None = None) -> list[Effect]:
        return self.apply(Received([Applied(self.number if number is None else number)]))


def attached(**options: int) -> Rig:
    rig = Rig(**options)
    rig.attach()
    return rig


def positions(batch: Batch) -> list[int]:
    return [outcome.position for outcome in outcomes(batch)]


def outcomes(batch: Batch) -> list[Outcome]:
    return [decode(encoded) for encoded in batch.encoded]


def test_deliveries_are_run_in_order_and_settled_when_nothing_waits() -> None:
    rig = attached()
    rig.consumer.window.told = 100
    rig.deliver(1, 2)
    assert rig.next() == 1
    rig.consumer._outcomes_goal = 50  # pyright: ignore[reportPrivateUsage]
    assert not rig.finish()
    assert rig.next() == 2
    assert rig.finish()
    batch, marks = rig.settle()
    assert positions(batch) == [1, 2]
    assert marks == [0, 0]
    assert rig.consumer.take_settle() is None
    assert rig.next() is None


def test_an_outcome_waits_no_longer_than_a_millisecond_for_others() -> None:
    rig = attached()
    rig.consumer._outcomes_goal = 50  # pyright: ignore[reportPrivateUsage]
    rig.deliver(1, 2, 3)
    rig.next()
    assert not rig.finish()
    rig.next()
    assert rig.finish(took=SETTLE_WITHIN)


def test_nothing_starts_before_the_first_welcome_nor_without_a_link() -> None:
    rig = Rig()
    rig.deliver(1)
    assert rig.next() is None
    rig.attach()
    rig.apply(Detached())
    assert rig.next() is None
    rig.attach()
    assert rig.next() == 1


def test_attach_says_what_is_held_and_how_far_it_is() -> None:
    rig = attached(slots=2)
    rig.deliver(1, 2, 3, lease=7)
    rig.next(0)
    rig.next(1)
    rig.finish(0)
    attach = rig.attach()
    assert [(held.position, held.lease, held.started) for held in attach.held] == [
        (3, 7, False),
        (2, 7, True),
        (1, 7, True),
    ]
    assert (attach.slots, attach.window, attach.mailboxes, attach.actors) == (2, 2, ["celery"], ["Counter"])
    assert [policy.name for policy in attach.policies] == ["tasks.add"]


def test_d18_nothing_that_was_held_starts_before_the_broker_has_looked_at_the_list() -> None:
    rig = attached()
    rig.deliver(1, 2, 3)
    rig.next()
    rig.finish()
    rig.apply(Detached())
    [effect] = rig.apply(Welcomed())
    assert isinstance(effect, Say)
    assert rig.next() is None
    assert rig.apply(Received([Recall([2])])) == [GiveBack([2], 1, [1])]
    assert rig.next() is None
    rig.apply(Received([Attached(1)]))
    assert rig.next() == 3


def test_an_attached_that_came_too_late_for_its_link_opens_nothing() -> None:
    rig = attached()
    rig.deliver(1)
    rig.apply(Detached())
    rig.apply(Received([Attached(1)]))
    assert rig.next() is None


def test_d19_a_delivery_of_a_lower_epoch_is_ignored() -> None:
    rig = attached()
    rig.deliver(1, epoch=5)
    assert rig.deliver(2, epoch=4) == []
    assert rig.next() == 1
    rig.finish()
    assert rig.next() is None


def test_d19_nothing_starts_when_the_node_has_not_heard_the_broker() -> None:
    rig = attached()
    rig.deliver(1)
    rig.boot += 2_000_000
    rig.tick()
    rig.heard = rig.boot - HEARD_MAX
    assert rig.next() == 1, "exactly the limit is allowed"
    rig.finish()
    rig.deliver(2)
    rig.heard = rig.boot - HEARD_MAX - 1
    assert rig.next() is None
    assert [type(effect) for effect in rig.tick()] == [Reattach]
    # The node hears again, but what is held may have been given to others meanwhile.
    rig.heard = rig.boot
    assert rig.next() is None
    rig.apply(Detached())
    assert rig.attach().window == 0
    assert rig.tick() == [Say(Credit(1))]
    assert rig.next() == 2


def deaf() -> Rig:
    """A child that holds something, whose node has not heard the broker."""
    rig = attached()
    rig.deliver(1)
    rig.heard = rig.boot - HEARD_MAX - 1
    assert rig.next() is None
    assert [type(effect) for effect in rig.tick()] == [Reattach]
    rig.apply(Detached())
    assert rig.attach().window == 0
    return rig


def test_d19_a_child_with_a_deaf_node_attaches_again_only_once() -> None:
    rig = deaf()
    assert rig.next() is None
    assert rig.tick() == []
    assert rig.consumer.is_deaf
    rig.heard = rig.boot
    assert rig.next() is None
    assert rig.tick() == [Say(Credit(1))]
    assert not rig.consumer.is_deaf
    assert rig.next() == 1


def test_d19_a_child_whose_node_hears_again_while_its_list_is_on_the_way_asks_for_credit() -> None:
    rig = deaf()
    rig.apply(Detached())
    rig.apply(Welcomed())
    rig.heard = rig.boot
    assert rig.tick() == [Say(Credit(1))]


def test_d19_a_child_whose_node_stays_deaf_gives_back_what_it_holds_and_asks_for_nothing() -> None:
    rig = deaf()
    rig.boot += KEEP_MAX - 1
    assert rig.tick() == []
    rig.boot += 1
    assert rig.tick() == [GiveBack([1], 0, [1])]
    assert rig.deliver(2) == []
    assert rig.apply(Received([Recall([2])])) == [GiveBack([2], 0, [1])]
    rig.heard = rig.boot
    assert rig.tick() == [Say(Credit(1))]
    assert rig.tick() == []


def test_d19_a_child_with_nothing_to_do_asks_for_nothing_while_its_node_is_deaf() -> None:
    rig = attached()
    rig.heard = rig.boot - HEARD_MAX - 1
    assert [type(effect) for effect in rig.tick()] == [Reattach]


def test_d19_a_settle_renews_no_credit_while_the_node_is_deaf() -> None:
    rig = attached()
    rig.deliver(1)
    rig.next()
    rig.heard = rig.boot - HEARD_MAX - 1
    rig.tick()
    rig.apply(Detached())
    rig.attach()
    rig.consumer.window.body, rig.consumer.window.told = 1.0, 500
    rig.finish()
    rig.heard = rig.boot - HEARD_MAX - 1
    assert rig.settle()[0].credit is None


def test_d19_a_child_that_was_stopped_for_a_minute_wakes_up_harmless() -> None:
    rig = attached()
    rig.deliver(1, 2)
    rig.next()
    rig.boot += 60_000_000
    rig.heard = rig.boot
    rig.finish()
    assert rig.next() is None, "its node was awake, but its own link may be gone"
    assert [type(effect) for effect in rig.tick()] == [Reattach]
    rig.apply(Detached())
    rig.apply(Welcomed())
    assert rig.next() is None
    rig.apply(Received([Recall([2]), Attached(1)]))
    assert rig.next() is None


def test_d19_a_pause_that_is_just_short_enough_changes_nothing() -> None:
    rig = attached()
    rig.deliver(1)
    rig.boot += PAUSE_NOTICED
    rig.heard = rig.boot
    assert rig.tick() == []
    assert rig.next() == 1


def test_d28_a_delivery_that_expires_while_it_waits_is_judged_again_at_its_start() -> None:
    rig = attached()
    rig.deliver(delivery(1, expires_in=100), delivery(2, expires_in=101))
    rig.boot += 100
    held = rig.consumer.next_body(rig.boot, rig.heard)
    assert held is not None
    assert held.expired
    rig.finish(took=0)
    held = rig.consumer.next_body(rig.boot, rig.heard)
    assert held is not None
    assert not held.expired


def test_d12_a_recall_is_answered_with_what_has_not_started() -> None:
    rig = attached()
    rig.deliver(1, 2, 3, 4)
    assert rig.next() == 1
    assert rig.apply(Received([Recall([1, 3])])) == [GiveBack([3], 1, [1])]
    assert rig.apply(Received([Recall([1])])) == []
    assert rig.apply(Received([Recall([])])) == [GiveBack([2, 4], 1, [1, 1])]
    rig.finish()
    assert rig.next() is None


def test_what_goes_back_is_named_with_the_lease_under_which_it_was_held() -> None:
    # The broker may have handed out one of them anew: that one stays with the child.
    rig = Rig()
    rig.attach()
    rig.deliver(1, 2, lease=5)
    rig.deliver(delivery(2, redelivered=True), 3, lease=6)
    assert rig.apply(Received([Recall([])])) == [GiveBack([1, 2, 3], 1, [5, 6, 6])]


def test_d5_a_long_body_gives_back_everything_that_waits_behind_it() -> None:
    rig = attached()
    rig.consumer.window.told = 64
    rig.deliver(1, 2, 3)
    rig.next()
    rig.boot += LONG_BODY
    assert rig.apply(LongBodies([0])) == [Say(Started([1])), GiveBack([2, 3], 1, [1, 1])]
    assert rig.consumer.window.told == 1


def test_d5_while_a_body_is_long_whatever_else_arrives_is_given_back_at_once() -> None:
    rig = attached()
    rig.consumer.window.told = 64
    rig.deliver(1)
    rig.next()
    rig.boot += LONG_BODY
    assert rig.apply(LongBodies([0])) == [Say(Started([1])), Say(Credit(1))]
    # Without credit: a broker that does not know of the body would hand it out again at once, for as long as it runs.
    assert rig.deliver(2, 3) == [GiveBack([2, 3], 0, [1, 1])]
    rig.finish()
    batch = rig.consumer.take_settle()
    assert batch is not None
    assert batch.credit == 1
    assert rig.deliver(4) == []
    assert rig.next() == 4


def test_d5_while_another_runner_comes_and_goes_nothing_is_given_back() -> None:
    rig = attached(slots=2)
    rig.deliver(1, 2, 3)
    rig.next(0)
    rig.boot += LONG_BODY
    assert rig.apply(LongBodies([0])) == [Say(Started([1]))]
    rig.next(1)
    assert rig.apply(LongBodies([0])) == [Say(Started([1]))]
    rig.boot += LONG_BODY
    assert rig.apply(LongBodies([1])) == [Say(Started([2])), GiveBack([3], 2, [1])]


def test_d11_short_bodies_widen_the_window_and_credit_is_told_only_when_it_changed_by_a_quarter() -> None:
    rig = attached()
    told: list[int] = []
    for position in range(1, 200):
        rig.deliver(position)
        rig.next()
        rig.finish(took=100)
        batch, _ = rig.settle()
        if batch.credit is not None:
            told.append(batch.credit)
        rig.boot += 5000
        rig.heard = rig.boot
        rig.applied()
    # (10 ms + 5 ms on the way) of bodies of 0.1 ms.
    assert told == [150]


def test_d11_the_window_is_bounded() -> None:
    window = Window(1)
    window.settle_sent(1, 0)
    window.applied(1, 1_000_000)
    window.body = float(1)
    assert window.wanted() == WINDOW_MAX
    assert window.change(5) == 5
    assert window.change(5) is None


def test_d11_long_bodies_get_their_slots_and_nothing_more() -> None:
    window = Window(4)
    window.settle_sent(1, 0)
    window.applied(1, 1_000_000)
    window.body = float(LONG_BODY)
    assert window.wanted() == 4
    window.body = float(0)
    assert window.wanted() > 4
    window.body_is_long()
    assert window.wanted() == 4


def test_d11_a_quarter_is_enough_and_less_is_not() -> None:
    window = Window(1)
    window.settle_sent(1, 0)
    window.applied(1, 1_000_000)
    window.body = float(1)
    window.told = 100
    assert window.change(124) is None
    assert window.change(76) is None
    assert window.change(75) == 75


def test_d25_a_quarantine_child_never_holds_more_than_its_slot() -> None:
    rig = attached(kind=ChildKind.QUARANTINE)
    rig.deliver(1)
    rig.next()
    rig.finish(took=1)
    rig.settle()
    rig.boot += 5000
    rig.applied()
    assert rig.consumer.window.wanted() == 1


def test_more_than_the_broker_may_give_is_given_back_at_once() -> None:
    rig = attached()
    rig.deliver(*range(1, 2 * WINDOW_MAX))
    assert rig.deliver(5001, 5002) == [GiveBack([5002], 1, [1])]
    assert rig.consumer.ready == 2 * WINDOW_MAX


def test_what_runs_here_already_waits_for_the_end_of_that_run() -> None:
    rig = attached(slots=2)
    rig.deliver(1, lease=1)
    rig.next(0)
    rig.deliver(delivery(1, redelivered=True), 2, lease=2)
    assert rig.next(1) == 2
    rig.finish(0)
    assert rig.next(0) == 1
    rig.finish(0)
    batch, _ = rig.settle()
    assert [(outcome.position, outcome.lease) for outcome in outcomes(batch)] == [(1, 1), (1, 2)]


def test_a_newer_lease_replaces_an_older_one_that_waits() -> None:
    rig = attached()
    rig.deliver(1, lease=1)
    rig.deliver(delivery(1, redelivered=True), lease=2)
    held = rig.consumer.next_body(rig.boot, rig.heard)
    assert held is not None
    assert held.lease == 2
    rig.finish()
    assert rig.next() is None


def test_a_cancel_interrupts_what_runs_and_gives_back_what_waits() -> None:
    rig = attached()
    rig.deliver(1, 2)
    rig.next()
    assert rig.apply(Received([Cancel(1, 15), Cancel(2, 0), Cancel(3, 0)])) == [
        Interrupt(0, 1, 15),
        GiveBack([2], 1, [1]),
    ]


def test_messages_of_one_actor_run_one_at_a_time_and_in_order() -> None:
    rig = attached(slots=3)
    one, other = "actor:Counter:a", "actor:Counter:b"
    rig.deliver(
        *(delivery(n, mailbox=one, kind=Kind.ACTOR) for n in (1, 2, 3)),
        delivery(4, mailbox=other, kind=Kind.ACTOR),
    )
    assert rig.next(0) == 1
    assert rig.next(1) == 4
    assert rig.next(2) is None
    assert rig.consumer.ready == 2
    rig.deliver(delivery(5, mailbox=one, kind=Kind.ACTOR))
    assert rig.next(2) is None
    rig.finish(0)
    assert rig.next(0) == 2
    assert rig.next(2) is None
    assert rig.apply(Received([Recall([3])])) == [GiveBack([3], 3, [1])]
    rig.finish(0)
    assert rig.next(0) == 5


def test_d14_after_a_settle_without_a_place_nothing_starts_until_it_is_applied() -> None:
    rig = attached(slots=2)
    rig.deliver(1, 2, 3)
    rig.next(0)
    rig.next(1)
    rig.finish(0)
    _, marks = rig.settle(placed=False)
    assert marks is None
    assert rig.next(0) is None
    rig.finish(1)
    _, marks = rig.settle(placed=True)
    assert marks is None, "its entry stands behind one that has no outcome in the outbox"
    assert rig.applied(1) == [MarkSettled([0])]
    assert rig.next(0) is None
    assert rig.applied(2) == [MarkSettled([1])]
    assert rig.next(0) == 3


def test_as_many_outcomes_as_a_settle_takes_stop_the_runners() -> None:
    rig = attached(outcomes_max=2)
    rig.deliver(1, 2, 3)
    for _ in range(2):
        rig.next()
        rig.finish()
    assert rig.next() is None
    rig.settle()
    assert rig.next() == 3


def test_large_outcomes_are_parted_into_settles_of_one_frame() -> None:
    rig = attached()
    rig.deliver(1, 2, 3)
    for size in (200_000, 100_000, 600_000):
        rig.next()
        rig.finish(result=bytes(size))
    sizes = [positions(rig.settle()[0]) for _ in range(3)]
    assert sizes == [[1], [2], [3]]
    assert rig.consumer.take_settle() is None


def test_a_warm_stop_gives_back_finishes_settles_and_leaves() -> None:
    rig = attached()
    rig.deliver(1, 2)
    rig.next()
    assert rig.apply(Stop("drain")) == [GiveBack([2], 0, [1])]
    assert rig.next() is None
    assert rig.deliver(3) == [GiveBack([3], 0, [1])]
    rig.finish()
    assert rig.tick() == []
    rig.settle()
    assert rig.tick() == []
    assert rig.applied() == [Finish("drain")]
    assert rig.tick() == []


def test_an_idle_child_says_that_it_takes_no_more_and_leaves() -> None:
    rig = attached()
    assert rig.apply(Stop("drain")) == [Say(Credit(0)), Finish("drain")]


def test_a_stopping_child_leaves_without_an_answer_after_a_while() -> None:
    rig = attached()
    rig.deliver(1)
    rig.next()
    rig.finish()
    rig.settle()
    rig.apply(Stop("drain"))
    rig.boot += LEAVE_PATIENCE - 1
    assert [effect for effect in rig.tick() if isinstance(effect, Finish)] == []
    rig.boot += 1
    assert rig.tick() == [Finish("drain")]


def test_a_cold_stop_does_not_wait_for_what_runs() -> None:
    rig = attached()
    rig.deliver(1, 2)
    rig.next()
    rig.apply(Stop("drain"))
    assert rig.apply(Stop("quit", cold=True)) == [Finish("quit")]


def test_a_child_leaves_after_its_last_task() -> None:
    rig = attached(max_tasks=2)
    rig.deliver(1, 2, 3)
    rig.next()
    rig.finish()
    rig.next()
    assert rig.finish()
    assert rig.next() is None
    rig.settle()
    assert rig.tick() == [GiveBack([3], 0, [1])]
    assert rig.applied() == [Finish("max tasks")]


@pytest.mark.parametrize(("kib", "leaves"), [(999, False), (1000, True)])
def test_a_child_leaves_when_it_has_grown_to_its_limit(kib: int, leaves: bool) -> None:
    rig = attached(max_memory_kib=1000)
    assert (Finish("max memory") in rig.apply(MemoryMeasured(kib))) is leaves


@dataclass
class Copy:
    """The broker's view of one delivery: in exactly one of the lists of the model."""

    position: int
    lease: int


class ConsumerMachine(RuleBasedStateMachine):
    """A broker that loses links, forgets sessions, recalls and cancels, against one child.

    The model knows, of each (position, lease): with the child, started, settled or given back.
    """

    @initialize(slots=st.integers(1, 3), outcomes_max=st.integers(1, 4))
    def begin(self, slots: int, outcomes_max: int) -> None:
        self.rig = Rig(slots=slots, outcomes_max=outcomes_max)
        self.slots = slots
        self.linked = False
        self.attached = False
        self.position = 0
        self.lease = 0
        self.epoch = 3
        self.epoch_seen = 0
        self.kept: dict[tuple[int, int], Delivery] = {}
        self.started: dict[tuple[int, int], int] = {}
        self.running: dict[int, tuple[int, int]] = {}
        self.over: dict[tuple[int, int], str] = {}
        self.unapplied: list[int] = []
        self.unplaced: list[int] = []
        self.stopping = False

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, GiveBack):
                for key in zip(effect.positions, effect.leases, strict=True):
                    assert key in self.kept, f"{key} was given back, and was not there"
                    assert key not in self.started, f"{key} was given back, and has started"
                    del self.kept[key]
                    self.over[key] = "given back"
                self.unapplied.append(self.rig.number)
            elif isinstance(effect, Say) and isinstance(effect.verb, Attach):
                said = {(held.position, held.lease): held.started for held in effect.verb.held}
                assert len(said) == len(effect.verb.held)
                assert said == {key: key in self.started for key in self.kept}
            elif isinstance(effect, Reattach):
                self.linked = self.attached = False
                self.rig.apply(Detached())
            elif isinstance(effect, Finish):
                assert not self.running

    @precondition(lambda self: not self.linked)
    @rule()
    def welcome(self) -> None:
        self.epoch += 1
        self.linked = True
        self.attached = False
        self.take(self.rig.apply(Welcomed()))

    @precondition(lambda self: self.linked and not self.attached)
    @rule(data=st.data())
    def attach(self, data: st.DataObject) -> None:
        waiting = sorted({key[0] for key in self.kept if key not in self.started})
        lost = data.draw(st.lists(st.sampled_from(waiting), unique=True)) if waiting else []
        verbs: list[FromBroker] = [Recall(lost)] if lost else []
        self.attached = True
        self.take(self.rig.apply(Received([*verbs, Attached(self.epoch)])))

    @precondition(lambda self: self.linked)
    @rule()
    def lose_link(self) -> None:
        self.linked = self.attached = False
        self.take(self.rig.apply(Detached()))

    @precondition(lambda self: self.linked)
    @rule(count=st.integers(1, 5), actors=st.booleans(), expires_in=st.sampled_from([0, 50]))
    def deliver(self, count: int, actors: bool, expires_in: int) -> None:
        self.lease += 1
        out: list[Delivery] = []
        for n in range(count):
            self.position += 1
            one = delivery(self.position, expires_in=expires_in)
            if actors:
                one = delivery(self.position, mailbox=f"actor:C:{n % 2}", kind=Kind.ACTOR)
            out.append(one)
            self.kept[self.position, self.lease] = one
        self.epoch_seen = self.epoch
        self.take(self.rig.deliver(*out, lease=self.lease, epoch=self.epoch))

    @precondition(lambda self: self.linked and bool(self.kept))
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(sorted(self.kept)))
        if sum(key[0] == old[0] for key in self.kept) > 1 or old in self.settled_not_applied():
            return
        self.lease += 1
        one = self.kept[old]
        again = delivery(old[0], redelivered=True, mailbox=one.mailbox, kind=one.envelope.kind)
        if old not in self.started:
            del self.kept[old]
            self.over[old] = "replaced"
        self.kept[old[0], self.lease] = again
        self.epoch_seen = self.epoch
        self.take(self.rig.deliver(again, lease=self.lease, epoch=self.epoch))

    def settled_not_applied(self) -> list[tuple[int, int]]:
        return [key for key in self.started if key not in self.running.values()]

    @precondition(lambda self: self.linked and self.epoch_seen > 0)
    @rule(older=st.integers(1, 3))
    def deliver_from_the_past(self, older: int) -> None:
        assert self.rig.deliver(self.position + 1000, epoch=self.epoch_seen - older) == []

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        free = [runner for runner in range(self.slots) if runner not in self.running]
        if not free:
            return
        runner = data.draw(st.sampled_from(free))
        held = self.rig.consumer.next_body(self.rig.boot, self.rig.heard, runner)
        if held is None:
            self.take(self.rig.tick())
            return
        key = (held.delivery.position, held.lease)
        assert self.attached
        assert not self.stopping
        assert not self.unplaced
        assert key in self.kept
        assert key not in self.started, "started twice"
        assert self.rig.boot - self.rig.heard <= HEARD_MAX
        assert all(held.delivery.position != other for other, _ in self.running.values())
        if held.delivery.envelope.kind == Kind.ACTOR:
            mailboxes = [self.kept[other].mailbox for other in self.running.values()]
            assert held.delivery.mailbox not in mailboxes
            earlier = [
                other
                for other, one in self.kept.items()
                if one.mailbox == held.delivery.mailbox and other < key and other not in self.started
            ]
            assert not [other for other in earlier if not self.kept[other].redelivered]
        assert held.expired == (0 < held.expires_at <= self.rig.boot)
        self.started[key] = runner
        self.running[runner] = key

    @precondition(lambda self: bool(self.running))
    @rule(data=st.data(), took=st.integers(0, 2000))
    def finish(self, data: st.DataObject, took: int) -> None:
        runner = data.draw(st.sampled_from(sorted(self.running)))
        due = self.rig.finish(runner, took)
        del self.running[runner]
        if not self.rig.consumer.ready:
            assert due

    @rule(placed=st.booleans())
    def settle(self, placed: bool) -> None:
        batch = self.rig.consumer.take_settle()
        if batch is None:
            return
        assert 0 < len(batch.encoded) <= self.rig.outcomes_max + self.slots
        self.rig.number += 1
        marks = self.rig.consumer.sent(self.rig.number, batch, placed, self.rig.boot)
        runners = [0] * len(batch.encoded) if not batch.runners else batch.runners
        if not placed or self.unplaced:
            self.unplaced.append(self.rig.number)
            assert marks is None
        else:
            assert marks == runners
        self.unapplied.append(self.rig.number)
        for outcome, runner in zip(outcomes(batch), runners, strict=True):
            key = (outcome.position, outcome.lease)
            assert self.started.pop(key) == runner
            assert key not in self.over, "settled twice, or given back and settled"
            del self.kept[key]
            self.over[key] = "settled"

    @precondition(lambda self: self.linked and bool(self.unapplied))
    @rule(data=st.data())
    def apply_some(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.unapplied))
        self.unapplied = [other for other in self.unapplied if other > number]
        self.unplaced = [other for other in self.unplaced if other > number]
        self.take(self.rig.applied(number))

    @precondition(lambda self: self.linked)
    @rule(data=st.data())
    def recall(self, data: st.DataObject) -> None:
        wanted = data.draw(st.lists(st.integers(1, self.position + 1), max_size=4, unique=True))
        self.take(self.rig.apply(Received([Recall(wanted)])))
        for key in self.kept:
            assert key[0] not in wanted or key in self.started or self.kept[key].redelivered

    @precondition(lambda self: self.linked and self.position > 0)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        position = data.draw(st.integers(1, self.position))
        effects = self.rig.apply(Received([Cancel(position)]))
        if any(key[0] == position for key in self.running.values()):
            assert [type(effect) for effect in effects if not isinstance(effect, Finish | Say)] == [Interrupt]
        self.take(effects)

    @rule(microseconds=st.sampled_from([1, 100, LONG_BODY, 1_000_000]))
    def time_passes(self, microseconds: int) -> None:
        self.rig.boot += microseconds
        self.take(self.rig.tick())

    @precondition(lambda self: bool(self.running))
    @rule()
    def long_bodies(self) -> None:
        self.take(self.rig.apply(LongBodies(sorted(self.running))))

    @rule()
    def node_hears(self) -> None:
        self.rig.heard = self.rig.boot

    @precondition(lambda self: not self.stopping and self.position > 20)
    @rule()
    def stop(self) -> None:
        self.stopping = True
        self.take(self.rig.apply(Stop("drain")))

    @invariant()
    def every_delivery_is_in_one_place(self) -> None:
        if not hasattr(self, "rig"):
            return
        consumer = self.rig.consumer
        ready = [key for key in self.kept if key not in self.started]
        assert consumer.ready == len(ready)
        assert len(consumer.running) == len(self.running)
        assert consumer.outcomes == len(self.started) - len(self.running)
        assert 0 <= consumer.window.told <= WINDOW_MAX
        assert not any(key in self.over for key in self.kept)


TestConsumerMachine = ConsumerMachine.TestCase
TestConsumerMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_an_outcome_for_another_delivery_is_refused_and_changes_nothing() -> None:
    rig = attached()
    rig.deliver(1)
    rig.next()
    with pytest.raises(AssertionError, match="another delivery"):
        rig.consumer.finished(Outcome(2, 1, State.SUCCESS), b"", rig.boot)
    assert [held.delivery.position for held in rig.consumer.running] == [1]
    assert isinstance(rig.consumer.running[0], Held)
