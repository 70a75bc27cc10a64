"""Publishing by number: what callers submit becomes batches, and each caller learns what became of his (spec D6).

`cut` runs in the caller's thread and makes *chunks*: encoded messages of one mailbox, each small enough for a
frame. A `Submission` is one call: it ends when all its chunks are confirmed, at its first refusal, or when its time
is up. Chunks wait in a lane a mailbox. `next_messages` forms numbered batches of what waits: chunks of several
callers and mailboxes share one, and so a frame and a commit. A batch is accepted or refused whole, so when a shared
one is refused, each of its chunks is tried again alone, and nobody is refused for another's sake.

A batch keeps its bytes until its Confirm: after re-attaching `resend` says the same bytes under the same
numbers, and the broker tells the stored outcome of those that it had applied. A session that the broker
does not know can only begin at number 1: when batches above it were said already, what became of them is
unknown, and the owner renews the session.

A lane whose mailbox is full and asks to be blocked for ("block:") keeps its chunks and tries one batch
after 0.1 s, doubling to 5 s, until their submissions run out of time or are given up. After BLOCKED_TOLD
`blocked` has a word on it, once, for people who wonder.

What can never happen: two submissions with one end each other's; a number with two contents; a chunk that
is in a batch and in a lane at once; a batch that is sent while more than the grant is unconfirmed (one
alone always is).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from ..codec import BODY_BYTES_MAX, FRAME_BYTES_MAX, Parts, cut_group, encode_publish
from ..errors import FrameTooLarge, GreenroomError, LocalProtocolError, MailboxFull, UnknownOutcome
from ..message import Envelope
from ..verbs import ITEMS_MAX, Confirm, Group, Publish, Refusal
from .packing import array_header
from .refusals import BLOCK_PREFIX, error_of, unavailable

#: What may be unconfirmed before a broker's Welcome says another number (spec D9).
GRANT_DEFAULT: Final = 8 << 20
#: Encoded messages of one batch, with room for the verb around them; also for the parts behind the frame
#: together, unless one message alone is bigger.
BATCH_BYTES_MAX: Final = FRAME_BYTES_MAX - (8 << 10)
BLOCKED_FIRST: Final = 100_000
BLOCKED_MAX: Final = 5_000_000
#: About when whoever waits begins to wonder.
BLOCKED_TOLD: Final = 3_000_000
#: With so many batches on the way, what waits is held until one is confirmed or it has grown to HELD_BYTES_MAX. It
#: loses no time, since a broker commits together what came during a commit, and spares it many small frames.
HELD_BATCHES: Final = 4
HELD_BYTES_MAX: Final = 64 << 10


class Submission:
    """One call of publish. `token` is its owner's business. Times are boot microseconds; 0: no such limit."""

    __slots__ = ("deadline", "full", "left", "over", "reach_by", "sent", "size", "token", "why_waiting")

    def __init__(self, token: object, *, deadline: int = 0) -> None:
        self.token = token
        #: When it fails if it has not ended.
        self.deadline = deadline
        #: When it fails if no broker can be reached until then. Set by the client machine.
        self.reach_by = 0
        #: Chunks without a confirm.
        self.left = 0
        self.size = 0
        self.over = False
        #: A chunk of it was handed out to be sent.
        self.sent = False
        #: The refusal that it waits out, and of which mailbox.
        self.why_waiting = ""
        self.full = ""


class Chunk(msgspec.Struct, gc=False):
    """Messages of one mailbox: `items` is their encoding without the array's header."""

    mailbox: str
    count: int
    items: bytes
    parts: Parts
    size: int
    #: Refused together with others: now it is a batch of its own.
    alone: bool = False
    submission: Submission | None = None


class Ending(msgspec.Struct, frozen=True):
    """A submission has ended: accepted, or not for this reason."""

    submission: Submission
    error: GreenroomError | None


class Blocked(msgspec.Struct, frozen=True):
    """Calls wait for room in this mailbox, which is full; `waited` microseconds so far."""

    mailbox: str
    detail: str
    waited: int


class _Batch(msgspec.Struct, gc=False):
    message: Parts
    chunks: list[Chunk]
    lanes: list[str]
    size: int


class _Lane:
    __slots__ = ("blocked_since", "blocked_until", "chunks", "delay", "in_flight", "refused", "told")

    def __init__(self) -> None:
        self.chunks: deque[Chunk] = deque()
        #: Chunks that came back, in order; they go before the others.
        self.refused: list[Chunk] = []
        self.blocked_until = 0
        #: The delay of the last refusal that asked to be blocked for; 0: not blocked.
        self.delay = 0
        self.blocked_since = 0
        self.told = False
        self.in_flight = 0


