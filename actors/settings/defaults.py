"""Every setting: its name, the kind of its value and its default.

The names are Celery's, and so are the defaults, except where `docs/` says otherwise. A kind says how a text (of a
command line, or of an environment variable) becomes the value. Settings of ours stand at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, NamedTuple

from ...transport.message import MAX_DELIVERIES_DEFAULT

#: Where a broker is sought when nobody says where.
DEFAULT_BROKER_URL: Final = "tcp://127.0.0.1:5670"

LOG_FORMAT: Final = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
TASK_LOG_FORMAT: Final = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


def _bool(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise TypeError(f"{text!r} is neither true nor false; write true or false")


def _items(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _dict(text: str) -> dict[str, str]:
    return {key.strip(): value.strip() for key, _, value in (part.partition(":") for part in _items(text))}


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "any": lambda text: text,
    "string": lambda text: text,
    "int": int,
    "float": float,
    "bool": _bool,
    "tuple": _items,
    "list": lambda text: list(_items(text)),
    "dict": _dict,
}


class Option(NamedTuple):
    """One setting: the kind of its value, and the default."""

    kind: str
    default: Any = None

    def from_text(self, text: str) -> Any:
        """Return the value that a text means. Raises ValueError or TypeError for one that means none."""
        return _READERS[self.kind](text)


_RETRY_POLICY: Final = {
    "max_retries": 3,
    "interval_start": 0,
    "interval_max": 1,
    "interval_step": 0.2,
}


def _family(prefix: str, **options: Option) -> dict[str, Option]:
    return {f"{prefix}_{name}": option for name, option in options.items()}


_ANY, _STRING, _INT, _FLOAT, _BOOL = (Option(kind) for kind in ("any", "string", "int", "float", "bool"))
_NO, _YES = Option("bool", False), Option("bool", True)
_NOTHING = Option("dict", {})

OPTIONS: Final[dict[str, Option]] = {
    # --- general
    "accept_content": Option("list", ("msgpack", "json")),
    "result_accept_content": Option("list"),
    "enable_utc": _YES,
    "timezone": _STRING,
    "imports": Option("tuple", ()),
    "include": Option("tuple", ()),
    "deprecated_settings": Option("any"),
    **_family(
        "broker",
        url=_ANY,
        read_url=_ANY,
        write_url=_ANY,
        transport=_STRING,
        transport_options=_NOTHING,
        use_ssl=Option("any", False),
        login_method=_STRING,
        failover_strategy=Option("any", "round-robin"),
        heartbeat=Option("int", 120),
        heartbeat_checkrate=Option("float", 3.0),
        host=_STRING,
        port=_INT,
        user=_STRING,
        password=_STRING,
        vhost=_STRING,
        pool_limit=Option("int", 10),
        pool_acquire_timeout=_FLOAT,
        connection_timeout=Option("float", 4),
        connection_retry=_YES,
        connection_retry_on_startup=_BOOL,
        connection_max_retries=Option("int", 100),
        channel_error_retry=_NO,
        native_delayed_delivery_queue_type=Option("string", "quorum"),
    ),
    **_family(
        "task",
        serializer=Option("string", "msgpack"),
        compression=_STRING,
        protocol=Option("int", 2),
        default_queue=Option("any", "celery"),
        default_exchange=_STRING,
        default_exchange_type=Option("string", "direct"),
        default_routing_key=_STRING,
        default_delivery_mode=Option("any", 2),
        default_priority=_INT,
        default_rate_limit=_ANY,
        default_queue_type=Option("string", "classic"),
        create_missing_queues=_YES,
        create_missing_queue_type=Option("string", "classic"),
        create_missing_queue_exchange_type=_STRING,
        queues=_ANY,
        routes=_ANY,
        queue_max_priority=_INT,
        inherit_parent_priority=_NO,
        acks_late=_NO,
        acks_on_failure_or_timeout=_YES,
        acks_on_failure=_BOOL,
        acks_on_timeout=_BOOL,
        reject_on_worker_lost=_BOOL,
        retry_on_worker_lost=_NO,
        ignore_result=_NO,
        store_errors_even_if_ignored=_NO,
        track_started=_NO,
        time_limit=_FLOAT,
        soft_time_limit=_FLOAT,
        always_eager=_NO,
        eager_propagates=_NO,
        store_eager_result=_NO,
        publish_retry=_YES,
        publish_retry_policy=Option("dict", _RETRY_POLICY),
        send_sent_event=_NO,
        remote_tracebacks=_NO,
        allow_error_cb_on_chord_header=_NO,
        annotations=_ANY,
        repr_maxlevels=Option("int", 3),
    ),
    **_family(
        "result",
        backend=_STRING,
        expires=Option("float", timedelta(days=1)),
        failure_expires=_FLOAT,
        extended=_NO,
        serializer=Option("string", "msgpack"),
        compression=_STRING,
        persistent=_BOOL,
        cache_max=Option("int", -1),
        exchange=Option("string", "celeryresults"),
        exchange_type=Option("string", "direct"),
        chord_join_timeout=Option("float", 3.0),
        chord_retry_interval=Option("float", 1.0),
        chord_expires=_FLOAT,
        backend_always_retry=_NO,
        backend_max_retries=Option("float", float("inf")),
        backend_base_sleep_between_retries_ms=Option("int", 10),
        backend_max_sleep_between_retries_ms=Option("int", 10000),
        backend_thread_safe=_NO,
        backend_transport_options=_NOTHING,
    ),
    **_family(
        "worker",
        concurrency=Option("any"),
        pool=Option("string", "prefork"),
        pool_start_method=Option("string", "fork"),
        pool_putlocks=_YES,
        pool_restarts=_NO,
        prefetch_multiplier=Option("int", 4),
        disable_prefetch=_NO,
        enable_prefetch_count_reduction=_YES,
        detect_quorum_queues=_YES,
        eta_task_limit=_INT,
        max_tasks_per_child=_INT,
        max_memory_per_child=_INT,
        lost_wait=Option("float", 10.0),
        proc_alive_timeout=Option("float", 4.0),
        state_db=_STRING,
        timer=_STRING,
        timer_precision=Option("float", 1.0),
        autoscaler=_STRING,
        consumer=_STRING,
        agent=_STRING,
        direct=_NO,
        disable_rate_limits=_NO,
        enable_remote_control=_YES,
        send_task_events=_NO,
        hijack_root_logger=_YES,
        redirect_stdouts=_YES,
        redirect_stdouts_level=Option("string", "WARNING"),
        log_format=Option("string", LOG_FORMAT),
        log_datefmt=_STRING,
        log_color=_BOOL,
        task_log_format=Option("string", TASK_LOG_FORMAT),
        task_log_datefmt=_STRING,
        logfile=_STRING,
        pidfile=_STRING,
        uid=_ANY,
        gid=_ANY,
        umask=_ANY,
        executable=_STRING,
        cancel_long_running_tasks_on_connection_loss=_NO,
        soft_shutdown_timeout=Option("float", 0.0),
        enable_soft_shutdown_on_idle=_NO,
        deduplicate_successful_tasks=_NO,
    ),
    **_family(
        "beat",
        schedule=_NOTHING,
        scheduler=_STRING,
        schedule_filename=Option("string", "celerybeat-schedule"),
        sync_every=Option("int", 0),
        max_loop_interval=Option("float", 0),
        cron_starting_deadline=_INT,
        enable_remote_control=_NO,
        remote_control_max_tick_age=_FLOAT,
        logfile=_STRING,
        pidfile=_STRING,
        uid=_ANY,
        gid=_ANY,
        umask=_ANY,
    ),
    **_family(
        "event",
        queue_expires=Option("float", 60.0),
        queue_ttl=Option("float", 5.0),
        queue_prefix=Option("string", "celeryev"),
        queue_durable=_NO,
        queue_exclusive=_NO,
        exchange=Option("string", "celeryev"),
        serializer=Option("string", "json"),
    ),
    **_family("events", logfile=_STRING, pidfile=_STRING, uid=_ANY, gid=_ANY, umask=_ANY),
    **_family(
        "control",
        exchange=Option("string", "celery"),
        queue_ttl=Option("float", 300.0),
        queue_expires=Option("float", 10.0),
        queue_durable=_NO,
        queue_exclusive=_NO,
    ),
    **_family(
        "security",
        key=_STRING,
        key_password=_STRING,
        certificate=_STRING,
        cert_store=_STRING,
        digest=Option("string", "sha256"),
    ),
    # --- Celery's result backends: kept for programs that read them, and for the bridge
    "cache_backend": _STRING,
    "cache_backend_options": _NOTHING,
    **_family(
        "redis",
        backend_use_ssl=_ANY,
        backend_health_check_interval=_INT,
        backend_credential_provider=_STRING,
        client_name=_STRING,
        db=_INT,
        host=_STRING,
        max_connections=_INT,
        username=_STRING,
        password=_STRING,
        port=_INT,
        retry_on_timeout=_NO,
        socket_connect_timeout=_FLOAT,
        socket_keepalive=_NO,
        socket_timeout=Option("float", 120.0),
    ),
    **_family(
        "database",
        url=_STRING,
        engine_options=_ANY,
        short_lived_sessions=_NO,
        table_names=_ANY,
        table_schemas=_ANY,
        create_tables_at_setup=_YES,
        async_engine_options=_ANY,
    ),
    **_family(
        "cassandra",
        entry_ttl=_FLOAT,
        keyspace=_STRING,
        port=_STRING,
        read_consistency=_STRING,
        servers=Option("list"),
        bundle_path=_STRING,
        table=_STRING,
        write_consistency=_STRING,
        auth_provider=_STRING,
        auth_kwargs=_ANY,
        options=_NOTHING,
    ),
    **_family(
        "elasticsearch",
        retry_on_timeout=_BOOL,
        max_retries=_INT,
        timeout=_FLOAT,
        save_meta_as_text=_YES,
    ),
    **_family(
        "azureblockblob",
        container_name=Option("string", "celery"),
        retry_initial_backoff_sec=Option("int", 2),
        retry_increment_base=Option("int", 2),
        retry_max_attempts=Option("int", 3),
        base_path=Option("string", ""),
        connection_timeout=Option("int", 20),
        read_timeout=Option("int", 120),
    ),
    **_family(
        "cosmosdbsql",
        database_name=Option("string", "celerydb"),
        collection_name=Option("string", "celerycol"),
        consistency_level=Option("string", "Session"),
        max_retry_attempts=Option("int", 9),
        max_retry_wait_time=Option("int", 30),
    ),
    **_family("gcs", bucket=_STRING, project=_STRING, base_path=Option("string", ""), ttl=Option("float", 0)),
    **_family(
        "s3",
        access_key_id=_STRING,
        secret_access_key=_STRING,
        bucket=_STRING,
        base_path=_STRING,
        endpoint_url=_STRING,
        region=_STRING,
    ),
    "mongodb_backend_settings": Option("dict"),
    "couchbase_backend_settings": Option("dict"),
    "arangodb_backend_settings": Option("dict"),
    # --- ours
    #: "wait": a call returns when its message is confirmed; "background": at once, with back-pressure.
    "task_publish_confirm": Option("string", "wait"),
    #: What a task's max_deliveries is when it does not say.
    "task_max_deliveries": Option("int", MAX_DELIVERIES_DEFAULT),
    "mailbox_max_messages": Option("int", 10_000_000),
    "mailbox_on_full": Option("string", "reject"),
    #: Celery's own defaults where ours differ on purpose.
    "strict_celery": _NO,
}

#: What `strict_celery` puts in place of our defaults.
STRICT_CELERY: Final[dict[str, Any]] = {
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ("json",),
}
