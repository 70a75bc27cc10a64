"""What went wrong once in the core, each as a short story."""

from __future__ import annotations

from greenroom.transport.broker.settings import BrokerSettings
from greenroom.transport.message import Envelope, Flag, More, Retry, State
from greenroom.transport.requests import Declare
from greenroom.transport.sim.audit import audit
from greenroom.transport.sim.broker import SimBroker
from greenroom.transport.sim.cluster import SAFE, SECOND, Cluster
from greenroom.transport.sim.peers import SimChild
from greenroom.transport.store.memory import MemoryDisk, MemoryStore
from greenroom.transport.store.records import Lease
from greenroom.transport.verbs import ChildKind, Durability, Goodbye, Op

CHOSEN = SAFE | int(Flag.CHOSEN_ID)


def ids_held(child: SimChild) -> list[str]:
    child.read()
    return [body.delivery.envelope.id for body in child.held.values()]


def test_a_read_that_was_under_way_does_not_bring_back_a_row_that_was_settled_meanwhile() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", flags=0)
    cluster.start(worker)
    cluster.publish("b")
    cluster.sim.eager = cluster.eager = False
    cluster.restart()
    cluster.sim.commit()
    worker.connect()
    worker.read()
    assert cluster.sim.waits, "the tail is being read"
    cluster.settle(worker)
    cluster.sim.settle()
    assert ids_held(worker) == ["b"]
    assert cluster.mailbox().depth == 1


def test_a_scheduled_message_that_was_settled_is_not_read_again_from_the_schedule() -> None:
    cluster = Cluster(BrokerSettings(head_messages_max=2))
    worker = cluster.child(slots=30, window=30)
    for number in range(1, 12):
        cluster.publish(f"id{number:02}", more=More(delay=number * SECOND))
    cluster.sim.eager = False
    ran: list[str] = []
    for _ in range(30):
        cluster.pass_time(0.5)
        cluster.start(worker)
        ran += cluster.settle(worker)
        cluster.sim.commit()
        cluster.sim.commit()
    cluster.sim.settle()
    cluster.start(worker)
    ran += cluster.settle(worker)
    assert ran == [f"id{number:02}" for number in range(1, 12)]


def test_a_message_with_a_chosen_id_beyond_what_was_read_is_in_memory_once() -> None:
    cluster = Cluster(BrokerSettings(head_messages_max=2))
    cluster.publish("a", "b", "c")
    cluster.publish("d", flags=CHOSEN)
    cluster.publish("e", "f")
    worker = cluster.child(slots=20, window=20)
    assert ids_held(worker) == ["a", "b", "c", "d", "e", "f"]
    assert cluster.mailbox().depth == 6


def test_a_chosen_id_that_waits_in_the_tail_and_is_known_leaves_the_counts_right() -> None:
    cluster = Cluster(BrokerSettings(head_messages_max=1), eager=False)
    for _ in range(3):
        cluster.publish("a", flags=CHOSEN)
        cluster.publish("b", "c")
    cluster.sim.settle()
    worker = cluster.child(slots=20, window=20)
    cluster.sim.settle()
    assert cluster.mailbox().depth == 7
    assert sorted(ids_held(worker)) == ["a", "b", "b", "b", "c", "c", "c"]


def test_a_retry_of_a_blamed_message_keeps_its_count_behind_a_full_lane() -> None:
    """Its new form went to the tail, and came back from there without its past."""
    cluster = Cluster(BrokerSettings(head_messages_max=1))
    worker = cluster.child()
    cluster.publish("a", more=More(max_deliveries=2))
    cluster.start(worker)
    cluster.kill(worker)
    trial = cluster.child(kind=ChildKind.QUARANTINE)
    cluster.publish("b", "c", "d", "e")
    cluster.child()
    assert cluster.start(trial) == ["a"]
    form = Envelope("a", "task", "msgpack", b"", SAFE, more=More(max_deliveries=2))
    cluster.settle(trial, State.RETRY, retry=Retry(form))
    assert cluster.start(trial) == ["a"]
    cluster.kill(trial)
    assert [letter.id for letter in cluster.dead()] == ["a"]


def test_a_retry_with_a_far_delay_keeps_its_count_behind_a_long_schedule() -> None:
    cluster = Cluster(BrokerSettings(head_messages_max=2))
    for number in range(10):
        cluster.publish(f"id{number}", more=More(delay=(number + 1) * SECOND))
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    cluster.settle(worker, State.REQUEUED)
    cluster.pass_time(1.5)
    while "a" not in cluster.start(worker):
        cluster.settle(worker)
        cluster.pass_time(1)
    form = Envelope("a", "task", "msgpack", b"", SAFE)
    cluster.settle(worker, State.RETRY, retry=Retry(form, 100 * SECOND))
    for _ in range(30):
        cluster.run(worker)
        cluster.pass_time(10)
    assert cluster.mailbox().depth == 0
    assert cluster.result("a") is not None