class _Filling:
    """A batch in the making: consecutive chunks of one mailbox become one group, unless they have parts."""

    __slots__ = ("chunks", "count", "groups", "size")

    def __init__(self) -> None:
        self.groups: list[list[Chunk]] = []
        self.chunks: list[Chunk] = []
        self.size = 0
        self.count = 0

    def fits(self, chunk: Chunk) -> bool:
        if not self.chunks:
            return True
        return (
            self.size + chunk.size <= BATCH_BYTES_MAX
            and self.count + chunk.count <= ITEMS_MAX
            and not chunk.alone
            and not self.chunks[0].alone
        )

    def add(self, chunk: Chunk) -> None:
        last = self.groups[-1][0] if self.groups else None
        if last is not None and last.mailbox == chunk.mailbox and not last.parts and not chunk.parts:
            self.groups[-1].append(chunk)
        else:
            self.groups.append([chunk])
        self.chunks.append(chunk)
        self.size += chunk.size
        self.count += chunk.count


def cut(mailbox: str, envelopes: Sequence[Envelope]) -> list[Chunk]:
    """Encode messages for one mailbox, in order, in as few chunks as fit frames.

    Raises FrameTooLarge for a message that fits none, LocalProtocolError for a name of no or too many
    characters.
    """
    if not 0 < len(mailbox) <= 255:
        raise LocalProtocolError(f"a mailbox's name has 1 to 255 characters, {mailbox[:32]!r} has {len(mailbox)}")
    chunks: list[Chunk] = []
    for start in range(0, len(envelopes), ITEMS_MAX):
        _cut(mailbox, envelopes[start : start + ITEMS_MAX], chunks)
    return chunks


