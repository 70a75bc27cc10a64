"""Who may speak and be given something, and what happens to those who do not read (spec D9, D12, D15, D18, D19)."""

from __future__ import annotations

import msgspec
import pytest

from greenroom.transport.broker.events import Drain, LinkBlocked
from greenroom.transport.broker.outflow import MARK_BYTES
from greenroom.transport.broker.settings import BrokerSettings
from greenroom.transport.message import Outcome, State
from greenroom.transport.sim.audit import audit, leftovers
from greenroom.transport.sim.cluster import SAFE, SECOND, Cluster, said
from greenroom.transport.sim.peers import SimChild
from greenroom.transport.verbs import (
    Attach,
    Attached,
    ChildKind,
    Confirm,
    Credit,
    Deliver,
    Goodbye,
    Hello,
    Holding,
    Ping,
    Pong,
    Publish,
    Recall,
    Reset,
    Return,
    Role,
    Settle,
    Watch,
    Welcome,
)

BIG = b"x" * 600_000


def ids_held(child: SimChild) -> list[str]:
    child.read()
    return [body.delivery.envelope.id for body in child.held.values()]


# --- who may speak -----------------------------------------------------------------------------------------------


def test_a_frame_without_a_hello_is_answered_once_and_the_link_is_cut() -> None:
    cluster = Cluster()
    link = cluster.sim.connect()
    cluster.sim.say(link, *[Ping(number) for number in range(50)])
    assert len(said(cluster.sim.heard(link), Reset)) == 1
    assert link in cluster.sim.closed


def test_a_role_that_says_what_it_may_not_is_dropped_and_changes_nothing() -> None:
    cluster = Cluster()
    link = cluster.client.link
    cluster.client.say(Attach(["celery"], 1, 1), Ping(1))
    assert [type(verb) for verb in cluster.sim.heard(link)] == [Reset]
    assert link in cluster.sim.closed
    assert cluster.mailbox().consumers == 0


@pytest.mark.parametrize("hello", [Hello(99, 1, "n", "s", 1, 1), Hello(1, 7, "n", "s", 1, 1)])
def test_a_hello_that_cannot_be_served_is_refused_for_good(hello: Hello) -> None:
    cluster = Cluster()
    link = cluster.sim.connect()
    cluster.sim.say(link, hello)
    told = cluster.sim.heard(link)
    assert [(type(verb), verb.final) for verb in said(told, Reset)] == [(Reset, True)]


def test_links_have_a_limit_and_who_goes_makes_room() -> None:
    cluster = Cluster(BrokerSettings(links_max=4))
    client = cluster.new_client("third")
    cluster.new_client("fourth")
    refused = cluster.new_client("fifth")
    assert not refused.welcomed
    client.drop()
    cluster.network.tell_closed()
    assert cluster.new_client("sixth").welcomed


def test_a_frame_that_is_none_costs_the_link_and_what_it_said_is_said_again_on_the_next_one() -> None:
    cluster = Cluster()
    link = cluster.client.link
    cluster.sim.deliver(link, [b"\xc1"])
    assert link in cluster.sim.closed
    assert not said(cluster.sim.heard(link), Reset)[0].final
    cluster.client.connect()
    assert said(cluster.sim.heard(cluster.client.link), Welcome)


def test_the_newest_link_of_a_session_is_the_one_that_counts() -> None:
    cluster = Cluster()
    old = cluster.client.link
    cluster.client.connect()
    assert old in cluster.sim.closed
    link = cluster.sim.connect()
    cluster.sim.say(link, Hello(1, 1, "client", "client", 1, 1))
    assert said(cluster.sim.heard(link), Reset)[0].final


# --- attaching ---------------------------------------------------------------------------------------------------


def test_d18_a_child_that_is_back_is_given_nothing_before_it_said_what_it_holds() -> None:
    cluster = Cluster()
    worker = cluster.child()
    worker.drop()
    worker.connect()
    cluster.publish("a", flags=0)
    assert [type(verb) for verb in cluster.sim.inbox[worker.link]] == [Welcome]
    worker.read()
    assert ids_held(worker) == ["a"]


