"""Running a task in the caller, the way a worker would: `task.apply`, and every call under `task_always_eager`.

Owns that run: the request, the hooks and signals in their order, retries (at once, no delay is waited for) and links.
Nothing goes to a broker and nothing is stored; time limits, acks and redelivery have no meaning here.
"""

from __future__ import annotations

import contextvars
import inspect
import threading
from collections.abc import Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from ...transport.message import Envelope
from .. import signals
from ..bodies import pack_call, unpack_call
from ..current import pop_frame, push_frame, worker_frame
from ..errors import Ignore, Reject, Retry
from ..identity import new_id, origin
from ..results import states
from ..results.eager import EagerResult
from ..results.failure import ExceptionInfo
from ..results.result import encode_children
from .options import check_call_options
from .request import Context
from .signature import maybe_signature

if TYPE_CHECKING:
    from .task import Task


def apply_here(
    task: Task[..., Any],
    args: Iterable[Any] | None,
    kwargs: Mapping[str, Any] | None,
    *,
    link: Any = None,
    link_error: Any = None,
    task_id: str | None = None,
    retries: int = 0,
    throw: bool | None = None,
    options: Mapping[str, Any],
) -> EagerResult[Any]:
    """Run a task now; return its result. With `throw` (default: task_eager_propagates) raise what it raises."""
    check_call_options(options, task.name)
    app = task.app
    app.finalize(auto=True)
    throw = bool(app.conf.task_eager_propagates) if throw is None else throw
    request = _request_of(task, args, kwargs, task_id, retries, link, link_error, options)
    while True:
        ended = _run(task, request)
        if ended.state == states.RETRY and isinstance(ended.value, Retry) and ended.value.sig is not None:
            signature = ended.value.sig
            request = _request_of(
                task,
                signature.args,
                signature.kwargs,
                request.id,
                request.retries + 1,
                request.callbacks,
                request.errbacks,
                options,
            )
            continue
        break
    if throw and ended.state in states.PROPAGATE_STATES:
        raise ended.value
    return EagerResult(
        cast("str", request.id),
        ended.value,
        ended.state,
        ended.traceback,
        task.name,
        app,
        request.retries,
        encode_children(request.sent_children),
    )


def through_the_wire(task: Task[..., Any], args: Any, kwargs: Mapping[str, Any], serializer: str) -> tuple[Any, Any]:
    """Return arguments as they would arrive. Raises what encoding and decoding raise."""
    app = task.app
    id = new_id()
    content, body = pack_call(args, kwargs, app.content(serializer, None), id)
    accept = {*app.conf.accept_content, serializer}
    return unpack_call(Envelope(id, task.name, content, body), accept=accept, key=app.signing_key)


class _Ended:
    """How a run ended: the state, the value or exception, and the traceback's text."""

    __slots__ = ("state", "traceback", "value")

    def __init__(self, state: str, value: Any, traceback: str | None = None) -> None:
        self.state = state
        self.value = value
        self.traceback = traceback


def _request_of(
    task: Task[..., Any],
    args: Iterable[Any] | None,
    kwargs: Mapping[str, Any] | None,
    task_id: str | None,
    retries: int,
    link: Any,
    link_error: Any,
    options: Mapping[str, Any],
) -> Context:
    frame = worker_frame()
    parent = None if frame is None else frame.request
    id = task_id or new_id()
    return Context(
        id=id,
        task=task.name,
        args=[*(args or ())],
        kwargs=dict(kwargs or {}),
        retries=retries,
        is_eager=True,
        called_directly=False,
        hostname=origin().partition("@")[2],
        origin=origin(),
        correlation_id=id,
        root_id=options.get("root_id") or (id if parent is None else parent.root_id or parent.id),
        parent_id=options.get("parent_id") or (None if parent is None else parent.id),
        callbacks=_as_list(link),
        errbacks=_as_list(link_error),
        headers=options.get("headers"),
        ignore_result=bool(options.get("ignore_result", task.ignore_result)),
        delivery_info={
            "is_eager": True,
            "exchange": options.get("exchange"),
            "routing_key": options.get("routing_key") or options.get("queue"),
            "priority": options.get("priority"),
        },
        group=options.get("group_id"),
        group_index=options.get("group_index"),
        chord=options.get("chord"),
        chain=options.get("chain"),
        stamps=options.get("stamps"),
        stamped_headers=options.get("stamped_headers"),
        replaced_task_nesting=options.get("replaced_task_nesting") or 0,
    )


