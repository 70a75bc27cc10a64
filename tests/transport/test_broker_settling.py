"""What children say about their deliveries, and what becomes of results (spec D20 to D22)."""

from __future__ import annotations

import msgspec
import pytest

from greenroom.transport.broker.settings import BrokerSettings
from greenroom.transport.message import Envelope, Failure, Flag, Follow, More, Outcome, Result, Retry, State
from greenroom.transport.requests import DeadFilter, Declare, FetchResults, Forget, Revoke
from greenroom.transport.sim.cluster import SAFE, SECOND, Cluster, said
from greenroom.transport.sim.peers import SimChild, SimClient
from greenroom.transport.verbs import (
    Attach,
    ChildKind,
    Durability,
    Known,
    Op,
    Progress,
    Results,
    Settle,
    TaskPolicy,
    Unwatch,
    Watch,
)

WATCHED = SAFE | int(Flag.WATCHED)


def ids_held(child: SimChild) -> list[str]:
    child.read()
    return [body.delivery.envelope.id for body in child.held.values()]


def encoded(state: State) -> bytes:
    return msgspec.msgpack.encode(Result(state))


def told(client: SimClient) -> list[tuple[str, int]]:
    client.read()
    known: list[Known] = [known for verb in said(client.others, Results) for known in verb.results]
    client.others.clear()
    return [(one.id, one.state) for one in known]


def two_of_one(cluster: Cluster) -> tuple[SimChild, SimChild]:
    """A child that runs a message and was judged lost, and another one that has it too."""
    worker = cluster.child()
    cluster.publish("a", flags=WATCHED)
    cluster.start(worker)
    worker.cut()
    cluster.node.cut()
    cluster.pass_time(14)
    other = cluster.child(node=cluster.new_node("other"))
    cluster.start(other)
    worker.connect()
    worker.read()
    worker.read()
    return worker, other


# --- one act -----------------------------------------------------------------------------------------------------


def test_d20_a_settle_its_result_and_its_follow_ups_are_one_commit() -> None:
    cluster = Cluster(eager=False)
    worker = cluster.child()
    cluster.sim.settle()
    cluster.publish("a")
    cluster.sim.settle()
    cluster.start(worker)
    commits = cluster.sim.commits
    follow = Follow("next", [Envelope("b", "task", "msgpack", b"", SAFE)])
    worker.settle([Outcome(1, worker.held[1].lease, State.SUCCESS, 10, encoded(State.SUCCESS), None, [follow])])
    assert cluster.result("a") is None
    cluster.sim.settle()
    assert cluster.sim.commits == commits + 1
    assert cluster.result("a") is not None
    assert (cluster.mailbox().depth, cluster.mailbox("next").depth) == (0, 1)


@pytest.mark.parametrize("flags", [SAFE, 0, SAFE | int(Flag.IGNORE_RESULT)])
def test_a_message_that_its_worker_would_not_load_is_a_dead_letter_with_its_story(flags: int) -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", flags=flags)
    cluster.start(worker)
    failure = Failure("SecurityError", "somewhere", b"", "a pickle body came unsigned")
    blob = msgspec.msgpack.encode(Result(State.FAILURE, failure=failure, dead=True))
    worker.settle([Outcome(1, worker.held[1].lease, State.REFUSED, 10, blob)])
    info = cluster.mailbox()
    assert (info.depth, info.dead) == (0, 1), "neither the message nor an aftermath waits"
    letter = cluster.dead()[0]
    assert (letter.id, letter.deliveries) == ("a", 1)
    assert letter.reason == "unsigned: a pickle body came unsigned"
    assert [(attempt.cause, attempt.worker) for attempt in letter.attempts] == [("unsigned", worker.session)]
    assert cluster.error("a") == ("" if flags & Flag.IGNORE_RESULT else "SecurityError")
    assert cluster.ask(Op.DEAD_REDRIVE, DeadFilter(ids=["a"])).count == 1
    assert cluster.result("a") is None
    assert cluster.run(worker) == ["a"]


@pytest.mark.parametrize(("most", "told"), [(1, "was set aside: it was given back once"), (2, "given back 2 times")])
def test_what_is_given_back_too_often_is_told_in_words_that_fit_the_number(most: int, told: str) -> None:
    cluster = Cluster(BrokerSettings(acquired_max=most))
    worker = cluster.child()
    cluster.publish("a")
    for _ in range(most):
        cluster.pass_time(5)
        assert cluster.start(worker) == ["a"]
        cluster.settle(worker, State.REQUEUED)
    assert told in cluster.dead()[0].reason


