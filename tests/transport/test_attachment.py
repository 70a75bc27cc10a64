"""The attachment: links that come and go under a session that stays."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from greenroom.transport.clock import Now
from greenroom.transport.codec import BadFrame, Parts, decode_to_broker
from greenroom.transport.errors import FrameTooLarge, LocalProtocolError
from greenroom.transport.message import Delivery, Envelope, Outcome
from greenroom.transport.peer.attachment import (
    BACKOFF_FIRST,
    BACKOFF_MAX,
    GREETING_PATIENCE,
    OUTBOX_VERBS_MAX,
    SILENCE_MAX,
    Attached,
    Attachment,
    CloseLink,
    Detached,
    Effect,
    Ended,
    Event,
    Heard,
    Hurry,
    Leave,
    LinkLost,
    LinkOpened,
    OpenLink,
    Passed,
    Refused,
    Renew,
    Start,
    State,
    Tick,
    Transmit,
    WakeAt,
)
from greenroom.transport.peer.line import AnyLink, Line
from greenroom.transport.verbs import (
    PROTOCOL_VERSION,
    Applied,
    Confirm,
    Credit,
    Deliver,
    FromBroker,
    Goodbye,
    Hello,
    Ping,
    Pong,
    Recall,
    Reply,
    Request,
    Reset,
    Return,
    Role,
    Settle,
    ToBroker,
    Welcome,
)


def at(boot: int) -> Now:
    return Now(boot, boot + 1_000_000_000)


def welcome(*, epoch: int = 1, version: int = PROTOCOL_VERSION, broker: str = "b") -> Welcome:
    return Welcome(version=version, broker=broker, epoch=epoch, applied=0, publish_bytes=8 << 20)


def decoded(message: Parts) -> list[ToBroker]:
    verbs = decode_to_broker(message)
    assert not isinstance(verbs, BadFrame)
    return verbs


def sent(effects: list[Effect]) -> list[ToBroker]:
    """Every verb that these effects send, in order."""
    return [
        verb
        for effect in effects
        if isinstance(effect, Transmit)
        for message in effect.messages
        for verb in decoded(message)
    ]


def settle(number: int) -> Settle:
    return Settle(number, [Outcome(position=number * 10, lease=1, state=3)])


class Peer:
    """An attachment with what its driver would have: a time and everything that came out."""

    def __init__(self, *, role: Role = Role.CHILD, addresses: tuple[str, ...] = ("tcp://a:1",), pinged: bool = False):
        self.machine = Attachment(
            role=role, node="celery@here", session="s/1", addresses=addresses, host="here", pid=7, pinged=pinged
        )
        self.boot = 1_000_000
        self.wake = 0

    def tell(self, event: Event) -> list[Effect]:
        effects = self.machine.apply(event, at(self.boot))
        for effect in effects:
            if isinstance(effect, WakeAt):
                self.wake = effect.boot
        return effects

    def hear(self, *verbs: FromBroker) -> list[Effect]:
        return self.tell(Heard(self.machine.link, list(verbs)))

    def sleep(self) -> list[Effect]:
        """Let time pass until the machine wants to be woken."""
        assert self.wake
        self.boot = max(self.boot, self.wake)
        return self.tell(Tick())

    def attach(self, *, epoch: int = 1, version: int = PROTOCOL_VERSION) -> list[Effect]:
        if self.machine.state is State.IDLE:
            self.tell(Start())
        elif self.machine.state is State.LOST:
            self.sleep()
        self.tell(LinkOpened(self.machine.link, b"token"))
        return self.hear(welcome(epoch=epoch, version=version))


def kinds(effects: list[Effect]) -> list[type]:
    return [type(effect) for effect in effects if not isinstance(effect, WakeAt)]


def test_a_link_that_cannot_be_opened_is_tried_again_after_its_backoff_and_not_looked_at_before() -> None:
    boot = 0

    def open_link(address: str) -> AnyLink:
        raise OSError("nobody listens")

    line = Line(Peer().machine, lambda: at(boot), open_link)
    line.start()
    for _ in range(10):
        boot = line.wake_at
        line.receive()
        assert line.wake_at > boot, "it would be woken again at once, for as long as the backoff lasts"


def test_d1_hello_is_the_first_frame_on_every_link() -> None:
    peer = Peer()
    assert peer.tell(Start())[-1] == OpenLink(1, "tcp://a:1")
    (hello,) = sent(peer.tell(LinkOpened(1, b"token")))
    assert hello == Hello(PROTOCOL_VERSION, Role.CHILD, "celery@here", "s/1", 1, 1, "here", 7, b"token")
    peer.hear(welcome())
    peer.tell(LinkLost(1))
    peer.sleep()
    (hello,) = sent(peer.tell(LinkOpened(2)))
    assert isinstance(hello, Hello)
    assert hello.link == 2


def test_d1_the_backoff_doubles_from_a_tenth_to_five_seconds_and_starts_anew_at_a_welcome() -> None:
    peer = Peer()
    peer.tell(Start())
    waits: list[int] = []
    for _ in range(9):
        lost_at = peer.boot
        effects = peer.tell(LinkLost(peer.machine.link))
        assert kinds(effects) == [CloseLink, Detached]
        waits.append(peer.wake - lost_at)
        assert kinds(peer.sleep()) == [OpenLink]
    assert waits == [min(BACKOFF_FIRST * 2**n, BACKOFF_MAX) for n in range(9)]
    peer.tell(LinkOpened(peer.machine.link))
    peer.hear(welcome())
    peer.tell(LinkLost(peer.machine.link))
    assert peer.wake - peer.boot == BACKOFF_FIRST


def test_d1_every_attempt_has_a_new_socket_and_takes_the_next_address() -> None:
    peer = Peer(addresses=("tcp://a:1", "tcp://b:1"))
    opened = [effect for effect in peer.tell(Start()) if isinstance(effect, OpenLink)]
    for _ in range(3):
        peer.tell(LinkLost(peer.machine.link))
        opened += [effect for effect in peer.sleep() if isinstance(effect, OpenLink)]
    assert [(effect.link, effect.address) for effect in opened] == [
        (1, "tcp://a:1"),
        (2, "tcp://b:1"),
        (3, "tcp://a:1"),
        (4, "tcp://b:1"),
    ]


def test_a_link_without_a_welcome_is_given_up() -> None:
    peer = Peer()
    peer.tell(Start())
    peer.tell(LinkOpened(1))
    start = peer.boot
    effects = peer.sleep()
    assert peer.boot == start + GREETING_PATIENCE
    assert kinds(effects) == [CloseLink, Detached]


def test_what_is_told_of_an_older_link_changes_nothing() -> None:
    peer = Peer()
    peer.attach()
    peer.tell(LinkLost(1))
    peer.attach()
    assert peer.tell(LinkLost(1)) == []
    assert peer.tell(LinkOpened(1)) == []
    assert peer.tell(Heard(1, [Reset("go away", final=True)])) == []
    assert peer.machine.state is State.ATTACHED


def test_d3_what_was_not_answered_is_said_again_byte_for_byte_before_the_owner_hears_attached() -> None:
    peer = Peer()
    peer.attach()
    for _ in range(3):
        peer.machine.add(settle)
    peer.machine.add(lambda number: Request(number, 9, msgspec.Raw(b"\xc0")))
    (first,) = peer.machine.flush()
    peer.hear(Applied(1))
    peer.tell(LinkLost(1))
    effects = peer.attach()
    assert kinds(effects) == [Transmit, Attached]
    again = sent(effects)
    assert [type(verb) for verb in again] == [Settle, Settle, Request]
    assert decoded(first)[1:] == again
    raw = b"".join(message[0] for e in effects if isinstance(e, Transmit) for message in e.messages)
    assert raw[1:] in first[0]
    assert peer.machine.flush() == []


def test_applied_answers_everything_up_to_its_number_but_requests() -> None:
    peer = Peer()
    peer.attach()
    peer.machine.add(settle)
    request = peer.machine.add(lambda number: Request(number, 9, msgspec.Raw(b"\xc0")))
    peer.machine.add(lambda number: Return(number, [5], 3, [1]))
    peer.machine.add(settle)
    peer.hear(Applied(3))
    assert peer.machine.unanswered == 2
    assert peer.machine.encoded(request)
    effects = peer.hear(Reply(request))
    assert effects == [Passed([Reply(request)])]
    assert peer.machine.unanswered == 1


def test_unnumbered_verbs_belong_to_their_link() -> None:
    peer = Peer()
    assert not peer.machine.say(Credit(5))
    peer.attach()
    assert peer.machine.say(Credit(5))
    peer.tell(LinkLost(1))
    peer.attach()
    assert peer.machine.flush() == []


def test_what_is_said_in_one_go_is_one_frame_in_order() -> None:
    peer = Peer()
    peer.attach()
    peer.machine.add(settle)
    peer.machine.say(Credit(7))
    peer.machine.add(settle)
    (message,) = peer.machine.flush()
    assert [type(verb) for verb in decoded(message)] == [Settle, Credit, Settle]


def test_many_verbs_are_cut_into_frames_of_at_most_4096() -> None:
    peer = Peer()
    peer.attach()
    for _ in range(5000):
        peer.machine.say(Credit(1))
    assert [len(decoded(message)) for message in peer.machine.flush()] == [4096, 904]


def test_a_verb_that_fits_no_frame_is_refused_and_takes_no_number() -> None:
    peer = Peer()
    peer.attach()
    with pytest.raises(FrameTooLarge):
        peer.machine.add(lambda number: Settle(number, [Outcome(1, 1, 3, result=bytes(1 << 20))]))
    assert peer.machine.add(settle) == 1


def test_the_outbox_holds_its_limit_and_not_one_more() -> None:
    peer = Peer()
    for _ in range(OUTBOX_VERBS_MAX):
        peer.machine.add(lambda number: Return(number, [], 1, []))
    with pytest.raises(LocalProtocolError, match="wait for answers"):
        peer.machine.add(lambda number: Return(number, [], 1, []))


def test_d19_verbs_of_an_older_epoch_are_refused() -> None:
    peer = Peer()
    peer.attach(epoch=5)
    old = Deliver(0, 4, 1, [Delivery(1, Envelope("i", "t", "msgpack", b""), "m")])
    current = Deliver(0, 5, 2, [])
    assert peer.hear(old, Confirm(0, 4, 1), current, Confirm(0, 5, 1)) == [Passed([current, Confirm(0, 5, 1)])]


def test_d19_a_broker_whose_epoch_went_back_is_not_attached_to() -> None:
    peer = Peer()
    peer.attach(epoch=5)
    peer.tell(LinkLost(1))
    effects = peer.attach(epoch=4)
    assert kinds(effects) == [CloseLink, Detached]
    assert kinds(peer.attach(epoch=6)) == [Attached]


def test_another_broker_may_have_a_lower_epoch() -> None:
    peer = Peer()
    peer.attach(epoch=5)
    peer.tell(LinkLost(1))
    peer.sleep()
    peer.tell(LinkOpened(2))
    assert kinds(peer.hear(welcome(epoch=1, broker="another"))) == [Attached]


def test_a_reset_means_another_link_and_a_final_one_means_the_end() -> None:
    peer = Peer()
    peer.attach()
    assert kinds(peer.hear(Reset("say Hello first"))) == [CloseLink, Detached]
    peer.attach()
    assert kinds(peer.hear(Reset("not allowed", final=True))) == [CloseLink, Refused]
    assert peer.machine.state is State.ENDED
    assert peer.tell(Tick()) == []
    with pytest.raises(LocalProtocolError, match="ended"):
        peer.machine.add(settle)


def test_a_broker_of_another_version_is_refused_in_words() -> None:
    peer = Peer()
    effects = peer.attach(version=2)
    (refused,) = [effect for effect in effects if isinstance(effect, Refused)]
    assert "protocol 2" in refused.reason


def test_a_bad_frame_costs_the_link() -> None:
    peer = Peer()
    peer.attach()
    effects = peer.tell(Heard(1, BadFrame("nonsense")))
    assert kinds(effects) == [CloseLink, Detached]


def test_a_second_welcome_costs_the_link() -> None:
    peer = Peer()
    peer.attach()
    assert kinds(peer.hear(welcome())) == [CloseLink, Detached]


def test_a_goodbye_of_the_broker_costs_the_link() -> None:
    peer = Peer()
    peer.attach()
    assert kinds(peer.hear(Goodbye("shutting down"))) == [CloseLink, Detached]


def test_a_ping_is_answered_and_other_verbs_are_passed_on_in_order() -> None:
    peer = Peer()
    peer.attach()
    effects = peer.hear(Ping(3), Recall([1]), Pong(1), Applied(0))
    assert sent(effects) == [Pong(3)]
    assert effects[-1] == Passed([Recall([1]), Applied(0)])


def test_d4_a_node_gives_up_a_broker_that_was_silent_for_six_seconds() -> None:
    peer = Peer(role=Role.NODE, pinged=True)
    peer.attach()
    heard_at = peer.boot
    peer.hear(Ping(1))
    peer.boot += SILENCE_MAX - 1
    assert peer.tell(Tick()) == []
    peer.boot += 1
    assert kinds(peer.tell(Tick())) == [CloseLink, Detached]
    assert peer.machine.heard_at == heard_at


def test_d4_a_child_or_client_is_not_pinged_and_keeps_a_silent_link() -> None:
    peer = Peer()
    peer.attach()
    peer.boot += 10 * SILENCE_MAX
    assert peer.tell(Tick()) == []


def test_hurry_cuts_the_backoff_short_but_not_its_first_step() -> None:
    peer = Peer()
    peer.tell(Start())
    for _ in range(8):
        peer.tell(LinkLost(peer.machine.link))
        peer.sleep()
    peer.tell(LinkLost(peer.machine.link))
    lost_at = peer.boot
    assert peer.wake == lost_at + BACKOFF_MAX
    assert kinds(peer.tell(Hurry())) == []
    assert peer.wake == lost_at + BACKOFF_FIRST
    peer.boot += BACKOFF_FIRST
    assert kinds(peer.tell(Hurry())) == [OpenLink]
    assert peer.tell(Hurry()) == []


def test_leaving_says_what_waits_and_goodbye_and_closes_in_order() -> None:
    peer = Peer()
    peer.attach()
    peer.machine.add(settle)
    effects = peer.tell(Leave("done"))
    assert sent(effects) == [settle(1), Goodbye("done")]
    assert effects[1] == CloseLink(1, orderly=True)
    assert effects[-1] == Ended()
    assert peer.tell(Start()) == []


def test_renewing_opens_a_new_link_under_another_session() -> None:
    peer = Peer()
    peer.attach()
    effects = peer.tell(Renew("s/2"))
    assert kinds(effects) == [CloseLink, OpenLink]
    (hello,) = sent(peer.tell(LinkOpened(2)))
    assert isinstance(hello, Hello)
    assert (hello.session, hello.link) == ("s/2", 2)


class AttachmentMachine(RuleBasedStateMachine):
    """Plays links, broker and owner at random against what must always hold."""

    def __init__(self) -> None:
        super().__init__()
        self.peer = Peer()
        #: What each number's bytes were when first seen.
        self.bytes_of: dict[int, bytes] = {}
        self.added: dict[int, None] = {}
        self.open: int | None = None
        self.greeted: set[int] = set()
        self.opened: list[int] = []

    @initialize()
    def start(self) -> None:
        self.carry_out(self.peer.tell(Start()))

    def carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, OpenLink):
                assert self.open is None, "a link is opened while there is another"
                assert effect.link not in self.opened
                self.opened.append(effect.link)
                self.open = effect.link
            elif isinstance(effect, CloseLink):
                assert effect.link == self.open
                self.open = None
            elif isinstance(effect, Transmit):
                assert effect.link == self.open
                self.see(effect.link, effect.messages)

    def see(self, link: int, messages: list[Parts]) -> None:
        for message in messages:
            for verb in decoded(message):
                if link not in self.greeted:
                    assert isinstance(verb, Hello), "Hello comes first"
                    self.greeted.add(link)
                if isinstance(verb, Settle):
                    encoded = msgspec.msgpack.encode(verb)
                    assert self.bytes_of.setdefault(verb.number, encoded) == encoded

    def attached(self) -> bool:
        return self.peer.machine.state is State.ATTACHED

    @precondition(lambda self: self.peer.machine.state is State.CONNECTING)
    @rule()
    def link_opens(self) -> None:
        self.carry_out(self.peer.tell(LinkOpened(self.peer.machine.link)))

    @precondition(lambda self: self.peer.machine.state is State.GREETED)
    @rule()
    def broker_welcomes(self) -> None:
        effects = self.peer.hear(welcome())
        self.carry_out(effects)
        again = [verb.number for verb in sent(effects) if isinstance(verb, Settle)]
        assert again == list(self.added), "all that is unanswered is said again, in order"

    @rule()
    def link_is_lost(self) -> None:
        self.carry_out(self.peer.tell(LinkLost(self.peer.machine.link)))

    @rule(numbers=st.integers(0, 3))
    def broker_applies(self, numbers: int) -> None:
        if not self.attached() or not self.added:
            return
        number = list(self.added)[min(numbers, len(self.added) - 1)]
        self.carry_out(self.peer.hear(Applied(number)))
        self.added = {kept: None for kept in self.added if kept > number}

    @rule()
    def owner_settles(self) -> None:
        self.added[self.peer.machine.add(settle)] = None

    @rule()
    def owner_flushes(self) -> None:
        messages = self.peer.machine.flush()
        assert not messages or self.attached()
        self.see(self.peer.machine.link, messages)

    @rule(passing=st.integers(0, BACKOFF_MAX))
    def time_passes(self, passing: int) -> None:
        self.peer.boot += passing
        self.carry_out(self.peer.tell(Tick()))

    @rule()
    def old_news_comes(self) -> None:
        before = self.peer.machine.state
        assert self.peer.tell(LinkLost(self.peer.machine.link - 1)) == []
        assert self.peer.machine.state is before

    @invariant()
    def numbers_are_contiguous(self) -> None:
        assert self.peer.machine.unanswered == len(self.added)

    @invariant()
    def it_never_waits_for_nothing(self) -> None:
        if self.peer.machine.state in (State.CONNECTING, State.GREETED, State.LOST):
            assert self.peer.wake, "without a wake-up it would stay like this for ever"


TestAttachmentMachine = AttachmentMachine.TestCase
TestAttachmentMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
