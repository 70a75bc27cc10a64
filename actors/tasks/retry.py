"""Retrying: the same message again, later, with one more on its count.

Owns what `Task.retry` decides, the wrapper behind `autoretry_for`, and the backoff. A retry is a transition of the
message, not a new one: `Retry.next_form` carries the envelope and the delay with which a worker settles it, in the
one commit that also ends the present delivery. Outside a worker there is nothing to send: the original exception is
raised again.
"""

from __future__ import annotations

import functools
import inspect
import random
import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from ...transport import message
from ...transport.clock import system_now
from ...transport.message import Envelope, More
from ..bodies import pack_call, pack_embed, unpack_embed
from ..errors import Ignore, MaxRetriesExceededError, Reject, Retry
from .call import build, microseconds, wall_microseconds

if TYPE_CHECKING:
    from .request import Context
    from .signature import Signature
    from .task import Task

#: An exponent from which on the backoff is at its maximum whatever the factor.
_EXPONENT_MAX: Final = 64


def retry(
    task: Task[..., Any],
    args: Any = None,
    kwargs: Any = None,
    exc: BaseException | None = None,
    throw: bool = True,
    eta: datetime | None = None,
    countdown: float | None = None,
    max_retries: int | None = None,
    **options: Any,
) -> Retry:
    """Do what `Task.retry` says."""
    request = task.request
    if request.called_directly:
        _raise_original(exc or Retry("Task can be retried", None))
    retries = request.retries + 1
    override: int | None = getattr(task, "override_max_retries", None)
    if override is not None:
        max_retries = override
    elif max_retries is None:
        max_retries = task.max_retries
    if eta is None and countdown is None:
        countdown = task.default_retry_delay
    same_call = args is None and kwargs is None
    args = request.args if args is None else args
    kwargs = request.kwargs if kwargs is None else kwargs
    if max_retries is not None and retries > max_retries:
        if exc is not None:
            _raise_original(exc)
        raise MaxRetriesExceededError(
            f"Can't retry {task.name}[{request.id}] args:{args} kwargs:{kwargs}: it was tried {retries} times "
            f"and max_retries is {max_retries}",
            task_args=args,
            task_kwargs=kwargs,
        )
    signature = task.signature_from_request(
        request, args, kwargs, countdown=countdown, eta=eta, retries=retries, **options
    )
    retried = Retry(exc=exc, when=eta if eta is not None else countdown, is_eager=request.is_eager, sig=signature)
    if not request.is_eager:
        delay = _delay_until(eta, task) if eta is not None else microseconds(countdown or 0)
        envelope = _next_envelope(task, request, signature, options, same_call=same_call)
        retried.next_form = message.Retry(envelope, max(0, delay))
        request.retried = retried
    if throw:
        raise retried
    return retried


def _delay_until(eta: datetime, task: Task[..., Any]) -> int:
    return wall_microseconds(eta, task.app) - system_now().wall


def _next_envelope(
    task: Task[..., Any],
    request: Context,
    signature: Signature[Any],
    options: dict[str, Any],
    *,
    same_call: bool,
) -> Envelope:
    """Return the message's next envelope: as the sender made it, to the byte, but for what was changed."""
    if request.delivery is None:
        call = {**signature.options, "countdown": None, "eta": None}
        call.pop("task_id", None)
        return build(
            task.app, task.name, signature.args, signature.kwargs, call, task=task, task_id=request.id
        ).envelope
    sent = request.delivery.envelope
    more = msgspec.structs.replace(sent.more or More(), retries=request.retries + 1, due=0, delay=0)
    envelope = msgspec.structs.replace(sent, more=more, part=0)
    serializer, _, compression = sent.content.partition("+")
    if options:
        changed = build(
            task.app,
            task.name,
            signature.args,
            signature.kwargs,
            {"serializer": serializer, "compression": compression or None, **options},
            task=task,
            task_id=sent.id,
        ).envelope
        envelope.content, envelope.body = changed.content, changed.body
        if "priority" in options:
            envelope.priority = changed.priority
        if "ignore_result" in options:
            envelope.flags = changed.flags
        _take(more, changed.more or More(), options)
    elif not same_call:
        content = task.app.content(serializer, compression)
        envelope.content, envelope.body = pack_call(signature.args, signature.kwargs, content, sent.id)
    return envelope