def test_a_refusal_without_a_word_is_a_dead_letter_all_the_same() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    worker.settle([Outcome(1, worker.held[1].lease, State.REFUSED, 10, b"\xc1")])
    assert cluster.dead()[0].reason.startswith("unsigned: its worker refused")


def test_d20_a_settle_that_is_said_again_is_applied_once() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    follow = Follow("next", [Envelope("b", "task", "msgpack", b"", SAFE)])
    settle = Settle(1, [Outcome(1, worker.held[1].lease, State.SUCCESS, 10, b"", None, [follow])])
    worker.say(settle, settle)
    assert cluster.mailbox("next").depth == 1


def test_d20_a_retry_is_the_same_message_with_its_new_form() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    form = Envelope("a", "task", "msgpack", b"again", SAFE, more=More(retries=1, expires_in=9 * SECOND))
    cluster.settle(worker, State.RETRY, retry=Retry(form, 5 * SECOND))
    result = cluster.result("a")
    assert result is not None
    assert result.state == State.RETRY
    assert (cluster.mailbox().depth, cluster.mailbox().scheduled) == (1, 1)
    cluster.pass_time(4.9)
    assert ids_held(worker) == []
    cluster.pass_time(0.1)
    assert ids_held(worker) == ["a"]
    delivery = next(iter(worker.held.values())).delivery
    assert delivery.envelope.body == b"again"
    assert delivery.expires_in == 4 * SECOND


def test_d20_a_follow_up_with_a_delay_waits_and_survives_the_broker() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    follow = Follow("celery", [Envelope("b", "task", "msgpack", b"", SAFE, more=More(delay=10 * SECOND))])
    worker.settle([Outcome(1, worker.held[1].lease, State.SUCCESS, 10, b"", None, [follow])])
    cluster.restart()
    cluster.reconnect()
    cluster.pass_time(9)
    assert ids_held(worker) == []
    cluster.pass_time(1)
    assert ids_held(worker) == ["b"]


@pytest.mark.parametrize("state", [State.PENDING, State.STARTED, State.CUSTOM, 99])
def test_an_outcome_that_ends_nothing_loses_the_message_and_does_not_run_it_again(state: int) -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", flags=0)
    cluster.start(worker)
    worker.settle([Outcome(1, worker.held[1].lease, state)])
    assert cluster.error("a") == "WorkerLostError"
    assert ids_held(worker) == ["a.aftermath"]


def test_a_requeued_message_waits_longer_each_time_and_is_dead_in_the_end() -> None:
    cluster = Cluster(BrokerSettings(acquired_max=4))
    worker = cluster.child()
    cluster.publish("a")
    for _ in range(4):
        assert cluster.start(worker) == ["a"]
        cluster.settle(worker, State.REQUEUED)
        cluster.pass_time(0.9)
        assert "a" not in ids_held(worker)
        cluster.pass_time(20)
    assert [letter.id for letter in cluster.dead()] == ["a"]
    assert cluster.dead()[0].counters["requeues"] == 4


# --- who may settle ----------------------------------------------------------------------------------------------


def test_d21_the_first_terminal_outcome_wins_and_cancels_the_others() -> None:
    cluster = Cluster()
    worker, other = two_of_one(cluster)
    cluster.settle(worker, State.FAILURE)
    result = cluster.result("a")
    assert result is not None
    assert result.state == State.FAILURE
    assert cluster.mailbox().depth == 0
    cluster.settle(other, State.SUCCESS)
    result = cluster.result("a")
    assert result is not None
    assert result.state == State.FAILURE
    assert told(cluster.client) == [("a", State.FAILURE)]


@pytest.mark.parametrize("state", [State.RETRY, State.REQUEUED])
def test_d21_a_retry_or_nack_of_an_old_delivery_counts_for_nothing(state: State) -> None:
    cluster = Cluster()
    worker, other = two_of_one(cluster)
    form = Retry(Envelope("a", "task", "msgpack", b"again", SAFE))
    cluster.settle(worker, state, retry=form if state == State.RETRY else None)
    assert cluster.mailbox().depth == 1
    cluster.settle(other)
    result = cluster.result("a")
    assert result is not None
    assert result.state == State.SUCCESS


