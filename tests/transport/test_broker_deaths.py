"""Who is to blame when a process dies, and what becomes of its messages (spec D14 to D18, D23 to D26, P6)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.transport.broker.past import Past
from greenroom.transport.broker.redelivery import Ending, Verdict, delay_before, judge, requeue_delay
from greenroom.transport.broker.settings import BrokerSettings
from greenroom.transport.message import Flag, Kind, More, State
from greenroom.transport.sim.cluster import SAFE, SECOND, Cluster, said
from greenroom.transport.sim.peers import SimChild
from greenroom.transport.store.records import Append
from greenroom.transport.verbs import ChildKind, RingEntry, Spawn

LATE = int(Flag.ACKS_LATE)


def ids_held(child: SimChild) -> list[str]:
    child.read()
    return [body.delivery.envelope.id for body in child.held.values()]


# --- reports -----------------------------------------------------------------------------------------------------


def test_d14_outcomes_in_the_page_are_applied_before_anything_is_judged() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=2)
    cluster.publish("a", "b", flags=0)
    cluster.start(worker)
    worker.cut()
    cluster.settle(worker)
    cluster.kill(worker)
    assert [cluster.error(id) for id in "ab"] == ["", ""]
    assert cluster.mailbox().depth == 0


def test_d14_what_was_only_buffered_goes_back_to_the_head_in_its_order_and_nobody_blames_it() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=3, window=3)
    cluster.publish("a", "b", "c", "d")
    assert ids_held(worker) == ["a", "b", "c"]
    cluster.kill(worker)
    other = cluster.child(slots=4, window=4)
    assert ids_held(other) == ["a", "b", "c", "d"]
    assert cluster.sim.broker.desk.counts.redelivered == 0


def test_d14_only_what_had_started_is_a_suspect() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=3, window=3)
    cluster.publish("a", "b", "c")
    worker.read()
    worker.start(1)
    cluster.kill(worker)
    other = cluster.child(slots=3, window=3)
    assert ids_held(other) == ["b", "c"]
    trial = cluster.child(kind=ChildKind.QUARANTINE)
    assert ids_held(trial) == ["a"]


@pytest.mark.parametrize(("flags", "error"), [(0, "WorkerLostError"), (SAFE, "")])
def test_d14_what_had_finished_without_an_outcome_is_not_blamed(flags: int, error: str) -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", flags=flags)
    cluster.start(worker)
    worker.lose_outcome(1)
    cluster.kill(worker)
    assert cluster.error("a") == error
    other = cluster.child()
    assert (ids_held(other) == ["a"]) == bool(flags)
    assert cluster.sim.broker.desk.counts.redelivered == bool(flags)


def test_d14_a_ring_of_an_older_lease_blames_nobody() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", flags=0)
    cluster.kill(worker, ring=[RingEntry(1, 99, False)])
    assert cluster.error("a") == ""
    assert cluster.mailbox().ready == 1


def test_d15_a_child_whose_link_closes_alone_has_time_to_come_back() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    worker.drop()
    cluster.pass_time(12)
    assert cluster.mailbox().acquired == 1
    worker.connect()
    worker.read()
    cluster.pass_time(5)
    assert cluster.settle(worker) == ["a"]
    result = cluster.result("a")
    assert result is not None
    assert result.state == State.SUCCESS


def test_d15_a_child_that_talks_is_alive_whatever_its_parent_does() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    cluster.node.drop()
    cluster.pass_time(30)
    assert cluster.settle(worker) == ["a"]
    assert cluster.error("a") == ""


def test_d15_a_node_is_lost_when_its_link_and_those_of_its_children_are_closed() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=2)
    cluster.publish("a", flags=0)
    cluster.publish("b")
    cluster.start(worker)
    cluster.kill_node()
    cluster.pass_time(6.9)
    assert cluster.error("a") == ""
    cluster.pass_time(0.2)
    assert cluster.error("a") == "WorkerLostError"
    other = cluster.child()
    assert ids_held(other) == ["b"]


def test_d16_pages_that_are_found_on_this_host_spare_the_wait() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=2)
    cluster.publish("a", "b", flags=0)
    worker.read()
    worker.start(1)
    cluster.pages = [worker.page(node_lost=True)]
    cluster.kill_node()
    assert cluster.error("a") == "WorkerLostError"
    other = cluster.child()
    assert ids_held(other) == ["b"]


def test_d16_a_page_that_another_node_finds_in_time_is_evidence() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=2)
    cluster.publish("a", "b", flags=0)
    worker.read()
    worker.start(1)
    pages = cluster.kill_node()
    cluster.pass_time(5)
    for page in pages:
        cluster.node.report(page)
    assert cluster.error("a") == "WorkerLostError"
    other = cluster.child()
    assert ids_held(other) == ["b"]


def test_d16_a_page_that_is_found_too_late_still_brings_outcomes() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    worker.cut()
    cluster.settle(worker)
    pages = cluster.kill_node()
    cluster.pass_time(15)
    assert cluster.mailbox().ready == 1
    for page in pages:
        cluster.node.report(page)
    result = cluster.result("a")
    assert result is not None
    assert result.state == State.SUCCESS
    assert cluster.mailbox().depth == 0


def test_d17_an_early_ack_is_redelivered_only_on_evidence_that_it_did_not_start() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=2)
    cluster.publish("a", "b", flags=0)
    worker.read()
    worker.start(2)
    cluster.kill(worker)
    assert cluster.error("b") == "WorkerLostError"
    other = cluster.child(slots=3, window=3)
    assert cluster.run(other) == ["a", "b.aftermath"]


def test_d17_an_early_ack_whose_holder_left_no_evidence_is_lost_and_never_runs_again() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=2)
    cluster.publish("a", "b", flags=0)
    assert ids_held(worker) == ["a", "b"]
    cluster.kill_node()
    cluster.pass_time(8)
    assert [cluster.error(id) for id in "ab"] == ["WorkerLostError"] * 2
    assert cluster.run(cluster.child()) == ["a.aftermath", "b.aftermath"]


def test_d18_after_a_restart_leases_wait_and_the_rest_goes_out_at_once() -> None:
    cluster = Cluster()
    cluster.child()
    cluster.publish("a", flags=0)
    cluster.publish("b", flags=0)
    cluster.restart()
    node = cluster.new_node("other")
    other = cluster.child(node=node, slots=5, window=5)
    assert ids_held(other) == ["b"]
    cluster.pass_time(8)
    assert cluster.error("a") == "WorkerLostError"


def test_d18_what_a_child_holds_when_it_comes_back_goes_on_and_is_not_started_again() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=2)
    cluster.publish("a", "b", flags=0)
    worker.read()
    worker.start(1)
    cluster.restart()
    cluster.reconnect()
    other = cluster.child(slots=5, window=5)
    cluster.pass_time(20)
    assert ids_held(other) == []
    assert cluster.mailbox().started == 1
    cluster.start(worker)
    assert cluster.settle(worker) == ["a", "b"]


def test_d18_what_a_child_does_not_hold_when_it_comes_back_goes_to_the_head_without_blame() -> None:
    cluster = Cluster(eager=False)
    worker = cluster.child()
    cluster.sim.settle()
    worker.read()
    cluster.publish("a", "b", flags=0)
    cluster.sim.settle()
    worker.drop()
    worker.connect()
    cluster.network.tell_closed()
    worker.read()
    cluster.sim.settle()
    assert ids_held(worker) == ["a"]
    assert next(iter(worker.held.values())).delivery.deliveries == 2
    assert cluster.sim.broker.desk.counts.redelivered == 0


def test_d18_a_returned_message_is_nobodys_after_a_restart_though_its_lease_goes_on() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=2)
    cluster.publish("a", "b", flags=0)
    worker.read()
    worker.change_window(1)
    worker.slots = 1
    worker.give_back([2])
    cluster.restart()
    other = cluster.child(node=cluster.new_node("other"))
    assert ids_held(other) == ["b"]


# --- endings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["lost", "expired", "revoked", "dead"])
def test_d23_an_end_that_no_child_reported_makes_one_aftermath(way: str) -> None:
    cluster = Cluster()
    if way == "expired":
        cluster.publish("a", more=More(expires_in=SECOND))
        cluster.pass_time(2)
    elif way == "revoked":
        cluster.publish("a")
        cluster.sim.broker.desk.revoked["a"] = cluster.sim.now.wall + 9 * SECOND
    else:
        worker = cluster.child()
        cluster.publish("a", flags=0 if way == "lost" else SAFE, more=More(max_deliveries=1))
        cluster.start(worker)
        cluster.kill(worker)
    worker = cluster.child()
    assert cluster.start(worker) == ["a.aftermath"]
    assert worker.held[next(iter(worker.held))].delivery.envelope.kind == Kind.AFTERMATH
    for expected in range(1, 3):
        cluster.kill(worker)
        worker = cluster.child(kind=ChildKind.QUARANTINE)
        cluster.pass_time(3)
        assert cluster.start(worker) == ["a.aftermath"], f"after {expected} deaths"
    cluster.kill(worker)
    cluster.pass_time(100)
    assert cluster.mailbox().depth == 0
    assert len(cluster.dead()) == 1 + (way == "dead")


def test_d23_an_aftermath_of_an_early_task_is_redelivered_all_the_same() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", flags=0)
    cluster.start(worker)
    cluster.kill(worker)
    worker = cluster.child()
    assert cluster.start(worker) == ["a.aftermath"]
    cluster.kill(worker)
    cluster.child()
    assert cluster.start(cluster.child(kind=ChildKind.QUARANTINE)) == ["a.aftermath"]


# --- blame -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [1, 2, 3, 5])
def test_d24_a_message_that_kills_its_process_starts_so_often_and_no_more(bound: int) -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", more=More(max_deliveries=bound))
    starts = 0
    for _ in range(bound + 2):
        if "a" in cluster.start(worker):
            starts += 1
        cluster.kill(worker)
        cluster.child()
        worker = cluster.child("celery", kind=ChildKind.QUARANTINE)
        cluster.pass_time(70)
    assert starts == bound
    assert cluster.error("a") == "PoisonMessage"
    letters = [letter for letter in cluster.dead() if letter.id == "a"]
    assert len(letters) == 1
    assert letters[0].deliveries == bound
    assert [attempt.cause for attempt in letters[0].attempts] == ["solo"] * bound
    assert letters[0].attempts[0].signal == 9


def test_d24_the_count_survives_the_broker() -> None:
    cluster = Cluster()
    cluster.publish("a")
    worker = cluster.child()
    starts = 0
    for _ in range(5):
        starts += "a" in cluster.start(worker)
        cluster.kill(worker)
        cluster.restart()
        cluster.reconnect()
        cluster.child()
        worker = cluster.child(kind=ChildKind.QUARANTINE)
        cluster.pass_time(70)
        worker.read()
    assert starts == 3
    assert [letter.id for letter in cluster.dead()] == ["a"]


def test_d24_a_joint_death_is_never_the_last() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=2)
    cluster.publish("a", "b", more=More(max_deliveries=1))
    assert cluster.start(worker) == ["a", "b"]
    cluster.kill(worker)
    assert cluster.dead() == []
    cluster.child()
    trial = cluster.child(kind=ChildKind.QUARANTINE)
    assert cluster.start(trial) == ["a"]
    cluster.kill(trial)
    assert [letter.id for letter in cluster.dead()] == ["a"]
    trial = cluster.child(kind=ChildKind.QUARANTINE)
    assert cluster.run(trial) == ["b"]
    assert cluster.error("b") == ""


@settings(max_examples=300, deadline=None)
@given(
    bound=st.integers(0, 12),
    endings=st.lists(st.sampled_from(["solo", "joint", "node", "timeout"]), min_size=1, max_size=40),
)
def test_d24_whatever_happens_the_starts_are_bounded(bound: int, endings: list[str]) -> None:
    """Counted from the words of D24: each kind by itself and together."""
    past = Past()
    counts = {"solo": 0, "joint": 0, "node": 0, "timeout": 0}
    n = bound or 3
    for ending in endings:
        counts[ending] += 1
        kinds = {"node": Ending.NODE_LOST, "timeout": Ending.TIMED_OUT}
        flags = SAFE | int(Flag.REDELIVER_ON_TIMEOUT)
        verdict = judge(kinds.get(ending, Ending.DIED), flags, past, ending == "joint", bound)
        deaths = counts["solo"] + counts["joint"]
        if verdict is Verdict.DEAD:
            assert counts["timeout"] >= n or (deaths and deaths + counts["node"] >= n) or counts["node"] >= max(n, 10)
            assert ending != "joint" or counts["timeout"] >= n
            return
        assert counts["timeout"] < n
        assert ending == "joint" or not deaths or deaths + counts["node"] < n
        assert deaths or counts["node"] < max(n, 10)
        blamed = deaths or counts["timeout"] or counts["node"] >= n
        assert (verdict is Verdict.QUARANTINE) == bool(blamed)


def test_d24_node_losses_alone_quarantine_at_the_bound_and_are_dead_at_ten() -> None:
    past = Past()
    verdicts = [judge(Ending.UNKNOWN, LATE, past, False, 0) for _ in range(10)]
    assert verdicts == [Verdict.AGAIN] * 2 + [Verdict.QUARANTINE] * 7 + [Verdict.DEAD]


def test_d24_hard_time_limits_are_counted_against_the_same_number() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", flags=SAFE | int(Flag.REDELIVER_ON_TIMEOUT))
    for _ in range(3):
        assert cluster.start(worker) == ["a"]
        cluster.kill(worker, timed_out=[next(iter(worker.held))])
        cluster.child()
        worker = cluster.child(kind=ChildKind.QUARANTINE)
        cluster.pass_time(70)
    assert [attempt.cause for attempt in cluster.dead()[0].attempts] == ["timeout"] * 3


def test_d24_what_is_killed_for_another_bodys_sake_is_not_blamed() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=2)
    cluster.publish("slow", "innocent")
    cluster.start(worker)
    cluster.kill(worker, timed_out=[1])
    assert cluster.error("slow") == "TimeLimitExceeded"
    other = cluster.child(slots=3, window=3)
    # At once and in an ordinary child: it is no suspect, though it will have run twice.
    assert "innocent" in cluster.start(other)
    assert cluster.sim.broker.desk.counts.redelivered == 1


def test_a_kill_through_revoke_convicts_nobody_and_ends_as_revoked() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    cluster.kill(worker, terminated=[1])
    result = cluster.result("a")
    assert result is not None
    assert result.state == State.REVOKED
    assert cluster.dead() == []


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (0, "WorkerLostError"),
        (LATE, "WorkerLostError"),
        (int(Flag.REJECT_ON_WORKER_LOST), "WorkerLostError"),
        (SAFE, ""),
    ],
)
def test_s15_a_dead_child_acks_unless_the_task_is_late_and_rejects_on_worker_lost(flags: int, error: str) -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a", flags=flags)
    cluster.start(worker)
    cluster.kill(worker)
    assert cluster.error("a") == error


def test_s14_the_loss_of_a_whole_node_redelivers_what_is_late() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=2)
    cluster.publish("early", flags=0)
    cluster.publish("late", flags=LATE)
    cluster.start(worker)
    for page in cluster.kill_node():
        cluster.node.report(page)
    assert cluster.error("early") == "WorkerLostError"
    assert "late" in cluster.run(cluster.child())


def test_retry_on_worker_lost_retries_so_often_and_is_lost_then() -> None:
    cluster = Cluster()
    cluster.publish("a", flags=LATE | int(Flag.RETRY_ON_WORKER_LOST), more=More(max_retries=2, retry_delay=SECOND))
    starts = 0
    for _ in range(4):
        worker = cluster.child()
        cluster.pass_time(1.5)
        starts += "a" in cluster.start(worker)
        cluster.kill(worker)
    assert starts == 3
    assert cluster.error("a") == "WorkerLostError"


# --- quarantine --------------------------------------------------------------------------------------------------


def test_d25_suspects_run_alone_and_one_at_a_time_while_others_go_on() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=3, window=3)
    cluster.publish("a", "b", "c", "d")
    assert cluster.start(worker) == ["a", "b", "c"]
    cluster.kill(worker)
    other = cluster.child(slots=5, window=5)
    assert ids_held(other) == ["d"]
    cluster.node.read()
    assert cluster.node.asked == {ChildKind.QUARANTINE: 3}
    trials = [cluster.child(kind=ChildKind.QUARANTINE) for _ in range(2)]
    assert [ids_held(trial) for trial in trials] == [["a"], ["b"]]
    assert cluster.run(trials[0]) == ["a", "c"]
    assert cluster.run(trials[1]) == ["b"]


def test_d25_a_suspect_waits_for_any_node_that_serves_its_mailbox() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    cluster.kill(worker)
    cluster.pass_time(20)
    assert cluster.mailbox().scheduled == 1
    other = cluster.new_node("other")
    cluster.child(node=other)
    assert [(verb.kind, verb.count) for verb in said(other.read(), Spawn)] == [(ChildKind.QUARANTINE, 1)]
    assert cluster.run(cluster.child(node=other, kind=ChildKind.QUARANTINE)) == ["a"]


def test_d25_a_quarantine_child_of_another_mailbox_gets_none_of_these() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    cluster.kill(worker)
    trial = cluster.child("other", kind=ChildKind.QUARANTINE)
    assert ids_held(trial) == []


def test_d25_a_suspect_stays_one_through_requeues_retries_and_returns() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    cluster.kill(worker)
    pool = cluster.child()
    trial = cluster.child(kind=ChildKind.QUARANTINE)
    assert cluster.start(trial) == ["a"]
    cluster.settle(trial, State.REQUEUED)
    cluster.pass_time(2)
    assert ids_held(pool) == []
    assert ids_held(trial) == ["a"]
    trial.give_back(list(trial.held))
    assert ids_held(pool) == []
    assert cluster.run(trial) == ["a"]


def test_d26_redeliveries_wait_longer_each_time() -> None:
    delays = [delay_before(Past(solo=count), "an id") for count in range(1, 12)]
    assert delays[0] == 0
    for number, delay in enumerate(delays[1:]):
        least = min(60, 2**number) * SECOND
        assert least <= delay <= 1.2 * least
    first = [requeue_delay(Past(requeues=count), "an id", SECOND) for count in (1, 2, 3)]
    for number, delay in enumerate(first):
        assert 2**number * SECOND <= delay <= 1.2 * 2**number * SECOND


def test_d26_the_first_redelivery_is_at_once_and_the_second_after_a_second() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    cluster.child()
    cluster.kill(worker)
    trial = cluster.child(kind=ChildKind.QUARANTINE)
    assert cluster.start(trial) == ["a"]
    cluster.kill(trial)
    trial = cluster.child(kind=ChildKind.QUARANTINE)
    cluster.pass_time(0.9)
    assert ids_held(trial) == []
    cluster.pass_time(0.4)
    assert ids_held(trial) == ["a"]


@settings(max_examples=60, deadline=None)
@given(
    messages=st.integers(1, 30),
    poison=st.integers(0, 29),
    slots=st.integers(1, 4),
    window=st.integers(1, 16),
    children=st.integers(1, 3),
    bound=st.integers(1, 4),
)
def test_p6_one_poison_among_many_harms_nobody(
    messages: int, poison: int, slots: int, window: int, children: int, bound: int
) -> None:
    poison %= messages
    cluster = Cluster(BrokerSettings(head_messages_max=8))
    ids = [f"id{number}" for number in range(messages)]
    for id in ids:
        cluster.publish(id, more=More(max_deliveries=bound))
    starts = dict.fromkeys(ids, 0)
    crashes = {ChildKind.POOL: 0, ChildKind.QUARANTINE: 0}
    for _ in range(20 * messages):
        while sum(child.kind == ChildKind.POOL for child in cluster.node.children.values()) < children:
            cluster.child(slots=slots, window=window)
        cluster.read()
        if cluster.node.asked and not any(c.kind == ChildKind.QUARANTINE for c in cluster.node.children.values()):
            cluster.child(kind=ChildKind.QUARANTINE)
        for child in list(cluster.node.children.values()):
            before = {body.delivery.position for body in child.held.values() if body.running}
            cluster.start(child)
            for position, body in child.held.items():
                if body.running and position not in before and body.delivery.envelope.id in starts:
                    starts[body.delivery.envelope.id] += 1
            if any(b.running and b.delivery.envelope.id == ids[poison] for b in child.held.values()):
                crashes[child.kind] += 1
                cluster.kill(child)
            else:
                cluster.settle(child)
        if not cluster.mailbox().depth:
            break
        cluster.pass_time(1)
    assert [letter.id for letter in cluster.dead()] == [ids[poison]]
    for id in ids:
        if id != ids[poison]:
            result = cluster.result(id)
            assert result is not None
            assert result.state == State.SUCCESS
            assert starts[id] <= 2
    assert crashes[ChildKind.POOL] == 1
    # A joint death is followed by one trial alone, also where the bound is one.
    assert sum(crashes.values()) <= max(bound, 2)


def test_a_message_that_came_back_with_a_past_is_never_left_to_the_store() -> None:
    cluster = Cluster(BrokerSettings(head_messages_max=1))
    worker = cluster.child(slots=1)
    cluster.publish("a", "b", "c", "d", flags=SAFE | int(Flag.RETRY_ON_WORKER_LOST))
    cluster.start(worker)
    cluster.settle(worker, State.REQUEUED)
    assert any(isinstance(row, Append) for row in cluster.disk.rows.values())
    cluster.pass_time(3)
    assert sorted(cluster.run(worker)) == ["a", "b", "c", "d"]