def test_d18_what_a_child_no_longer_owns_is_recalled_before_attached() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", flags=0)
    assert ids_held(worker) == ["a"]
    lease = worker.held[1].lease
    link = cluster.sim.connect()
    cluster.sim.say(link, Hello(1, Role.CHILD, "host", "elsewhere/1", 1, 1))
    held = [Holding(1, lease, False), Holding(77, 5, True)]
    cluster.sim.say(link, Attach(["celery"], 1, 1, 0, held))
    told = cluster.sim.heard(link)
    assert [type(verb) for verb in told] == [Welcome, Recall, Attached]
    assert said(told, Recall)[0].positions == [1]


def test_d18_a_second_attach_on_a_link_changes_credit_and_takes_nothing_away() -> None:
    cluster = Cluster(eager=False)
    worker = cluster.child()
    cluster.sim.settle()
    worker.read()
    cluster.publish("a", "b", flags=0)
    worker.say(Attach(["celery", "other"], 2, 2))
    cluster.sim.settle()
    assert ids_held(worker) == ["a", "b"]
    assert cluster.mailbox("other").consumers == 1
    worker.say(Attach(["other"], 2, 2))
    cluster.sim.settle()
    assert cluster.mailbox().consumers == 0


def test_d18_a_return_under_an_old_lease_does_not_take_away_the_new_one() -> None:
    """A child gives back what it was recalled, while the same message is on its way to it again."""
    cluster = Cluster(eager=False)
    worker = cluster.child()
    cluster.sim.settle()
    worker.read()
    cluster.publish("a", flags=0)
    cluster.sim.settle()
    assert ids_held(worker) == ["a"]
    stale = Holding(1, worker.held[1].lease + 50, False)
    worker.drop()
    cluster.network.tell_closed()
    worker.held.clear()
    worker.connect()
    cluster.sim.heard(worker.link)
    worker.say(Attach(["celery"], 1, 1, 0, [stale]))
    cluster.sim.settle()
    told = cluster.sim.heard(worker.link)
    assert [type(verb) for verb in told] == [Recall, Attached, Deliver]
    worker.say(Return(1, [1], 1, [stale.lease]))
    cluster.sim.settle()
    other = cluster.child()
    cluster.sim.settle()
    assert ids_held(other) == []
    assert cluster.mailbox().acquired == 1


def test_d19_every_hand_out_and_confirm_bears_the_epoch_that_the_open_raised() -> None:
    cluster = Cluster()
    epochs: list[int] = []
    for number in range(3):
        worker = cluster.child()
        cluster.publish(f"id{number}")
        confirm = cluster.client.confirms[number + 1]
        delivered = said(cluster.sim.inbox[worker.link], Deliver)
        assert {confirm.epoch, *(verb.epoch for verb in delivered)} == {cluster.disk.epoch}
        epochs.append(confirm.epoch)
        cluster.run(worker)
        worker.die()
        cluster.restart()
        cluster.reconnect()
    assert epochs == [1, 2, 3]


def test_d19_nodes_are_pinged_each_heartbeat() -> None:
    cluster = Cluster()
    cluster.sim.heard(cluster.node.link)
    cluster.pass_time(10)
    assert 4 <= len(said(cluster.sim.heard(cluster.node.link), Ping)) <= 6
    assert not said(cluster.sim.heard(cluster.client.link), Ping)


# --- credit ------------------------------------------------------------------------------------------------------


def test_d12_a_recalled_message_is_handed_out_again_only_after_it_came_back() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=2)
    cluster.publish("a", "b", flags=0)
    other = cluster.child(slots=2, window=2)
    worker.read()
    cluster.sim.broker.desk.journal.say(cluster.sim.broker.desk.sessions[worker.session], Recall([2]))
    cluster.pass_time(1)
    assert ids_held(other) == []
    worker.change_window(1)
    worker.slots = 1
    worker.read()
    assert ids_held(other) == ["b"]


def test_d12_a_return_lends_the_credit_anew() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=2)
    cluster.publish("a", "b", "c")
    assert ids_held(worker) == ["a", "b"]
    worker.window = 0
    worker.give_back([2, 1])
    assert ids_held(worker) == []
    assert cluster.mailbox().ready == 3
    worker.change_window(2)
    assert ids_held(worker) == ["a", "b"]


def test_d12_a_child_that_attaches_without_a_window_gets_nothing_until_it_says_credit() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=1, window=1)
    worker.say(Attach(["celery"], 1, 0))
    cluster.publish("a")
    assert ids_held(worker) == []
    worker.say(Credit(1))
    assert ids_held(worker) == ["a"]


