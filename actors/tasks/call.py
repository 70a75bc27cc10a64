"""A call becomes a message: from a task, its arguments and options to a mailbox and an envelope.

Owns `Plan`, what all calls of a task have in common and is made once, and `build`, which makes the envelope of a call
with options. A call without any (`task.delay(1, 2)` outside of tasks) does not come by `build`: with the plan alone
it costs a few microseconds.

Relative times travel as durations (`countdown`, a number for `expires`) and are resolved by the broker; absolute
ones as wall time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import msgspec

from ...transport.message import MAX_DELIVERIES_DEFAULT, NAME_CHARACTERS_MAX, PRIORITY_MAX, Envelope, Flag, More
from ..bodies import Content, pack_call, pack_embed, unpack_embed
from ..current import worker_frame
from ..identity import new_id, origin
from ..signals import after_task_publish, before_task_publish, task_sent
from .check import Check, compile_check
from .options import (
    CALL_ATTRIBUTES,
    SECOND,
    check_call_options,
    check_time_limits,
    deliveries_bound,
    flags_of,
    flags_of_settings,
    is_said,
)

if TYPE_CHECKING:
    from ..app import App
    from ..results.result import AsyncResult
    from ..settings.conf import Layers
    from .request import Context
    from .task import Task

_SCALARS: Final = (str, int, float, bool, type(None))
_NO_MORE: Final = More()


class Plan(msgspec.Struct, frozen=True):
    """What all calls of one task have in common, for one version of the settings."""

    version: int
    #: Whose version it is.
    layers: Layers
    #: None: whatever the arguments, they are not looked at.
    check: Check | None
    #: A call without options is just this, its id and its body.
    simple: bool
    mailbox: str
    name: str
    content: Content
    flags: int
    priority: int
    more: More | None
    #: The options that the task itself says for every call.
    own: dict[str, Any]
    #: Calls return before they are confirmed.
    background: bool


class Prepared(NamedTuple):
    """A message and the mailbox that it goes to."""

    mailbox: str
    envelope: Envelope


def make_plan(task: Task[..., Any]) -> Plan:
    """Prepare the calls of a task. Raises ValueError for options that contradict each other."""
    app = task.app
    conf = app.conf
    name = task.name
    flags = flags_of(task, conf)
    own = {key: getattr(task, key) for key in CALL_ATTRIBUTES if is_said(task, key)}
    own = {key: value for key, value in own.items() if value is not None}
    static = not app.router.dynamic
    mailbox, routed = app.router.route(own, name, task=task) if static else ("", own)
    simple = static and not conf.task_always_eager and not task.overrides("shadow_name")
    more = None
    if simple:
        more = _more_of(task, name, routed, flags)
        # A body that must wait, or that expires at a time of day, is for `build`.
        simple = not isinstance(routed.get("expires"), datetime | str) and "countdown" not in routed
    return Plan(
        version=conf.version,
        layers=conf.layers,
        check=compile_check(task.run, name=task.function_name) if task.typing else None,
        simple=simple,
        mailbox=mailbox,
        name=name,
        content=app.content(routed.get("serializer"), routed.get("compression")),
        flags=flags,
        priority=checked_priority(routed.get("priority", conf.task_default_priority), name) if simple else 0,
        more=more,
        own=own,
        background=conf.task_publish_confirm == "background",
    )


def build(
    app: App,
    name: str,
    args: Any,
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    task: Task[..., Any] | None = None,
    task_id: str | None = None,
    link: Any = None,
    link_error: Any = None,
    shadow: str | None = None,
) -> Prepared:
    """Make the message of a call with any options.

    Raises TypeError for an option that does not exist, ValueError for one that cannot be, EncodeError for
    arguments that cannot be sent, QueueNotFound for a queue that may not be used.
    """
    check_call_options(options, name)
    conf = app.conf
    plan = None if task is None else task.plan()
    merged = {} if plan is None else dict(plan.own)
    merged.update((key, value) for key, value in options.items() if value is not None)
    mailbox, merged = app.router.route(merged, merged.get("route_name") or name, args, kwargs, task)
    if link is not None:
        merged["link"] = link
    if link_error is not None:
        merged["link_error"] = link_error
    frame = worker_frame()
    parent = None if frame is None else frame.request
    flags = plan.flags if plan is not None else flags_of_settings(conf)
    if "ignore_result" in merged:
        flags = _ignoring(flags, bool(merged["ignore_result"]))
    if task_id is not None:
        flags |= Flag.CHOSEN_ID.value
        if not 0 < len(task_id) <= NAME_CHARACTERS_MAX:
            raise ValueError(f"task {name}: a task_id has 1 to {NAME_CHARACTERS_MAX} characters, not {len(task_id)}")
    id = task_id or new_id()
    priority = merged.get("priority", conf.task_default_priority)
    if parent is not None and "priority" not in options and conf.task_inherit_parent_priority:
        priority = (parent.delivery_info or {}).get("priority") or priority
    content = app.content(merged.get("serializer"), merged.get("compression"))
    kind, body = pack_call(args, kwargs, content, id)
    more = _more(app, name, merged, flags, task, parent, shadow)
    envelope = Envelope(
        id, name, kind, body, flags, checked_priority(priority, name), 0, merged.get("origin") or origin(), more
    )
    if before_task_publish.receivers:
        _tell_before(app, mailbox, envelope, args, kwargs)
    return Prepared(mailbox, envelope)


def note_sent(
    prepared: Prepared, args: Any, kwargs: Mapping[str, Any], result: AsyncResult[Any], *, add_to_parent: bool = True
) -> None:
    """Do what follows a publish: tell the signals' receivers, and count the result among the sender's children."""
    mailbox, envelope = prepared
    if add_to_parent:
        frame = worker_frame()
        if frame is not None:
            frame.task.add_trail(result)
    if after_task_publish.receivers:
        after_task_publish.send(
            sender=envelope.name,
            headers=_headers_of(envelope),
            body=(args, kwargs, {}),
            exchange="",
            routing_key=mailbox,
        )
    if task_sent.receivers:
        task_sent.send(
            sender=envelope.name,
            task_id=envelope.id,
            task=envelope.name,
            args=args,
            kwargs=kwargs,
            eta=None,
            taskset=None,
        )


def checked_priority(priority: Any, name: str) -> int:
    """Return a priority for an envelope: bigger is sooner, 0 where none was given. Raises ValueError."""
    if priority is None:
        return 0
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= PRIORITY_MAX:
        raise ValueError(f"task {name}: priority must be a whole number from 0 to {PRIORITY_MAX}, not {priority!r}")
    return priority


def wall_microseconds(moment: datetime | str, app: App) -> int:
    """Return a moment, or its ISO 8601 text, as wall time; without a zone it is in the app's."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=app.timezone)
    return round(moment.timestamp() * SECOND)


