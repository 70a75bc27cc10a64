"""Aftermath: a message ended without a child to say so, and this ordinary child tells the user's code (spec D23).

Owns the running of messages of kind AFTERMATH: on_failure and after_return, the signals task_failure and
task_revoked, and errbacks, for a task that was lost, expired, revoked or set aside. That of an actor's message is
written into the log, since actors have no hooks. The state is stored already. An aftermath settles as a SUCCESS without
a result, with the old-style errbacks' messages as its follow-ups; what a hook raises is logged. It is given at least
once and at most three times, so hooks may run twice.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import msgspec

from ...transport.errors import GreenroomError
from ...transport.message import Aftermath, Delivery, Kind, Outcome, Result, State
from .. import signals
from ..errors import TaskRevokedError
from ..results import states
from ..results.failure import ExceptionInfo, rebuild
from .afterwards import Ending
from .events import Held
from .follows import after_failure

if TYPE_CHECKING:
    from ..tasks.request import Context
    from .execute import Executor
    from .handling import Handling

logger = logging.getLogger("greenroom.worker")

_aftermath: Final = msgspec.msgpack.Decoder(Aftermath)
_result: Final = msgspec.msgpack.Decoder(Result)


class AftermathRunner:
    """Runs aftermaths with an executor's tasks."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def run(self, held: Held) -> Outcome:
        """Tell the task's hooks, the signals and the errbacks; return the aftermath's own outcome."""
        executor = self._executor
        outcome = executor.outcomes.plain(held, State.SUCCESS)
        envelope = held.delivery.envelope
        try:
            aftermath = _aftermath.decode(envelope.body)
            result = _result.decode(aftermath.result) if aftermath.result else Result(aftermath.state)
        except msgspec.MsgspecError as error:
            executor.log.undecodable(envelope, error)
            return outcome
        if aftermath.envelope.kind == Kind.ACTOR:
            self._tell_of_actor(held.delivery.mailbox, aftermath, result)
            return outcome
        handling = executor.handling_of(aftermath.envelope.name)
        if handling is None:
            executor.log.unknown(aftermath.envelope)
            return outcome
        request = self._request(held, aftermath)
        if aftermath.state == State.REVOKED:
            self._tell_revoked(request, handling, aftermath)
            return outcome
        lost = rebuild(result.failure) if result.failure is not None else TaskRevokedError(aftermath.reason)
        traceback = result.failure.traceback if result.failure is not None else ""
        logger.error("Task %s[%s] ended without its worker: %r", handling.name, aftermath.envelope.id, lost)
        ending = Ending(handling, request, states.FAILURE, lost, ExceptionInfo(lost, traceback))
        try:
            outcome.follows, ending.errbacks = after_failure(executor.app, request)
            executor.outcomes.check_size(outcome, handling.name, "its errbacks")
        except Exception:
            outcome.follows = None
            # An errback that cannot be sent; the hooks and signals are still told.
            logger.exception("an errback of %s[%s] could not be sent", handling.name, aftermath.envelope.id)
        ending.run()
        return outcome

    def _request(self, held: Held, aftermath: Aftermath) -> Context:
        """The request of the task that ended, as far as it can be read."""
        executor = self._executor
        envelope = aftermath.envelope
        delivery = Delivery(held.delivery.position, envelope, held.delivery.mailbox)
        try:
            args, kwargs = executor.arguments_of(envelope)
        except GreenroomError as error:
            # Perhaps the very reason of its end; the hooks get no arguments then.
            executor.log.undecodable(envelope, error)
            args, kwargs = [], {}
        return executor.request_of(Held(delivery, held.lease), args, kwargs)

    def _tell_of_actor(self, mailbox: str, aftermath: Aftermath, result: Result) -> None:
        """Actors have no hooks, and whoever asked was told with the result: the log is all that is left."""
        envelope = aftermath.envelope
        if aftermath.state == State.REVOKED:
            logger.info("Discarding %s message of %s: %s[%s]", aftermath.reason, mailbox, envelope.name, envelope.id)
            return
        why = result.failure.text if result.failure is not None else aftermath.reason
        logger.error("Message %s[%s] of %s ended without its worker: %s", envelope.name, envelope.id, mailbox, why)

    def _tell_revoked(self, request: Context, handling: Handling, aftermath: Aftermath) -> None:
        self._executor.log.revoked(aftermath.envelope, aftermath.reason or "revoked")
        signals.task_revoked.send(
            sender=handling.task,
            request=request,
            terminated=aftermath.reason == "terminated",
            signum=None,
            expired=aftermath.reason == "expired",
        )