def _cut(mailbox: str, envelopes: Sequence[Envelope], chunks: list[Chunk]) -> None:
    parts: Parts = []
    group = cut_group(mailbox, envelopes, parts)
    encoded = bytes(group.messages)
    behind = sum(map(len, parts)) if parts else 0
    count = len(envelopes)
    if count > 1 and (len(encoded) > BATCH_BYTES_MAX or behind > BATCH_BYTES_MAX):
        _cut(mailbox, envelopes[: count // 2], chunks)
        _cut(mailbox, envelopes[count // 2 :], chunks)
        return
    if len(encoded) > BATCH_BYTES_MAX or behind > BODY_BYTES_MAX:
        envelope = envelopes[0]
        raise FrameTooLarge(
            f"message {envelope.id} ({envelope.name}) has {len(encoded)} bytes beside a body of {behind}; the limits "
            f"are {BATCH_BYTES_MAX} and {BODY_BYTES_MAX}; send a reference to large data, not the data"
        )
    header = 1 if count < 16 else 3
    chunks.append(Chunk(mailbox, count, encoded[header:], parts, len(encoded) + behind))


class Publisher:
    """The numbered batches of one session at one partition. Sans-IO; used by one thread."""

    def __init__(self, partition: int = 0) -> None:
        self.partition = partition
        self.grant = GRANT_DEFAULT
        self._lanes: dict[str, _Lane] = {}
        self._number = 0
        self._unconfirmed: dict[int, _Batch] = {}
        self._unconfirmed_bytes = 0
        #: Bytes of chunks in lanes.
        self._waiting_bytes = 0
        #: Mailboxes that calls have waited for long; whoever takes note empties it.
        self.blocked: list[Blocked] = []

    @property
    def holding(self) -> bool:
        """Whether what waits now, or is submitted next, leaves only after a confirm, unless it is much."""
        return len(self._unconfirmed) >= HELD_BATCHES and self._waiting_bytes < HELD_BYTES_MAX

    @property
    def number(self) -> int:
        """The last number that was used in this session."""
        return self._number

    @property
    def answered(self) -> int:
        """The outcomes of all numbers up to this one are known."""
        return next(iter(self._unconfirmed), self._number + 1) - 1

    @property
    def unconfirmed_bytes(self) -> int:
        """Bytes of batches that were handed out and not confirmed."""
        return self._unconfirmed_bytes

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is unconfirmed."""
        return not self._lanes and not self._unconfirmed

    def submit(self, submission: Submission, chunks: Sequence[Chunk]) -> None:
        """Queue a call's chunks, which become the publisher's own. There must be at least one."""
        for chunk in chunks:
            chunk.submission = submission
            submission.size += chunk.size
            self._waiting_bytes += chunk.size
            lane = self._lanes.get(chunk.mailbox)
            if lane is None:
                lane = self._lanes[chunk.mailbox] = _Lane()
            lane.chunks.append(chunk)
        submission.left += len(chunks)

    # --- sending -------------------------------------------------------------------------------------------------

    def next_messages(self, boot: int) -> list[Parts]:
        """Number what waits and may be sent now; return it as messages, in order.

        Lanes take turns of at most one batch, so that a flood for one mailbox holds up no other.
        """
        if not self._lanes or self.holding:
            return []
        messages: list[Parts] = []
        filling = _Filling()
        turns = deque(self._lanes.items())
        emptied: list[tuple[str, _Lane]] = []
        while turns:
            mailbox, lane = turns.popleft()
            if not _opens(lane, boot):
                continue
            taken = 0
            while (chunk := self._next_live(lane.chunks)) is not None and taken < BATCH_BYTES_MAX:
                if not self._has_room(filling.size + chunk.size, filling):
                    # This lane's turn comes last next time.
                    self._lanes[mailbox] = self._lanes.pop(mailbox)
                    turns.clear()
                    break
                if not filling.fits(chunk):
                    messages.append(self._batch(filling))
                    filling = _Filling()
                    continue
                lane.chunks.popleft()
                self._waiting_bytes -= chunk.size
                taken += chunk.size
                filling.add(chunk)
                if lane.delay:
                    messages.append(self._batch(filling))
                    filling = _Filling()
                    break  # one chunk tries whether there is room again
            else:
                if lane.chunks:
                    turns.append((mailbox, lane))
                else:
                    emptied.append((mailbox, lane))
        if filling.chunks:
            messages.append(self._batch(filling))
        for mailbox, lane in emptied:
            self._drop_if_idle(mailbox, lane)
        return messages

    def resend(self) -> list[Parts]:
        """Return every unconfirmed batch, in order, byte for byte as it was."""
        return [batch.message for batch in self._unconfirmed.values()]

    def wake_at(self) -> int:
        """Return when a blocked lane tries again; 0: none is blocked."""
        times = [lane.blocked_until for lane in self._lanes.values() if lane.blocked_until and not lane.in_flight]
        return min(times, default=0)

    def _next_live(self, waiting: deque[Chunk]) -> Chunk | None:
        """The first chunk of a call that is not over; those before it are dropped."""
        while waiting:
            submission = waiting[0].submission
            assert submission is not None
            if not submission.over:
                return waiting[0]
            self._waiting_bytes -= waiting.popleft().size
        return None

    def _has_room(self, size: int, filling: _Filling) -> bool:
        """Whether so many bytes may be sent now; without anything unconfirmed, any one chunk may."""
        if not self._unconfirmed and not filling.chunks:
            return True
        return self._unconfirmed_bytes + size <= self.grant

    def _batch(self, filling: _Filling) -> Parts:
        groups: list[Group] = []
        parts: Parts = []
        for chunks in filling.groups:
            count = sum([chunk.count for chunk in chunks])
            items = array_header(count) + b"".join([chunk.items for chunk in chunks])
            groups.append(Group(chunks[0].mailbox, count, msgspec.Raw(items), len(chunks[0].parts)))
            parts += chunks[0].parts
        for chunk in filling.chunks:
            assert chunk.submission is not None
            chunk.submission.sent = True
        lanes = list(dict.fromkeys([group.mailbox for group in groups]))
        for mailbox in lanes:
            self._lanes[mailbox].in_flight += 1
        answered = self.answered
        self._number += 1
        message = encode_publish(Publish(self.partition, self._number, answered, groups), parts)
        self._unconfirmed[self._number] = _Batch(message, filling.chunks, lanes, filling.size)
        self._unconfirmed_bytes += filling.size
        return message

    def _drop_if_idle(self, mailbox: str, lane: _Lane) -> None:
        if not lane.chunks and not lane.refused and not lane.in_flight:
            del self._lanes[mailbox]

    # --- answers -------------------------------------------------------------------------------------------------

    def confirmed(self, confirm: Confirm, boot: int) -> list[Ending]:
        """Take a batch's outcome; return the submissions that end with it. A number that is not open is ignored."""
        batch = self._unconfirmed.pop(confirm.number, None)
        if batch is None:
            return []
        self._unconfirmed_bytes -= batch.size
        endings = self._judge(batch, confirm, boot)
        for mailbox in batch.lanes:
            lane = self._lanes[mailbox]
            lane.in_flight -= 1
            self._drop_if_idle(mailbox, lane)
        return endings

    def _judge(self, batch: _Batch, confirm: Confirm, boot: int) -> list[Ending]:
        if confirm.refusal == Refusal.ACCEPTED:
            for mailbox in batch.lanes:
                lane = self._lanes[mailbox]
                lane.blocked_until = lane.delay = 0
                lane.told = False
            return self._accepted(batch.chunks)
        if len(batch.chunks) > 1 and confirm.refusal in _WORTH_TRYING_ALONE:
            for chunk in batch.chunks:
                chunk.alone = True
                self._lanes[chunk.mailbox].refused.append(chunk)
                self._waiting_bytes += chunk.size
            return []
        if confirm.refusal == Refusal.MAILBOX_FULL and confirm.detail.startswith(BLOCK_PREFIX):
            self._block(batch.chunks[0], confirm.detail.removeprefix(BLOCK_PREFIX).strip(), boot)
            return []
        return self._end(batch.chunks, error_of(confirm, batch.chunks[0].mailbox))

    def _accepted(self, chunks: list[Chunk]) -> list[Ending]:
        endings: list[Ending] = []
        for chunk in chunks:
            submission = chunk.submission
            assert submission is not None
            submission.left -= 1
            if not submission.left and not submission.over:
                submission.over = True
                endings.append(Ending(submission, None))
        return endings

    def _block(self, chunk: Chunk, detail: str, boot: int) -> None:
        assert chunk.submission is not None
        chunk.submission.why_waiting = detail
        chunk.submission.full = chunk.mailbox
        lane = self._lanes[chunk.mailbox]
        if not lane.delay:
            lane.blocked_since = boot
        elif boot - lane.blocked_since >= BLOCKED_TOLD and not lane.told:
            lane.told = True
            self.blocked.append(Blocked(chunk.mailbox, detail, boot - lane.blocked_since))
        lane.refused.append(chunk)
        self._waiting_bytes += chunk.size
        if boot >= lane.blocked_until:
            lane.delay = min(lane.delay * 2, BLOCKED_MAX) if lane.delay else BLOCKED_FIRST
            lane.blocked_until = boot + lane.delay

    def _end(self, chunks: list[Chunk], error: GreenroomError) -> list[Ending]:
        endings: list[Ending] = []
        for chunk in chunks:
            submission = chunk.submission
            assert submission is not None
            submission.left -= 1
            if not submission.over:
                submission.over = True
                endings.append(Ending(submission, error))
        return endings

    # --- giving up -----------------------------------------------------------------------------------------------

    def expire(self, submission: Submission, addresses: Sequence[str], waited_seconds: float, why: str = "") -> Ending:
        """End a submission whose time is up. What is in a lane is dropped; what was sent may still be accepted.

        `why`: what keeps the client from its broker, if that is so.
        """
        submission.over = True
        if submission.why_waiting:
            error: GreenroomError = MailboxFull(submission.why_waiting, mailbox=submission.full)
        elif submission.sent:
            error = UnknownOutcome(
                f"the broker did not confirm within {waited_seconds:g} s: the messages may have been accepted or not"
            )
        else:
            error = unavailable(addresses, waited_seconds, why)
        return Ending(submission, error)

    def forgotten(self) -> tuple[list[Ending], bool]:
        """The broker does not know this session. Return what ends by that, and whether a new session is needed.

        Batches from number 1 on may be said as they are: they begin the session. Any other number would be
        refused, so the session must be renewed, and what was unconfirmed is unknown.
        """
        if self._number == 0 or 1 in self._unconfirmed:
            return [], False
        return self.abandon(
            UnknownOutcome(
                "the broker has forgotten this client's session: what was unconfirmed may or may not have been accepted"
            )
        ), True

    def abandon(self, error: GreenroomError) -> list[Ending]:
        """End the session's numbers: what is unconfirmed fails with `error`; what waits may go with new numbers."""
        endings: list[Ending] = []
        for batch in self._unconfirmed.values():
            endings += self._end(batch.chunks, error)
            for mailbox in batch.lanes:
                lane = self._lanes[mailbox]
                lane.in_flight -= 1
                self._drop_if_idle(mailbox, lane)
        self._unconfirmed = {}
        self._unconfirmed_bytes = 0
        self._number = 0
        return endings

    def refuse_all(self, error: GreenroomError) -> list[Ending]:
        """End everything: what is unconfirmed and what waits."""
        endings = self.abandon(error)
        for lane in self._lanes.values():
            endings += self._end([*lane.refused, *lane.chunks], error)
        self._lanes = {}
        self._waiting_bytes = 0
        return endings


_WORTH_TRYING_ALONE: Final = (Refusal.MAILBOX_FULL, Refusal.NOT_ALLOWED, Refusal.INVALID)


def _opens(lane: _Lane, boot: int) -> bool:
    """Put what came back before what waits; tell whether the lane may send."""
    if lane.blocked_until and (boot < lane.blocked_until or lane.in_flight):
        return False
    if lane.refused:
        lane.chunks.extendleft(reversed(lane.refused))
        lane.refused = []
    return True
