"""Celery's names: what they descend from, what they say, and that they travel."""

from __future__ import annotations

import builtins
import copy
import inspect
import pickle
import traceback
from collections.abc import Callable

import pytest

from greenroom.actors import errors
from greenroom.actors.errors import (
    ActorFailed,
    BackendGetMetaError,
    BackendStoreError,
    CeleryError,
    CeleryWarning,
    GreenroomError,
    Ignore,
    MaxRetriesExceededError,
    NotRegistered,
    OperationalError,
    PoisonMessage,
    Reject,
    RemoteError,
    Retry,
    SoftTimeLimitExceeded,
    StaleRef,
    TaskError,
    TaskPredicate,
    TimeLimitExceeded,
    UnpickleableExceptionWrapper,
    WorkerLostError,
    WorkerShutdown,
    WorkerTerminate,
)

#: celery.exceptions.__all__ of Celery 5.7.
CELERYS_NAMES = [
    "reraise",
    "CeleryWarning",
    "AlwaysEagerIgnored",
    "DuplicateNodenameWarning",
    "DuplicateTaskNameWarning",
    "FixupWarning",
    "NotConfigured",
    "SecurityWarning",
    "CeleryError",
    "ImproperlyConfigured",
    "SecurityError",
    "OperationalError",
    "TaskPredicate",
    "Ignore",
    "Reject",
    "Retry",
    "TaskError",
    "QueueNotFound",
    "IncompleteStream",
    "NotRegistered",
    "AlreadyRegistered",
    "TimeoutError",
    "MaxRetriesExceededError",
    "TaskRevokedError",
    "InvalidTaskError",
    "ChordError",
    "BackendError",
    "BackendGetMetaError",
    "BackendStoreError",
    "SoftTimeLimitExceeded",
    "TimeLimitExceeded",
    "WorkerLostError",
    "Terminated",
    "CPendingDeprecationWarning",
    "CDeprecationWarning",
    "WorkerShutdown",
    "WorkerTerminate",
    "CeleryCommandException",
]

ERRORS = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, BaseException) and cls.__module__ == errors.__name__ and not issubclass(cls, Warning)
]

SAMPLES: list[BaseException] = [
    *(cls("in words") for cls in ERRORS if cls not in (UnpickleableExceptionWrapper, errors.CeleryCommandException)),
    errors.CeleryCommandException("no", 3),
    UnpickleableExceptionWrapper("m", "Odd", (1, object), "Odd(1)"),
    Retry("later", KeyError("x"), 5, is_eager=True),
    Reject("bad", requeue=True),
    MaxRetriesExceededError("no more", task_args=[1], task_kwargs={"a": 2}),
    BackendGetMetaError("no", task_id="7"),
    BackendStoreError("no", state="SUCCESS", task_id="7"),
    PoisonMessage(task="shop.charge", deliveries=3, last_cause="signal 9 (SIGKILL)"),
    ActorFailed(actor="counter"),
    StaleRef(actor="counter", incarnation=2, current=3),
    RemoteError("no", exc_module="m", exc_type="Odd", exc_args=(1,)),
]


def test_all_of_celerys_names_are_here() -> None:
    assert [name for name in CELERYS_NAMES if name not in errors.__all__] == []


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_says_when_it_is_raised_and_has_the_one_root(cls: type[BaseException]) -> None:
    assert (cls.__doc__ or "").startswith("Raised when")
    assert issubclass(cls, GreenroomError) != issubclass(cls, SystemExit)


def pickled(error: BaseException) -> BaseException:
    came: BaseException = pickle.loads(pickle.dumps(error))
    return came


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: f"{type(error).__name__}-{len(error.__dict__)}")
@pytest.mark.parametrize("travel", [pickled, copy.copy])
def test_an_error_survives_pickling_and_copying(
    travel: Callable[[BaseException], BaseException], error: BaseException
) -> None:
    came = travel(error)
    assert (type(came), str(came), repr(came)) == (type(error), str(error), repr(error))
    assert came.__dict__.keys() == error.__dict__.keys()


