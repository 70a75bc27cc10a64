"""Greenroom: an actor-model distributed runtime for Python.

Tasks are messages sent to named actor mailboxes; brokers keep them on disk; supervisor trees restart what crashes
and set poison messages aside. This page is all that most programs import:

    from greenroom import App

    app = App("shop")

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    with app.run(workers=2):
        print(add.delay(20, 22).get(timeout=5))

The names are imported when they are first used, so that the command line answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .actors.runtime import Runtime, install_runtime

if TYPE_CHECKING:
    from .actors.actor import Actor
    from .actors.app import App
    from .actors.current import allow_join_result, current_app, current_task
    from .actors.errors import (
        ActorFailed,
        BrokerUnavailable,
        EncodeError,
        GreenroomError,
        Ignore,
        MailboxFull,
        MaxRetriesExceededError,
        NotRegistered,
        OperationalError,
        PoisonMessage,
        Reject,
        Retry,
        SoftTimeLimitExceeded,
        TaskRevokedError,
        TimeLimitExceeded,
        TimeoutError,
        UnknownOutcome,
        WorkerLostError,
    )
    from .actors.log import get_task_logger
    from .actors.ref import ActorRef, AskResult
    from .actors.results.result import AsyncResult
    from .actors.results.sets import GroupResult, ResultSet
    from .actors.tasks.make import shared_task
    from .actors.tasks.queues import Exchange, Queue
    from .actors.tasks.signature import Signature, signature
    from .actors.tasks.task import Task
    from .supervisor.spec import Backoff, ChildSpec, Supervisor
    from .transport.payload import register_type

__all__ = [
    "Actor",
    "ActorFailed",
    "ActorRef",
    "App",
    "AskResult",
    "AsyncResult",
    "Backoff",
    "BrokerUnavailable",
    "ChildSpec",
    "EncodeError",
    "Exchange",
    "GreenroomError",
    "GroupResult",
    "Ignore",
    "MailboxFull",
    "MaxRetriesExceededError",
    "NotRegistered",
    "OperationalError",
    "PoisonMessage",
    "Queue",
    "Reject",
    "ResultSet",
    "Retry",
    "Signature",
    "SoftTimeLimitExceeded",
    "Supervisor",
    "Task",
    "TaskRevokedError",
    "TimeLimitExceeded",
    "TimeoutError",
    "UnknownOutcome",
    "WorkerLostError",
    "allow_join_result",
    "current_app",
    "current_task",
    "get_task_logger",
    "register_type",
    "shared_task",
    "signature",
]

#: Module -> the names that come from it.
_PLACES: dict[str, tuple[str, ...]] = {
    ".actors.actor": ("Actor",),
    ".actors.app": ("App",),
    ".actors.current": (
        "allow_join_result",
        "current_app",
        "current_task",
    ),
    ".actors.errors": (
        "ActorFailed",
        "BrokerUnavailable",
        "EncodeError",
        "GreenroomError",
        "Ignore",
        "MailboxFull",
        "MaxRetriesExceededError",
        "NotRegistered",
        "OperationalError",
        "PoisonMessage",
        "Reject",
        "Retry",
        "SoftTimeLimitExceeded",
        "TaskRevokedError",
        "TimeLimitExceeded",
        "TimeoutError",
        "UnknownOutcome",
        "WorkerLostError",
    ),
    ".actors.log": ("get_task_logger",),
    ".actors.ref": (
        "ActorRef",
        "AskResult",
    ),
    ".actors.results.result": ("AsyncResult",),
    ".actors.results.sets": (
        "GroupResult",
        "ResultSet",
    ),
    ".actors.tasks.make": ("shared_task",),
    ".actors.tasks.queues": (
        "Exchange",
        "Queue",
    ),
    ".actors.tasks.signature": (
        "Signature",
        "signature",
    ),
    ".actors.tasks.task": ("Task",),
    ".supervisor.spec": (
        "Backoff",
        "ChildSpec",
        "Supervisor",
    ),
    ".transport.payload": ("register_type",),
}
#: What Celery's users look for, and in words why it is not here.
_NOT_YET: dict[str, str] = dict.fromkeys(
    ("chain", "chord", "chunks", "group", "xmap", "xstarmap"),
    ": there are no canvases yet. Several calls at once: app.send_many([...]); one after another: link=",
)
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> object:
    place = _PLACE_OF.get(name)
    if place is None:
        absent = _NOT_YET.get(name, "")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{absent}")
    value: object = getattr(importlib.import_module(place, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _load_runtime() -> Runtime:
    # Clusters and workers are the floor above, and a program that only sends needs none of it.
    from .supervisor.runtime import ClusterRuntime

    return ClusterRuntime()


install_runtime(_load_runtime)
