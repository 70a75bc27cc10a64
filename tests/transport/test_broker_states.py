"""What durable actors keep: committed with the end of the message that changed it, and given to who has the actor."""

from __future__ import annotations

from greenroom.transport.message import Outcome, State
from greenroom.transport.requests import FetchedState, FetchState, PurgeMailbox
from greenroom.transport.sim.cluster import SAFE, Cluster
from greenroom.transport.sim.peers import SimChild
from greenroom.transport.store.records import ActorState
from greenroom.transport.verbs import ChildKind, Op

MIA = "actor:Account:mia"


def host(cluster: Cluster, slots: int = 4) -> SimChild:
    return cluster.child(kind=ChildKind.ACTORS, actors=["Account"], slots=slots, window=slots)


def other_host(cluster: Cluster) -> SimChild:
    node = cluster.new_node("other")
    return cluster.child(node=node, kind=ChildKind.ACTORS, actors=["Account"], slots=4, window=4)


def handle(child: SimChild, snapshot: bytes | None, state: int = State.SUCCESS) -> None:
    """Let the child end what it runs, and say that this is the state from now on."""
    running = [body for body in child.held.values() if body.running]
    child.settle([Outcome(body.delivery.position, body.lease, state, 10, snapshot=snapshot) for body in running])
    child.read()


def kept(cluster: Cluster, mailbox: str = MIA) -> bytes:
    states = cluster.store.read_states([mailbox])
    return states[0].blob if states else b""


def known_to(child: SimChild) -> bytes | None:
    """What the child knows of the state for the first delivery that it holds; it asks if it must."""
    child.read()
    body = next(iter(child.held.values()))
    child.state_of(body)
    child.read()
    return child.state_of(body)


def test_d20_an_actors_state_is_in_the_commit_that_ends_the_message_which_changed_it() -> None:
    cluster = Cluster(eager=False)
    child = host(cluster)
    cluster.publish("a", mailbox=MIA)
    cluster.sim.settle()
    cluster.start(child)
    lease = child.held[1].lease
    commits = cluster.sim.commits
    handle(child, b"100")
    assert (kept(cluster), cluster.mailbox(MIA).depth, cluster.sim.commits) == (b"", 0, commits)
    cluster.sim.settle()
    assert cluster.sim.commits == commits + 1
    assert cluster.store.read_states([MIA]) == [ActorState(MIA, lease, b"100")]
    assert cluster.store.read_ready(MIA, 0, 0, 9) == []


def test_a_state_that_did_not_change_is_not_written_again() -> None:
    cluster = Cluster()
    child = host(cluster)
    for snapshot, state in ((b"100", State.SUCCESS), (None, State.SUCCESS), (None, State.FAILURE)):
        cluster.publish("m", mailbox=MIA)
        cluster.start(child)
        handle(child, snapshot, state)
    assert kept(cluster) == b"100"
    # What it answered could not be sent, and yet it has done its work.
    cluster.publish("m", mailbox=MIA)
    cluster.start(child)
    handle(child, b"150", State.FAILURE)
    assert kept(cluster) == b"150"


def test_a_task_has_no_state() -> None:
    cluster = Cluster()
    child = cluster.child()
    cluster.publish("a")
    cluster.start(child)
    handle(child, b"100")
    assert cluster.store.read_states(["celery"]) == []


def test_d21_a_settle_under_a_lease_that_is_over_leaves_the_state_as_it_is() -> None:
    cluster = Cluster()
    child = host(cluster)
    cluster.publish("a", mailbox=MIA)
    cluster.start(child)
    child.cut()
    cluster.node.cut()
    cluster.pass_time(14)
    other = other_host(cluster)
    cluster.start(other)
    child.connect()
    child.read()
    handle(child, b"of the old owner")
    assert kept(cluster) == b""
    handle(other, b"of the new one")
    handle(child, b"of the old owner")
    assert kept(cluster) == b"of the new one"


def test_d14_a_state_in_the_page_of_a_dead_child_counts() -> None:
    cluster = Cluster()
    child = host(cluster)
    cluster.publish("a", mailbox=MIA)
    cluster.start(child)
    child.cut()
    handle(child, b"100")
    assert kept(cluster) == b""
    cluster.kill(child)
    assert kept(cluster) == b"100"


def test_who_gets_an_actor_is_told_since_when_and_asks_for_its_state_once() -> None:
    cluster = Cluster()
    child = host(cluster)
    cluster.publish("a", "b", mailbox=MIA)
    cluster.start(child)
    first = child.held[1]
    assert first.since == first.lease
    assert known_to(child) == b""
    handle(child, b"100")
    child.states[MIA] = (first.since, b"100")
    cluster.publish("c", mailbox=MIA)
    child.read()
    assert {body.since for body in child.held.values()} == {first.since}
    assert all(body.lease > first.since for body in child.held.values() if body.delivery.envelope.id == "c")
    assert known_to(child) == b"100"
    assert not child.asked
    cluster.kill(child)
    other = host(cluster)
    quarantine = cluster.child(kind=ChildKind.QUARANTINE, actors=["Account"])
    cluster.run(quarantine)
    cluster.publish("d", mailbox=MIA)
    assert known_to(other) == b"100"


