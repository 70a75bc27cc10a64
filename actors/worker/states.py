"""States of durable actors in this child: how they are written and read, and how the broker is asked for one.

Owns three things. `Living` is one actor that lives here: its instance, its state as the broker was last told, and since
when (`Held.since`) this child has the actor. While a message comes with the same `since`, nobody else has had it; with
another one, or after the instance made room for others, the state is asked for. `Fetches` are the questions that
are out: on the line on which outcomes are settled, so that the answer knows them. `pack` and `unpack` are the form of a
state: a value, written as results are.

A state is settled together with the end of the message that left it, or is not kept: the broker commits both or
neither. So after a crash the instance is made anew from the state that was told last, which is what the broker has, or
will have.

Limit: a state has `STATE_BYTES_MAX`; a message that leaves a larger one has failed, and the state is as before it.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, Final, Protocol

import msgspec

from ...transport.errors import DecodeError, EncodeError, GreenroomError, OperationalError
from ...transport.peer.contract import Promise
from ...transport.requests import FetchedState
from ...transport.verbs import Reply
from ..bodies import Content, pack_value, unpack_value
from .coroutines import done
from .outcomes import OUTCOME_BYTES_MAX

#: What one actor may keep: with an answer of the same size it still fits one Settle.
STATE_BYTES_MAX: Final = OUTCOME_BYTES_MAX // 2
#: How long a wait for the broker lasts at a time: what ends a body is noticed in between.
WAIT_SECONDS: Final = 1.0

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[str, bytes]).decode
_fetched: Final = msgspec.msgpack.Decoder(FetchedState).decode


class Told(Promise[bytes], Protocol):
    """A promise that is kept or broken here: `concurrent.futures.Future`, or a simulated one."""

    def set_result(self, result: bytes, /) -> None:
        """Keep it."""
        ...

    def set_exception(self, exception: BaseException, /) -> None:
        """Break it."""
        ...


#: Asks the broker for the state of the actor with this mailbox; empty: it has none.
Fetch = Callable[[str], Promise[bytes]]


class Living(msgspec.Struct):
    """One actor in this child. `instance`: None after a crash, until its next message."""

    instance: Any = None
    since: int = 0
    state: bytes = b""

    def learn(self, since: int, state: bytes) -> None:
        """The actor is this child's since then, and this is its state: an instance of another one is out of date."""
        if state != self.state:
            self.instance = None
        self.since = since
        self.state = state


class Fetches:
    """The questions for states that are not answered."""

    def __init__(self) -> None:
        self._asked: dict[int, Told] = {}

    def asked(self, number: int, told: Told) -> None:
        """Request `number` asks for a state."""
        self._asked[number] = told

    def replied(self, reply: Reply) -> None:
        """The broker has answered a request."""
        told = self._asked.pop(reply.number, None)
        if told is None:
            return
        if reply.error:
            told.set_exception(OperationalError(f"the broker did not tell the state of an actor: {reply.error}"))
            return
        try:
            told.set_result(_fetched(reply.value).snapshot)
        except msgspec.MsgspecError as error:
            told.set_exception(DecodeError(f"the broker's answer with the state of an actor cannot be read: {error}"))

    def give_up(self, reason: str) -> None:
        """There is nobody any more who could answer."""
        asked, self._asked = self._asked, {}
        for told in asked.values():
            told.set_exception(OperationalError(f"the broker cannot be asked for the state of an actor: {reason}"))


def wait_for(promise: Promise[bytes]) -> bytes:
    """Return what the broker has told. A broker that is away is waited for: it takes no outcome either."""
    while True:
        try:
            return promise.result(WAIT_SECONDS)
        except TimeoutError:
            continue


async def waited_for(promise: Promise[bytes]) -> bytes:
    """The same in a loop."""
    while not promise.done():
        await done([promise], WAIT_SECONDS)
    return promise.result(0)


def pack(value: object, mailbox: str, content: Content) -> bytes:
    """Return a state as it is kept. Raises EncodeError for one that cannot be written, or is too large."""
    try:
        packed = _encode(pack_value(value, content, mailbox))
    except GreenroomError as error:
        raise EncodeError(f"the state of actor {mailbox!r} cannot be kept: {error}") from error
    if len(packed) > STATE_BYTES_MAX:
        raise EncodeError(
            f"the state of actor {mailbox!r} has {len(packed)} bytes, more than the {STATE_BYTES_MAX} that an actor "
            "may keep; keep large data elsewhere, or part it among several actors"
        )
    return packed


def unpack(state: bytes, mailbox: str, *, accept: Container[str], key: bytes | None) -> Any:
    """Return the value of a state. Raises ContentDisallowed, SecurityError or DecodeError."""
    try:
        content, body = _decode(state)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"the state of actor {mailbox!r} cannot be read: {error}") from error
    return unpack_value(content, body, mailbox, accept=accept, key=key)
