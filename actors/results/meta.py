"""What is known of a message, decoded: the state's name, the value or the exception, and the rest.

Owns the reading of a `transport.message.Result`, which results and actors' answers share. Whatever it holds is
somebody else's word: values are decoded by the accepted content types only, exceptions are rebuilt, never imported.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from ...transport import payload_msgpack
from ...transport.message import TERMINAL, Result, State
from ...transport.verbs import Known
from ..bodies import unpack_value
from ..errors import Reject, TaskRevokedError
from . import states
from .failure import rebuild

if TYPE_CHECKING:
    from ..app import App

_decoder: Final = msgspec.msgpack.Decoder(Result)
_loads: Final = payload_msgpack.loads_quickly
_TERMINAL: Final = frozenset(int(state) for state in TERMINAL)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Meta(NamedTuple):
    """One look at a message. `value`: what it returned, its exception, or the meta of a state of its own."""

    state: str
    value: Any = None
    traceback: str | None = None
    terminal: bool = False
    record: Result | None = None

    @property
    def ready(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.terminal or self.state in states.READY_STATES

    @property
    def final(self) -> bool:
        """Whether it has ended for good: a dead letter has ended, and runs again when it is redriven."""
        return self.terminal and not (self.record is not None and self.record.dead)

    def as_final(self) -> Meta:
        """Return this look as one that stands, whatever becomes of the message."""
        if self.final or self.record is None:
            return self
        return self._replace(record=msgspec.structs.replace(self.record, dead=False))

    @property
    def date_done(self) -> datetime | None:
        """When it ended, in UTC."""
        if self.record is None or not self.record.done_at:
            return None
        return _EPOCH + timedelta(microseconds=self.record.done_at)


PENDING: Final = Meta(states.PENDING)


def read_known(known: Known, app: App) -> Meta:
    """Decode what a broker said of a message. Raises DecodeError and the like for a result that is no good."""
    terminal = known.state in _TERMINAL
    record = _decoder.decode(known.result) if known.result else None
    name = states.NAMES.get(known.state, states.PENDING)
    if record is None:
        return Meta(name, _missing(known.state), None, terminal)
    if known.state == State.CUSTOM:
        name = record.custom or name
    if record.failure is not None:
        return Meta(name, rebuild(record.failure), record.failure.traceback or None, terminal, record)
    if not record.body:
        return Meta(name, _missing(known.state), None, terminal, record)
    return Meta(name, _value(record, known.id, app), None, terminal, record)


def _value(record: Result, id: str, app: App) -> Any:
    if record.content == "msgpack" and app.reads_plain_results:
        try:
            return _loads(record.body)
        except Exception:
            # Decoded once more below, by what can say what is wrong with it.
            pass
    accept = app.conf.result_accept_content
    return unpack_value(record.content, record.body, id, accept=accept, key=app.signing_key)


def _missing(state: int) -> Any:
    """Return what stands for a failure of which nothing is told."""
    if state == State.REVOKED:
        return TaskRevokedError("revoked")
    if state in (State.FAILURE, State.REJECTED):
        return Reject("the task's message was refused")
    return None
