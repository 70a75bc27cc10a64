"""What becomes of a publish: numbers, refusals, commits, durability, time and a full disk (D6 to D9, D28 to D30)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from greenroom.transport.broker.events import Frame, PersistFailed, Received, Stop, Tick
from greenroom.transport.broker.settings import BrokerSettings
from greenroom.transport.clock import Now
from greenroom.transport.codec import cut_group, encode_publish
from greenroom.transport.message import Envelope, Flag, More, State
from greenroom.transport.requests import Declare, Revoke
from greenroom.transport.sim.cluster import SAFE, SECOND, Cluster, said
from greenroom.transport.store.records import Append, Committed, Past, Record, Session, Synchronous
from greenroom.transport.verbs import (
    ChildKind,
    Confirm,
    Deliver,
    Durability,
    Goodbye,
    Op,
    Publish,
    Refusal,
    Results,
    Watch,
)

CHOSEN = SAFE | int(Flag.CHOSEN_ID)


def refusal(cluster: Cluster, number: int) -> int:
    cluster.client.read()
    return cluster.client.confirms[number].refusal


def depth(cluster: Cluster, mailbox: str = "celery") -> int:
    return cluster.mailbox(mailbox).depth


# --- numbers -----------------------------------------------------------------------------------------------------


def test_d06_a_batch_that_is_said_again_is_accepted_once_and_gets_its_outcome_again() -> None:
    cluster = Cluster()
    cluster.publish("a", "b")
    parts: list[bytes] = []
    group = cut_group("celery", [Envelope(id, "task", "msgpack", b"", SAFE) for id in "ab"], parts)
    for _ in range(2):
        cluster.sim.deliver(cluster.client.link, encode_publish(Publish(0, 1, 0, [group]), parts))
    told = said(cluster.sim.heard(cluster.client.link), Confirm)
    assert [(confirm.number, confirm.refusal) for confirm in told] == [(1, 0), (1, 0)]
    assert depth(cluster) == 2


def test_d06_a_batch_is_accepted_whole_or_not_at_all() -> None:
    cluster = Cluster(BrokerSettings(mailbox_max_messages=2))
    groups = [
        cut_group("first", [Envelope("a", "task", "msgpack", b"")], []),
        cut_group("second", [Envelope(id, "task", "msgpack", b"") for id in "bcd"], []),
    ]
    cluster.sim.deliver(cluster.client.link, encode_publish(Publish(0, 1, 0, groups), []))
    told = said(cluster.sim.heard(cluster.client.link), Confirm)
    assert told[0].refusal == Refusal.MAILBOX_FULL
    assert "'second'" in told[0].detail
    assert depth(cluster, "first") == 0


def test_d06_a_refusal_is_kept_over_a_restart_until_the_client_has_heard_it() -> None:
    cluster = Cluster(BrokerSettings(mailbox_max_messages=1))
    cluster.publish("a")
    cluster.sim.inbox[cluster.client.link] = []
    message = cluster.client.unconfirmed
    number = cluster.client.publish("celery", [Envelope("b", "task", "msgpack", b"")])
    assert number in message
    cluster.restart()
    cluster.client.connect()
    cluster.client.read()
    assert refusal(cluster, number) == Refusal.MAILBOX_FULL
    assert depth(cluster) == 1
    cluster.publish("c")
    assert cluster.sim.broker.desk.publishing["client"].refused.keys() == {3}


def test_d06_a_gap_in_the_numbers_is_refused_as_of_an_unknown_session() -> None:
    cluster = Cluster()
    cluster.client.next_batch = 5
    number = cluster.publish("a")
    assert refusal(cluster, number) == Refusal.UNKNOWN_SESSION
    assert depth(cluster) == 0


def test_d06_a_session_whose_last_number_was_lost_with_the_power_learns_that_nobody_knows() -> None:
    cluster = Cluster()
    cluster.ask(Op.DECLARE, Declare("light", durability=Durability.PROCESS))
    cluster.publish("a")
    cluster.publish("b", mailbox="light")
    assert refusal(cluster, 2) == 0
    cluster.restart(power=True)
    cluster.client.connect()
    cluster.client.read()
    assert refusal(cluster, cluster.publish("c")) == Refusal.UNKNOWN_SESSION


def test_d06_a_client_that_comes_back_before_the_commit_is_confirmed_on_its_new_link() -> None:
    cluster = Cluster(eager=False)
    cluster.sim.settle()
    cluster.publish("a")
    cluster.client.connect()
    cluster.network.tell_closed()
    cluster.client.read()
    assert cluster.client.confirms == {}
    cluster.sim.settle()
    assert refusal(cluster, 1) == 0
    assert depth(cluster) == 1


def test_d06_a_session_that_says_goodbye_is_forgotten_in_the_store_too() -> None:
    cluster = Cluster()
    cluster.publish("a")
    assert "client" in cluster.disk.tables[Session]
    cluster.client.say(Goodbye())
    assert "client" not in cluster.disk.tables[Session]
    assert "client" not in cluster.sim.broker.desk.publishing


def test_d06_a_chosen_id_makes_one_message_within_its_window() -> None:
    cluster = Cluster()
    cluster.publish("a", flags=CHOSEN)
    cluster.publish("a", "b", flags=CHOSEN)
    cluster.publish("a", flags=CHOSEN, mailbox="other")
    assert (depth(cluster), depth(cluster, "other")) == (2, 0)
    cluster.jump(24 * 3600)
    cluster.publish("a", flags=CHOSEN)
    assert depth(cluster) == 3


def test_d06_a_chosen_id_that_is_known_is_watched_by_who_said_it_again() -> None:
    cluster = Cluster()
    cluster.publish("a", flags=CHOSEN)
    worker = cluster.child()
    cluster.run(worker)
    other = cluster.new_client("other")
    cluster.publish("a", flags=CHOSEN, client=other)
    told = [known for verb in said(other.others, Results) for known in verb.results]
    assert [(known.id, known.state) for known in told] == [("a", State.SUCCESS)]


def test_d06_a_message_with_a_chosen_id_holds_its_place_until_the_store_has_judged_it() -> None:
    cluster = Cluster(eager=False)
    worker = cluster.child(window=10, slots=10)
    cluster.sim.settle()
    envelopes = [Envelope(id, "task", "msgpack", b"", flags) for id, flags in (("a", 0), ("b", CHOSEN), ("c", 0))]
    cluster.client.publish("celery", envelopes)
    cluster.sim.settle()
    worker.read()
    assert [body.delivery.envelope.id for body in worker.held.values()] == ["a", "b", "c"]


def test_d06_sessions_that_are_away_longest_are_forgotten_beyond_the_limit() -> None:
    cluster = Cluster(BrokerSettings(sessions_max=3))
    for number in range(6):
        client = cluster.new_client(f"client{number}")
        cluster.publish(f"id{number}", client=client)
        client.drop()
        cluster.network.tell_closed()
    cluster.pass_time(61)
    assert list(cluster.sim.broker.desk.publishing) == ["client3", "client4", "client5"]
    assert sorted(cluster.disk.tables[Session]) == ["client3", "client4", "client5"]


# --- commits -----------------------------------------------------------------------------------------------------


def test_d07_nothing_is_confirmed_or_handed_out_before_its_commit() -> None:
    cluster = Cluster(eager=False)
    worker = cluster.child()
    cluster.sim.settle()
    worker.read()
    cluster.publish("a")
    assert not said(worker.read(), Deliver)
    assert cluster.client.confirms == {}
    cluster.sim.settle()
    assert len(said(worker.read(), Deliver)) == 1
    assert refusal(cluster, 1) == 0


def test_d07_a_hand_out_that_was_not_committed_before_the_crash_did_not_happen() -> None:
    cluster = Cluster(eager=False)
    worker = cluster.child()
    cluster.sim.settle()
    cluster.publish("a")
    cluster.restart()
    cluster.sim.settle()
    cluster.reconnect()
    assert not worker.held
    cluster.sim.settle()
    cluster.reconnect()
    cluster.sim.settle()
    assert cluster.run(worker) == ["a"] or cluster.client.unconfirmed


def test_d08_a_message_without_a_past_has_no_row_of_its_own() -> None:
    cluster = Cluster()
    cluster.publish(*(f"id{n}" for n in range(100)))
    assert [row.count for row in cluster.disk.rows.values()] == [100]
    worker = cluster.child(slots=2, window=2)
    cluster.start(worker)
    worker.give_back(list(worker.held))
    assert not cluster.disk.tables[Past]
    cluster.kill(worker)
    assert len(cluster.disk.tables[Past]) == 2


# --- back-pressure -----------------------------------------------------------------------------------------------


def test_d09_a_publisher_that_exceeds_its_grant_is_dropped_and_loses_nothing() -> None:
    cluster = Cluster(BrokerSettings(publish_bytes_max=1 << 20), eager=False)
    cluster.sim.settle()
    link = cluster.client.link
    for number in range(5):
        cluster.client.publish("celery", [Envelope(f"id{number}", "task", "msgpack", b"x" * (3 << 20))])
    assert link not in cluster.sim.closed
    cluster.client.publish("celery", [Envelope("more", "task", "msgpack", b"x" * (3 << 20))])
    assert "granted" in cluster.sim.closed[link]
    assert link not in cluster.sim.broker.desk.links
    cluster.sim.settle()
    cluster.client.forget_link()
    cluster.client.connect()
    cluster.client.read()
    cluster.sim.settle()
    cluster.client.read()
    assert len(cluster.client.confirms) == 6
    assert depth(cluster) == 6


# --- time --------------------------------------------------------------------------------------------------------


def test_d28_relative_times_are_resolved_once_by_the_brokers_wall_clock() -> None:
    cluster = Cluster()
    cluster.publish("a", more=More(delay=10 * SECOND, expires_in=60 * SECOND))
    worker = cluster.child()
    cluster.pass_time(9)
    assert cluster.start(worker) == []
    cluster.pass_time(1)
    assert cluster.start(worker) == ["a"]
    delivery = next(iter(worker.held.values())).delivery
    assert delivery.expires_in == 50 * SECOND
    assert delivery.envelope.more is not None
    assert (delivery.envelope.more.delay, delivery.envelope.more.expires_in) == (0, 0)


def test_d28_a_due_time_survives_the_broker_and_is_never_early() -> None:
    cluster = Cluster()
    cluster.publish("a", more=More(due=cluster.sim.now.wall + 100 * SECOND))
    cluster.restart()
    worker = cluster.child()
    cluster.reconnect()
    cluster.pass_time(99)
    assert cluster.start(worker) == []
    assert cluster.mailbox().scheduled == 1
    cluster.pass_time(1)
    assert cluster.start(worker) == ["a"]


def test_d28_a_message_that_expires_while_it_waits_in_the_tail_is_not_handed_out() -> None:
    cluster = Cluster(BrokerSettings(head_messages_max=2))
    cluster.publish("a", "b", "c")
    cluster.publish("d", more=More(expires_in=5 * SECOND))
    assert sum(lane.tail for lane in cluster.sim.broker.desk.mailboxes["celery"].lanes) == 1
    cluster.pass_time(5)
    worker = cluster.child(slots=10, window=10)
    cluster.publish("e")
    ran = cluster.run(worker)
    assert [id for id in ran if "aftermath" not in id] == ["a", "b", "c", "e"]
    result = cluster.result("d")
    assert result is not None
    assert result.state == State.REVOKED
    assert "d.aftermath" in ran


def test_d28_more_scheduled_messages_than_fit_in_memory_go_out_by_due_time() -> None:
    cluster = Cluster(BrokerSettings(head_messages_max=4))
    order = [7, 3, 20, 11, 2, 15, 5, 18, 9, 1, 13, 17, 4, 19, 6, 10, 8, 16, 14, 12]
    for number in order:
        cluster.publish(f"id{number:02}", more=More(delay=number * SECOND))
    assert cluster.sim.broker.schedule.tail > 0
    assert len(cluster.sim.broker.schedule.waiting()) <= 8
    worker = cluster.child()
    ran: list[str] = []
    for _ in range(20):
        cluster.pass_time(1)
        ran += cluster.run(worker)
    assert ran == [f"id{number:02}" for number in range(1, 21)]


@pytest.mark.parametrize("seconds", [-50, 50])
def test_d28_a_clock_that_steps_hands_no_scheduled_message_out_twice(seconds: int) -> None:
    cluster = Cluster(BrokerSettings(head_messages_max=2))
    worker = cluster.child(slots=20, window=20)
    for number in range(1, 11):
        cluster.publish(f"id{number}", more=More(delay=number * 10 * SECOND))
    cluster.pass_time(45)
    started = cluster.start(worker)
    now = cluster.sim.now
    cluster.sim.now = now._replace(wall=now.wall + seconds * SECOND)
    for number in range(11, 21):
        cluster.publish(f"id{number}", more=More(delay=number * SECOND))
    cluster.pass_time(170)
    started = cluster.start(worker)
    assert len(started) == len(set(started)) == 20


# --- durability and the disk -------------------------------------------------------------------------------------


def test_d29_a_full_disk_refuses_publishes_and_lets_settles_through_until_there_is_room() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    cluster.disk.room_bytes = 10
    number = cluster.publish("b")
    assert refusal(cluster, number) == Refusal.STORE_FULL
    assert cluster.settle(worker) == ["a"]
    assert cluster.result("a") is not None
    assert refusal(cluster, cluster.publish("c")) == Refusal.STORE_FULL
    assert depth(cluster) == 0
    cluster.disk.room_bytes = None
    cluster.sim.ask_for_room()
    assert refusal(cluster, cluster.publish("d")) == 0
    assert cluster.run(worker) == ["d"]


def test_d29_what_was_accepted_and_handed_out_in_the_commit_that_found_no_room_never_was() -> None:
    cluster = Cluster(eager=False)
    worker = cluster.child(window=4, slots=4)
    cluster.sim.settle()
    worker.read()
    cluster.publish("a", "b")
    cluster.publish("c", flags=CHOSEN)
    cluster.publish("d", more=More(delay=SECOND))
    cluster.disk.room_bytes = 10
    cluster.sim.settle()
    assert not said(worker.read(), Deliver)
    assert [refusal(cluster, number) for number in (1, 2, 3)] == [Refusal.STORE_FULL] * 3
    assert depth(cluster) == 0
    cluster.disk.room_bytes = None
    cluster.sim.ask_for_room()
    cluster.publish("c", flags=CHOSEN)
    cluster.sim.settle()
    assert cluster.start(worker) == ["c"]


def test_d29_a_purge_that_finds_no_room_is_written_anew_before_anything_is_read_again() -> None:
    cluster = Cluster(BrokerSettings(head_messages_max=2), eager=False)
    cluster.publish(*(f"id{n}" for n in range(6)))
    cluster.publish("later", more=More(delay=30 * SECOND))
    cluster.sim.settle()
    worker = cluster.child(slots=2, window=2)
    cluster.sim.settle()
    cluster.disk.room_bytes = 10
    cluster.publish("x")
    cluster.sim.broker.admin.removal.purge("celery")
    cluster.sim.settle()
    cluster.start(worker)
    cluster.settle(worker)
    cluster.sim.settle()
    cluster.pass_time(40)
    cluster.sim.settle()
    assert depth(cluster) == 0
    assert cluster.disk.rows == {}


def test_d29_a_failed_fsync_stops_the_broker_and_confirms_nothing() -> None:
    cluster = Cluster()
    cluster.disk.failure = "fsync: input/output error"
    cluster.publish("a")
    assert cluster.client.confirms == {}
    assert cluster.sim.stopped is not None
    assert cluster.sim.stopped.exit_code == 1


def test_d29_a_broker_whose_store_has_failed_hands_out_nothing_more_not_even_from_memory() -> None:
    cluster = Cluster()
    cluster.ask(Op.DECLARE, Declare("light", durability=Durability.MEMORY))
    cluster.child("light")
    cluster.publish("a", mailbox="light", more=More(delay=SECOND))
    now = cluster.sim.now
    later = Now(now.boot + 2 * SECOND, now.wall + 2 * SECOND)
    broker = cluster.sim.broker
    assert broker.apply(PersistFailed(0, 0, False, "EIO"), later) == [Stop(1, "EIO")]
    assert broker.apply(Tick(), later) == []


def test_d29_a_sweep_that_cannot_read_stops_the_broker() -> None:
    cluster = Cluster()
    cluster.disk.failure = "read: input/output error"
    cluster.pass_time(2)
    assert cluster.sim.stopped == Stop(1, "read: input/output error")


def test_d30_a_commit_is_synced_if_any_of_it_promised_the_disk() -> None:
    cluster = Cluster()
    asked: list[Synchronous] = []
    commit = cluster.store.commit

    def watched(records: Sequence[Record], synchronous: Synchronous) -> Committed:
        if any(isinstance(record, Append) for record in records):
            asked.append(synchronous)
        return commit(records, synchronous)

    cluster.store.commit = watched  # type: ignore[method-assign]
    cluster.ask(Op.DECLARE, Declare("light", durability=Durability.PROCESS))
    cluster.publish("a", mailbox="light")
    assert cluster.client.confirms[1].durability == Durability.PROCESS
    cluster.publish("b")
    assert cluster.client.confirms[2].durability == Durability.DISK
    assert asked == [Synchronous.NORMAL, Synchronous.FULL]


def test_d30_a_settle_of_a_durable_message_is_synced() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.run(worker)
    cluster.restart(power=True)
    assert depth(cluster) == 0
    assert cluster.result("a") is not None


def test_a_mailbox_in_memory_keeps_nothing_in_the_store_and_is_empty_after_a_crash() -> None:
    cluster = Cluster()
    cluster.ask(Op.DECLARE, Declare("light", durability=Durability.MEMORY))
    worker = cluster.child("light")
    cluster.publish("a", "b", "c", mailbox="light")
    cluster.publish("later", mailbox="light", more=More(delay=5 * SECOND))
    assert cluster.client.confirms[1].durability == Durability.MEMORY
    assert cluster.disk.rows == {}
    assert cluster.start(worker) == ["a"]
    assert cluster.mailbox("light").depth == 4
    cluster.restart()
    assert cluster.mailbox("light").depth == 0


def test_a_mailbox_in_memory_knows_chosen_ids_delays_and_redelivers_like_any_other() -> None:
    cluster = Cluster(BrokerSettings(head_messages_max=2))
    cluster.ask(Op.DECLARE, Declare("light", durability=Durability.MEMORY))
    cluster.publish("a", flags=CHOSEN, mailbox="light")
    cluster.publish("a", flags=CHOSEN, mailbox="light")
    for number in range(8):
        cluster.publish(f"id{number}", mailbox="light", more=More(delay=(9 - number) * SECOND))
    worker = cluster.child("light")
    assert cluster.start(worker) == ["a"]
    cluster.kill(worker)
    cluster.child("light", kind=ChildKind.ACTORS)
    worker = cluster.child("light", slots=20, window=20)
    cluster.pass_time(10)
    assert cluster.start(worker) == [f"id{number}" for number in reversed(range(8))]
    trial = cluster.child("light", kind=ChildKind.QUARANTINE)
    assert cluster.start(trial) == ["a"]


def test_a_mailbox_that_becomes_durable_leases_its_durable_messages_on_disk() -> None:
    cluster = Cluster()
    cluster.ask(Op.DECLARE, Declare("celery", durability=Durability.MEMORY))
    cluster.publish("a")
    cluster.ask(Op.DECLARE, Declare("celery", durability=Durability.DISK))
    cluster.publish("b", flags=0)
    cluster.ask(Op.DECLARE, Declare("celery", durability=Durability.MEMORY))
    cluster.publish("c")
    worker = cluster.child(slots=3, window=3)
    assert cluster.start(worker) == ["a", "b", "c"]
    cluster.restart()
    cluster.pass_time(8)
    assert cluster.error("b") == "WorkerLostError"


def test_a_frame_of_two_publishes_hands_each_its_own_parts() -> None:
    cluster = Cluster()
    verbs: list[Publish] = []
    parts: list[bytes] = []
    for number, letter in ((1, b"a"), (2, b"b")):
        own: list[bytes] = []
        group = cut_group("celery", [Envelope(letter.decode(), "task", "msgpack", letter * 20_000)], own)
        verbs.append(Publish(0, number, 0, [group]))
        parts += own
    cluster.sim.apply(Received([Frame(cluster.client.link, list(verbs), parts, 40_000)]))
    worker = cluster.child(slots=2, window=2)
    bodies = {body.delivery.envelope.id: body.delivery.envelope.body for body in worker.held.values()}
    assert bodies == {"a": b"a" * 20_000, "b": b"b" * 20_000}


def test_a_group_that_cannot_be_read_is_refused_and_changes_nothing() -> None:
    cluster = Cluster()
    group = cut_group("celery", [Envelope("a", "task", "msgpack", b"")], [])
    group.count = 2
    cluster.sim.deliver(cluster.client.link, encode_publish(Publish(0, 1, 0, [group]), []))
    assert said(cluster.sim.heard(cluster.client.link), Confirm)[0].refusal == Refusal.INVALID
    assert depth(cluster) == 0


def test_an_id_that_was_known_keeps_its_result_when_it_is_revoked_before_the_store_has_judged_it() -> None:
    cluster = Cluster(eager=False)
    worker = cluster.child()
    cluster.sim.settle()
    cluster.publish("a", flags=CHOSEN)
    cluster.sim.settle()
    cluster.run(worker)
    cluster.sim.settle()
    cluster.publish("a", flags=CHOSEN)
    cluster.sim.broker.admin.removal.revoke(Revoke(["a"]))
    cluster.sim.settle()
    result = cluster.result("a")
    assert result is not None
    assert result.state == State.SUCCESS
    cluster.client.say(Watch(["a"]))
