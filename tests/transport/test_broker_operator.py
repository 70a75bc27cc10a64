"""What an operator sees and does: purge, revoke, dead letters, settings of mailboxes, status."""

from __future__ import annotations

import msgspec
import pytest

from greenroom.transport.broker.mailbox import Declared
from greenroom.transport.broker.settings import BrokerSettings
from greenroom.transport.message import Flag, More, State
from greenroom.transport.requests import DeadFilter, Declare, Mailboxes, PurgeMailbox, Revoke, StatusRequest
from greenroom.transport.sim.cluster import SAFE, SECOND, Cluster, said
from greenroom.transport.sim.peers import SimChild
from greenroom.transport.store.records import Dead
from greenroom.transport.verbs import (
    Attach,
    Bounds,
    Cancel,
    ChildKind,
    Durability,
    Op,
    Recall,
    Reply,
    Request,
    Results,
    Terminate,
    Trouble,
    Watch,
)

CHOSEN = SAFE | int(Flag.CHOSEN_ID)


def ids_held(child: SimChild) -> list[str]:
    child.read()
    return [body.delivery.envelope.id for body in child.held.values()]


def kill_until_dead(cluster: Cluster, id: str) -> None:
    cluster.publish(id, more=More(max_deliveries=1))
    worker = cluster.child()
    cluster.start(worker)
    cluster.kill(worker)
    worker = cluster.child()
    cluster.run(worker)
    worker.die()
    cluster.network.tell_closed()


# --- purge -------------------------------------------------------------------------------------------------------


def test_a_purge_drops_what_waits_wherever_it_waits_and_leaves_what_is_out() -> None:
    cluster = Cluster(BrokerSettings(head_messages_max=2))
    worker = cluster.child(slots=2, window=2)
    cluster.publish("suspect")
    cluster.start(worker)
    cluster.kill(worker)
    worker = cluster.child(slots=2, window=2)
    for number in range(10):
        cluster.publish(f"id{number}")
        cluster.publish(f"later{number}", more=More(delay=(number + 1) * SECOND))
    cluster.publish("elsewhere", mailbox="other", more=More(delay=3 * SECOND))
    assert ids_held(worker) == ["id0", "id1"]
    counted = cluster.ask(Op.PURGE, PurgeMailbox("celery"))
    assert counted.count == 19
    assert cluster.mailbox().depth == 2
    cluster.restart()
    cluster.reconnect()
    cluster.pass_time(30)
    assert cluster.run(worker) == ["id0", "id1"]
    assert cluster.mailbox().depth == 0
    assert cluster.mailbox("other").depth == 1
    cluster.publish("new")
    assert cluster.run(worker) == ["new"]


def test_a_purge_after_a_restart_drops_the_unread_rest_of_a_row_that_is_partly_out() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=2)
    cluster.publish(*(f"id{number}" for number in range(10)))
    worker.read()
    cluster.restart()
    cluster.reconnect()
    assert cluster.ask(Op.PURGE, PurgeMailbox("celery")).count == 8
    assert cluster.mailbox().depth == 2
    cluster.restart()
    cluster.reconnect()
    assert cluster.mailbox().depth == 2
    cluster.start(worker)
    cluster.settle(worker)
    assert cluster.disk.rows == {}


def test_a_purge_takes_messages_whose_chosen_id_is_not_judged_yet() -> None:
    cluster = Cluster(eager=False)
    cluster.publish("a", flags=CHOSEN)
    cluster.publish("b", flags=CHOSEN, more=More(delay=SECOND))
    cluster.publish("a", flags=CHOSEN)
    cluster.sim.broker.admin.removal.purge("celery")
    cluster.sim.settle()
    assert cluster.mailbox().depth == 0
    assert cluster.disk.rows == {}


@pytest.mark.parametrize("later", [False, True])
def test_a_read_that_was_under_way_does_not_bring_back_what_was_purged(later: bool) -> None:
    cluster = Cluster(BrokerSettings(head_messages_max=2), eager=False)
    for number in range(6):
        cluster.publish(f"id{number}", more=More(delay=(1 + number) * SECOND) if later else None)
    cluster.sim.settle()
    cluster.restart()
    worker = cluster.child(slots=9, window=9)
    assert cluster.sim.waits, "the tail or the schedule is being read"
    cluster.sim.broker.admin.removal.purge("celery")
    cluster.publish("new")
    cluster.sim.settle()
    cluster.pass_time(10)
    cluster.sim.settle()
    assert [id for id in ids_held(worker) if id != "new"] == []