def test_what_celerys_users_catch_is_caught() -> None:
    assert all(issubclass(cls, TaskPredicate) for cls in (Retry, Ignore, Reject))
    for missing in (NotRegistered, errors.QueueNotFound):
        assert issubclass(missing, KeyError)
        assert issubclass(missing, TaskError)
    assert issubclass(TaskError, CeleryError)
    assert issubclass(TaskPredicate, CeleryError)
    assert issubclass(errors.NotConfigured, CeleryWarning)
    assert issubclass(PoisonMessage, WorkerLostError)
    assert errors.RetryTaskError is Retry
    assert errors.SystemTerminate is WorkerTerminate


def test_what_celerys_users_do_not_catch_is_not_caught() -> None:
    for cls in (OperationalError, SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError):
        assert not issubclass(cls, CeleryError)
    for ending in (WorkerShutdown, WorkerTerminate):
        assert issubclass(ending, SystemExit)
        assert not issubclass(ending, Exception)


def test_a_timeout_is_also_pythons_own() -> None:
    assert issubclass(errors.TimeoutError, builtins.TimeoutError)
    assert issubclass(errors.TimeoutError, TaskError)
    assert str(errors.TimeoutError("not yet")) == "not yet"


def test_a_retry_says_when_and_why() -> None:
    assert str(Retry(exc=KeyError("x"), when=5)) == "Retry in 5s: KeyError('x')"
    assert str(Retry(when="noon")) == "Retry at noon"  # type: ignore[arg-type]
    assert str(Retry("in words", when=5)) == "in words"
    assert (Retry(exc="text").exc, Retry(exc="text").excs) == (None, "text")


def test_errors_print_as_celerys_do() -> None:
    assert str(TimeLimitExceeded(5)) == "TimeLimitExceeded(5,)"
    assert str(SoftTimeLimitExceeded()) == "SoftTimeLimitExceeded()"
    assert repr(NotRegistered("tasks.add")) == (
        "Task of kind 'tasks.add' never registered, please make sure it's imported."
    )
    assert repr(Reject("bad", requeue=True)) == "reject requeue=True: bad"
    assert repr(BackendGetMetaError("no", task_id="7")) == "BackendGetMetaError('no') task_id:7"
    assert repr(BackendStoreError("no", state="S", task_id="7")) == "BackendStoreError('no') state:S task_id:7"


def test_a_poison_message_gives_the_count_and_the_last_cause() -> None:
    text = str(PoisonMessage(task="shop.charge", deliveries=3, last_cause="signal 9 (SIGKILL)"))
    assert "shop.charge was started 3 times" in text
    assert "signal 9 (SIGKILL)" in text
    assert "greenroom dead redrive" in text
    text = str(PoisonMessage(task="shop.charge", deliveries=1, last_cause="signal 9 (SIGKILL)"))
    assert text.startswith("shop.charge was started once and died by signal 9 (SIGKILL); it is a dead letter")


def test_reraise_keeps_or_sets_the_traceback() -> None:
    try:
        raise KeyError("x")
    except KeyError as caught:
        original, tb = caught, caught.__traceback__
    with pytest.raises(KeyError) as again:
        errors.reraise(KeyError, original, tb)
    assert again.value is original
    assert "test_reraise_keeps" in "".join(traceback.format_tb(again.value.__traceback__))


def test_a_wrapper_stands_for_what_cannot_be_sent() -> None:
    class Odd(Exception):
        def __repr__(self) -> str:
            raise ValueError

    wrapper = UnpickleableExceptionWrapper.from_exception(Odd(1, object()))
    restored = wrapper.restore()
    assert (type(restored).__name__, restored.args[0]) == ("Odd", 1)
    assert "whose repr raised ValueError" in str(wrapper)
