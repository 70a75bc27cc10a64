"""The client's machine: one session over links that come and go, against a broker that is obviously right."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from greenroom.transport.clock import Now
from greenroom.transport.codec import BadFrame, Parts, decode_to_broker, envelopes_of
from greenroom.transport.errors import BrokerUnavailable, GreenroomError, MailboxFull, NotAllowed, UnknownOutcome
from greenroom.transport.message import Envelope, State
from greenroom.transport.peer.attachment import (
    CloseLink,
    Heard,
    LinkLost,
    LinkOpened,
    OpenLink,
    Tick,
    Transmit,
)
from greenroom.transport.peer.client import Answered, ClientMachine, Closed, Effect, Ended, Learned, Waiting
from greenroom.transport.peer.publisher import BLOCKED_TOLD, Blocked, Submission, cut
from greenroom.transport.verbs import (
    PROTOCOL_VERSION,
    Confirm,
    FromBroker,
    Goodbye,
    Hello,
    Known,
    Op,
    Publish,
    Refusal,
    Reply,
    Request,
    Reset,
    Results,
    ToBroker,
    Unwatch,
    Watch,
    Welcome,
)

SECOND = 1_000_000
CONNECT_TIMEOUT = 4 * SECOND


class World:
    """A client machine, what came out of it, and a broker that keeps sessions, messages and results."""

    def __init__(self) -> None:
        self.machine = ClientMachine(
            addresses=["tcp://a:1"], origin="tests", session="s", connect_timeout=CONNECT_TIMEOUT
        )
        self.boot = SECOND
        self.link: int | None = None
        self.to_broker: list[Parts] = []
        self.to_client: list[FromBroker] = []
        self.endings: dict[Submission, GreenroomError | None] = {}
        self.learned: list[Known] = []
        self.answers: list[Reply] = []
        self.closed: list[GreenroomError | None] = []
        self.waits: list[Blocked] = []
        # --- the broker ---
        self.reachable = True
        self.refuse: Refusal = Refusal.ACCEPTED
        self.detail = ""
        self.epoch = 1
        self.session = ""
        self.sessions: dict[str, dict[int, Confirm]] = {}
        self.accepted: list[str] = []
        self.results: dict[str, Known] = {}
        self.watched: set[str] = set()
        self.watches: list[list[str]] = []

    @property
    def now(self) -> Now:
        return Now(self.boot, self.boot)

    # --- the client's driver -------------------------------------------------------------------------------------

    def act(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, OpenLink):
                assert self.link is None
                self.link = effect.link
                self.to_broker, self.to_client, self.watched = [], [], set()
                self.act(self.machine.apply(LinkOpened(effect.link), self.now))
            elif isinstance(effect, CloseLink):
                assert self.link == effect.link
                self.link = None
            elif isinstance(effect, Transmit):
                assert self.link == effect.link
                self.to_broker += effect.messages
            elif isinstance(effect, Ended):
                for ending in effect.endings:
                    assert ending.submission not in self.endings, "a submission ends once"
                    self.endings[ending.submission] = ending.error
            elif isinstance(effect, Learned):
                self.learned += effect.results
            elif isinstance(effect, Answered):
                self.answers.append(effect.reply)
            elif isinstance(effect, Waiting):
                self.waits += effect.blocked
            else:
                assert isinstance(effect, Closed)
                self.closed.append(effect.error)
        self.to_broker += self.machine.flush(self.now)

    def publish(self, *ids: str, patient: bool = False, deadline: int = 0, watched: bool = False) -> Submission:
        submission = Submission(ids, deadline=deadline and self.boot + deadline)
        chunks = cut("m", [Envelope(id, "t", "msgpack", b"") for id in ids])
        self.act(self.machine.submit(submission, chunks, self.now, watched=ids if watched else (), patient=patient))
        return submission

    def ask(self, *ids: str) -> None:
        self.act(self.machine.ask(ids, self.now))

    def sleep(self, passing: int) -> None:
        """Let time pass, with the ticks that the machine asks for."""
        until = self.boot + passing
        while (wake := self.machine.wake_at()) and wake <= until:
            self.boot = max(self.boot, wake)
            self.act(self.machine.apply(Tick(), self.now))
        self.boot = until

    def lose_link(self) -> None:
        if self.link is not None:
            self.act(self.machine.apply(LinkLost(self.link), self.now))

    # --- the broker ----------------------------------------------------------------------------------------------

    def serve(self, messages: int = 1_000_000) -> None:
        """Let the broker take so many messages and the client hear the answers."""
        for _ in range(messages):
            if not self.reachable:
                self.lose_link()
                return
            if not self.to_broker:
                return
            message = self.to_broker.pop(0)
            verbs = decode_to_broker(message)
            assert not isinstance(verbs, BadFrame)
            for verb in verbs:
                self._serve(verb, message[1:])
            if self.to_client and self.link is not None:
                heard, self.to_client = self.to_client, []
                self.act(self.machine.apply(Heard(self.link, heard), self.now))

    def _serve(self, verb: ToBroker, parts: Parts) -> None:
        if isinstance(verb, Hello):
            self.session = verb.session
            known = verb.session in self.sessions
            self.to_client.append(Welcome(PROTOCOL_VERSION, "b", self.epoch, 0, 1 << 20, known))
        elif isinstance(verb, Publish):
            self._accept(verb, parts)
        elif isinstance(verb, Watch):
            self.watches.append(verb.ids)
            self.watched.update(verb.ids)
            self.to_client.append(Results([self.results[id] for id in verb.ids if id in self.results]))
        elif isinstance(verb, Unwatch):
            self.watched.difference_update(verb.ids)
        elif isinstance(verb, Request):
            self.to_client.append(Reply(verb.number))
        else:
            assert isinstance(verb, Goodbye)

    def _accept(self, publish: Publish, parts: Parts) -> None:
        if publish.number == 1:
            self.sessions.setdefault(self.session, {})
        outcomes = self.sessions.get(self.session)
        if outcomes is None:
            self.to_client.append(Confirm(0, self.epoch, publish.number, Refusal.UNKNOWN_SESSION))
            return
        if publish.number not in outcomes:
            assert publish.number == len(outcomes) + 1, "batches come in order"
            outcomes[publish.number] = Confirm(0, self.epoch, publish.number, self.refuse, detail=self.detail)
            if self.refuse == Refusal.ACCEPTED:
                for group in publish.groups:
                    self.accepted += [envelope.id for envelope in envelopes_of(group, parts)]
        self.to_client.append(outcomes[publish.number])

    def settle(self, id: str) -> None:
        """The broker learns a result, and pushes it to the publisher's link and to watchers."""
        self.results[id] = Known(id, State.SUCCESS, id.encode())
        if self.link is not None and self.session:
            self.act(self.machine.apply(Heard(self.link, [Results([self.results[id]])]), self.now))


