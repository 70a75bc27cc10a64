"""Outcomes: what is said to the broker of a delivery that has come to an end, one way or the other.

Owns the encoding of results (a value, or an exception as a value), which of them are kept, and the limit of what one
outcome may carry. A result that cannot be sent is a failure of the task, in words: the caller learns which part of it
was the trouble, and the message is settled all the same.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from ...transport import payload_msgpack
from ...transport.codec import FRAME_BYTES_MAX
from ...transport.errors import EncodeError
from ...transport.message import Failure, Flag, Follow, Outcome, Result, Retry, State
from ..bodies import PLAIN, Content, pack_value
from ..errors import TaskRevokedError
from ..results.failure import describe
from ..results.result import encode_children
from .events import Held

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..results.result import ResultBase

#: What an outcome may carry: its Settle must fit a frame.
OUTCOME_BYTES_MAX: Final = FRAME_BYTES_MAX - (16 << 10)

IGNORE_RESULT: Final = int(Flag.IGNORE_RESULT)
STORE_ERRORS: Final = int(Flag.STORE_ERRORS)
_SUCCESS: Final = int(State.SUCCESS)

_uint64: Final[Callable[[int], bytes]] = struct.Struct(">Q").pack
_LARGE: Final = 1 << 62
_encode: Final = msgspec.msgpack.Encoder().encode


class Outcomes:
    """Makes the outcomes of one worker.

    `worker` is the node's name, `wall` tells the wall time in microseconds, `content` how values are written.
    """

    def __init__(self, worker: str, wall: Callable[[], int], content: Content = PLAIN) -> None:
        self.worker = worker
        self.content = content
        self._is_plain = content == PLAIN
        self._wall = wall
        # A whole number this large is always encoded as a mark and eight bytes: cut around them.
        encoded = _encode(Result(_SUCCESS, done_at=_LARGE, worker=worker))
        before, _, after = encoded.partition(_uint64(_LARGE))
        self._none_before, self._none_after = before, after

    def returned(self, held: Held, value: object) -> Outcome:
        """SUCCESS of a body that sent nothing and is followed by nothing. Raises EncodeError or SecurityError."""
        delivery = held.delivery
        envelope = delivery.envelope
        if envelope.flags & IGNORE_RESULT:
            return Outcome(delivery.position, held.lease, _SUCCESS)
        if value is None and envelope.more is None:
            # The commonest result, as `_result` would encode it; a test holds the two together.
            result = self._none_before + _uint64(self._wall()) + self._none_after
        else:
            content, body = ("msgpack", b"") if value is None else self._pack(value, envelope.id)
            result = self._result(held, State.SUCCESS, content, body)
        return Outcome(delivery.position, held.lease, _SUCCESS, 0, result)

    def succeeded(
        self, held: Held, value: object, children: Iterable[ResultBase] | None, follows: list[Follow] | None
    ) -> Outcome:
        """SUCCESS. Raises EncodeError when the value cannot be sent, or is too large with what follows it."""
        envelope = held.delivery.envelope
        result = b""
        if not envelope.flags & IGNORE_RESULT:
            content, body = ("msgpack", b"") if value is None else self._pack(value, envelope.id)
            result = self._result(held, State.SUCCESS, content, body, children=encode_children(children))
        outcome = Outcome(held.delivery.position, held.lease, _SUCCESS, 0, result, None, follows)
        self.check_size(outcome, envelope.name, "its result and what follows it")
        return outcome

    def failed(
        self,
        held: Held,
        failure: Failure,
        children: Iterable[ResultBase] | None = None,
        follows: list[Follow] | None = None,
        state: State = State.FAILURE,
    ) -> Outcome:
        """FAILURE (or REJECTED, which is kept as one). What follows is left out where it is too large."""
        envelope = held.delivery.envelope
        result = b""
        if not envelope.flags & IGNORE_RESULT or envelope.flags & STORE_ERRORS:
            result = self._result(held, State.FAILURE, failure=failure, children=encode_children(children))
        outcome = Outcome(held.delivery.position, held.lease, int(state), 0, result, None, follows)
        try:
            self.check_size(outcome, envelope.name, "its failure and what follows it")
        except EncodeError as error:
            # The failure itself must arrive: what stands beside its type, its text and its traceback is left out.
            text = f"{failure.text}\n({error})"
            short = Failure(
                failure.exc_type, failure.exc_module, payload_msgpack.dumps([text]), text, failure.traceback
            )
            outcome.follows = None
            outcome.result = result and self._result(held, State.FAILURE, failure=short)
        return outcome

    def retried(self, held: Held, retry: Retry, failure: Failure) -> Outcome:
        """RETRY. Raises EncodeError when the next form is too large to be sent."""
        result = b""
        if not held.delivery.envelope.flags & IGNORE_RESULT:
            result = self._result(held, State.RETRY, failure=failure)
        outcome = Outcome(held.delivery.position, held.lease, int(State.RETRY), 0, result, retry)
        self.check_size(outcome, held.delivery.envelope.name, "the body of its retry")
        return outcome

    def revoked(self, held: Held, reason: str) -> Outcome:
        """REVOKED: 'expired', 'revoked' or 'terminated'."""
        result = b""
        if not held.delivery.envelope.flags & IGNORE_RESULT:
            failure = describe(TaskRevokedError(reason), "")
            result = self._result(held, State.REVOKED, failure=failure)
        return Outcome(held.delivery.position, held.lease, int(State.REVOKED), 0, result)

    def refused(self, held: Held, failure: Failure) -> Outcome:
        """REFUSED: a dead letter. What is told of it is its story, and is told whatever becomes of results."""
        result = self._result(held, State.FAILURE, failure=failure, dead=True)
        return Outcome(held.delivery.position, held.lease, int(State.REFUSED), 0, result)

    def plain(self, held: Held, state: State) -> Outcome:
        """An outcome that says nothing but its state: IGNORED, REQUEUED, or a SUCCESS that is known already."""
        return Outcome(held.delivery.position, held.lease, int(state))

    def progress(self, held: Held, state: str, meta: object) -> bytes:
        """An encoded result for a state that a body named. Raises EncodeError."""
        content, body = self._pack(meta, held.delivery.envelope.id)
        return self._result(held, State.CUSTOM, content, body, custom=state)

    def _pack(self, value: object, id: str) -> tuple[str, bytes]:
        if self._is_plain:
            try:
                packed = payload_msgpack.dumps(value)
            except Exception:
                # Encoded again by what names the part that cannot be sent.
                return pack_value(value, PLAIN, id)
            if len(packed) <= OUTCOME_BYTES_MAX:
                return "msgpack", packed
            size = len(packed)
        else:
            content, packed = pack_value(value, self.content, id)
            if len(packed) <= OUTCOME_BYTES_MAX:
                return content, packed
            size = len(packed)
        raise EncodeError(
            f"the result of message {id} has {size} bytes, more than the {OUTCOME_BYTES_MAX} that a result may have; "
            "keep large data elsewhere and return where it is"
        )

    def _result(
        self,
        held: Held,
        state: State,
        content: str = "msgpack",
        body: bytes = b"",
        *,
        failure: Failure | None = None,
        custom: str = "",
        children: bytes = b"",
        dead: bool = False,
    ) -> bytes:
        more = held.delivery.envelope.more
        return _encode(
            Result(
                int(state),
                content,
                body,
                failure,
                self._wall(),
                self.worker,
                0 if more is None else more.retries,
                custom,
                children,
                dead,
            )
        )

    def check_size(self, outcome: Outcome, name: str, what: str) -> None:
        """Raise EncodeError, naming the task and `what`, if the outcome is too large for a Settle."""
        if len(outcome.result) < OUTCOME_BYTES_MAX // 2 and outcome.retry is None and outcome.follows is None:
            return
        size = len(_encode(outcome))
        if size > OUTCOME_BYTES_MAX:
            raise EncodeError(
                f"task {name}: {what} would take {size} bytes, more than the {OUTCOME_BYTES_MAX} that can be settled "
                "at once; keep large data elsewhere and pass on where it is"
            )
