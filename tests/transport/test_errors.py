"""The tree of errors: what catches what, what they say, and that they travel."""

# Values and classes of every kind pass through here untyped, and some privates are looked at.
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable

import pytest

from greenroom.transport import errors
from greenroom.transport.errors import (
    BrokerUnavailable,
    ContentDisallowed,
    DataFolderLocked,
    DecodeError,
    EncodeError,
    FrameTooLarge,
    GreenroomError,
    LocalProtocolError,
    MailboxFull,
    OperationalError,
    ProtocolError,
    RemoteProtocolError,
    StoreCorrupt,
    StoreError,
    StoreFailed,
    StoreFull,
    UnknownOutcome,
    VersionMismatch,
)

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, GreenroomError)]

SAMPLES: list[GreenroomError] = [
    *(cls("in words") for cls in CLASSES),
    BrokerUnavailable(addresses=("tcp://127.0.0.1:5670", "ipc://x"), waited_seconds=4.0),
    MailboxFull(mailbox="resize", messages=10_000, messages_max=10_000, oldest_age_seconds=42.4),
    FrameTooLarge(frame_bytes=17, frame_bytes_max=16),
    VersionMismatch(ours="1", theirs="2"),
    EncodeError("no", path="args[1]"),
    DataFolderLocked(folder=".greenroom", pid=4711),
]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_says_when_it_is_raised(cls: type[GreenroomError]) -> None:
    assert (cls.__doc__ or "").startswith("Raised when")


def pickled(error: GreenroomError) -> GreenroomError:
    came: GreenroomError = pickle.loads(pickle.dumps(error))
    return came


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: f"{type(error).__name__}-{len(error.__dict__)}")
@pytest.mark.parametrize("travel", [pickled, copy.copy, copy.deepcopy])
def test_an_error_survives_pickling_and_copying_with_its_attributes(
    travel: Callable[[GreenroomError], GreenroomError], error: GreenroomError
) -> None:
    came = travel(error)
    assert type(came) is type(error)
    assert str(came) == str(error) != ""
    assert came.args == error.args
    assert came.__dict__ == error.__dict__


@pytest.mark.parametrize(
    ("cls", "bases"),
    [
        (BrokerUnavailable, (OperationalError,)),
        (UnknownOutcome, (TimeoutError,)),
        (LocalProtocolError, (ProtocolError,)),
        (RemoteProtocolError, (ProtocolError,)),
        (EncodeError, (TypeError,)),
        (DecodeError, (ValueError,)),
        (ContentDisallowed, (DecodeError,)),
        (StoreFull, (StoreError,)),
        (StoreFailed, (StoreError,)),
        (StoreCorrupt, (StoreError,)),
        (DataFolderLocked, (StoreError,)),
    ],
)
def test_errors_are_caught_by_their_meaning(cls: type, bases: tuple[type, ...]) -> None:
    assert issubclass(cls, (*bases,))
    assert issubclass(cls, GreenroomError)


def test_whose_fault_it_is_can_be_told_apart() -> None:
    assert not issubclass(LocalProtocolError, RemoteProtocolError)
    assert not issubclass(RemoteProtocolError, LocalProtocolError)


def test_a_full_mailbox_tells_its_name_its_limit_and_the_age_of_its_oldest_message() -> None:
    text = str(MailboxFull(mailbox="resize", messages=10_000, messages_max=10_000, oldest_age_seconds=42))
    assert "'resize' holds 10000 messages" in text
    assert "its limit is 10000" in text
    assert "42 s old" in text


def test_an_absent_broker_is_told_by_address_and_time_with_what_to_do() -> None:
    text = str(BrokerUnavailable(addresses=("tcp://127.0.0.1:5670",), waited_seconds=4))
    assert "tcp://127.0.0.1:5670 within 4 s" in text
    assert "greenroom broker" in text
    assert "any known address" in str(BrokerUnavailable())


def test_a_locked_folder_names_the_process_that_holds_it() -> None:
    assert "process 4711" in str(DataFolderLocked(folder="/data", pid=4711))
    assert "another process" in str(DataFolderLocked(folder="/data"))
