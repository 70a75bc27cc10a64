"""A client of a broker, without I/O: publishes, results and requests over one attachment.

It brings `Attachment` (the link and its session), `Publisher` (numbered batches) and `ResultBook` (who waits for
which result) together. Its owner calls `submit`, `ask`, `request` as its callers do, tells what happened with
`apply`, and sends what `apply` and `flush` hand out. Nothing is attached before somebody wants something.

    what happens          what is done
    Attached              unconfirmed batches are said again, byte for byte; watched ids are watched anew
    ... session unknown   what was unconfirmed ends with UnknownOutcome, under a new session the rest goes on
    Detached              submissions get `connect_timeout` to see the broker again
    Refused               everything ends with the broker's reason

Limits of time: `deadline` of each submission, to LIMITS_INTERVAL; and for those that are not patient, a broker must
be reached within `connect_timeout` of their submission or of the loss of the link.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ..clock import MICROSECONDS, Now
from ..codec import Parts
from ..errors import GreenroomError, NotAllowed, UnknownOutcome
from ..verbs import ITEMS_MAX, Confirm, Known, Op, Refusal, Reply, Request, Results, Role, Unwatch, Watch
from . import attachment as links
from .attachment import Attachment, State
from .publisher import Blocked, Chunk, Ending, Publisher, Submission
from .results import ResultBook

#: How exactly limits of time are kept.
LIMITS_INTERVAL: Final = 50_000
CONNECT_TIMEOUT_DEFAULT: Final = 4 * MICROSECONDS


class RequestRefused(GreenroomError):
    """Raised when a broker answers a request with an error."""


class Ended(msgspec.Struct, frozen=True):
    """These submissions ended."""

    endings: list[Ending]


class Learned(msgspec.Struct, frozen=True):
    """This is known now of ids that were asked for; a terminal one is said once."""

    results: list[Known]


class Answered(msgspec.Struct, frozen=True):
    """The broker answered a request."""

    reply: Reply


class Closed(msgspec.Struct, frozen=True):
    """The broker will not have this client, or it left: nothing more comes. `error` is None if it left."""

    error: GreenroomError | None


class Waiting(msgspec.Struct, frozen=True):
    """Calls have waited for room in these mailboxes for a while, and go on waiting."""

    blocked: list[Blocked]


Effect = links.OpenLink | links.CloseLink | links.Transmit | Ended | Learned | Answered | Waiting | Closed


class ClientMachine:
    """One session at one broker."""

    def __init__(
        self,
        *,
        addresses: Sequence[str],
        origin: str,
        session: str,
        host: str = "",
        pid: int = 0,
        connect_timeout: int = CONNECT_TIMEOUT_DEFAULT,
    ) -> None:
        """`session` must be new; sessions that replace it are derived from it. `connect_timeout`: microseconds."""
        self.attachment = Attachment(
            role=Role.CLIENT, node=origin, session=session, addresses=addresses, host=host, pid=pid
        )
        self.publisher = Publisher()
        self.book = ResultBook()
        self.connect_timeout = connect_timeout
        self._session = session
        self._renewals = 0
        #: Submissions that have some limit of time -> when they were made.
        self._limited: dict[Submission, int] = {}
        self._limits_at = 0
        self._link_wake = 0
        #: Why there is no link.
        self.why = ""

    @property
    def attached(self) -> bool:
        """Whether a broker has welcomed the session on the present link."""
        return self.attachment.state is State.ATTACHED

    # --- what callers want ---------------------------------------------------------------------------------------

    def submit(
        self,
        submission: Submission,
        chunks: Sequence[Chunk],
        now: Now,
        *,
        watched: Sequence[str] = (),
        patient: bool = False,
    ) -> list[Effect]:
        """Publish these. `watched`: ids whose results will be pushed. `patient`: waits for a broker without limit."""
        self.publisher.submit(submission, chunks)
        if watched:
            self.book.expect(watched)
        effects = self._want_link(now)
        if submission.deadline or not patient:
            self._limited[submission] = now.boot
            if not patient and not self.attached:
                submission.reach_by = now.boot + self.connect_timeout
            self._limits_at = self._limits_at or now.boot + LIMITS_INTERVAL
        return effects

    def give_up(self, submission: Submission, now: Now) -> list[Effect]:
        """Nobody waits for this one any more: what was not sent yet never will be."""
        began = self._limited.get(submission, now.boot)
        waited = (now.boot - began) / MICROSECONDS
        ending = self.publisher.expire(submission, self.attachment.addresses, waited, self.why)
        return self._end([ending], [])

    def ask(self, ids: Sequence[str], now: Now) -> list[Effect]:
        """Ask for results: Learned follows, now for what is known, else when it comes."""
        known, watch = self.book.ask(ids)
        effects = self._want_link(now)
        self._watch(watch)
        if known:
            effects.append(Learned(known))
        return effects

    def forget(self, ids: Sequence[str]) -> None:
        """Nobody waits for these any more."""
        unwatch = self.book.forget(ids)
        for start in range(0, len(unwatch), ITEMS_MAX):
            self.attachment.say(Unwatch(unwatch[start : start + ITEMS_MAX]))

    def request(self, op: Op, params: bytes, now: Now) -> tuple[int, list[Effect]]:
        """Ask the broker; return the number that `Answered` will have. `params`: the op's encoded struct."""
        number = self.attachment.add(lambda number: Request(number, op, msgspec.Raw(params)))
        return number, self._want_link(now)

    def drop_request(self, number: int) -> None:
        """Nobody waits for this answer any more."""
        self.attachment.drop(number)

    def leave(self, now: Now, reason: str = "") -> list[Effect]:
        """Say goodbye. What is unconfirmed or waits ends with UnknownOutcome."""
        effects = self._follow(self.attachment.apply(links.Leave(reason), now), now)
        endings = self.publisher.refuse_all(UnknownOutcome("the client was closed before the broker had confirmed"))
        return self._end(endings, effects)

    # --- what happens --------------------------------------------------------------------------------------------

    def apply(self, event: links.LinkOpened | links.LinkLost | links.Heard | links.Tick, now: Now) -> list[Effect]:
        """Take one event of the link, or of time."""
        effects = self._follow(self.attachment.apply(event, now), now)
        if self._limits_at and now.boot >= self._limits_at:
            self._check_limits(now, effects)
        return effects

    def flush(self, now: Now) -> list[Parts]:
        """Return what is to be sent now on the present link."""
        if not self.attached:
            return []
        messages = self.attachment.flush()
        messages += self.publisher.next_messages(now.boot)
        return messages

    def wake_at(self) -> int:
        """Return the boot time of the next Tick that is needed; 0: none."""
        times = (self._link_wake, self._limits_at, self.publisher.wake_at() if self.attached else 0)
        return min([at for at in times if at], default=0)

    def _want_link(self, now: Now) -> list[Effect]:
        state = self.attachment.state
        if state is State.IDLE:
            return self._follow(self.attachment.apply(links.Start(), now), now)
        if state is State.LOST:
            return self._follow(self.attachment.apply(links.Hurry(), now), now)
        return []

    def _watch(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), ITEMS_MAX):
            self.attachment.say(Watch(list(ids[start : start + ITEMS_MAX]), snapshot=True))

    # --- effects of the attachment -------------------------------------------------------------------------------

    def _follow(self, effects: list[links.Effect], now: Now) -> list[Effect]:
        """Carry out what concerns this client, and hand the rest on."""
        out: list[Effect] = []
        for effect in effects:
            if isinstance(effect, links.Passed):
                self._heard(effect, now, out)
            elif isinstance(effect, links.WakeAt):
                self._link_wake = effect.boot
            elif isinstance(effect, links.Attached):
                self._attached(effect, now, out)
            elif isinstance(effect, links.Detached):
                self._detached(effect, now)
            elif isinstance(effect, links.Refused):
                self._refused(effect, out)
            elif isinstance(effect, links.Ended):
                out.append(Closed(None))
            else:
                out.append(effect)
        return out

    def _heard(self, passed: links.Passed, now: Now, out: list[Effect]) -> None:
        endings: list[Ending] = []
        for verb in passed.verbs:
            if isinstance(verb, Confirm):
                endings += self.publisher.confirmed(verb, now.boot)
                if verb.refusal == Refusal.UNKNOWN_SESSION:
                    endings += self.publisher.abandon(UnknownOutcome(verb.detail))
                    out += self._renew(now)
            elif isinstance(verb, Results):
                learned = self.book.learn(verb.results)
                if learned:
                    out.append(Learned(learned))
            elif isinstance(verb, Reply):
                out.append(Answered(verb))
        self._end(endings, out)
        if self.publisher.blocked:
            out.append(Waiting(self.publisher.blocked))
            self.publisher.blocked = []

    def _attached(self, effect: links.Attached, now: Now, out: list[Effect]) -> None:
        self.publisher.grant = effect.welcome.publish_bytes
        if not effect.welcome.known:
            endings, renew = self.publisher.forgotten()
            self._end(endings, out)
            if renew:
                out += self._renew(now)
                return
        unconfirmed = self.publisher.resend()
        if unconfirmed:
            out.append(links.Transmit(effect.link, unconfirmed))
        self._watch(self.book.attached())

    def _renew(self, now: Now) -> list[Effect]:
        self._renewals += 1
        self.book.detached()
        return self._follow(self.attachment.apply(links.Renew(f"{self._session}.{self._renewals}"), now), now)

    def _detached(self, effect: links.Detached, now: Now) -> None:
        self.book.detached()
        self.why = effect.reason
        if effect.was_attached:
            for submission in self._limited:
                submission.reach_by = now.boot + self.connect_timeout

    def _refused(self, effect: links.Refused, out: list[Effect]) -> None:
        error = NotAllowed(effect.reason)
        self._end(self.publisher.refuse_all(error), out)
        out.append(Closed(error))

    # --- ends ----------------------------------------------------------------------------------------------------

    def _end(self, endings: list[Ending], out: list[Effect]) -> list[Effect]:
        if endings:
            for ending in endings:
                self._limited.pop(ending.submission, None)
            out.append(Ended(endings))
        return out

    def _check_limits(self, now: Now, out: list[Effect]) -> None:
        boot = now.boot
        attached = self.attached
        endings = [
            self.publisher.expire(
                submission, self.attachment.addresses, (boot - began) / MICROSECONDS, "" if attached else self.why
            )
            for submission, began in self._limited.items()
            if (submission.deadline and boot >= submission.deadline)
            or (not attached and submission.reach_by and boot >= submission.reach_by)
        ]
        self._end(endings, out)
        self._limits_at = boot + LIMITS_INTERVAL if self._limited else 0