def test_d21_an_outcome_under_an_old_lease_of_the_same_child_is_not_the_current_one() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    lease = worker.held[1].lease
    worker.say(Settle(1, [Outcome(1, lease + 7, State.SUCCESS, 10, encoded(State.SUCCESS))]))
    assert cluster.result("a") is None
    assert cluster.mailbox().acquired == 1


def test_d21_a_revoke_reaches_the_child_after_the_delivery_that_it_takes_back() -> None:
    cluster = Cluster(eager=False)
    worker = cluster.child()
    cluster.sim.settle()
    worker.read()
    cluster.publish("a")
    cluster.sim.broker.admin.removal.revoke(Revoke(["a"]))
    cluster.sim.settle()
    assert ids_held(worker) == []
    cluster.sim.settle()
    result = cluster.result("a")
    assert result is not None
    assert result.state == State.REVOKED


# --- progress ----------------------------------------------------------------------------------------------------


def test_d21_progress_is_told_to_who_watches_and_proves_that_the_body_runs() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", flags=WATCHED)
    worker.read()
    lease = worker.held[1].lease
    for state in (State.STARTED, State.CUSTOM):
        worker.add(lambda number, state=state: Progress(number, [1], [lease], [encoded(state)]))  # type: ignore[misc]
    assert told(cluster.client) == [("a", State.STARTED), ("a", State.CUSTOM)]
    assert (cluster.mailbox().acquired, cluster.mailbox().started) == (0, 1)
    worker.add(lambda number: Progress(number, [1], [lease], [b"\xc1 no result"]))
    assert told(cluster.client) == [("a", State.CUSTOM)]


def test_d21_progress_of_an_old_delivery_is_ignored() -> None:
    cluster = Cluster()
    worker, _ = two_of_one(cluster)
    worker.add(lambda number: Progress(number, [1], [1], [encoded(State.CUSTOM)]))
    assert cluster.result("a") is None


def test_g11_a_terminal_result_never_changes() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    lease = worker.held[1].lease
    cluster.settle(worker)
    worker.add(lambda number: Progress(number, [1], [lease], [encoded(State.CUSTOM)]))
    worker.say(Settle(9, [Outcome(1, lease, State.FAILURE, 10, encoded(State.FAILURE))]))
    result = cluster.result("a")
    assert result is not None
    assert result.state == State.SUCCESS


# --- results -----------------------------------------------------------------------------------------------------


def test_d22_a_watch_begins_with_what_is_known_and_ends_with_a_terminal_state() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", "b")
    cluster.start(worker)
    cluster.settle(worker)
    watcher = cluster.new_client("watcher")
    watcher.say(Watch(["a", "b", "c"]))
    assert told(watcher) == [("a", State.SUCCESS)]
    cluster.run(worker)
    assert told(watcher) == [("b", State.SUCCESS)]
    assert cluster.sim.broker.watching.watched() == ["c"]
    watcher.say(Unwatch(["c", "never"]))
    assert cluster.sim.broker.watching.watched() == []


def test_d22_results_are_pushed_only_after_their_commit() -> None:
    cluster = Cluster(eager=False)
    worker = cluster.child()
    cluster.sim.settle()
    cluster.publish("a", flags=WATCHED)
    cluster.sim.settle()
    cluster.start(worker)
    cluster.settle(worker)
    assert told(cluster.client) == []
    cluster.sim.settle()
    assert told(cluster.client) == [("a", State.SUCCESS)]


def test_d22_a_snapshot_that_overlaps_a_failed_commit_is_read_again() -> None:
    cluster = Cluster(eager=False)
    worker = cluster.child()
    cluster.sim.settle()
    cluster.publish("a")
    cluster.sim.settle()
    cluster.start(worker)
    cluster.disk.room_bytes = 10
    cluster.settle(worker)
    cluster.client.say(Watch(["a"]))
    cluster.sim.settle()
    assert told(cluster.client) == [("a", State.SUCCESS)]


