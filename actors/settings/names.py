"""Names that settings had before Celery 4, and the settings that mean nothing here.

Owns the table from old to new names, how a mixture of both is noticed and told, and the reason for each setting
that is accepted and ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from ..errors import ImproperlyConfigured
from .defaults import OPTIONS

logger = logging.getLogger(__name__)

#: Old name -> new name. What is not listed here followed the rule in `_regular`.
_IRREGULAR: Final[dict[str, str]] = {
    "CELERY_ANNOTATIONS": "task_annotations",
    "CELERY_ACKS_LATE": "task_acks_late",
    "CELERY_ALWAYS_EAGER": "task_always_eager",
    "CELERY_COMPRESSION": "task_compression",
    "CELERY_MESSAGE_COMPRESSION": "task_compression",
    "CELERY_CREATE_MISSING_QUEUES": "task_create_missing_queues",
    "CELERY_DEFAULT_DELIVERY_MODE": "task_default_delivery_mode",
    "CELERY_DEFAULT_EXCHANGE": "task_default_exchange",
    "CELERY_DEFAULT_EXCHANGE_TYPE": "task_default_exchange_type",
    "CELERY_DEFAULT_QUEUE": "task_default_queue",
    "CELERY_DEFAULT_RATE_LIMIT": "task_default_rate_limit",
    "CELERY_DEFAULT_ROUTING_KEY": "task_default_routing_key",
    "CELERY_EAGER_PROPAGATES": "task_eager_propagates",
    "CELERY_EAGER_PROPAGATES_EXCEPTIONS": "task_eager_propagates",
    "CELERY_STORE_EAGER_RESULT": "task_store_eager_result",
    "CELERY_IGNORE_RESULT": "task_ignore_result",
    "CELERY_QUEUES": "task_queues",
    "CELERY_ROUTES": "task_routes",
    "CELERY_SEND_TASK_SENT_EVENT": "task_send_sent_event",
    "CELERY_SEND_SENT_EVENT": "task_send_sent_event",
    "CELERY_STORE_ERRORS_EVEN_IF_IGNORED": "task_store_errors_even_if_ignored",
    "CELERY_TRACK_STARTED": "task_track_started",
    "CELERYD_TASK_SOFT_TIME_LIMIT": "task_soft_time_limit",
    "CELERYD_TASK_TIME_LIMIT": "task_time_limit",
    "CELERY_MAX_CACHED_RESULTS": "result_cache_max",
    "CELERY_TASK_RESULT_EXPIRES": "result_expires",
    "CELERY_RESULT_DBURI": "database_url",
    "CELERY_RESULT_ENGINE_OPTIONS": "database_engine_options",
    "CELERY_RESULT_DB_SHORT_LIVED_SESSIONS": "database_short_lived_sessions",
    "CELERY_RESULT_DB_TABLENAMES": "database_table_names",
    "CELERY_REDIS_HOST": "redis_host",
    "CELERY_REDIS_PORT": "redis_port",
    "CELERY_REDIS_DB": "redis_db",
    "CELERY_REDIS_PASSWORD": "redis_password",
    "CELERY_REDIS_MAX_CONNECTIONS": "redis_max_connections",
    "CELERY_MONGODB_BACKEND_SETTINGS": "mongodb_backend_settings",
    "CELERY_COUCHBASE_BACKEND_SETTINGS": "couchbase_backend_settings",
    "CELERY_ARANGODB_BACKEND_SETTINGS": "arangodb_backend_settings",
    "CASSANDRA_COLUMN_FAMILY": "cassandra_table",
    "CELERY_DISABLE_RATE_LIMITS": "worker_disable_rate_limits",
    "CELERY_ENABLE_REMOTE_CONTROL": "worker_enable_remote_control",
    "CELERY_SEND_EVENTS": "worker_send_task_events",
    "CELERY_SEND_TASK_EVENTS": "worker_send_task_events",
    "CELERY_WORKER_DIRECT": "worker_direct",
    "CELERY_REDIRECT_STDOUTS": "worker_redirect_stdouts",
    "CELERY_REDIRECT_STDOUTS_LEVEL": "worker_redirect_stdouts_level",
    "CELERYD_ETA_SCHEDULER": "worker_timer",
    "CELERYD_ETA_SCHEDULER_PRECISION": "worker_timer_precision",
    "CELERYD_SEND_EVENTS": "worker_send_task_events",
    "CELERY_EVENT_SERIALIZER": "event_serializer",
}

#: Prefix of a new name -> prefixes that its old name may have had.
_REGULAR: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("broker_", ("BROKER_", "CELERY_BROKER_")),
    ("worker_", ("CELERYD_",)),
    ("beat_", ("CELERYBEAT_",)),
    ("task_", ("CELERY_TASK_",)),
    ("result_", ("CELERY_RESULT_",)),
    ("security_", ("CELERY_SECURITY_",)),
    ("event_", ("CELERY_EVENT_",)),
    ("control_", ("CELERY_CONTROL_",)),
    ("redis_", ("REDIS_", "CELERY_REDIS_")),
    ("cassandra_", ("CASSANDRA_",)),
    ("s3_", ("S3_",)),
    ("", ("CELERY_",)),
)


def _regular() -> dict[str, str]:
    table: dict[str, str] = {}
    for name in OPTIONS:
        for prefix, old_prefixes in _REGULAR:
            if name.startswith(prefix):
                for old_prefix in old_prefixes:
                    table.setdefault(old_prefix + name[len(prefix) :].upper(), name)
                break
    return table


#: Every old name and the setting that it means.
OLD_NAMES: Final[dict[str, str]] = {**_regular(), **_IRREGULAR}


def new_name(name: str) -> str:
    """Return the present name of a setting; a name that is none of the old ones comes back as it is."""
    return name if name in OPTIONS else OLD_NAMES.get(name, name)


def check_not_mixed(names: Iterable[str]) -> None:
    """Raise ImproperlyConfigured, with a table of what to write, where old and new names stand side by side."""
    old: list[str] = []
    new: list[str] = []
    for name in names:
        if name in OPTIONS:
            new.append(name)
        elif name in OLD_NAMES:
            old.append(name)
    if not old or not new:
        return
    width = max(len(name) for name in old)
    table = "\n".join(f"    {name:<{width}} -> {OLD_NAMES[name]}" for name in sorted(old))
    raise ImproperlyConfigured(
        "new and old names of settings cannot be mixed: the new ones are "
        f"{', '.join(sorted(new))}. Write these by their new names:\n\n{table}\n"
    )


_CREDIT = "a worker takes a message when it has a free slot, so that nothing is fetched ahead of need"
_OWN_WIRE = "messages travel over Greenroom's own wire"
_OWN_RESULTS = "results are kept by the broker"
_SPAWNER = "children come from a spawner of Greenroom's own"

#: Settings that are accepted and change nothing, each with the reason that its user is told.
IGNORED: Final[dict[str, str]] = {
    "worker_prefetch_multiplier": _CREDIT,
    "worker_disable_prefetch": _CREDIT,
    "worker_enable_prefetch_count_reduction": _CREDIT,
    "worker_eta_task_limit": "tasks that are not due yet wait in the broker, not in a worker",
    "worker_detect_quorum_queues": _OWN_WIRE,
    "worker_pool_putlocks": _SPAWNER,
    "worker_pool_start_method": _SPAWNER,
    "worker_proc_alive_timeout": _SPAWNER,
    "worker_lost_wait": "a child's death is noticed at once",
    "worker_timer": "due times are kept by the broker",
    "worker_timer_precision": "due times are kept by the broker",
    "worker_consumer": _OWN_WIRE,
    "worker_agent": _OWN_WIRE,
    "worker_state_db": "revoked ids are kept by the broker",
    "broker_transport": "the address says how to reach the broker",
    "broker_transport_options": _OWN_WIRE,
    "broker_login_method": _OWN_WIRE,
    "broker_heartbeat": "links have a heartbeat of 2 s and are given up after 6 s",
    "broker_heartbeat_checkrate": "links have a heartbeat of 2 s and are given up after 6 s",
    "broker_pool_limit": "an application has one link to its broker, for all of its threads",
    "broker_pool_acquire_timeout": "an application has one link to its broker, for all of its threads",
    "broker_connection_retry": "a lost link is always made again",
    "broker_connection_retry_on_startup": "a lost link is always made again",
    "broker_connection_max_retries": "a lost link is always made again",
    "broker_channel_error_retry": _OWN_WIRE,
    "broker_native_delayed_delivery_queue_type": _OWN_WIRE,
    "task_protocol": _OWN_WIRE,
    "task_default_queue_type": _OWN_WIRE,
    "task_create_missing_queue_type": _OWN_WIRE,
    "task_create_missing_queue_exchange_type": _OWN_WIRE,
    "task_default_delivery_mode": "what a message survives is a property of its mailbox",
    "task_queue_max_priority": "every mailbox has priorities from 0 to 255",
    "task_publish_retry": "a call tries until broker_connection_timeout is over",
    "task_publish_retry_policy": "a call tries until broker_connection_timeout is over",
    "result_backend": _OWN_RESULTS,
    "result_persistent": _OWN_RESULTS,
    "result_exchange": _OWN_RESULTS,
    "result_exchange_type": _OWN_RESULTS,
    "result_cache_max": _OWN_RESULTS,
    "result_chord_join_timeout": "chords are counted by the broker",
    "result_chord_retry_interval": "chords are counted by the broker",
    "result_backend_always_retry": _OWN_RESULTS,
    "result_backend_max_retries": _OWN_RESULTS,
    "result_backend_base_sleep_between_retries_ms": _OWN_RESULTS,
    "result_backend_max_sleep_between_retries_ms": _OWN_RESULTS,
    "result_backend_thread_safe": _OWN_RESULTS,
    "result_backend_transport_options": _OWN_RESULTS,
    **{
        name: _OWN_RESULTS
        for name in OPTIONS
        if name.startswith(
            (
                "redis_",
                "database_",
                "cassandra_",
                "elasticsearch_",
                "azureblockblob_",
                "cosmosdbsql_",
                "gcs_",
                "s3_",
                "mongodb_",
                "couchbase_",
                "arangodb_",
                "cache_backend",
            )
        )
    },
}

_noticed: set[str] = set()


def notice_ignored(names: Iterable[str]) -> list[str]:
    """Log once a process which of these settings change nothing, and why; return those that were new."""
    fresh = [name for name in names if name in IGNORED and name not in _noticed]
    for name in fresh:
        _noticed.add(name)
        logger.warning("setting %s is accepted and changes nothing: %s", name, IGNORED[name])
    return fresh