def test_nothing_is_attached_before_somebody_wants_something() -> None:
    world = World()
    assert world.machine.wake_at() == 0
    assert world.link is None
    world.publish("1")
    assert world.link == 1


def test_a_publish_ends_when_it_is_confirmed() -> None:
    world = World()
    submission = world.publish("1", "2")
    world.serve()
    assert world.endings == {submission: None}
    assert world.accepted == ["1", "2"]
    world.sleep(60 * SECOND)
    assert world.machine.wake_at() == 0


def test_d3_a_confirm_that_was_lost_with_its_link_comes_on_the_next_one_and_nothing_is_doubled() -> None:
    world = World()
    world.publish("0")
    world.serve()
    submission = world.publish("1")
    message = world.to_broker[0]
    world._serve(decode_to_broker(message)[0], [])  # type: ignore[index]
    world.lose_link()
    world.sleep(SECOND)
    world.serve()
    assert world.endings[submission] is None
    assert world.accepted == ["0", "1"]


def test_without_a_broker_a_publish_fails_after_the_connect_timeout_and_a_patient_one_waits() -> None:
    world = World()
    world.reachable = False
    impatient = world.publish("1")
    patient = world.publish("2", patient=True)
    world.serve()
    world.sleep(CONNECT_TIMEOUT - SECOND)
    assert world.endings == {}
    world.sleep(2 * SECOND)
    assert list(world.endings) == [impatient]
    error = world.endings[impatient]
    assert isinstance(error, BrokerUnavailable)
    assert "the connection closed" in str(error)
    world.reachable = True
    for _ in range(20):
        world.sleep(SECOND)
        world.serve()
    assert world.endings[patient] is None
    assert world.accepted == ["2"]