# --- revoke ------------------------------------------------------------------------------------------------------


def test_a_revoke_ends_what_waits_takes_back_what_is_buffered_and_leaves_what_runs() -> None:
    cluster = Cluster(BrokerSettings(head_messages_max=2))
    worker = cluster.child(slots=2, window=2)
    for id in ("runs", "held", "head", "tail", "tail2", "tail3"):
        cluster.publish(id)
    cluster.publish("later", more=More(delay=SECOND))
    worker.read()
    worker.start(1)
    cluster.ask(Op.REVOKE, Revoke(["runs", "held", "head", "tail3", "later"]))
    states = {}
    for id in ("runs", "held", "head", "tail3", "later"):
        result = cluster.result(id)
        states[id] = result.state if result is not None else None
    revoked = State.REVOKED
    assert states == {"runs": None, "held": None, "head": revoked, "tail3": None, "later": revoked}
    worker.read()
    ran = cluster.settle(worker) + [id for id in cluster.run(worker) if "aftermath" not in id]
    assert ran == ["runs", "tail", "tail2"]
    result = cluster.result("held")
    assert result is not None
    assert result.failure is not None
    assert (result.state, result.failure.text) == (State.REVOKED, "revoked")


def test_a_revoke_with_terminate_tells_the_child_and_its_node() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    cluster.sim.heard(worker.link)
    cluster.sim.heard(cluster.node.link)
    cluster.ask(Op.REVOKE, Revoke(["a"], terminate=True, signal=9))
    assert [type(verb) for verb in cluster.sim.heard(worker.link)] == [Recall, Cancel]
    told = said(cluster.sim.heard(cluster.node.link), Terminate)
    assert [(verb.session, verb.position, verb.signal) for verb in told] == [(worker.session, 1, 9)]


def test_a_revoke_is_remembered_over_a_restart_and_for_a_while() -> None:
    cluster = Cluster()
    cluster.ask(Op.REVOKE, Revoke(["a", "b"]))
    cluster.restart()
    cluster.reconnect()
    worker = cluster.child(slots=2, window=2)
    cluster.publish("a")
    assert ids_held(worker) == ["a.aftermath"]
    cluster.jump(24 * 3600 + 120)
    cluster.publish("b")
    assert "b" in ids_held(worker)


def test_a_suspect_that_is_revoked_leaves_quarantine() -> None:
    cluster = Cluster()
    worker = cluster.child()
    cluster.publish("a")
    cluster.start(worker)
    cluster.kill(worker)
    cluster.ask(Op.REVOKE, Revoke(["a"]))
    assert (cluster.mailbox().scheduled, cluster.mailbox().ready) == (0, 1)
    assert not cluster.sim.broker.suspects.due


def test_revoked_ids_have_a_limit() -> None:
    cluster = Cluster(BrokerSettings(revoked_max=3))
    cluster.ask(Op.REVOKE, Revoke(["a", "b"]))
    cluster.ask(Op.REVOKE, Revoke(["c", "d", "a"]))
    assert list(cluster.sim.broker.desk.revoked) == ["c", "d", "a"]


# --- dead letters ------------------------------------------------------------------------------------------------


def test_a_dead_letter_is_redriven_with_a_new_count_and_its_old_story() -> None:
    cluster = Cluster()
    kill_until_dead(cluster, "a")
    assert cluster.mailbox().dead == 1
    assert cluster.ask(Op.DEAD_REDRIVE, DeadFilter(ids=["a"])).count == 1
    assert (cluster.mailbox().dead, cluster.mailbox().depth) == (0, 1)
    worker = cluster.child()
    assert cluster.start(worker) == ["a"]
    assert next(iter(worker.held.values())).delivery.deliveries == 1
    cluster.kill(worker)
    letter = cluster.dead()[0]
    assert (letter.redriven, letter.deliveries, len(letter.attempts)) == (1, 1, 2)