def microseconds(value: float | timedelta) -> int:
    """Return a duration in seconds as microseconds."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return round(seconds * SECOND)


def _ignoring(flags: int, ignored: bool) -> int:
    if ignored:
        return (flags | Flag.IGNORE_RESULT.value) & ~Flag.WATCHED.value
    return (flags & ~Flag.IGNORE_RESULT.value) | Flag.WATCHED.value


def _more_of(task: Task[..., Any], name: str, options: Mapping[str, Any], flags: int) -> More | None:
    """Return what a task's own options say in every message of it."""
    soft, hard = options.get("soft_time_limit"), options.get("time_limit")
    check_time_limits(soft, hard, name)
    more = More(
        time_limit=microseconds(hard or 0),
        soft_time_limit=microseconds(soft or 0),
        max_deliveries=deliveries_bound(task.max_deliveries, name),
    )
    expires = options.get("expires")
    if isinstance(expires, int | float | timedelta):
        more.expires_in = max(1, microseconds(expires))
    if flags & Flag.RETRY_ON_WORKER_LOST:
        more.max_retries = -1 if task.max_retries is None else task.max_retries
        more.retry_delay = microseconds(task.default_retry_delay)
    if more.max_deliveries == MAX_DELIVERIES_DEFAULT:
        more.max_deliveries = 0
    return None if more == _NO_MORE else more


