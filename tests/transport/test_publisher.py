"""The publisher: numbered batches, each whole or not at all, and each caller told his own outcome."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from greenroom.transport.codec import FRAME_BYTES_MAX, BadFrame, Parts, decode_to_broker, envelopes_of
from greenroom.transport.errors import (
    BrokerUnavailable,
    FrameTooLarge,
    LocalProtocolError,
    MailboxFull,
    NotAllowed,
    RemoteProtocolError,
    StoreFull,
    UnknownOutcome,
)
from greenroom.transport.message import Envelope
from greenroom.transport.peer.publisher import (
    BLOCKED_FIRST,
    BLOCKED_MAX,
    BLOCKED_TOLD,
    HELD_BATCHES,
    HELD_BYTES_MAX,
    Blocked,
    Ending,
    Publisher,
    Submission,
    cut,
)
from greenroom.transport.verbs import ITEMS_MAX, Confirm, Publish, Refusal


def envelope(id: str, body: bytes = b"body") -> Envelope:
    return Envelope(id, "shop.add", "msgpack", body)


def envelopes(start: int, count: int, body: bytes = b"body") -> list[Envelope]:
    return [envelope(str(number), body) for number in range(start, start + count)]


def submit(publisher: Publisher, mailbox: str, messages: Sequence[Envelope]) -> Submission:
    submission = Submission(mailbox)
    publisher.submit(submission, cut(mailbox, messages))
    return submission


def read(message: Parts) -> tuple[Publish, dict[str, list[str]]]:
    """The publish of a message, and the ids in it by mailbox."""
    verbs = decode_to_broker(message)
    assert not isinstance(verbs, BadFrame)
    (publish,) = verbs
    assert isinstance(publish, Publish)
    ids: dict[str, list[str]] = {}
    used = 1
    for group in publish.groups:
        found = envelopes_of(group, message[used : used + group.parts])
        used += group.parts
        ids.setdefault(group.mailbox, []).extend(item.id for item in found)
    assert used == len(message)
    return publish, ids


def confirm(number: int, refusal: Refusal = Refusal.ACCEPTED, detail: str = "") -> Confirm:
    return Confirm(0, 1, number, refusal, detail=detail)


def test_what_waits_for_one_mailbox_becomes_one_batch() -> None:
    publisher = Publisher()
    submissions = [submit(publisher, "m", envelopes(n, 1)) for n in range(10)]
    (message,) = publisher.next_messages(0)
    publish, ids = read(message)
    assert (publish.number, publish.answered) == (1, 0)
    assert ids == {"m": [str(n) for n in range(10)]}
    assert publisher.confirmed(confirm(1), 0) == [Ending(submission, None) for submission in submissions]
    assert publisher.idle


def test_mailboxes_share_a_batch_and_keep_their_groups() -> None:
    publisher = Publisher()
    submit(publisher, "a", envelopes(0, 2))
    submit(publisher, "b", envelopes(2, 2))
    submit(publisher, "a", envelopes(4, 1))
    (message,) = publisher.next_messages(0)
    publish, ids = read(message)
    assert [group.mailbox for group in publish.groups] == ["a", "b"]
    assert ids == {"a": ["0", "1", "4"], "b": ["2", "3"]}


def test_d6_numbers_are_counted_from_one_and_answered_follows_the_confirms() -> None:
    publisher = Publisher()
    for number in range(1, 5):
        submit(publisher, "m", envelopes(number, 1))
        (message,) = publisher.next_messages(0)
        publish, _ = read(message)
        assert publish.number == number
        if number != 2:
            publisher.confirmed(confirm(number), 0)
    assert publisher.answered == 1
    publisher.confirmed(confirm(2), 0)
    assert publisher.answered == 4


def test_d6_a_resend_is_byte_identical_and_in_order() -> None:
    publisher = Publisher()
    messages: list[Parts] = []
    for number in range(3):
        submit(publisher, "m", envelopes(number, 1, bytes(20_000)))
        messages += publisher.next_messages(0)
    publisher.confirmed(confirm(2), 0)
    submit(publisher, "m", envelopes(9, 1))
    assert publisher.resend() == [messages[0], messages[2]]
    assert publisher.resend() == [messages[0], messages[2]]


def test_d6_a_confirm_that_comes_twice_ends_nothing_twice() -> None:
    publisher = Publisher()
    submit(publisher, "m", envelopes(0, 1))
    publisher.next_messages(0)
    assert len(publisher.confirmed(confirm(1), 0)) == 1
    assert publisher.confirmed(confirm(1), 0) == []
    assert publisher.confirmed(confirm(7), 0) == []


def test_d10_a_batch_has_at_most_4096_messages() -> None:
    publisher = Publisher()
    submission = submit(publisher, "m", envelopes(0, ITEMS_MAX + 1))
    counts = [len(read(message)[1]["m"]) for message in publisher.next_messages(0)]
    assert counts == [ITEMS_MAX, 1]
    assert publisher.confirmed(confirm(1), 0) == []
    assert publisher.confirmed(confirm(2), 0) == [Ending(submission, None)]


def test_d10_a_frame_has_at_most_one_mebibyte_and_bodies_over_16_kib_are_parts() -> None:
    publisher = Publisher()
    submit(publisher, "m", envelopes(0, 1000, bytes(15_000)))
    submit(publisher, "m", envelopes(1000, 3, bytes(600_000)))
    messages: list[Parts] = []
    number = 0
    while new := publisher.next_messages(0):
        messages += new
        for _ in new:
            number += 1
            publisher.confirmed(confirm(number), 0)
    assert max(len(message[0]) for message in messages) <= FRAME_BYTES_MAX
    ids = [id for message in messages for id in read(message)[1]["m"]]
    assert ids == [str(n) for n in range(1003)]
    assert [len(message) - 1 for message in messages[-3:]] == [1, 1, 1]


def test_a_message_that_fits_no_frame_is_refused_at_the_call() -> None:
    with pytest.raises(FrameTooLarge, match="reference"):
        cut("m", [envelope("1", bytes((16 << 20) + 1))])
    assert len(cut("m", [envelope("1", bytes(16 << 20))])) == 1
    with pytest.raises(FrameTooLarge):
        cut("m", [Envelope("1", "t", "msgpack", b"", origin="o" * (1 << 20))])
    with pytest.raises(LocalProtocolError, match="characters"):
        cut("", [envelope("1")])


def test_d9_what_is_unconfirmed_stays_within_the_grant() -> None:
    publisher = Publisher()
    publisher.grant = 10_000
    for number in range(10):
        submit(publisher, "m", envelopes(number, 1, bytes(3_000)))
        publisher.next_messages(0)
    assert publisher.unconfirmed_bytes <= publisher.grant
    sent = publisher.number
    assert sent == 3
    assert publisher.next_messages(0) == []
    publisher.confirmed(confirm(1), 0)
    assert publisher.next_messages(0)


def test_d9_one_message_above_the_grant_goes_alone() -> None:
    publisher = Publisher()
    publisher.grant = 1_000
    submit(publisher, "m", envelopes(0, 1, bytes(5_000)))
    submit(publisher, "m", envelopes(1, 1, bytes(10)))
    assert len(publisher.next_messages(0)) == 1
    publisher.confirmed(confirm(1), 0)
    assert len(publisher.next_messages(0)) == 1


def test_small_batches_are_held_while_enough_are_on_the_way_and_leave_together() -> None:
    publisher = Publisher()
    for number in range(HELD_BATCHES):
        submit(publisher, "m", envelopes(number, 1))
        assert len(publisher.next_messages(0)) == 1
    for number in range(10, 30):
        submit(publisher, "m", envelopes(number, 1))
        assert publisher.next_messages(0) == []
    assert publisher.holding
    publisher.confirmed(confirm(1), 0)
    assert not publisher.holding
    (message,) = publisher.next_messages(0)
    assert len(read(message)[1]["m"]) == 20


def test_much_is_not_held() -> None:
    publisher = Publisher()
    for number in range(HELD_BATCHES):
        submit(publisher, "m", envelopes(number, 1))
        publisher.next_messages(0)
    submit(publisher, "m", envelopes(10, 60, bytes(HELD_BYTES_MAX // 60)))
    assert len(publisher.next_messages(0)) == 1


def test_a_flood_for_one_mailbox_does_not_hold_up_another() -> None:
    publisher = Publisher()
    publisher.grant = 1 << 20
    submit(publisher, "flood", envelopes(0, 3000, bytes(1_000)))
    publisher.next_messages(0)
    small = submit(publisher, "small", envelopes(5000, 1))
    ended: list[Ending] = []
    for number in (1, 2):
        ended += publisher.confirmed(confirm(number), 0)
        publisher.next_messages(0)
    ended += publisher.confirmed(confirm(3), 0)
    assert small in [ending.submission for ending in ended]


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Refusal.MAILBOX_FULL, MailboxFull),
        (Refusal.STORE_FULL, StoreFull),
        (Refusal.NOT_ALLOWED, NotAllowed),
        (Refusal.UNKNOWN_SESSION, UnknownOutcome),
        (Refusal.INVALID, RemoteProtocolError),
    ],
)
def test_a_refusal_is_an_error_of_its_kind_with_the_brokers_words(refusal: Refusal, error: type[Exception]) -> None:
    publisher = Publisher()
    submit(publisher, "m", envelopes(0, 1))
    publisher.next_messages(0)
    (ending,) = publisher.confirmed(confirm(1, refusal, "mailbox 'm' holds 10 messages"), 0)
    assert type(ending.error) is error
    assert "holds 10 messages" in str(ending.error)
    assert publisher.idle


def test_nobody_is_refused_for_the_sake_of_another_who_shared_his_batch() -> None:
    publisher = Publisher()
    good = submit(publisher, "roomy", envelopes(0, 1))
    bad = submit(publisher, "full", envelopes(1, 1))
    publisher.next_messages(0)
    assert publisher.confirmed(confirm(1, Refusal.MAILBOX_FULL, "full"), 0) == []
    alone = [read(message) for message in publisher.next_messages(0)]
    assert [ids for _, ids in alone] == [{"roomy": ["0"]}, {"full": ["1"]}]
    assert publisher.confirmed(confirm(2), 0) == [Ending(good, None)]
    (ending,) = publisher.confirmed(confirm(3, Refusal.MAILBOX_FULL, "full"), 0)
    assert ending.submission is bad
    assert isinstance(ending.error, MailboxFull)


def test_a_mailbox_that_blocks_is_tried_again_with_growing_delay_until_there_is_room() -> None:
    publisher = Publisher()
    submission = submit(publisher, "m", envelopes(0, 1))
    publisher.next_messages(0)
    now = 0
    delays: list[int] = []
    for number in range(1, 9):
        assert publisher.confirmed(confirm(number, Refusal.MAILBOX_FULL, "block: m is full"), now) == []
        delays.append(publisher.wake_at() - now)
        assert publisher.next_messages(publisher.wake_at() - 1) == []
        now = publisher.wake_at()
        assert len(publisher.next_messages(now)) == 1
        assert publisher.next_messages(now + BLOCKED_MAX) == []
    assert delays == [min(BLOCKED_FIRST * 2**n, BLOCKED_MAX) for n in range(8)]
    assert publisher.confirmed(confirm(9), now) == [Ending(submission, None)]
    assert publisher.wake_at() == 0


def test_calls_that_wait_long_for_room_are_told_of_once_until_there_was_room() -> None:
    publisher = Publisher()

    def wait_out(number: int, now: int) -> tuple[int, int, list[Blocked]]:
        """Be refused again and again for ten seconds; return the next number, the time, and what was told."""
        end = now + 10_000_000
        told: list[Blocked] = []
        while now < end:
            publisher.confirmed(confirm(number, Refusal.MAILBOX_FULL, "block: m is full"), now)
            told += publisher.blocked
            publisher.blocked = []
            now, number = publisher.wake_at(), number + 1
            assert len(publisher.next_messages(now)) == 1
        return number, now, told

    began = 5
    submit(publisher, "m", envelopes(0, 1))
    publisher.next_messages(began)
    number, now, told = wait_out(1, began)
    [blocked] = told
    assert (blocked.mailbox, blocked.detail) == ("m", "m is full")
    assert BLOCKED_TOLD <= blocked.waited < 2 * BLOCKED_TOLD
    publisher.confirmed(confirm(number), now)
    submit(publisher, "m", envelopes(1, 1))
    publisher.next_messages(now)
    assert len(wait_out(number + 1, now)[2]) == 1


def test_a_submission_that_is_given_up_while_it_is_blocked_is_never_sent_again() -> None:
    publisher = Publisher()
    submission = submit(publisher, "m", envelopes(0, 1))
    publisher.next_messages(0)
    publisher.confirmed(confirm(1, Refusal.MAILBOX_FULL, "block: m is full"), 0)
    ending = publisher.expire(submission, ["tcp://a:1"], 0.5)
    assert isinstance(ending.error, MailboxFull)
    assert (str(ending.error), ending.error.mailbox) == ("m is full", "m")
    assert publisher.next_messages(BLOCKED_MAX) == []
    assert publisher.idle


def test_a_blocked_mailbox_keeps_the_order_and_holds_up_no_other() -> None:
    publisher = Publisher()
    submit(publisher, "m", envelopes(0, 1))
    publisher.next_messages(0)
    submit(publisher, "m", envelopes(1, 1))
    publisher.next_messages(0)
    publisher.confirmed(confirm(1, Refusal.MAILBOX_FULL, "block:"), 0)
    publisher.confirmed(confirm(2, Refusal.MAILBOX_FULL, "block:"), 0)
    submit(publisher, "m", envelopes(2, 1))
    submit(publisher, "other", envelopes(7, 1))
    (message,) = publisher.next_messages(1)
    assert read(message)[1] == {"other": ["7"]}
    (message,) = publisher.next_messages(BLOCKED_FIRST)
    assert read(message)[1] == {"m": ["0"]}
    publisher.confirmed(confirm(4), BLOCKED_FIRST)
    rest = [id for message in publisher.next_messages(BLOCKED_FIRST) for id in read(message)[1]["m"]]
    assert rest == ["1", "2"]


def test_a_submission_whose_time_is_up_says_what_is_known_of_it() -> None:
    publisher = Publisher()
    waiting = submit(publisher, "m", envelopes(0, 1))
    unsent = publisher.expire(waiting, ["tcp://a:1"], 4.0, "the connection closed")
    assert isinstance(unsent.error, BrokerUnavailable)
    assert "tcp://a:1 within 4 s" in str(unsent.error)
    assert "the connection closed" in str(unsent.error)
    assert publisher.next_messages(0) == []
    sent = submit(publisher, "m", envelopes(1, 1))
    publisher.next_messages(0)
    assert isinstance(publisher.expire(sent, ["tcp://a:1"], 4.0).error, UnknownOutcome)
    assert publisher.confirmed(confirm(1), 0) == []
    blocked = submit(publisher, "m", envelopes(2, 1))
    publisher.next_messages(0)
    publisher.confirmed(confirm(2, Refusal.MAILBOX_FULL, "block: m holds 5 messages"), 0)
    full = publisher.expire(blocked, ["tcp://a:1"], 4.0)
    assert isinstance(full.error, MailboxFull)
    assert "holds 5 messages" in str(full.error)


def test_d6_a_session_that_was_forgotten_before_its_first_batch_was_confirmed_goes_on() -> None:
    publisher = Publisher()
    submit(publisher, "m", envelopes(0, 1))
    publisher.next_messages(0)
    assert publisher.forgotten() == ([], False)
    assert Publisher().forgotten() == ([], False)


def test_d6_what_was_unconfirmed_above_one_in_a_forgotten_session_is_unknown() -> None:
    publisher = Publisher()
    submit(publisher, "m", envelopes(0, 1))
    publisher.next_messages(0)
    publisher.confirmed(confirm(1), 0)
    lost = submit(publisher, "m", envelopes(1, 1))
    publisher.next_messages(0)
    kept = submit(publisher, "m", envelopes(2, 1))
    (ending,), renew = publisher.forgotten()
    assert renew
    assert ending.submission is lost
    assert isinstance(ending.error, UnknownOutcome)
    (message,) = publisher.next_messages(0)
    assert read(message)[0].number == 1
    assert publisher.confirmed(confirm(1), 0) == [Ending(kept, None)]


class PublisherMachine(RuleBasedStateMachine):
    """A publisher, a broker that applies batches in order and once, and a link between that loses both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.publisher = Publisher()
        self.publisher.grant = 2_000
        self.boot = 0
        self.ids = 0
        self.submitted: dict[Submission, tuple[str, list[str]]] = {}
        self.ended: dict[Submission, Exception | None] = {}
        #: On the way to the broker; on the way back.
        self.out: list[Parts] = []
        self.back: list[Confirm] = []
        #: The broker: outcomes by number, and what it accepted, by mailbox.
        self.outcomes: dict[int, tuple[bytes, Confirm]] = {}
        self.accepted: dict[str, list[str]] = {}

    @rule(mailbox=st.sampled_from("abc"), counts=st.lists(st.integers(1, 3), min_size=1, max_size=3))
    def callers_publish(self, mailbox: str, counts: list[int]) -> None:
        for count in counts:
            ids = [str(self.ids + n) for n in range(count)]
            self.ids += count
            submission = submit(self.publisher, mailbox, [envelope(id, bytes(60)) for id in ids])
            self.submitted[submission] = (mailbox, ids)

    @rule()
    def messages_leave(self) -> None:
        self.out += self.publisher.next_messages(self.boot)

    @rule(refusal=st.sampled_from([0, 0, 0, 1, 2, 9]))
    def broker_takes_one(self, refusal: int) -> None:
        if not self.out:
            return
        message = self.out.pop(0)
        publish, ids = read(message)
        number = publish.number
        raw = b"".join(message)
        if number in self.outcomes:
            before, outcome = self.outcomes[number]
            assert before == raw, "a number has one content"
            self.back.append(outcome)
            return
        assert number == len(self.outcomes) + 1, "numbers come in order, without a gap"
        assert publish.answered < number
        full = refusal == 9
        outcome = confirm(number, Refusal.MAILBOX_FULL if full else Refusal(refusal), "block:" if full else "")
        if not outcome.refusal:
            for mailbox, some in ids.items():
                self.accepted.setdefault(mailbox, []).extend(some)
        self.outcomes[number] = (raw, outcome)
        self.back.append(outcome)

    @rule()
    def confirm_arrives(self) -> None:
        if self.back:
            for ending in self.publisher.confirmed(self.back.pop(0), self.boot):
                assert ending.submission not in self.ended, "a submission ends once"
                self.ended[ending.submission] = ending.error

    @rule()
    def link_is_lost_and_comes_back(self) -> None:
        self.out = self.publisher.resend()
        self.back = []

    @rule(passing=st.integers(0, BLOCKED_MAX))
    def time_passes(self, passing: int) -> None:
        self.boot += passing

    @invariant()
    def unconfirmed_bytes_stay_within_the_grant(self) -> None:
        assert self.publisher.unconfirmed_bytes <= self.publisher.grant

    @invariant()
    def nothing_is_accepted_twice(self) -> None:
        for ids in self.accepted.values():
            assert len(ids) == len(set(ids))

    @invariant()
    def every_ending_tells_the_truth(self) -> None:
        for submission, error in self.ended.items():
            mailbox, ids = self.submitted[submission]
            accepted = self.accepted.get(mailbox, [])
            if error is None:
                assert all(id in accepted for id in ids)
            else:
                assert not any(id in accepted for id in ids)

    def teardown(self) -> None:
        """Once nothing is lost or refused any more, everybody learns of his own, in the order of each mailbox."""
        self.link_is_lost_and_comes_back()
        for _ in range(10_000):
            if not (self.out or self.back or not self.publisher.idle):
                break
            self.boot += BLOCKED_MAX
            self.messages_leave()
            self.broker_takes_one(0)
            self.confirm_arrives()
        assert set(self.ended) == set(self.submitted)
        self.every_ending_tells_the_truth()


TestPublisherMachine = PublisherMachine.TestCase
TestPublisherMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_the_encoding_of_a_batch_is_that_of_its_messages() -> None:
    publisher = Publisher()
    messages = envelopes(0, 40)
    submit(publisher, "m", messages[:17])
    submit(publisher, "m", messages[17:])
    (message,) = publisher.next_messages(0)
    publish, _ = read(message)
    assert bytes(publish.groups[0].messages) == msgspec.msgpack.encode(messages)