#: An option of a call -> the fields of `More` that it decides.
_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "expires": ("expires", "expires_in"),
    "time_limit": ("time_limit",),
    "soft_time_limit": ("soft_time_limit",),
    "max_deliveries": ("max_deliveries",),
    "headers": ("headers",),
    "reply_to": ("reply_to",),
    "root_id": ("root_id",),
    "parent_id": ("parent_id",),
}
_NESTED: Final = frozenset({"link", "link_error", "chain", "chord", "group_id", "group_index", "stamps", "headers"})


def _take(more: More, changed: More, options: dict[str, Any]) -> None:
    """Take over what the options of a retry decide; what they do not name stays as it was."""
    for option in options:
        for field in _FIELDS.get(option, ()):
            setattr(more, field, getattr(changed, field))
    if more.expires_in:
        # A broker resolves durations when it accepts a message, which is past.
        more.expires, more.expires_in = system_now().wall + more.expires_in, 0
    if _NESTED & options.keys():
        more.opaque = pack_embed({**unpack_embed(more.opaque), **unpack_embed(changed.opaque)})


def _raise_original(exc: BaseException) -> NoReturn:
    """Raise `exc`, with the exception that is being handled as its cause if that is another one."""
    handled = sys.exc_info()[1]
    if handled is None:
        raise exc
    if handled is exc:
        raise exc.with_traceback(exc.__traceback__)
    raise exc from handled


# --- automatic retries --------------------------------------------------------------------------------------


def backoff_seconds(factor: float, retries: int, maximum: float, *, full_jitter: bool) -> int:
    """Return how long to wait before the next try: factor * 2 ** retries, at most `maximum`.

    With `full_jitter`, a random whole number from 0 to that.
    """
    if maximum <= 0:
        return 0
    seconds = int(min(maximum, max(1, int(factor)) * 2 ** min(retries, _EXPONENT_MAX)))
    return random.randrange(seconds + 1) if full_jitter else max(0, seconds)


def add_autoretry(task: Task[..., Any]) -> None:
    """Let a task's body be retried by itself after the exceptions that `autoretry_for` names."""
    wanted = tuple(task.autoretry_for or ())
    if not wanted or hasattr(task.run, "_retries_by_itself"):
        return
    body: Callable[..., Any] = task.run
    if inspect.iscoroutinefunction(body):

        @functools.wraps(body)
        async def run_later(*args: Any, **kwargs: Any) -> Any:
            try:
                return await body(*args, **kwargs)
            except Exception as error:
                # The task's own failure: it becomes a retry, or goes on as it came.
                _retry_after(task, error, wanted)

        wrapper: Any = run_later
    else:

        @functools.wraps(body)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return body(*args, **kwargs)
            except Exception as error:
                # The same as above.
                _retry_after(task, error, wanted)

        wrapper = run
    wrapper._retries_by_itself = True
    # On the instance, over the method of the class.
    setattr(task, "run", wrapper)  # noqa: B010


def _retry_after(task: Task[..., Any], error: Exception, wanted: tuple[type[BaseException], ...]) -> NoReturn:
    unwanted = (Ignore, Retry, Reject, *(task.dont_autoretry_for or ()))
    if isinstance(error, unwanted) or not isinstance(error, wanted):
        raise error
    options = dict(task.retry_kwargs or {})
    if task.retry_backoff:
        options["countdown"] = backoff_seconds(
            float(task.retry_backoff),
            task.request.retries,
            task.retry_backoff_max,
            full_jitter=bool(task.retry_jitter),
        )
    raise task.retry(exc=error, **options)