def test_a_window_beyond_the_limit_is_the_limit() -> None:
    cluster = Cluster(BrokerSettings(window_max=3))
    worker = cluster.child(slots=9, window=9)
    cluster.publish(*(f"id{n}" for n in range(20)))
    assert len(ids_held(worker)) == 3
    worker.window = 9
    worker.give_back(list(worker.held))
    assert len(ids_held(worker)) == 3


# --- what is sent and not read -----------------------------------------------------------------------------------


def fill(cluster: Cluster, worker: SimChild, messages: int) -> None:
    for number in range(messages):
        cluster.publish(f"id{number}", body=BIG)


def test_d09_what_a_peer_has_not_read_is_bounded_and_it_gets_heartbeats_only() -> None:
    cluster = Cluster(BrokerSettings(unacknowledged_bytes_max=2 << 20))
    worker = cluster.child(slots=20, window=20)
    fill(cluster, worker, 20)
    unread = cluster.sim.inbox[worker.link]
    size = sum(len(body.envelope.body) for verb in said(unread, Deliver) for body in verb.deliveries)
    assert 2 << 20 < size < (2 << 20) + MARK_BYTES + len(BIG)
    assert cluster.mailbox().acquired < 8
    session = cluster.sim.broker.desk.sessions[worker.session]
    assert not session.open
    told = len(unread)
    worker.say(Settle(1, [Outcome(1, 1, State.SUCCESS)]))
    assert len(cluster.sim.inbox[worker.link]) == told


def test_d09_a_peer_that_reads_again_gets_the_rest_in_order() -> None:
    cluster = Cluster(BrokerSettings(unacknowledged_bytes_max=2 << 20))
    worker = cluster.child(slots=20, window=20)
    fill(cluster, worker, 20)
    for _ in range(20):
        worker.read()
    assert ids_held(worker) == [f"id{number}" for number in range(20)]
    assert not cluster.sim.broker.desk.outflow.stalled


def test_d09_a_peer_that_does_not_read_for_thirty_seconds_is_cut_and_loses_nothing() -> None:
    cluster = Cluster(BrokerSettings(unacknowledged_bytes_max=1 << 20))
    worker = cluster.child(slots=20, window=20)
    fill(cluster, worker, 6)
    cluster.pass_time(29)
    assert worker.link not in cluster.sim.closed
    cluster.pass_time(2)
    assert worker.link in cluster.sim.closed
    assert cluster.mailbox().acquired > 0
    worker.forget_link()
    worker.held.clear()
    worker.connect()
    for _ in range(9):
        worker.read()
    assert ids_held(worker) == [f"id{number}" for number in range(6)]


def test_d09_what_is_withheld_is_bounded_too() -> None:
    cluster = Cluster(BrokerSettings(unacknowledged_bytes_max=1 << 20, unacknowledged_patience=10**12))
    watcher = cluster.new_client("watcher")
    worker = cluster.child(slots=50, window=50)
    watcher.say(Watch([f"id{number}" for number in range(50)]))
    cluster.publish(*(f"id{number}" for number in range(50)))
    worker.read()
    link = watcher.link
    for position, body in list(worker.held.items()):
        worker.settle([Outcome(position, body.lease, State.SUCCESS, 10, b"r" * 200_000)])
        worker.read()
    cluster.pass_time(1)
    assert link in cluster.sim.closed
    assert not cluster.sim.broker.desk.outflow.stalled


def test_d09_a_full_buffer_of_the_driver_cuts_the_link() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", flags=0)
    cluster.sim.apply(LinkBlocked(worker.link, []))
    assert worker.link in cluster.sim.closed
    cluster.pass_time(14)
    assert cluster.error("a") == "WorkerLostError"


def test_a_pong_of_an_old_number_acknowledges_nothing_new() -> None:
    cluster = Cluster(BrokerSettings(unacknowledged_bytes_max=1 << 20))
    worker = cluster.child(slots=20, window=20)
    fill(cluster, worker, 6)
    worker.say(Pong(0), Pong(-5))
    assert cluster.sim.broker.desk.outflow.stalled


# --- leaving -----------------------------------------------------------------------------------------------------


