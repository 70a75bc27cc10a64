"""Ready messages meet credit: who gets what, in which order, and what it costs (spec D11, D12, D25, G9, G10)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from greenroom.transport.broker.events import Effect, Event, Send
from greenroom.transport.broker.settings import BrokerSettings
from greenroom.transport.clock import Now
from greenroom.transport.message import Flag, More, State
from greenroom.transport.requests import PurgeMailbox
from greenroom.transport.sim.audit import audit
from greenroom.transport.sim.cluster import SECOND, Cluster, said
from greenroom.transport.sim.peers import SimChild
from greenroom.transport.verbs import ChildKind, Op, Spawn


def ids_held(child: SimChild) -> list[str]:
    child.read()
    return [body.delivery.envelope.id for body in child.held.values()]


def ids(count: int, prefix: str = "id") -> list[str]:
    return [f"{prefix}{number:03}" for number in range(count)]


# --- what a commit sets free ---------------------------------------------------------------------------------------


def test_after_a_commit_they_are_spoken_to_first_who_can_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    worker = cluster.child()
    sim = cluster.sim
    spoken: list[str] = []
    apply = sim.broker.apply

    def noted(event: Event, now: Now) -> list[Effect]:
        effects = apply(event, now)
        spoken.extend(
            f"{type(verb).__name__} to {'child' if effect.link == worker.link else 'client'}"
            for effect in effects
            if isinstance(effect, Send)
            for verb in effect.verbs
        )
        return effects

    monkeypatch.setattr(sim.broker, "apply", noted)
    cluster.publish("a", flags=int(Flag.WATCHED))
    assert spoken == ["Deliver to child", "Confirm to client"]
    spoken.clear()
    cluster.start(worker)
    cluster.settle(worker)
    assert [words for words in spoken if "Ping" not in words] == ["Results to client", "Applied to child"]


# --- credit ------------------------------------------------------------------------------------------------------


def test_d11_a_task_type_that_was_never_measured_gets_free_slots_and_nothing_more() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=50)
    cluster.publish(*ids(20))
    assert len(ids_held(worker)) == 2


def test_d11_a_short_task_type_is_claimed_ahead_up_to_the_window_and_a_long_one_is_not() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=1, window=10)
    cluster.publish("warm", name="short")
    cluster.run(worker)
    cluster.publish("slow", name="long")
    cluster.start(worker)
    cluster.settle(worker, runtime=50_000)
    cluster.publish(*ids(20), name="short")
    assert len(ids_held(worker)) == 10
    cluster.run(worker)
    cluster.publish(*ids(20, "long"), name="long")
    assert len(ids_held(worker)) == 1


def test_d11_a_long_message_at_the_head_is_not_passed_by_short_ones() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=1, window=10)
    cluster.publish("warm", name="short")
    cluster.run(worker)
    cluster.publish("first", "second", name="long")
    cluster.publish(*ids(3), name="short")
    assert ids_held(worker) == ["first"]
    assert cluster.run(worker)[:2] == ["first", "second"]


def test_d11_ready_messages_are_shared_among_those_with_room() -> None:
    cluster = Cluster()
    workers = [cluster.child(slots=10, window=10) for _ in range(3)]
    cluster.publish(*ids(12))
    assert [len(ids_held(worker)) for worker in workers] == [4, 4, 4]


def test_d12_mailboxes_that_share_a_consumer_take_turns() -> None:
    cluster = Cluster()
    worker = cluster.child("deep", "other", "third")
    cluster.publish(*ids(50, "deep"), mailbox="deep")
    cluster.publish(*ids(3, "other"), mailbox="other")
    cluster.publish(*ids(3, "third"), mailbox="third")
    ran: list[str] = []
    for _ in range(11):
        cluster.start(worker)
        ran += cluster.settle(worker)
    # The first of the deep one was out before the others came.
    assert sorted(id[:5] for id in ran[2:11]) == ["deep0"] * 3 + ["other"] * 3 + ["third"] * 3


# --- order -------------------------------------------------------------------------------------------------------


def test_g9_what_comes_back_goes_to_the_front_in_its_old_order_whoever_held_it() -> None:
    cluster = Cluster()
    workers = [cluster.child(slots=5, window=5) for _ in range(2)]
    cluster.publish(*ids(14))
    held = [ids_held(worker) for worker in workers]
    assert sum(map(len, held)) == 10
    for worker in reversed(workers):
        worker.window = 0
        worker.give_back(list(worker.held))
    other = cluster.child(slots=20, window=20)
    assert ids_held(other) == ids(14)


def test_g9_ten_thousand_messages_that_come_back_take_no_long_time() -> None:
    cluster = Cluster(BrokerSettings(head_messages_max=20_000))
    workers = [cluster.child(slots=2_000, window=2_000) for _ in range(5)]
    for start in range(0, 12_000, 4_000):
        cluster.publish(*(f"id{number:05}" for number in range(start, start + 4_000)))
    for worker in workers:
        worker.read()
        worker.window = 0
    began = time.perf_counter()
    for worker in reversed(workers):
        worker.give_back(list(worker.held))
    lane = cluster.sim.broker.desk.mailboxes["celery"].first_lane()
    assert lane is not None
    assert time.perf_counter() - began < 2
    assert [message.position for message in lane.head] == list(range(1, 12_001))


def test_g9_higher_priorities_go_first_and_each_keeps_its_order() -> None:
    cluster = Cluster()
    for number, priority in enumerate((0, 5, 0, 9, 5)):
        cluster.publish(f"id{number}", priority=priority)
    worker = cluster.child()
    assert cluster.run(worker) == ["id3", "id1", "id4", "id0", "id2"]


def test_g9_a_tail_is_read_ahead_in_order_and_memory_stays_bounded() -> None:
    cluster = Cluster(BrokerSettings(head_messages_max=10))
    for number in range(100):
        cluster.publish(f"id{number:03}")
    lane = cluster.sim.broker.desk.mailboxes["celery"].lanes[0]
    assert (len(lane.head), lane.tail) == (10, 90)
    cluster.pass_time(5)
    assert len(lane.head) == 10
    worker = cluster.child(slots=3, window=3)
    ran: list[str] = []
    while cluster.start(worker):
        assert len(lane.head) <= 15
        ran += cluster.settle(worker)
    assert ran == ids(100)


# --- actors ------------------------------------------------------------------------------------------------------


def host(cluster: Cluster, *, slots: int = 4, window: int = 8) -> SimChild:
    return cluster.child(kind=ChildKind.ACTORS, actors=["Counter"], slots=slots, window=window)


def test_g10_an_actor_belongs_to_one_child_and_gets_its_messages_in_order() -> None:
    cluster = Cluster()
    hosts = [host(cluster), host(cluster)]
    for number in range(6):
        cluster.publish(f"x{number}", mailbox="actor:Counter:x")
        cluster.publish(f"y{number}", mailbox="actor:Counter:y")
    ran = [cluster.run(child) for child in hosts]
    assert sorted(ran) == [[f"x{n}" for n in range(6)], [f"y{n}" for n in range(6)]]


def test_d12_an_actor_is_given_no_more_than_its_owners_credit() -> None:
    cluster = Cluster()
    child = host(cluster, slots=2, window=3)
    cluster.publish("warm", mailbox="actor:Counter:x")
    cluster.run(child)
    for actor in "abcd":
        cluster.publish(*ids(5, actor), mailbox=f"actor:Counter:{actor}")
    assert len(ids_held(child)) <= 3
    assert len(cluster.run(child)) == 20


def test_d11_of_an_actor_with_long_methods_one_message_is_out_at_a_time() -> None:
    cluster = Cluster()
    child = host(cluster)
    cluster.publish(*ids(5), mailbox="actor:Counter:x")
    assert ids_held(child) == ["id000"]
    cluster.start(child)
    cluster.settle(child, runtime=90_000)
    assert ids_held(child) == ["id001"]


def test_an_actor_without_a_host_asks_one_node_after_the_other_for_one() -> None:
    cluster = Cluster()
    cluster.child(actors=["Counter"])
    other = cluster.new_node("other")
    cluster.child(node=other, actors=["Counter"])
    for peer in (cluster.node, other):
        peer.read()
    cluster.publish("a", mailbox="actor:Counter:x")
    asked: list[str] = []
    for _ in range(12):
        cluster.pass_time(1)
        for peer in (cluster.node, other):
            asked += [peer.session for verb in said(peer.read(), Spawn) if verb.kind == ChildKind.ACTORS]
    assert asked[:2] == ["node", "other"]
    assert len(asked) <= 6
    assert cluster.run(host(cluster)) == ["a"]


def test_g10_an_actor_whose_owner_is_cut_off_waits_until_that_is_judged() -> None:
    cluster = Cluster()
    child = host(cluster)
    cluster.publish("a", mailbox="actor:Counter:x")
    cluster.start(child)
    other = host(cluster)
    child.drop()
    cluster.network.tell_closed()
    cluster.publish("b", mailbox="actor:Counter:x")
    cluster.pass_time(12)
    assert ids_held(other) == []
    cluster.pass_time(2)
    assert ids_held(other) == ["a"]


def test_g10_an_idle_actor_stays_with_its_owner_over_a_lost_link() -> None:
    cluster = Cluster()
    child = host(cluster)
    cluster.publish("a", mailbox="actor:Counter:x")
    cluster.run(child)
    other = host(cluster)
    child.drop()
    cluster.network.tell_closed()
    cluster.publish("b", mailbox="actor:Counter:x")
    cluster.pass_time(5)
    assert ids_held(other) == []
    child.connect()
    child.read()
    assert ids_held(child) == ["b"]


def test_g10_after_a_restart_an_actor_waits_for_the_owner_of_its_leases() -> None:
    cluster = Cluster()
    child = host(cluster)
    cluster.publish("a", mailbox="actor:Counter:x")
    cluster.start(child)
    cluster.publish("b", mailbox="actor:Counter:x")
    cluster.restart()
    other = cluster.child(node=cluster.new_node("other"), kind=ChildKind.ACTORS, actors=["Counter"], slots=4, window=4)
    assert ids_held(other) == []
    cluster.reconnect()
    assert cluster.run(child) == ["a", "b"] or cluster.settle(child) == ["a"]


def test_d25_while_an_actors_message_is_a_suspect_nothing_else_of_it_goes_out() -> None:
    cluster = Cluster()
    child = host(cluster)
    cluster.publish(*ids(3), mailbox="actor:Counter:x")
    cluster.start(child)
    cluster.kill(child)
    child = host(cluster)
    assert ids_held(child) == []
    trial = cluster.child(kind=ChildKind.QUARANTINE, actors=["Counter"])
    assert cluster.start(trial) == ["id000"]
    assert ids_held(child) == []
    cluster.settle(trial)
    assert cluster.run(child) == ["id001", "id002"]


def test_d26_an_actors_message_that_comes_back_with_a_delay_holds_up_those_behind_it() -> None:
    cluster = Cluster()
    child = host(cluster)
    cluster.publish("a", "b", mailbox="actor:Counter:x")
    cluster.publish("other", mailbox="actor:Counter:y")
    assert cluster.start(child) == ["a", "other"]
    cluster.settle(child, State.REQUEUED)
    assert ids_held(child) == []
    cluster.pass_time(0.9)
    assert ids_held(child) == []
    cluster.pass_time(0.5)
    assert cluster.run(child) == ["a", "other", "b"] or cluster.mailbox("actor:Counter:x").depth == 0


def test_d21_an_actors_mailbox_listens_to_its_current_delivery_only() -> None:
    cluster = Cluster()
    child = host(cluster)
    cluster.publish("a", mailbox="actor:Counter:x")
    cluster.start(child)
    child.cut()
    cluster.node.cut()
    cluster.pass_time(14)
    node = cluster.new_node("other")
    other = cluster.child(node=node, kind=ChildKind.ACTORS, actors=["Counter"], slots=4, window=4)
    assert ids_held(other) == ["a"]
    child.connect()
    child.read()
    cluster.settle(child)
    assert ids_held(other) == ["a"]
    assert cluster.mailbox("actor:Counter:x").acquired == 1


# --- what it costs -----------------------------------------------------------------------------------------------


def work_of(act: Callable[[], None]) -> int:
    """Lines of the broker's code that run: a measure that no other process disturbs."""
    lines = 0

    def trace(frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        nonlocal lines
        if "/broker/" not in frame.f_code.co_filename or "sim" in frame.f_code.co_filename:
            return None
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize("crowd", ["mailboxes", "starved", "actors", "sessions", "suspects", "scheduled"])
def test_a_pass_costs_what_has_changed_however_many_wait(crowd: str) -> None:
    def build(count: int) -> Callable[[], None]:
        cluster = Cluster()
        if crowd == "mailboxes":
            for number in range(count):
                cluster.publish("x", mailbox=f"m{number}")
        elif crowd == "starved":
            busy = cluster.child(*(f"m{number}" for number in range(count)))
            for number in range(count):
                cluster.publish("x", mailbox=f"m{number}")
            busy.read()
        elif crowd == "actors":
            for number in range(count):
                cluster.publish("x", mailbox=f"actor:Counter:{number}")
        elif crowd == "sessions":
            for number in range(count):
                cluster.new_client(f"c{number}")
        elif crowd == "suspects":
            for number in range(count):
                worker = cluster.child("odd")
                cluster.publish(f"x{number}", mailbox="odd")
                cluster.start(worker)
                cluster.kill(worker)
        else:
            for number in range(count):
                cluster.publish(f"x{number}", more=More(delay=number * 100 * SECOND))
        worker = cluster.child("one", slots=1, window=1)
        cluster.publish("warm", mailbox="one")
        cluster.run(worker)

        def act() -> None:
            cluster.publish("a", mailbox="one")
            cluster.run(worker)

        act()
        return act

    few, many = work_of(build(2)), work_of(build(60))
    assert many < few * 1.3 + 40, f"{few} lines with 2 {crowd}, {many} with 60"


def test_mailboxes_that_nobody_uses_are_forgotten_and_make_room_for_others() -> None:
    cluster = Cluster(BrokerSettings(mailboxes_max=10))
    worker = cluster.child("m0")
    for number in range(40):
        cluster.publish("x", mailbox=f"m{number % 20}")
        cluster.pass_time(1)
        if number % 20 != 0:
            cluster.ask(Op.PURGE, PurgeMailbox(f"m{number % 20}"))
        cluster.run(worker)
        confirm = cluster.client.confirms[number + 1]
        assert confirm.refusal == 0, confirm.detail
    audit(cluster.sim.broker)
    assert len(cluster.sim.broker.desk.mailboxes) <= 10


def test_many_mailboxes_share_what_may_stay_in_memory() -> None:
    cluster = Cluster()
    for number in range(300):
        cluster.sim.broker.desk.mailbox(f"m{number}")
    assert cluster.sim.broker.desk.head_messages_max == (1 << 20) // 300
