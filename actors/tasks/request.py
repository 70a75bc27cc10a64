"""The request: what a task's body may know of the call that it is in (`self.request`).

Owns `Context`, with Celery's attributes. A body that asks for nothing pays for nothing: of a delivered message the
context holds the delivery, and each attribute is made when it is first asked for. All of them may be set and stay set
for this call. A header that the sender added is an attribute too, unless it has the name of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Protocol, TypeVar, cast, overload

from ...transport.message import Delivery, Envelope, Flag, More
from ..bodies import unpack_embed

if TYPE_CHECKING:
    from ...transport.peer.contract import Promise
    from ..results.result import ResultBase

T = TypeVar("T")

SECOND: Final = 1_000_000
_NO_MORE: Final = More()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_REPR_CHARACTERS_MAX: Final = 1024


class _Lazy(Generic[T]):
    """An attribute that is made at the first look, from the delivery, or is `default` where there is none."""

    def __init__(self, make: Callable[[Context, Envelope, More], T], default: Callable[[], T]) -> None:
        self.make = make
        self.default = default
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, context: None, owner: type) -> _Lazy[T]: ...
    @overload
    def __get__(self, context: Context, owner: type) -> T: ...
    def __get__(self, context: Context | None, owner: type) -> T | _Lazy[T]:
        if context is None:
            return self
        delivery = context.delivery
        if delivery is None:
            value = self.default()
        else:
            envelope = delivery.envelope
            value = self.make(context, envelope, envelope.more or _NO_MORE)
        # No data descriptor: from now on the instance answers.
        context.__dict__[self.name] = value
        return value

    if TYPE_CHECKING:
        # Assigning is for anybody. At run time there must be no __set__, or the instance would not answer.
        def __set__(self, context: Context, value: T) -> None: ...


def _lazy(make: Callable[[Context, Envelope, More], T], default: T) -> _Lazy[T]:
    return _Lazy(make, lambda: default)


def _embedded(key: str) -> _Lazy[Any]:
    return _Lazy(lambda context, envelope, more: context.embed.get(key), lambda: None)


class _Leased(Protocol):
    """What is held under a lease."""

    @property
    def lease(self) -> int: ...


class Context:
    """The present call of a task. Made by `Context(...)` for a call in this process, by `delivered` for a message."""

    #: The message as a broker handed it out; None for a direct call and in eager mode.
    delivery: Delivery | None = None
    #: The name of the worker node, as in `celery@host`.
    hostname: str | None = None
    logfile: str | None = None
    loglevel: int = 0
    args: Any = None
    kwargs: Any = None
    called_directly: bool = True
    is_eager: bool = False
    utc: bool = True
    #: What `retry(throw=False)` decided; a worker settles with it unless the body raises.
    retried: Any = None
    #: Set by a worker: takes a state's name and its meta, for `update_state`.
    report_state: Callable[[str | None, Any], object] | None = None
    #: Set by a worker: the message as it holds it.
    held: _Leased | None = None
    _children: list[ResultBase] | None = None
    #: What this body sent without waiting for a broker's word: its outcome waits for that.
    unconfirmed: list[Promise[object]] | None = None

    def __init__(self, *mappings: Mapping[str, Any], **values: Any) -> None:
        self.update(*mappings, **values)

    @property
    def fence(self) -> int:
        """A fencing token: each time that a message is handed out it is greater than the times before, also after
        restarts. 0: nothing was handed out. A receiver that refuses a smaller one than it has seen is safe from a
        worker that was cut off and goes on. (Kleppmann, "How to do distributed locking".)"""
        return 0 if self.held is None else self.held.lease

    @classmethod
    def delivered(
        cls,
        delivery: Delivery,
        args: list[Any],
        kwargs: dict[str, Any],
        *,
        hostname: str | None = None,
        loglevel: int = 0,
    ) -> Context:
        """Return the context of a message that a worker runs."""
        context = cls.__new__(cls)
        context.delivery = delivery
        context.args = args
        context.kwargs = kwargs
        context.called_directly = False
        if hostname is not None:
            context.hostname = hostname
        if loglevel:
            context.loglevel = loglevel
        return context

    # --- what the envelope says

    id: _Lazy[str | None] = _lazy(lambda _context, envelope, _more: envelope.id, None)
    task: _Lazy[str | None] = _lazy(lambda _context, envelope, _more: envelope.name, None)
    origin: _Lazy[str | None] = _lazy(lambda _context, envelope, _more: envelope.origin or None, None)
    retries: _Lazy[int] = _lazy(lambda _context, _envelope, more: more.retries, 0)
    #: The first of the messages that led to this one; itself where nothing did.
    root_id: _Lazy[str | None] = _lazy(lambda _context, envelope, more: more.root_id or envelope.id, None)
    parent_id: _Lazy[str | None] = _lazy(lambda _context, _envelope, more: more.parent_id or None, None)
    correlation_id: _Lazy[str | None] = _lazy(lambda _context, envelope, _more: envelope.id, None)
    reply_to: _Lazy[str | None] = _lazy(lambda _context, _envelope, more: more.reply_to or None, None)
    shadow: _Lazy[str | None] = _lazy(lambda _context, _envelope, more: more.shadow or None, None)
    eta: _Lazy[str | None] = _lazy(lambda _context, _envelope, more: _iso(more.due), None)
    expires: _Lazy[str | None] = _lazy(lambda context, _envelope, more: _expires(context, more), None)
    #: Seconds; None: no limit.
    time_limit: _Lazy[float | None] = _lazy(lambda _context, _envelope, more: _seconds(more.time_limit), None)
    soft_time_limit: _Lazy[float | None] = _lazy(lambda _context, _envelope, more: _seconds(more.soft_time_limit), None)
    #: The hard and the soft limit.
    timelimit: _Lazy[list[float | None] | None] = _lazy(
        lambda context, _envelope, _more: [context.time_limit, context.soft_time_limit], None
    )
    ignore_result: _Lazy[bool] = _lazy(
        lambda _context, envelope, _more: bool(envelope.flags & Flag.IGNORE_RESULT), False
    )
    #: exchange, routing_key, priority and redelivered.
    delivery_info: _Lazy[dict[str, Any] | None] = _lazy(lambda context, _e, _m: _delivery_info(context), None)
    properties: _Lazy[dict[str, Any] | None] = _lazy(lambda context, _e, _m: _properties(context), None)
    #: Custom headers.
    headers: _Lazy[dict[str, Any] | None] = _lazy(lambda context, _e, more: _headers(context, more), None)
    #: How often the message has been handed out, this time included.
    deliveries: _Lazy[int] = _lazy(lambda context, _e, _m: cast("Delivery", context.delivery).deliveries, 0)

    # --- what is nested

    embed: _Lazy[dict[str, Any]] = _Lazy(lambda _context, _envelope, more: unpack_embed(more.opaque), dict)
    callbacks = _embedded("callbacks")
    errbacks = _embedded("errbacks")
    chain = _embedded("chain")
    chord = _embedded("chord")
    group = _embedded("group")
    group_index = _embedded("group_index")
    stamps = _embedded("stamps")
    stamped_headers = _embedded("stamped_headers")
    replaced_task_nesting: _Lazy[int] = _lazy(
        lambda context, _envelope, _more: context.embed.get("replaced_task_nesting") or 0, 0
    )
    argsrepr: _Lazy[str | None] = _lazy(
        lambda context, _e, _m: context.embed.get("argsrepr") or _short_repr(tuple(context.args or ())), None
    )
    kwargsrepr: _Lazy[str | None] = _lazy(
        lambda context, _e, _m: context.embed.get("kwargsrepr") or _short_repr(context.kwargs or {}), None
    )

    @property
    def taskset(self) -> str | None:
        """Celery's older name for `group`."""
        return cast("str | None", self.group)

    @property
    def children(self) -> list[ResultBase]:
        """The results of what this body sent."""
        if self._children is None:
            self._children = []
        return self._children

    def confirm_later(self, promise: Promise[object]) -> None:
        """This body sent something and did not wait: the worker waits, before it says what became of the body."""
        if self.unconfirmed is None:
            self.unconfirmed = []
        self.unconfirmed.append(promise)

    @property
    def sent_children(self) -> list[ResultBase] | None:
        """The same for a worker to read: None where nothing was sent."""
        return self._children

    # --- as a mapping

    def update(self, *mappings: Mapping[str, Any], **values: Any) -> None:
        """Set several attributes at once."""
        for mapping in mappings:
            self.__dict__.update(mapping)
        self.__dict__.update(values)

    def clear(self) -> None:
        """Forget what was set; what the message says is still there."""
        delivery = self.delivery
        self.__dict__.clear()
        if delivery is not None:
            self.delivery = delivery

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or `default` where there is none of this name."""
        return getattr(self, name, default)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            headers = self.headers
            if headers and name in headers:
                return headers[name]
        raise AttributeError(f"a request has no attribute {name!r}, and its sender added no header of this name")

    def __repr__(self) -> str:
        return f"<Context: {self.task}[{self.id}]>"

    #: What a message of the same call would be sent with; see `as_execution_options`.
    _EXECUTION_OPTIONS: ClassVar[dict[str, str]] = {
        "task_id": "id",
        "root_id": "root_id",
        "parent_id": "parent_id",
        "group_id": "group",
        "group_index": "group_index",
        "shadow": "shadow",
        "chord": "chord",
        "chain": "chain",
        "link": "callbacks",
        "link_error": "errbacks",
        "expires": "expires",
        "soft_time_limit": "soft_time_limit",
        "time_limit": "time_limit",
        "headers": "headers",
        "retries": "retries",
        "reply_to": "reply_to",
        "replaced_task_nesting": "replaced_task_nesting",
        "origin": "origin",
    }

    def as_execution_options(self) -> dict[str, Any]:
        """Return the options with which `apply_async` would send this very call again."""
        return {option: getattr(self, name) for option, name in self._EXECUTION_OPTIONS.items()}


def _seconds(microseconds: int) -> float | None:
    return microseconds / SECOND if microseconds else None


def _iso(wall: int) -> str | None:
    return (_EPOCH + timedelta(microseconds=wall)).isoformat() if wall else None


def _expires(context: Context, more: More) -> str | None:
    delivery = context.delivery
    if not more.expires and delivery is not None and delivery.expires_in:
        return (datetime.now(UTC) + timedelta(microseconds=delivery.expires_in)).isoformat()
    return _iso(more.expires)


def _delivery_info(context: Context) -> dict[str, Any]:
    delivery = cast("Delivery", context.delivery)
    return {
        "exchange": "",
        "routing_key": delivery.mailbox,
        "priority": delivery.envelope.priority or None,
        "redelivered": delivery.redelivered,
    }


def _properties(context: Context) -> dict[str, Any]:
    return {
        "correlation_id": context.id,
        "reply_to": context.reply_to or "",
        "delivery_mode": 2,
        "delivery_info": context.delivery_info,
        "priority": cast("Delivery", context.delivery).envelope.priority,
    }


def _headers(context: Context, more: More) -> dict[str, Any] | None:
    nested: dict[str, Any] | None = context.embed.get("headers")
    if more.headers is None and nested is None:
        return None
    return {**(more.headers or {}), **(nested or {})}


def _short_repr(value: Iterable[Any]) -> str:
    text = repr(value)
    return text if len(text) <= _REPR_CHARACTERS_MAX else text[: _REPR_CHARACTERS_MAX - 3] + "..."