def test_a_broker_that_drains_commits_says_goodbye_and_stops_in_this_order() -> None:
    cluster = Cluster(eager=False)
    worker = cluster.child()
    cluster.sim.settle()
    worker.read()
    cluster.publish("a")
    cluster.sim.apply(Drain())
    assert cluster.sim.stopped is None
    link, child_link = cluster.client.link, worker.link
    cluster.sim.settle()
    assert [type(verb) for verb in cluster.sim.heard(link)] == [Confirm, Goodbye]
    assert [type(verb) for verb in cluster.sim.heard(child_link)] == [Deliver, Goodbye]
    assert isinstance(cluster.sim.heard(cluster.node.link)[-1], Goodbye)
    assert cluster.sim.stopped is not None
    assert cluster.sim.stopped.exit_code == 0


def test_a_broker_that_drains_takes_nothing_new_and_hands_nothing_out() -> None:
    cluster = Cluster(eager=False)
    cluster.publish("a")
    cluster.sim.apply(Drain())
    number = cluster.publish("b")
    worker = cluster.node.child(["celery"])
    cluster.sim.settle()
    told = cluster.sim.heard(cluster.client.link)
    refused = [confirm for confirm in said(told, Confirm) if confirm.number == number]
    assert refused[0].refusal
    assert [type(verb) for verb in cluster.sim.heard(worker.link)] == [Reset]
    cluster.restart()
    cluster.sim.settle()
    assert cluster.mailbox().depth == 1


def test_when_everybody_has_gone_no_table_remembers_them() -> None:
    cluster = Cluster()
    clients = [cluster.new_client(f"client{number}") for number in range(5)]
    workers = [cluster.child(slots=2, window=2), cluster.child(kind=ChildKind.QUARANTINE)]
    host = cluster.child(kind=ChildKind.ACTORS, actors=["Counter"], slots=4, window=4)
    for client in clients:
        client.say(Watch(["a", "b"]))
    workers[0].say(Watch(["c"]))
    cluster.publish("a", "b", "c")
    cluster.publish("d", mailbox="actor:Counter:x")
    cluster.run(workers[0])
    cluster.run(host)
    for child in list(cluster.node.children.values()):
        child.say(Goodbye())
        child.die()
    for peer in (cluster.client, *clients):
        peer.say(Goodbye())
        peer.drop()
    cluster.node.drop()
    cluster.pass_time(20)
    audit(cluster.sim.broker)
    assert leftovers(cluster.sim.broker) == []
    cluster.pass_time(61)
    assert set(cluster.sim.broker.desk.mailboxes) == set()
    assert not cluster.sim.broker.desk.publishing


def test_a_childs_watch_ends_with_its_link() -> None:
    cluster = Cluster()
    worker = cluster.child()
    worker.say(Watch(["a"]))
    worker.drop()
    cluster.network.tell_closed()
    assert cluster.sim.broker.watching.watched() == []


def test_a_paused_broker_gives_everybody_time_to_say_that_they_are_there() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", flags=0)
    cluster.start(worker)
    cluster.node.drop()
    worker.drop()
    cluster.network.tell_closed()
    now = cluster.sim.now
    cluster.sim.now = now._replace(boot=now.boot + 100 * SECOND, wall=now.wall + 100 * SECOND)
    cluster.pass_time(5)
    assert cluster.error("a") == ""
    worker.connect()
    worker.read()
    assert cluster.settle(worker) == ["a"]


def test_publishes_of_a_child_that_ended_are_forgotten() -> None:
    cluster = Cluster()
    worker = cluster.child()
    group_of = msgspec.msgpack.encode([])
    assert group_of
    worker.say(Publish(0, 1, 0, []))
    assert worker.session in cluster.sim.broker.desk.publishing
    cluster.kill(worker)
    assert worker.session not in cluster.sim.broker.desk.publishing


def test_a_late_hello_of_a_child_that_was_judged_finds_nothing_left_of_it() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", flags=SAFE)
    cluster.start(worker)
    worker.cut()
    cluster.node.cut()
    cluster.pass_time(20)
    other = cluster.child(node=cluster.new_node("other"))
    assert ids_held(other) == ["a"]
    worker.connect()
    worker.read()
    worker.read()
    assert worker.attached
    cluster.settle(worker)
    other.read()
    assert ids_held(other) == []
    assert cluster.mailbox().depth == 0
