"""A task's options: which of them come from settings, what they mean to the broker, what a call may say.

Owns the descriptors that give an option its setting's value until the task says otherwise, the flags and the policy
that are made of a task's options, and the list of options that a call takes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from ...transport.message import POLICY_FLAGS, Flag
from ...transport.verbs import TaskPolicy

if TYPE_CHECKING:
    from ..settings.conf import Settings
    from .task import Task

SECOND: Final = 1_000_000
#: A thousand years: what is added to the time of day must stay a number that every store can keep.
LIFETIME_SECONDS_MAX: Final = 1000 * 366 * 86_400

#: A task's option -> the setting whose value it has until the task says something.
FROM_SETTINGS: Final[dict[str, str]] = {
    "serializer": "task_serializer",
    "compression": "task_compression",
    "rate_limit": "task_default_rate_limit",
    "priority": "task_default_priority",
    "track_started": "task_track_started",
    "acks_late": "task_acks_late",
    "acks_on_failure_or_timeout": "task_acks_on_failure_or_timeout",
    "acks_on_failure": "task_acks_on_failure",
    "acks_on_timeout": "task_acks_on_timeout",
    "reject_on_worker_lost": "task_reject_on_worker_lost",
    "retry_on_worker_lost": "task_retry_on_worker_lost",
    "ignore_result": "task_ignore_result",
    "store_eager_result": "task_store_eager_result",
    "store_errors_even_if_ignored": "task_store_errors_even_if_ignored",
    "max_deliveries": "task_max_deliveries",
}

#: A task's attributes that every call of it has as options.
CALL_ATTRIBUTES: Final = (
    "queue",
    "exchange",
    "routing_key",
    "priority",
    "expires",
    "serializer",
    "compression",
    "time_limit",
    "soft_time_limit",
)

#: Attributes from which a task's prepared call is made: to change one makes it anew.
PLANNED: Final = frozenset(
    (*FROM_SETTINGS, *CALL_ATTRIBUTES, "name", "typing", "max_retries", "default_retry_delay", "run")
)

#: What `apply_async` takes besides args, kwargs and its named parameters.
CALL_OPTIONS: Final = frozenset(
    {
        *CALL_ATTRIBUTES,
        "add_to_parent",
        "argsrepr",
        "chain",
        "chord",
        "confirm_timeout",
        "countdown",
        "delivery_mode",
        "eta",
        "group_id",
        "group_index",
        "headers",
        "ignore_result",
        "kwargsrepr",
        "max_deliveries",
        "now",
        "origin",
        "parent_id",
        "replaced_task_nesting",
        "reply_to",
        "retries",
        "retry",
        "retry_policy",
        "root_id",
        "route_name",
        "stamped_headers",
        "stamps",
        "task_type",
        "timeout",
        "periodic_task_name",
        # Celery's, which mean nothing here.
        "connection",
        "producer",
        "publisher",
        "router",
        "result_cls",
        "reply_to_oid",
        # Properties of AMQP messages.
        "app_id",
        "cluster_id",
        "content_encoding",
        "content_type",
        "correlation_id",
        "expiration",
        "immediate",
        "mandatory",
        "message_id",
        "timestamp",
        "type",
        "user_id",
    }
)


class FromSettings:
    """An option that has its setting's value until the task, its class or a caller says something."""

    def __init__(self, setting: str) -> None:
        self.setting = setting

    def __get__(self, task: Task[..., Any] | None, owner: type) -> Any:
        return None if task is None else task.app.conf[self.setting]


def is_said(task: Task[..., Any], option: str) -> bool:
    """Tell whether a task says something of its own about an option that settings have a value for."""
    if option in task.__dict__:
        return True
    for cls in type(task).__mro__:
        if option in cls.__dict__:
            return not isinstance(cls.__dict__[option], FromSettings)
    return False


def acks_on(task: Task[..., Any], what: str) -> bool:
    """Tell whether a failure, or a timeout, acks a late task's message."""
    option = f"acks_on_{what}"
    if not is_said(task, option) and is_said(task, "acks_on_failure_or_timeout"):
        # The task's own older option goes before the newer setting.
        option = "acks_on_failure_or_timeout"
    value = getattr(task, option)
    return value is None or bool(value)