def _as_list(links: Any) -> list[Any] | None:
    if not links:
        return None
    return list(cast("list[object]", links)) if isinstance(links, list | tuple | set) else [links]


def _run(task: Task[..., Any], request: Context) -> _Ended:
    """Run the body once, with the hooks and signals around it."""
    token = push_frame(task, request)
    id, args, kwargs = cast("str", request.id), request.args, request.kwargs
    try:
        signals.task_prerun.send(sender=task, task_id=id, task=task, args=args, kwargs=kwargs)
        info: ExceptionInfo | None = None
        try:
            task.before_start(id, args, kwargs)
            ended = _Ended(states.SUCCESS, finished(task.body(*args, **kwargs)))
        except Retry as error:
            info = ExceptionInfo(error)
            ended = _Ended(states.RETRY, error, info.traceback)
            task.on_retry(error.exc, id, args, kwargs, info)
            signals.task_retry.send(sender=task, request=request, reason=error, einfo=info)
        except Ignore:
            return _Ended(states.IGNORED, None)
        except Reject as error:
            return _Ended(states.REJECTED, error)
        except Exception as error:
            # The task's own failure: it becomes its result, as on a worker.
            info = ExceptionInfo(error)
            ended = _Ended(states.FAILURE, error, info.traceback)
            _failed(task, request, error, info)
        else:
            _succeeded(task, request, ended.value)
        task.after_return(ended.state, ended.value, id, args, kwargs, info)
        signals.task_postrun.send(
            sender=task, task_id=id, task=task, args=args, kwargs=kwargs, retval=ended.value, state=ended.state
        )
        return ended
    finally:
        pop_frame(token)


def finished(value: Any) -> Any:
    """Return a body's value; a coroutine is run to its end, in a thread of its own where a loop runs here."""
    if not inspect.iscoroutine(value):
        return value
    # Imported by those who use it: it takes longer to import than all of this package.
    import asyncio

    coroutine: Coroutine[Any, Any, Any] = value
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((True, asyncio.run(coroutine)))
        except BaseException as error:
            # Raised again below, in the thread that waits.
            outcome.append((False, error))

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="greenroom-eager")
    thread.start()
    thread.join()
    succeeded, result = outcome[0]
    if succeeded:
        return result
    raise result


def _succeeded(task: Task[..., Any], request: Context, value: Any) -> None:
    for callback in request.callbacks or ():
        signature = maybe_signature(callback, task.app)
        if signature is not None:
            signature.apply_async((value,), parent_id=request.id, root_id=request.root_id)
    task.on_success(value, cast("str", request.id), request.args, request.kwargs)
    signals.task_success.send(sender=task, result=value)


def _failed(task: Task[..., Any], request: Context, error: Exception, info: ExceptionInfo) -> None:
    for errback in request.errbacks or ():
        signature = maybe_signature(errback, task.app)
        if signature is None:
            continue
        registered = signature.type
        if registered is not None and takes_failure(registered):
            signature(request, error, info.traceback)
        else:
            signature.apply_async((request.id,), parent_id=request.id, root_id=request.root_id)
    task.on_failure(error, cast("str", request.id), request.args, request.kwargs, info)
    signals.task_failure.send(
        sender=task,
        task_id=request.id,
        exception=error,
        args=request.args,
        kwargs=request.kwargs,
        traceback=error.__traceback__,
        einfo=info,
    )


def takes_failure(task: Task[..., Any]) -> bool:
    """Tell whether an errback takes (request, exc, traceback), which is called in place, or the failed task's id."""
    try:
        parameters = inspect.signature(task.run).parameters.values()
    except (TypeError, ValueError):
        return False
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return True
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in positional for parameter in parameters) > 1