def test_watches_have_a_limit_for_all_sessions_together() -> None:
    cluster = Cluster(BrokerSettings(watches_max=3))
    cluster.client.say(Watch(["a", "b"]))
    other = cluster.new_client("other")
    other.say(Watch(["c", "d", "e"]))
    assert sorted(cluster.sim.broker.watching.watched()) == ["a", "b", "c"]
    assert [notice.kind for notice in cluster.sim.notices] == ["watches_full"]
    cluster.client.drop()
    cluster.network.tell_closed()
    other.say(Watch(["d"]))
    assert sorted(cluster.sim.broker.watching.watched()) == ["c", "d"]


def test_results_are_fetched_forgotten_and_expire() -> None:
    cluster = Cluster(BrokerSettings(result_ttl=100 * SECOND))
    worker = cluster.child()
    cluster.publish("a", "b")
    cluster.run(worker)
    assert [row[:2] for row in cluster.ask(Op.RESULTS, FetchResults(["b", "c"])).results] == [("b", State.SUCCESS)]
    cluster.ask(Op.FORGET, Forget(["b"]))
    assert cluster.ask(Op.RESULTS, FetchResults(["a", "b"])).results[0][0] == "a"
    cluster.pass_time(102)
    assert cluster.ask(Op.RESULTS, FetchResults(["a", "b"])).results == []


def attach_with(child: SimChild, *policies: TaskPolicy) -> None:
    child.say(Attach(["celery"], 1, 1, policies=list(policies)))
    child.read()


def test_results_are_kept_as_long_as_the_workers_application_says() -> None:
    cluster = Cluster(BrokerSettings(result_ttl=100 * SECOND))
    worker = cluster.child()
    attach_with(
        worker,
        TaskPolicy("short", 0, result_ttl=10 * SECOND, failure_ttl=50 * SECOND),
        TaskPolicy("for ever", SAFE, result_ttl=0, failure_ttl=0),
        TaskPolicy("does not say", SAFE),
    )
    for name in ("short", "for ever", "does not say"):
        cluster.publish(f"{name} good", f"{name} bad", name=name)
        cluster.start(worker)
        cluster.settle(worker)
        cluster.start(worker)
        cluster.settle(worker, State.FAILURE)
    # An actor's method is no task, whatever its name.
    cluster.publish("actor", mailbox="actor:Counter:x", name="short")
    cluster.run(cluster.child(kind=ChildKind.ACTORS, actors=["Counter"]))
    told = ["short good", "short bad", "for ever good", "for ever bad", "does not say good", "actor"]
    assert [cluster.result(id) is not None for id in told] == [True] * 6
    cluster.pass_time(12)
    assert [cluster.result(id) is not None for id in told] == [False, True, True, True, True, True]
    # The broker remembers it as it does the rest of what workers registered; and its own failures are failures.
    cluster.restart()
    cluster.reconnect()
    cluster.publish("lost", name="short")
    assert cluster.start(worker) == ["lost"]
    cluster.kill(worker)
    cluster.pass_time(42)
    assert [cluster.result(id) is not None for id in told] == [False, False, True, True, True, True]
    assert cluster.error("lost") == "WorkerLostError"
    cluster.pass_time(60)
    assert [cluster.result(id) is not None for id in [*told, "lost"]] == [False, False, True, True, False, False, False]
    attach_with(cluster.child(), TaskPolicy("short", SAFE))
    assert list(cluster.sim.broker.desk.lifetimes) == ["for ever"]


@pytest.mark.parametrize(("flags", "kept"), [(0, True), (Flag.IGNORE_RESULT, False)])
def test_a_broker_keeps_its_own_words_only_where_results_are_kept(flags: int, kept: bool) -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", flags=int(flags))
    cluster.start(worker)
    cluster.kill(worker)
    assert (cluster.result("a") is not None) == kept
    cluster.publish("b", flags=int(Flag.IGNORE_RESULT | Flag.STORE_ERRORS))
    worker = cluster.child(slots=3, window=3)
    cluster.start(worker)
    cluster.kill(worker)
    assert cluster.error("b") == "WorkerLostError"


def test_a_transient_actors_message_is_at_most_once() -> None:
    cluster = Cluster()
    cluster.ask(Op.DECLARE, Declare("actor:Counter:x", durability=Durability.MEMORY))
    cluster.publish("a", mailbox="actor:Counter:x", flags=0)
    child = cluster.child(kind=ChildKind.ACTORS, actors=["Counter"], slots=2, window=2)
    assert cluster.start(child) == ["a"]
    cluster.kill(child)
    assert cluster.error("a") == "WorkerLostError"
