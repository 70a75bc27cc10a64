"""Each invariant catches a broken broker, worker or log, and none of them speaks where everything is as it should be.

The broken ones have one safeguard of production turned off, or are told of records and events that cannot be.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest

from greenroom.actors.actor import Actor
from greenroom.actors.app import App
from greenroom.supervisor.harness.invariants import ALL, NOT_YET, Vacuous, Violated, Watch, make
from greenroom.supervisor.harness.routed import RoutedClient
from greenroom.supervisor.harness.stranger import Stranger, noise
from greenroom.supervisor.harness.trace import Event, Kind
from greenroom.supervisor.harness.world import World
from greenroom.transport.broker import deaths
from greenroom.transport.broker.accept import Accepting
from greenroom.transport.broker.past import Past
from greenroom.transport.broker.redelivery import Ending, Verdict, judge
from greenroom.transport.broker.settings import BrokerSettings
from greenroom.transport.message import Flag, Result, State
from greenroom.transport.store.records import Drop, Lease, ResultRow
from greenroom.transport.verbs import Applied, Confirm

SECOND = 1_000_000
ANCHORS = [
    Kind.STARTED,
    Kind.RAN,
    Kind.SETTLE,
    Kind.DELIVER,
    Kind.APPLIED,
    Kind.COMMIT,
    Kind.REPORT,
    Kind.FORK,
    Kind.READY,
    Kind.DEATH,
]


def always(value: Any) -> Callable[..., Any]:
    """Return what answers this, whatever it is asked."""

    def answer(*_args: Any, **_kwargs: Any) -> Any:
        return value

    return answer


class Diary(Actor):
    durable = True

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)


class Play:
    """A world with an application in which everything can go wrong, under watch."""

    def __init__(self, names: tuple[str, ...] = (), **options: Any) -> None:
        app = self.app = App("shop", set_as_current=False)

        @app.task(acks_late=True, reject_on_worker_lost=True)
        def safe(number: int) -> int:
            return number

        @app.task
        def early(number: int) -> int:
            return number

        @app.task(acks_late=True)
        def late(number: int) -> int:
            return number

        @app.task(acks_late=True, reject_on_worker_lost=True, max_deliveries=2)
        def poison(number: int) -> int:
            raise SystemExit(3)

        @app.task(bind=True, acks_late=True, max_retries=2)
        def again(self: Any, number: int) -> int:
            if self.request.retries < 1:
                raise self.retry(countdown=1)
            return number

        self._acting: list[Event] = []
        self.safe, self.early, self.poison = safe, early, poison
        self.tasks = [safe, early, late, poison, again]
        self.world = World(app, **options)
        client = RoutedClient(self.world)
        app.client_factory = always(client)
        self.watch = Watch(self.world, names or None)
        self.world.start()

    def at(self, kind: Kind, act: Callable[[Event], object], nth: int = 1) -> None:
        """Do this when that happens for the n-th time. Nothing is done while something is done."""
        seen: list[Event] = []
        acting = self._acting

        def listen(event: Event) -> None:
            if event.kind is not kind or acting:
                return
            seen.append(event)
            if len(seen) == nth:
                acting.append(event)
                act(event)
                acting.clear()

        self.world.trace.listen(listen)

    def kill_child(self, event: Event) -> None:
        """SIGKILL for the child to which this happens, or for any."""
        lane = event.facts.get("to", event.lane)
        children = self.world.children
        child = next((child for child in children if child.lane == lane), children[0] if children else None)
        if child is not None:
            child.kill(9)

    def kill_node(self, event: Event) -> None:
        """SIGKILL for a node; another one comes."""
        node = next((node for node in self.world.nodes if node.alive), None)
        if node is not None:
            self.world.clockwork.after(SECOND, self.world.add_node)
            node.kill()

    def kill_broker(self, away: int, event: Event, *, power: bool) -> None:
        """SIGKILL for the broker, which comes back."""
        self.world.clockwork.after(away, self.world.restart_broker)
        self.world.kill_broker(power=power)


MakePlay = Callable[..., Play]


@pytest.fixture
def make_play() -> Iterator[MakePlay]:
    plays: list[Play] = []

    def make_play(*names: str, **options: Any) -> Play:
        plays.append(Play(names, **options))
        return plays[-1]

    yield make_play
    for play in plays:
        play.world.close()


def play_seeded(make_play: MakePlay, seed: int) -> Play:
    """Play a world in which children, nodes and brokers are killed as this seed says."""
    chance = random.Random(seed)
    play = make_play(nodes=chance.randint(1, 2), children=chance.randint(1, 3))
    for _ in range(chance.randint(0, 4)):
        kind, nth, what = chance.choice(ANCHORS), chance.randint(1, 6), chance.choice(["child", "node", "broker"])
        away, power = chance.choice([1_000, 3 * SECOND, 9 * SECOND]), chance.random() < 0.5
        act: dict[str, Callable[[Event], object]] = {
            "child": play.kill_child,
            "node": play.kill_node,
            "broker": partial(play.kill_broker, away, power=power),
        }
        play.at(kind, act[what], nth)
    for number in range(chance.randint(1, 8)):
        play.world.run_for(chance.choice([0, 0, 1]))
        try:
            chance.choice(play.tasks).apply_async((number,), countdown=chance.choice([0, 0, 0, 3]))
        except Exception:
            continue
    play.watch.settle()
    return play


def play_with_an_operator(make_play: MakePlay) -> Play:
    """Play a world in which a dead letter is redriven, a stranger talks, and a sync of the disk fails."""
    play = make_play()
    play.poison.delay(1)
    play.watch.settle()
    play.world.operator.redrive()
    play.app.ref(Diary, "mine").tell(Diary.write, "a durable actor was here")
    play.watch.settle()
    Stranger(play.world, noise(random.Random(0)))
    play.world.run_for(1)
    play.world.disk.fail()
    play.safe.delay(1)
    play.watch.settle()
    play.world.run_for(20)
    play.watch.at_rest()
    return play


def test_no_invariant_speaks_where_children_nodes_and_brokers_are_killed_and_all_have_had_occasion_to(
    make_play: MakePlay,
) -> None:
    premises = Counter[str]()
    for seed in range(60):
        play = play_seeded(make_play, seed)
        premises.update(play.watch.premises())
        play.world.close()
    premises.update(play_with_an_operator(make_play).watch.premises())
    assert [invariant.name for invariant in ALL if not premises[invariant.name]] == []


# --- safeguards that are turned off ------------------------------------------------------------------------------


def test_amo_catches_a_broker_that_gives_an_early_task_to_somebody_else(
    make_play: MakePlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge_kindly(ending: Ending, flags: int, past: Past, joint: bool, most: int) -> Verdict:
        return judge(ending, flags | Flag.ACKS_LATE | Flag.REJECT_ON_WORKER_LOST, past, joint, most)

    monkeypatch.setattr(deaths, "judge", judge_kindly)
    play = make_play("AMO")
    play.at(Kind.STARTED, play.kill_child)
    play.early.delay(1)
    with pytest.raises(Violated, match=r"AMO violated: \S*early .* starts a second time"):
        play.watch.settle()


def test_alo_catches_a_broker_that_gives_up_a_safe_task(make_play: MakePlay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deaths, "judge", always(Verdict.LOST))
    play = make_play("ALO")
    play.at(Kind.STARTED, play.kill_child)
    play.safe.delay(1)
    with pytest.raises(Violated, match=r"ALO violated: \S*safe .* never ran to its end"):
        play.watch.settle()


def test_spur_catches_a_broker_that_does_not_wait_for_evidence(
    make_play: MakePlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait: Callable[..., None] = getattr(deaths.Deaths, "_wait")  # noqa: B009 - what is turned off is its own

    def hardly_wait(self: deaths.Deaths, session: Any, _patience: int) -> None:
        wait(self, session, 1_000)

    monkeypatch.setattr(deaths.Deaths, "_wait", hardly_wait)
    monkeypatch.setattr(deaths.Deaths, "_ending", always(Ending.BUFFERED))
    play = make_play("SPUR", children=2)

    def lose_link(event: Event) -> None:
        child = next(child for child in play.world.children if child.lane == event.lane)
        link = child.line.link
        assert link is not None
        play.world.clockwork.network.cut(link)
        child.pause()
        play.world.clockwork.after(SECOND, child.resume)

    play.at(Kind.STARTED, lose_link)
    play.safe.delay(1)
    with pytest.raises(Violated, match=r"SPUR violated: .* goes out again"):
        play.watch.settle()


def test_limit_catches_a_broker_that_never_gives_up(make_play: MakePlay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deaths, "judge", always(Verdict.AGAIN))
    play = make_play("LIMIT")
    play.poison.delay(1)
    with pytest.raises(Violated, match=r"LIMIT violated: \S*poison .* after 2 deaths"):
        play.watch.settle()


def test_limit_does_not_count_a_death_of_which_nobody_could_tell_the_broker(make_play: MakePlay) -> None:
    play = make_play("LIMIT")

    @play.app.task(acks_late=True, reject_on_worker_lost=True, max_deliveries=1)
    def deadly() -> None:
        raise SystemExit(3)

    play.at(Kind.DEATH, play.kill_node)
    deadly.delay()
    play.watch.settle()
    deaths = [event for event in play.world.trace.events if event.kind is Kind.DEATH and event.facts.get("running")]
    assert len(deaths) == 2, "one that is the loss of a node, and the one that is its bound"


def test_innocent_catches_a_broker_that_counts_twice(make_play: MakePlay, monkeypatch: pytest.MonkeyPatch) -> None:
    def judge_hard(ending: Ending, flags: int, past: Past, joint: bool, most: int) -> Verdict:
        past.solo += 1
        return judge(ending, flags, past, joint, most)

    monkeypatch.setattr(deaths, "judge", judge_hard)
    play = make_play("INNOCENT")
    play.at(Kind.STARTED, play.kill_child)
    play.safe.delay(1)
    with pytest.raises(Violated, match=r"INNOCENT violated: .* is blamed for 2 deaths of 1"):
        play.watch.settle()


def test_innocent_catches_a_broker_that_takes_its_own_absence_for_the_loss_of_a_node(
    make_play: MakePlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deaths.Deaths, "_ending", always(Ending.NODE_LOST))
    play = make_play("INNOCENT")
    play.at(Kind.STARTED, play.kill_child)
    play.safe.delay(1)
    with pytest.raises(Violated, match=r"INNOCENT violated: .* 1 node losses"):
        play.watch.settle()


def test_quiesce_catches_a_broker_that_judges_nobody(make_play: MakePlay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deaths.Deaths, "report", always(None))
    monkeypatch.setattr(deaths.Deaths, "_wait", always(None))
    play = make_play("QUIESCE")
    play.at(Kind.STARTED, play.kill_child)
    play.safe.delay(1)
    with pytest.raises(Violated, match=r"QUIESCE violated: .* 1 messages were not finished"):
        play.watch.settle(60 * SECOND)


def test_bound_catches_a_broker_that_does_not_look_whether_there_is_room(
    make_play: MakePlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accepting, "_full", always(""))
    play = make_play("BOUND", nodes=0, settings=BrokerSettings(mailbox_max_messages=2))
    for number in range(2):
        play.safe.delay(number)
    with pytest.raises(Violated, match="BOUND violated: celery has taken 3 messages, and its bound is 2"):
        play.safe.delay(2)


def test_place_catches_a_broker_that_counts_wrong(make_play: MakePlay) -> None:
    play = make_play("PLACE", nodes=0)
    play.safe.delay(1)
    core = play.world.broker.core
    assert core is not None
    core.broker.desk.mailboxes["celery"].depth += 1
    with pytest.raises(Violated, match="PLACE violated: celery: depth 3"):
        play.safe.delay(2)


# --- commits and verbs that cannot be ----------------------------------------------------------------------------


def test_loss_catches_a_message_that_leaves_the_store_for_no_reason(make_play: MakePlay) -> None:
    play = make_play("LOSS", nodes=0)
    play.safe.delay(1)
    with pytest.raises(Violated, match=r"LOSS violated: .* is gone"):
        play.world.observed.committed([Drop([1])], [])


def test_loss_catches_what_was_confirmed_and_never_stored(make_play: MakePlay) -> None:
    play = make_play("LOSS", nodes=0)
    note = play.world.trace.note
    note(Kind.PUBLISH, "client0", mailbox="celery", tasks=["safe"], ids=["a"], flags=[0], bounds=[0])
    note(Kind.CONFIRM, "client0", ids=["a"])
    with pytest.raises(Violated, match="LOSS violated: a was confirmed to client0 and was never in the store"):
        play.watch.settle()


def test_result_catches_a_result_that_changes(make_play: MakePlay) -> None:
    play = make_play("RESULT", nodes=0)
    states = [State.SUCCESS, State.FAILURE]
    rows = [ResultRow("a", state, msgspec.msgpack.encode(Result(state)), 0) for state in states]
    play.world.observed.committed(rows[:1], [])
    with pytest.raises(Violated, match="RESULT violated: a was SUCCESS and is"):
        play.world.observed.committed(rows[1:], [])


def test_order_catches_a_message_that_goes_out_before_an_earlier_one(make_play: MakePlay) -> None:
    play = make_play("ORDER", nodes=0)
    play.safe.delay(1)
    play.safe.delay(2)
    leases = [Lease(1, "somebody", [2]), Lease(2, "somebody", [1])]
    play.watch.ledger.referee.making(leases, play.world.broker.now.wall)
    with pytest.raises(Violated, match=r"ORDER violated: .* goes out late"):
        play.world.observed.committed(leases, [])


def test_time_catches_a_message_that_goes_out_before_it_is_due(make_play: MakePlay) -> None:
    play = make_play("TIME", nodes=0)
    play.safe.apply_async((1,), countdown=5)
    lease = Lease(1, "somebody", [1])
    play.watch.ledger.referee.making([lease], play.world.broker.now.wall)
    with pytest.raises(Violated, match=r"TIME violated: .* us early"):
        play.world.observed.committed([lease], [])


def test_credit_catches_a_broker_that_gives_more_than_a_window(make_play: MakePlay) -> None:
    play = make_play("CREDIT")
    core = play.world.broker.core
    assert core is not None
    session = next(session for session in core.broker.desk.sessions.values() if "/" in session.id)

    def give_more(event: Event) -> None:
        session.window = 0
        play.world.observed.making([Lease(1_000_000, session.id, [event.facts["position"]])])

    play.at(Kind.STARTED, give_more)
    play.safe.delay(1)
    with pytest.raises(Violated, match=r"CREDIT violated: .* holds 1 of 0"):
        play.watch.settle()


def test_d7_catches_a_confirm_that_is_early(make_play: MakePlay) -> None:
    play = make_play("D7", nodes=0)
    with pytest.raises(Violated, match="D7 violated: batch 7"):
        play.world.observed.said("somebody", Confirm(0, 1, 7))


def test_codec_catches_a_verb_that_is_read_as_another(make_play: MakePlay) -> None:
    play = make_play("CODEC", nodes=0)
    with pytest.raises(Violated, match="CODEC violated: a broker says Applied"):
        play.world.observed.said("somebody", Applied("one"))  # type: ignore[arg-type]


# --- the watch itself --------------------------------------------------------------------------------------------


def test_an_invariant_without_occasion_says_nothing_and_that_is_said(make_play: MakePlay) -> None:
    play = make_play(nodes=1)
    play.safe.delay(1)
    play.watch.settle()
    play.watch.require("LOSS", "ALO", "D7")
    with pytest.raises(Vacuous, match="POISON had no occasion"):
        play.watch.require("POISON")


def test_what_has_no_part_yet_stands_in_the_table_and_cannot_be_asked_for() -> None:
    assert not {invariant.name for invariant in ALL} & set(NOT_YET)
    with pytest.raises(ValueError, match="CANVAS is not there yet"):
        make(["CANVAS"])
    with pytest.raises(ValueError, match="no invariant 'LOST'"):
        make(["LOST"])
