"""Sending thousands of calls in one go.

Owns `send_many` of a task and of an app. All messages are made first, so that what is wrong with a call is raised
before anything is sent; then each mailbox gets its messages in order, and all confirms are waited for together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from ...transport.message import Envelope, Flag
from .. import signals
from ..bodies import pack_call
from ..current import current_frame
from ..identity import new_id, origin
from ..results.result import AsyncResult
from .call import Prepared, build, note_sent
from .options import deadline_of
from .signature import Signature, maybe_signature

if TYPE_CHECKING:
    from ..app import App
    from .task import Task

_NO_KWARGS: dict[str, Any] = {}


def send_many(task: Task[..., Any], calls: Iterable[Any], options: Mapping[str, Any]) -> list[AsyncResult[Any]]:
    """Do what `Task.send_many` says."""
    app = task.app
    plan = task.plan()
    if app.conf.task_always_eager:
        return [task.apply_async(*_arguments(task, index, call), **options) for index, call in enumerate(calls)]
    check = plan.check
    name, flags, priority, more, content = plan.name, plan.flags, plan.priority, plan.more, plan.content
    if plan.simple and not options and current_frame() is None and not signals.before_task_publish.receivers:
        envelopes: list[Envelope] = []
        sender = origin()
        for index, call in enumerate(calls):
            args, kwargs = _arguments(task, index, call)
            if check is not None:
                check(*args, **kwargs)
            id = new_id()
            kind, body = pack_call(args, kwargs, content, id)
            envelopes.append(Envelope(id, name, kind, body, flags, priority, 0, sender, more))
        batches = {plan.mailbox: envelopes}
        prepared: list[Prepared] | None = None
    else:
        prepared = []
        for index, call in enumerate(calls):
            args, kwargs = _arguments(task, index, call)
            if check is not None:
                check(*args, **kwargs)
            shadow = task.shadow_name(args, kwargs, options)
            prepared.append(build(app, name, args, kwargs, options, task=task, shadow=shadow))
        batches = _by_mailbox(prepared)
    sent = app.sender.send_batches(
        batches,
        deadline_seconds=deadline_of(options),
        background=plan.background,
    )
    if prepared is None:
        ignored = bool(flags & Flag.IGNORE_RESULT)
        promise = sent.get(plan.mailbox)
        return [
            AsyncResult(envelope.id, None, name, app, ignored=ignored, sent=promise)
            for envelope in batches[plan.mailbox]
        ]
    return _results(app, prepared, sent, add_to_parent=options.get("add_to_parent", True))


def send_signatures(app: App, signatures: Iterable[Any], options: Mapping[str, Any]) -> list[AsyncResult[Any]]:
    """Send what these signatures say, in one go; return their results, in order."""
    prepared: list[Prepared] = []
    for index, item in enumerate(signatures):
        if not isinstance(item, Mapping):
            raise TypeError(f"send_many takes signatures, such as task.s(1); item {index} is {item!r}")
        signature = cast("Signature[Any]", maybe_signature(item, app))
        task = signature.type
        if task is not None:
            plan = task.plan()
            if plan.check is not None:
                plan.check(*signature.args, **signature.kwargs)
        prepared.append(signature.prepare(**options))
    sent = app.sender.send_batches(
        _by_mailbox(prepared),
        deadline_seconds=deadline_of(options),
        background=app.conf.task_publish_confirm == "background",
    )
    return _results(app, prepared, sent, add_to_parent=True)


def _results(
    app: App, prepared: list[Prepared], sent: Mapping[str, Any], *, add_to_parent: bool
) -> list[AsyncResult[Any]]:
    results: list[AsyncResult[Any]] = []
    told = current_frame() is not None or signals.after_task_publish.receivers or signals.task_sent.receivers
    for item in prepared:
        mailbox, envelope = item
        ignored = bool(envelope.flags & Flag.IGNORE_RESULT)
        result: AsyncResult[Any] = AsyncResult(
            envelope.id, None, envelope.name, app, ignored=ignored, sent=sent.get(mailbox)
        )
        if told:
            note_sent(item, (), {}, result, add_to_parent=add_to_parent)
        results.append(result)
    return results


def _by_mailbox(prepared: Iterable[Prepared]) -> dict[str, list[Envelope]]:
    batches: dict[str, list[Envelope]] = {}
    for mailbox, envelope in prepared:
        batches.setdefault(mailbox, []).append(envelope)
    return batches


def _arguments(task: Task[..., Any], index: int, call: Any) -> tuple[Any, dict[str, Any]]:
    if isinstance(call, tuple | list):
        return tuple(cast("list[Any]", call)), _NO_KWARGS
    if isinstance(call, Mapping):
        return (), dict(cast("Mapping[str, Any]", call))
    raise TypeError(
        f"task {task.name}: send_many takes tuples of positional arguments or dicts of keyword arguments; "
        f"item {index} is {call!r}; for one argument write ({call!r},)"
    )