def test_a_redrive_undoes_the_end_until_there_is_another() -> None:
    cluster = Cluster()
    kill_until_dead(cluster, "a")
    result = cluster.result("a")
    assert result is not None
    assert result.dead
    cluster.client.say(Watch(["a"]))
    cluster.client.read()
    cluster.ask(Op.DEAD_REDRIVE, DeadFilter(ids=["a"]))
    assert cluster.result("a") is None
    worker = cluster.child()
    cluster.start(worker)
    cluster.client.say(Watch(["a"]))
    cluster.client.read()
    cluster.settle(worker)
    cluster.client.read()
    told = [known.state for verb in said(cluster.client.others, Results) for known in verb.results]
    assert told == [State.FAILURE, State.SUCCESS]
    again = cluster.result("a")
    assert again is not None
    assert not again.dead


def test_two_who_redrive_the_same_letter_at_once_make_one_message() -> None:
    cluster = Cluster()
    kill_until_dead(cluster, "a")
    cluster.sim.eager = False
    params = msgspec.Raw(msgspec.msgpack.encode(DeadFilter()))
    cluster.client.say(Request(100, Op.DEAD_REDRIVE, params), Request(101, Op.DEAD_REDRIVE, params))
    cluster.sim.settle()
    cluster.client.read()
    assert len([verb for verb in cluster.client.others if isinstance(verb, Reply)]) == 2
    assert cluster.mailbox().depth == 1
    assert not cluster.disk.tables[Dead]


def test_dead_letters_are_listed_shown_and_purged_by_filter() -> None:
    cluster = Cluster()
    for id in "abc":
        kill_until_dead(cluster, id)
    page = cluster.ask(Op.DEAD_LIST, DeadFilter(limit=2))
    assert ([letter.id for letter in page.letters], page.total, page.more) == (["a", "b"], 3, True)
    page = cluster.ask(Op.DEAD_LIST, DeadFilter(after=page.letters[-1].position))
    assert [letter.id for letter in page.letters] == ["c"]
    shown = cluster.ask(Op.DEAD_SHOW, DeadFilter(ids=["b"])).letters
    assert [(letter.id, letter.body, letter.content) for letter in shown] == [("b", b"body", "msgpack")]
    assert cluster.ask(Op.DEAD_PURGE, DeadFilter(ids=["a", "b"])).count == 2
    assert [letter.id for letter in cluster.dead()] == ["c"]
    cluster.restart()
    cluster.reconnect()
    assert cluster.mailbox().dead == 1


def test_a_dead_letter_of_a_mailbox_in_memory_is_kept_all_the_same() -> None:
    cluster = Cluster()
    cluster.ask(Op.DECLARE, Declare("celery", durability=Durability.MEMORY))
    kill_until_dead(cluster, "a")
    cluster.restart()
    cluster.reconnect()
    assert [letter.id for letter in cluster.dead()] == ["a"]
    assert cluster.ask(Op.DEAD_REDRIVE, DeadFilter()).count == 1
    assert cluster.run(cluster.child()) == ["a"]


# --- settings and status -----------------------------------------------------------------------------------------


def test_a_declared_bound_holds_at_once_and_after_a_restart() -> None:
    cluster = Cluster()
    cluster.ask(Op.DECLARE, Declare("celery", max_messages=2, on_full="block"))
    cluster.publish("a", "b")
    number = cluster.publish("c")
    assert cluster.client.confirms[number].detail.startswith("block: ")
    cluster.restart()
    cluster.reconnect()
    number = cluster.publish("d")
    assert "its limit is 2" in cluster.client.confirms[number].detail
    cluster.run(cluster.child())
    assert cluster.client.confirms[cluster.publish("e", "f")].refusal == 0