def _more(
    app: App,
    name: str,
    options: Mapping[str, Any],
    flags: int,
    task: Task[..., Any] | None,
    parent: Context | None,
    shadow: str | None,
) -> More | None:
    soft, hard = options.get("soft_time_limit"), options.get("time_limit")
    check_time_limits(soft, hard, name)
    more = (_more_of(task, name, options, flags) if task is not None else None) or More()
    more.time_limit = microseconds(hard or 0)
    more.soft_time_limit = microseconds(soft or 0)
    if "max_deliveries" in options:
        more.max_deliveries = deliveries_bound(options["max_deliveries"], name)
    countdown, eta, expires = options.get("countdown"), options.get("eta"), options.get("expires")
    if countdown is not None:
        more.delay = max(0, microseconds(countdown))
    elif eta is not None:
        more.due = max(0, wall_microseconds(eta, app))
    if isinstance(expires, datetime | str):
        more.expires = max(1, wall_microseconds(expires, app))
    elif expires is not None:
        more.expires_in = max(1, microseconds(expires))
    more.retries = options.get("retries") or 0
    if parent is not None:
        more.parent_id = parent.id or ""
        more.root_id = parent.root_id or parent.id or ""
    more.root_id = options.get("root_id") or more.root_id
    more.parent_id = options.get("parent_id") or more.parent_id
    more.reply_to = options.get("reply_to") or ""
    more.shadow = shadow or ""
    embed = _embed(options, parent)
    headers = dict(options.get("headers") or {})
    if "periodic_task_name" in options:
        headers["periodic_task_name"] = options["periodic_task_name"]
    _put_headers(more, embed, headers)
    more.opaque = pack_embed(embed)
    return None if more == _NO_MORE else more


def _put_headers(more: More, embed: dict[str, Any], headers: Mapping[str, Any]) -> None:
    if not headers:
        return
    more.headers = {key: value for key, value in headers.items() if isinstance(value, _SCALARS)} or None
    nested = {key: value for key, value in headers.items() if not isinstance(value, _SCALARS)}
    if nested:
        embed["headers"] = nested


#: A call's option -> its key in the embed.
_EMBEDDED: Final = {
    "group_id": "group",
    "group_index": "group_index",
    "chain": "chain",
    "chord": "chord",
    "stamps": "stamps",
    "stamped_headers": "stamped_headers",
    "replaced_task_nesting": "replaced_task_nesting",
    "argsrepr": "argsrepr",
    "kwargsrepr": "kwargsrepr",
}


def _embed(options: Mapping[str, Any], parent: Context | None) -> dict[str, Any]:
    embed: dict[str, Any] = {
        key: value for option, key in _EMBEDDED.items() if (value := options.get(option)) is not None
    }
    for option, key in (("link", "callbacks"), ("link_error", "errbacks")):
        signatures = _signatures(options.get(option), option)
        if signatures:
            embed[key] = signatures
    if parent is not None and parent.stamped_headers and "stamped_headers" not in embed:
        embed["stamped_headers"] = list(parent.stamped_headers)
        embed["stamps"] = {**(parent.stamps or {}), **(embed.get("stamps") or {})}
    return embed


def _signatures(links: Any, option: str) -> list[dict[str, Any]]:
    if not links:
        return []
    items: Iterable[Any] = cast("Iterable[Any]", links) if isinstance(links, list | tuple | set) else [links]
    found: list[dict[str, Any]] = []
    for link in items:
        if not isinstance(link, Mapping) or "task" not in link:
            raise TypeError(f"{option} takes signatures, such as task.s(...), not {link!r}")
        found.append(dict(cast("Mapping[str, Any]", link)))
    return found


def _headers_of(envelope: Envelope) -> dict[str, Any]:
    more = envelope.more or _NO_MORE
    return {
        "lang": "py",
        "task": envelope.name,
        "id": envelope.id,
        "shadow": more.shadow or None,
        "eta": None,
        "expires": None,
        "retries": more.retries,
        "timelimit": [more.time_limit / SECOND or None, more.soft_time_limit / SECOND or None],
        "root_id": more.root_id or envelope.id,
        "parent_id": more.parent_id or None,
        "origin": envelope.origin,
        "ignore_result": bool(envelope.flags & Flag.IGNORE_RESULT),
        **(more.headers or {}),
    }


def _tell_before(
    app: App,
    mailbox: str,
    envelope: Envelope,
    args: Any,
    kwargs: Mapping[str, Any],
) -> None:
    """Call the receivers of before_task_publish; what they add to the headers goes out as custom headers."""
    headers = _headers_of(envelope)
    given = dict(headers)
    before_task_publish.send(
        sender=envelope.name,
        body=(args, kwargs, {}),
        exchange="",
        routing_key=mailbox,
        declare=[],
        headers=headers,
        properties={"correlation_id": envelope.id, "priority": envelope.priority or None},
        retry_policy=app.conf.task_publish_retry_policy,
    )
    added = {key: value for key, value in headers.items() if key not in given or value is not given[key]}
    if not added:
        return
    more = msgspec.structs.replace(envelope.more or _NO_MORE)
    embed = unpack_embed(more.opaque)
    _put_headers(more, embed, {**(more.headers or {}), **(embed.pop("headers", None) or {}), **added})
    more.opaque = pack_embed(embed)
    envelope.more = more