def test_d25_an_actor_that_was_in_quarantine_is_not_as_its_old_owner_knew_it() -> None:
    cluster = Cluster()
    keeper = host(cluster)
    cluster.publish("a", mailbox=MIA)
    cluster.start(keeper)
    since = keeper.held[1].since
    cluster.kill(keeper)
    trial = cluster.child(kind=ChildKind.QUARANTINE, actors=["Account"])
    cluster.start(trial)
    in_trial = trial.held[1].since
    assert in_trial > since
    handle(trial, b"from quarantine")
    keeper = host(cluster)
    cluster.publish("b", mailbox=MIA)
    assert known_to(keeper) == b"from quarantine"
    assert keeper.held[2].since > in_trial


def test_an_owner_that_comes_back_to_the_same_broker_has_the_actor_since_the_same_lease() -> None:
    cluster = Cluster()
    child = host(cluster)
    cluster.publish("a", mailbox=MIA)
    cluster.start(child)
    since = child.held[1].since
    handle(child, b"100")
    child.drop()
    cluster.network.tell_closed()
    child.connect()
    child.read()
    cluster.publish("b", mailbox=MIA)
    child.read()
    assert child.held[2].since == since


def test_after_a_restart_of_the_broker_an_owner_asks_anew() -> None:
    cluster = Cluster()
    child = host(cluster)
    cluster.publish("a", mailbox=MIA)
    cluster.start(child)
    since = child.held[1].since
    handle(child, b"100")
    cluster.restart(power=True)
    cluster.reconnect()
    cluster.publish("b", mailbox=MIA)
    child.read()
    assert next(iter(child.held.values())).since > since
    assert known_to(child) == b"100"


def test_who_asks_after_a_settle_is_told_what_that_left_although_its_commit_waits() -> None:
    cluster = Cluster(eager=False)
    child = host(cluster)
    cluster.publish("a", mailbox=MIA)
    cluster.sim.settle()
    cluster.start(child)
    body = child.held[1]
    handle(child, b"100")
    assert child.state_of(body) is None
    cluster.sim.settle()
    child.read()
    assert child.state_of(body) == b"100"


def test_d29_a_state_whose_commit_found_no_room_is_written_anew_before_anybody_is_told_an_older_one() -> None:
    cluster = Cluster(eager=False)
    child = host(cluster)
    cluster.publish("a", mailbox=MIA)
    cluster.sim.settle()
    cluster.start(child)
    body = child.held[1]
    cluster.disk.room_bytes = 10
    handle(child, b"100")
    child.state_of(body)
    cluster.sim.settle()
    child.read()
    assert cluster.sim.notices[-1].kind == "store_full"
    assert child.state_of(body) == b"100"


def test_a_purge_leaves_the_state_unless_it_is_asked_to_take_it_along() -> None:
    cluster = Cluster()
    child = host(cluster)
    cluster.publish("a", mailbox=MIA)
    cluster.start(child)
    since = child.held[1].since
    handle(child, b"100")
    cluster.ask(Op.PURGE, PurgeMailbox(MIA))
    assert kept(cluster) == b"100"
    cluster.ask(Op.PURGE, PurgeMailbox(MIA, state=True))
    assert kept(cluster) == b""
    # Its owner, who remembers it, is told to ask again.
    cluster.publish("b", mailbox=MIA)
    child.read()
    assert child.held[2].since > since
    assert known_to(child) == b""


def test_an_actor_that_the_broker_has_forgotten_can_lose_its_state_to_an_operator_as_well() -> None:
    cluster = Cluster()
    child = host(cluster)
    cluster.publish("a", mailbox=MIA, flags=SAFE)
    cluster.start(child)
    handle(child, b"100")
    cluster.kill(child)
    cluster.pass_time(70)
    assert MIA not in cluster.sim.broker.desk.mailboxes
    cluster.ask(Op.PURGE, PurgeMailbox(MIA, state=True))
    assert kept(cluster) == b""


def test_anybody_may_look_at_a_state_and_one_that_is_not_there_is_empty() -> None:
    cluster = Cluster()
    child = host(cluster)
    cluster.publish("a", mailbox=MIA)
    cluster.start(child)
    lease = child.held[1].lease
    handle(child, b"100")
    assert cluster.ask(Op.STATE, FetchState(MIA)) == FetchedState(lease, b"100")
    assert cluster.ask(Op.STATE, FetchState("actor:Account:eve")) == FetchedState()