def test_a_call_does_not_wait_for_the_backoff_of_earlier_ones() -> None:
    world = World()
    world.reachable = False
    world.publish("1", patient=True)
    for _ in range(60):
        world.serve()
        world.sleep(SECOND)
    world.serve()
    world.reachable = True
    submission = world.publish("2")
    world.sleep(SECOND // 5)
    world.serve()
    assert world.endings[submission] is None


def test_a_link_that_is_lost_gives_its_calls_the_connect_timeout_to_see_the_broker_again() -> None:
    world = World()
    world.publish("0")
    world.serve()
    world.sleep(60 * SECOND)
    submission = world.publish("1")
    world.reachable = False
    world.lose_link()
    for _ in range(10):
        world.sleep(SECOND)
        world.serve()
    assert isinstance(world.endings[submission], UnknownOutcome)


def test_a_deadline_ends_a_call_that_is_sent_and_not_confirmed() -> None:
    world = World()
    world.publish("0")
    world.serve()
    submission = world.publish("1", deadline=SECOND)
    world.sleep(SECOND - 100_000)
    assert submission not in world.endings
    world.sleep(200_000)
    assert isinstance(world.endings[submission], UnknownOutcome)
    world.serve()
    assert world.accepted == ["0", "1"]


def test_who_waits_for_room_hears_of_it_once_and_may_give_up() -> None:
    world = World()
    submission = world.publish("1")
    world.refuse, world.detail = Refusal.MAILBOX_FULL, "block: m is full"
    for _ in range(100):
        world.serve()
        world.sleep(SECOND // 10)
    [told] = world.waits
    assert (told.mailbox, told.detail) == ("m", "m is full")
    assert told.waited >= BLOCKED_TOLD
    assert world.endings == {}
    world.act(world.machine.give_up(submission, world.now))
    assert isinstance(world.endings[submission], MailboxFull)
    world.refuse = Refusal.ACCEPTED
    world.serve()
    world.sleep(60 * SECOND)
    world.serve()
    assert world.accepted == []
    assert world.machine.wake_at() == 0
    assert world.machine.publisher.idle


def test_d6_a_broker_that_forgot_the_session_ends_what_is_unconfirmed_and_gets_the_rest_in_a_new_one() -> None:
    world = World()
    world.publish("0")
    world.serve()
    unknown = world.publish("1")
    world.sessions.clear()
    world.lose_link()
    later = world.publish("2")
    world.sleep(SECOND)
    world.serve()
    assert isinstance(world.endings[unknown], UnknownOutcome)
    assert world.endings[later] is None
    assert world.session == "s.1"
    assert world.accepted == ["0", "2"]


def test_d6_a_session_that_is_unknown_on_a_living_link_is_renewed() -> None:
    world = World()
    world.publish("0")
    world.serve()
    world.sessions.clear()
    unknown = world.publish("1")
    world.serve()
    assert isinstance(world.endings[unknown], UnknownOutcome)
    later = world.publish("2")
    world.serve()
    assert world.endings[later] is None


def test_a_broker_that_refuses_the_client_ends_everything_with_its_reason() -> None:
    world = World()
    submission = world.publish("1")
    assert world.link is not None
    world.act(world.machine.apply(Heard(world.link, [Reset("not allowed: no token", final=True)]), world.now))
    assert isinstance(world.endings[submission], NotAllowed)
    assert len(world.closed) == 1
    assert "no token" in str(world.closed[0])


def test_leaving_ends_what_is_open_and_says_goodbye() -> None:
    world = World()
    world.publish("0")
    world.serve()
    submission = world.publish("1")
    world.act(world.machine.leave(world.now))
    assert isinstance(world.endings[submission], UnknownOutcome)
    assert world.closed == [None]


def test_results_of_what_was_published_here_come_without_a_watch() -> None:
    world = World()
    world.publish("1", watched=True)
    world.serve()
    world.ask("1")
    world.serve()
    world.settle("1")
    assert [known.id for known in world.learned] == ["1"]
    assert world.watches == []


def test_d22_watches_are_renewed_with_a_snapshot_after_each_link() -> None:
    world = World()
    world.ask("1", "2")
    world.serve()
    world.lose_link()
    world.results["1"] = Known("1", State.SUCCESS, b"meanwhile")
    world.sleep(SECOND)
    world.serve()
    assert world.watches == [["1", "2"], ["1", "2"]]
    assert world.learned == [Known("1", State.SUCCESS, b"meanwhile")]


def test_many_watches_are_cut_to_what_a_verb_holds() -> None:
    world = World()
    world.ask(*[str(number) for number in range(5000)])
    world.serve()
    assert [len(ids) for ids in world.watches] == [4096, 904]


def test_what_nobody_waits_for_any_more_is_unwatched() -> None:
    world = World()
    world.ask("1")
    world.serve()
    world.machine.forget(["1"])
    world.act([])
    world.serve()
    assert world.watched == set()


def test_a_request_is_asked_again_on_the_next_link_unless_it_was_dropped() -> None:
    world = World()
    kept, effects = world.machine.request(Op.STATUS, msgspec.msgpack.encode({}), world.now)
    world.act(effects)
    dropped, effects = world.machine.request(Op.STATUS, msgspec.msgpack.encode({}), world.now)
    world.act(effects)
    world.serve(1)
    world.lose_link()
    world.machine.drop_request(dropped)
    world.sleep(SECOND)
    world.serve()
    assert [reply.number for reply in world.answers] == [kept]


class ClientWorld(RuleBasedStateMachine):
    """Callers, a broker that may go away, forget and refuse, and a link that breaks anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.submitted: dict[Submission, str] = {}
        self.asked: set[str] = set()
        self.forgot = False

    @rule(count=st.integers(1, 3), patient=st.booleans())
    def callers_publish(self, count: int, patient: bool) -> None:
        for _ in range(count):
            id = str(len(self.submitted))
            self.submitted[self.world.publish(id, patient=patient, watched=True)] = id

    @rule()
    def somebody_asks(self) -> None:
        if self.submitted:
            id = str(len(self.submitted) - 1)
            self.asked.add(id)
            self.world.ask(id)

    @rule(messages=st.integers(1, 4))
    def broker_serves(self, messages: int) -> None:
        self.world.serve(messages)

    @rule()
    def broker_settles(self) -> None:
        for id in self.world.accepted:
            if id not in self.world.results:
                self.world.settle(id)
                return

    @rule()
    def link_breaks(self) -> None:
        self.world.lose_link()

    @rule(passing=st.integers(0, 3 * SECOND))
    def time_passes(self, passing: int) -> None:
        self.world.sleep(passing)

    @rule()
    def broker_goes_or_comes(self) -> None:
        self.world.reachable = not self.world.reachable

    @precondition(lambda self: not self.forgot)
    @rule()
    def broker_forgets(self) -> None:
        self.forgot = True
        self.world.sessions.clear()
        self.world.lose_link()

    @invariant()
    def an_accepted_end_is_true(self) -> None:
        for submission, error in self.world.endings.items():
            id = self.submitted[submission]
            if error is None:
                assert self.world.accepted.count(id) == 1
            elif isinstance(error, BrokerUnavailable):
                assert id not in self.world.accepted
        if not self.forgot:
            assert len(self.world.accepted) == len(set(self.world.accepted)), "nothing is accepted twice"

    @invariant()
    def what_is_open_has_a_time_to_wake(self) -> None:
        if len(self.world.endings) < len(self.submitted) and self.world.link is None:
            assert self.world.machine.wake_at()

    def teardown(self) -> None:
        """With a broker that stays, every call ends and every question about an accepted message is answered."""
        self.world.reachable = True
        for _ in range(20):
            self.world.sleep(SECOND)
            self.world.serve()
        for id in list(self.world.accepted):
            if id not in self.world.results:
                self.world.settle(id)
        for _ in range(3):
            self.world.sleep(SECOND)
            self.world.serve()
        assert set(self.world.endings) == set(self.submitted)
        learned = {known.id for known in self.world.learned}
        assert {id for id in self.asked if id in self.world.results} <= learned


TestClientWorld = ClientWorld.TestCase
TestClientWorld.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
