"""The errors of the ground floor, and the root of all of ours.

Owns `GreenroomError` and a short tree below it that a caller can catch by meaning: nobody could be
reached (`OperationalError`), there was no room (`MailboxFull`, `StoreFull`), it is not permitted
(`NotAllowed`, `SecurityError`), nobody knows how it ended (`UnknownOutcome`), somebody broke the
protocol (`ProtocolError`), a body is no good (`EncodeError`, `DecodeError`), or the store is in trouble
(`StoreError`).

Every one of them survives pickling and copying with its attributes, and its text is written by whoever
raises it, save where the attributes say it all. The names that tasks see are in `actors/errors.py`.
"""

from __future__ import annotations

from typing import Any, TypeVar

_Error = TypeVar("_Error", bound="GreenroomError")


def _restore(cls: type[_Error], args: tuple[Any, ...], attributes: dict[str, Any]) -> _Error:
    """Build an error again from what it held, without running a constructor that wants keywords."""
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(attributes)
    return error


class GreenroomError(Exception):
    """Raised when something goes wrong in Greenroom itself; the root of every error of its own."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__.copy())


# ---- nobody there, no room, no permission ----


class OperationalError(GreenroomError):
    """Raised when a broker cannot be used at present; the same call may succeed later."""


class BrokerUnavailable(OperationalError):
    """Raised when no broker answers within the connection timeout.

    `addresses` are the ones that were tried, `waited_seconds` how long.
    """

    def __init__(
        self, message: str = "", *, addresses: tuple[str, ...] = (), waited_seconds: float | None = None
    ) -> None:
        self.addresses = tuple(addresses)
        self.waited_seconds = waited_seconds
        if not message:
            where = " or ".join(self.addresses) or "any known address"
            within = "" if waited_seconds is None else f" within {waited_seconds:g} s"
            message = (
                f"no broker answered at {where}{within}; start one with `greenroom broker`, "
                "or correct the address given as broker= or in GREENROOM_BROKER"
            )
        super().__init__(message)


class MailboxFull(GreenroomError):
    """Raised when a mailbox holds as many messages as it may and its policy is to reject.

    `mailbox` is its name, `messages` what it holds, `messages_max` its limit and `oldest_age_seconds`
    the age of the oldest message in it, where the broker told.
    """

    def __init__(
        self,
        message: str = "",
        *,
        mailbox: str = "",
        messages: int | None = None,
        messages_max: int | None = None,
        oldest_age_seconds: float | None = None,
    ) -> None:
        self.mailbox = mailbox
        self.messages = messages
        self.messages_max = messages_max
        self.oldest_age_seconds = oldest_age_seconds
        if not message:
            held = messages if messages is not None else messages_max
            holds = "as many messages as it may" if held is None else f"{held} messages"
            limit = "" if messages_max is None else f", its limit is {messages_max}"
            oldest = "" if oldest_age_seconds is None else f"; the oldest is {oldest_age_seconds:.0f} s old"
            message = (
                f"mailbox {mailbox!r} holds {holds}{limit}{oldest}; "
                "add workers, send later, or raise mailbox_max_messages"
            )
        super().__init__(message)


class NotAllowed(GreenroomError):
    """Raised when the peer's role or rights do not cover what it asked for."""


class SecurityError(GreenroomError):
    """Raised when a signature, a key or a certificate is missing or does not verify."""


class UnknownOutcome(GreenroomError, TimeoutError):
    """Raised when a deadline passes without an answer: the work may or may not have been done."""


# ---- the protocol ----


class ProtocolError(GreenroomError):
    """Raised when what was said is not allowed by the protocol."""


class LocalProtocolError(ProtocolError):
    """Raised when our own side does what the protocol forbids at this point; the caller is at fault."""


class RemoteProtocolError(ProtocolError):
    """Raised when the peer sends what the protocol forbids; the peer is at fault."""


class FrameTooLarge(ProtocolError):
    """Raised when a frame is longer than the limit, before it is sent or before it is decoded.

    `frame_bytes` is its length, `frame_bytes_max` the limit.
    """

    def __init__(
        self, message: str = "", *, frame_bytes: int | None = None, frame_bytes_max: int | None = None
    ) -> None:
        self.frame_bytes = frame_bytes
        self.frame_bytes_max = frame_bytes_max
        if not message:
            length = "longer than allowed" if frame_bytes is None else f"{frame_bytes} bytes long"
            limit = "" if frame_bytes_max is None else f"; the limit is {frame_bytes_max}"
            message = f"the frame is {length}{limit}; send a reference to large data, not the data"
        super().__init__(message)


class VersionMismatch(ProtocolError):
    """Raised when the two ends speak no common version of the protocol.

    `ours` and `theirs` are the versions that each can speak, as text.
    """

    def __init__(self, message: str = "", *, ours: str = "", theirs: str = "") -> None:
        self.ours = ours
        self.theirs = theirs
        if not message:
            message = (
                f"the peer speaks protocol {theirs or 'unknown'}, this end speaks {ours or 'unknown'}; "
                "bring both ends to one release of greenroom"
            )
        super().__init__(message)


# ---- bodies ----


class EncodeError(GreenroomError, TypeError):
    """Raised when a value cannot be written as a body; nothing has been sent.

    `path` names the offending part, such as `args[1]['user'].photo`, or is empty if none was found.
    """

    def __init__(self, message: str = "", *, path: str = "") -> None:
        self.path = path
        super().__init__(message)


class DecodeError(GreenroomError, ValueError):
    """Raised when the bytes of a body or a frame are not what their content type says."""


class ContentDisallowed(DecodeError):
    """Raised when a body has a content type that this end does not accept; it was not decoded."""


# ---- the store ----


class StoreError(GreenroomError):
    """Raised when a store cannot do what it was asked."""


class StoreFull(StoreError):
    """Raised when the store has no room left on its disk or under its quota; nothing was accepted."""


class StoreFailed(StoreError):
    """Raised when the disk refuses a write or an fsync: what it holds is unknown, the broker must stop."""


class StoreCorrupt(StoreError):
    """Raised when what is read from the store is not what was once written there."""


class DataFolderLocked(StoreError):
    """Raised when another process owns the data folder.

    `folder` is its path, `pid` the owner's process id, or None where it could not be read.
    """

    def __init__(self, message: str = "", *, folder: str = "", pid: int | None = None) -> None:
        self.folder = folder
        self.pid = pid
        if not message:
            owner = "another process" if pid is None else f"process {pid}"
            message = (
                f"the data folder {folder!r} is in use by {owner}; stop it, or give this broker a folder "
                "of its own with --data"
            )
        super().__init__(message)