def test_durable_rows_behind_rows_in_memory_are_still_read() -> None:
    """A row in memory moved the point up to which the lane believed to have read."""
    cluster = Cluster(BrokerSettings(head_messages_max=2))
    cluster.publish("a", "b", "c")
    cluster.publish("d", "e")
    cluster.ask(Op.DECLARE, Declare("celery", durability=Durability.MEMORY))
    cluster.publish("light")
    worker = cluster.child(slots=20, window=20)
    assert sorted(ids_held(worker)) == ["a", "b", "c", "d", "e", "light"]


def test_a_message_in_memory_that_is_due_far_off_is_not_left_to_the_store() -> None:
    cluster = Cluster(BrokerSettings(head_messages_max=2))
    for number in range(10):
        cluster.publish(f"id{number}", more=More(delay=(number + 1) * SECOND))
    cluster.ask(Op.DECLARE, Declare("light", durability=Durability.MEMORY))
    cluster.publish("light", mailbox="light", more=More(delay=60 * SECOND))
    worker = cluster.child("light")
    cluster.pass_time(61)
    assert ids_held(worker) == ["light"]


def test_a_host_that_gets_credit_again_is_given_the_actors_that_wait_for_one() -> None:
    cluster = Cluster()
    child = cluster.child(kind=ChildKind.ACTORS, actors=["Counter"], slots=2, window=2)
    child.change_window(0)
    cluster.publish("a", mailbox="actor:Counter:x")
    assert ids_held(child) == []
    child.change_window(2)
    assert ids_held(child) == ["a"]


def test_a_higher_priority_does_not_wait_behind_an_id_that_is_not_judged() -> None:
    cluster = Cluster(eager=False)
    worker = cluster.child(slots=5, window=5)
    cluster.sim.settle()
    worker.read()
    cluster.publish("a", flags=CHOSEN)
    cluster.publish("b", priority=5)
    audit(cluster.sim.broker)
    cluster.sim.commit()
    assert ids_held(worker) == ["b"]


def test_an_aftermath_of_a_suspect_that_expired_goes_out_at_once() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", more=More(expires_in=30 * SECOND))
    cluster.start(worker)
    cluster.kill(worker)
    pool = cluster.child()
    cluster.pass_time(31)
    cluster.child(kind=ChildKind.QUARANTINE)
    assert ids_held(pool) == ["a.aftermath"]


def test_an_actor_redelivers_after_its_delay_and_not_before() -> None:
    """Delays of actors' messages were kept only while they were suspects."""
    cluster = Cluster()
    flags = 0
    cluster.publish("a", mailbox="actor:Counter:x", flags=flags)
    for _ in range(2):
        child = cluster.child(kind=ChildKind.ACTORS, actors=["Counter"], slots=2, window=2)
        cluster.pass_time(1.3)
        assert ids_held(child) == ["a"]
        cluster.kill_node()
        cluster.pass_time(7.01)
    child = cluster.child(kind=ChildKind.ACTORS, actors=["Counter"], slots=2, window=2)
    assert ids_held(child) == []
    cluster.pass_time(1.3)
    assert ids_held(child) == ["a"]


def test_a_goodbye_before_the_commit_of_a_publish_that_finds_no_room_is_survived() -> None:
    cluster = Cluster(eager=False)
    cluster.publish("a")
    cluster.client.say(Goodbye())
    cluster.disk.room_bytes = 10
    cluster.sim.settle()
    assert cluster.sim.stopped is None
    assert cluster.mailbox().depth == 0


def test_what_a_recovered_lease_holds_settles_a_row_to_its_end() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=3, window=3)
    cluster.publish("a", "b", "c")
    cluster.start(worker)
    cluster.restart()
    cluster.reconnect()
    cluster.settle(worker)
    assert cluster.disk.rows == {}
    assert not cluster.sim.broker.desk.known


def test_a_lease_whose_messages_all_went_out_again_is_over_after_a_restart() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=2)
    cluster.publish("a", "b")
    worker.read()
    worker.window = 1
    worker.give_back([2])
    other = cluster.child()
    assert ids_held(other) == ["b"]
    cluster.restart()
    cluster.reconnect()
    cluster.start(worker)
    cluster.settle(worker)
    cluster.start(other)
    cluster.settle(other)
    assert cluster.mailbox().depth == 0
    assert not [record for table, record in cluster.disk.tables.items() if table.__name__ == "Lease" and record]


def test_a_broker_whose_store_fails_while_it_recovers_stops_instead_of_waiting_for_ever() -> None:
    disk = MemoryDisk()
    first = SimBroker(MemoryStore(disk))
    disk.tables[Lease][1] = Lease(1, "node/1", [1])
    assert isinstance(first.store, MemoryStore)
    first.store.crash()
    second = SimBroker(MemoryStore(disk), eager=False)
    assert second.broker.recovering
    disk.failure = "the disk is gone"
    second.settle()
    assert second.stopped is not None
    assert second.stopped.reason == "the disk is gone"