def test_a_worker_says_what_its_application_says_of_its_mailboxes() -> None:
    cluster = Cluster()
    worker = cluster.child("celery", "other")
    commits = cluster.sim.commits
    for _ in range(3):
        worker.say(Attach(["celery", "other"], 1, 1, bounds=Bounds(1, "block")))
    assert cluster.sim.commits <= commits + 3
    for name in ("celery", "other"):
        assert cluster.sim.broker.desk.mailbox(name).declared == Declared(1, "block")
    cluster.publish("a", "b", mailbox="third")
    cluster.publish("a")
    number = cluster.publish("b")
    assert cluster.client.confirms[number].detail.startswith("block: mailbox 'celery' holds 1 message, its limit is 1")
    # What it does not say, or says and cannot be, stays as it is.
    worker.say(Attach(["celery"], 1, 1, bounds=Bounds(5)), Attach(["celery"], 1, 1, bounds=Bounds(-1, "burst")))
    cluster.restart()
    cluster.reconnect()
    assert cluster.sim.broker.desk.mailbox("celery").declared == Declared(5, "block")
    # Children for suspects and actors only pass through.
    cluster.child("celery", kind=ChildKind.QUARANTINE).say(
        Attach(["celery"], 1, 1, ChildKind.QUARANTINE, bounds=Bounds(7, "reject"))
    )
    assert cluster.sim.broker.desk.mailbox("celery").declared == Declared(5, "block")


@pytest.mark.parametrize("wrong", [Declare("celery", on_full="burst"), Declare("celery", durability=3)])
def test_a_declaration_that_makes_no_sense_changes_nothing(wrong: Declare) -> None:
    cluster = Cluster()
    wrong.max_messages = 1
    with pytest.raises(AssertionError, match=r"on_full|durability"):
        cluster.ask(Op.DECLARE, wrong)
    assert cluster.sim.broker.desk.mailbox("celery").declared.max_messages is None


def test_a_request_that_cannot_be_read_is_answered_in_words() -> None:
    cluster = Cluster()
    cluster.client.say(Request(5, 99, msgspec.Raw(b"\x80")), Request(6, Op.PURGE, msgspec.Raw(b"\x01")))
    cluster.client.read()
    replies = [verb for verb in cluster.client.others if isinstance(verb, Reply)]
    assert [(reply.number, "cannot be read" in reply.error) for reply in replies] == [(5, True), (6, True)]


def test_mailboxes_and_status_tell_what_is_where() -> None:
    cluster = Cluster()
    worker = cluster.child(slots=2, window=2)
    cluster.publish("a", "b", "c")
    cluster.publish("d", more=More(delay=SECOND))
    worker.read()
    worker.start(1, tell=True)
    info = cluster.ask(Op.MAILBOXES, Mailboxes()).mailboxes[0]
    assert (info.ready, info.scheduled, info.acquired, info.started, info.depth) == (1, 1, 1, 1, 4)
    assert info.consumers == 1
    status = cluster.ask(Op.STATUS, StatusRequest())
    assert (status.accepted, status.epoch) == (4, 1)
    sessions = {session.session: session for session in status.sessions}
    assert (sessions[worker.session].held, sessions[worker.session].started) == (2, 1)


def test_the_trouble_of_a_node_is_told_until_it_says_that_it_is_over_or_its_link_is_another() -> None:
    cluster = Cluster()
    cluster.child()

    def trouble() -> list[str]:
        status = cluster.ask(Op.STATUS, StatusRequest())
        return [session.trouble for session in status.sessions if session.role == "node"]

    assert trouble() == [""]
    cluster.node.say(Trouble("children die"))
    assert trouble() == ["children die"]
    cluster.node.say(Trouble(""))
    assert trouble() == [""]
    cluster.node.say(Trouble("children die"))
    cluster.node.drop()
    cluster.node.connect()
    assert trouble() == [""]


def test_a_child_cannot_speak_of_trouble() -> None:
    cluster = Cluster()
    child = cluster.child()
    child.say(Trouble("mine"))
    assert not any(session.trouble for session in cluster.ask(Op.STATUS, StatusRequest()).sessions)


def test_a_quarantine_child_that_waits_for_work_is_no_consumer_of_new_mailboxes() -> None:
    cluster = Cluster()
    cluster.child("new", kind=ChildKind.QUARANTINE)
    cluster.publish("a", mailbox="new")
    assert cluster.mailbox("new").consumers == 0
    assert cluster.mailbox("new").ready == 1
