"""What a worker writes in its log about tasks, in Celery's words and at Celery's levels.

Nothing is formatted for a log that nobody keeps: `TaskLog.is_verbose` is looked at first.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ...transport.message import Envelope
from ..results.failure import ExceptionInfo
from .handling import Handling

if TYPE_CHECKING:
    from ..errors import Reject, Retry

logger = logging.getLogger("greenroom.worker")


class TaskLog:
    """Writes the lines. `refresh` after somebody may have changed the level."""

    def __init__(self) -> None:
        self.is_verbose = False
        self.refresh()

    def refresh(self) -> None:
        """Look again whether anybody wants to read of every task."""
        self.is_verbose = logger.isEnabledFor(logging.INFO)

    def received(self, envelope: Envelope) -> None:
        """A message has come to its turn."""
        logger.info("Task %s[%s] received", _name(envelope), envelope.id)

    def succeeded(self, envelope: Envelope, value: object, seconds: float, repr_characters_max: int) -> None:
        """A body returned."""
        text = _short(value, repr_characters_max)
        logger.info("Task %s[%s] succeeded in %ss: %s", _name(envelope), envelope.id, seconds, text)

    def failed(self, envelope: Envelope, handling: Handling | None, error: BaseException, info: ExceptionInfo) -> None:
        """A body raised."""
        if handling is not None and isinstance(error, handling.throws):
            logger.info("Task %s[%s] raised expected: %r", _name(envelope), envelope.id, error)
        else:
            # The traceback's text, not the exception: what is shown is what the result holds.
            text = info.traceback
            logger.error("Task %s[%s] raised unexpected: %r\n%s", _name(envelope), envelope.id, error, text)

    def retried(self, envelope: Envelope, retry: Retry) -> None:
        """A body asked for a retry."""
        logger.info("Task %s[%s] retry: %s", _name(envelope), envelope.id, retry)

    def rejected(self, envelope: Envelope, reject: Reject) -> None:
        """A body refused its message."""
        logger.info("Task %s[%s] rejected: %s", _name(envelope), envelope.id, reject.reason)

    def ignored(self, envelope: Envelope) -> None:
        """A body wants nothing stored."""
        logger.info("Task %s[%s] ignored", _name(envelope), envelope.id)

    def unconfirmed(self, envelope: Envelope, error: Exception) -> None:
        """What a body sent without waiting was not accepted, or nobody knows."""
        logger.error("Task %s[%s] sent a message that was not accepted: %r", _name(envelope), envelope.id, error)

    def skipped(self, envelope: Envelope) -> None:
        """A redelivered message whose task succeeded before."""
        logger.info("Task %s[%s] already completed successfully, not run again", _name(envelope), envelope.id)

    def revoked(self, envelope: Envelope, reason: str) -> None:
        """A message is not run."""
        logger.info("Discarding %s task: %s[%s]", reason, _name(envelope), envelope.id)

    def unknown(self, envelope: Envelope) -> None:
        """No task of this name is registered here."""
        logger.error(
            "Received unregistered task of type %r (id %s). Import the module that defines it in this worker: "
            "name it with -A, or in the setting imports or include. The message is settled as a failure.",
            envelope.name,
            envelope.id,
        )

    def undecodable(self, envelope: Envelope, error: BaseException) -> None:
        """A body that is not what it should be."""
        logger.critical("Received invalid task message for %s[%s]: %s", _name(envelope), envelope.id, error)


def _name(envelope: Envelope) -> str:
    more = envelope.more
    return envelope.name if more is None or not more.shadow else more.shadow


def _short(value: Any, characters_max: int) -> str:
    try:
        text = repr(value)
    except Exception as error:
        # A class whose repr fails; the log shows that in its place.
        text = f"<{type(value).__qualname__}, whose repr raised {type(error).__name__}>"
    return text if len(text) <= characters_max else text[: characters_max - 3] + "..."