def flags_of(task: Task[..., Any], conf: Settings) -> int:
    """Return the flags of every call of this task."""
    flags = 0
    for option, flag in (
        ("acks_late", Flag.ACKS_LATE),
        ("reject_on_worker_lost", Flag.REJECT_ON_WORKER_LOST),
        ("retry_on_worker_lost", Flag.RETRY_ON_WORKER_LOST),
        ("ignore_result", Flag.IGNORE_RESULT),
        ("store_errors_even_if_ignored", Flag.STORE_ERRORS),
        ("track_started", Flag.TRACK_STARTED),
    ):
        if getattr(task, option):
            flags |= flag.value
    if not acks_on(task, "failure"):
        flags |= Flag.REJECT_ON_FAILURE.value
    if not acks_on(task, "timeout"):
        flags |= Flag.REDELIVER_ON_TIMEOUT.value
    if conf.worker_deduplicate_successful_tasks:
        flags |= Flag.DEDUPLICATE.value
    if not flags & Flag.IGNORE_RESULT:
        flags |= Flag.WATCHED.value
    return flags


def flags_of_settings(conf: Settings) -> int:
    """Return the flags of a call of a task that is not registered here."""
    flags = 0
    for setting, flag in (
        ("task_acks_late", Flag.ACKS_LATE),
        ("task_reject_on_worker_lost", Flag.REJECT_ON_WORKER_LOST),
        ("task_retry_on_worker_lost", Flag.RETRY_ON_WORKER_LOST),
        ("task_ignore_result", Flag.IGNORE_RESULT),
        ("task_store_errors_even_if_ignored", Flag.STORE_ERRORS),
        ("task_track_started", Flag.TRACK_STARTED),
        ("worker_deduplicate_successful_tasks", Flag.DEDUPLICATE),
    ):
        if conf[setting]:
            flags |= flag.value
    if not conf.task_acks_on_failure:
        flags |= Flag.REJECT_ON_FAILURE.value
    if not conf.task_acks_on_timeout:
        flags |= Flag.REDELIVER_ON_TIMEOUT.value
    if not flags & Flag.IGNORE_RESULT:
        flags |= Flag.WATCHED.value
    return flags


def policy_of(task: Task[..., Any]) -> TaskPolicy:
    """Return what a worker announces of this task to its broker. Raises ValueError for what cannot be."""
    conf = task.app.conf
    return TaskPolicy(
        task.name,
        flags_of(task, conf) & POLICY_FLAGS.value,
        deliveries_bound(task.max_deliveries, task.name),
        -1 if task.max_retries is None else task.max_retries,
        round(task.default_retry_delay * SECOND),
        lifetime_of_results(conf, "result_expires"),
        lifetime_of_results(conf, "result_failure_expires", "result_expires"),
    )


def lifetime_of_results(conf: Settings, *settings: str) -> int:
    """Return what the first of these settings that was given says, in microseconds; 0: for ever.

    -1 if none was given: then the broker's own default counts and not the setting's. Raises ValueError.
    """
    setting = next((name for name in settings if conf.value_set_for(name)), None)
    if setting is None:
        return -1
    value: object = conf[setting]
    if value is None:
        return 0
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < LIFETIME_SECONDS_MAX:
        raise ValueError(
            f"the setting {setting} is {value!r}; expected seconds or a timedelta, not negative, or None for ever"
        )
    return round(seconds * SECOND)


def deliveries_bound(value: object, name: str) -> int:
    """Return `max_deliveries` as messages carry it: 0 the default, -1 no bound. Raises ValueError."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value == 0 or value < -1:
        raise ValueError(f"task {name}: max_deliveries must be a number from 1, or -1 for no bound, not {value!r}")
    return value


def check_call_options(options: Mapping[str, Any], name: str) -> None:
    """Raise TypeError for an option that no call takes, with the one that was probably meant."""
    unknown = options.keys() - CALL_OPTIONS
    if unknown:
        first = min(unknown)
        close = difflib.get_close_matches(first, CALL_OPTIONS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "; pass data of your own in headers={...}"
        raise TypeError(f"a call of task {name} takes no option {first!r}{hint}")


def deadline_of(options: Mapping[str, Any]) -> float | None:
    """Return the seconds within which a call must be confirmed, if it says so."""
    timeout: float | None = options.get("confirm_timeout")
    return options.get("timeout") if timeout is None else timeout


def check_time_limits(soft: float | None, hard: float | None, name: str) -> None:
    """Raise ValueError for a soft limit beyond the hard one."""
    if soft is not None and hard is not None and soft > hard:
        raise ValueError(f"task {name}: soft_time_limit ({soft}) must be less than or equal to time_limit ({hard})")
