"""A task: a function or a class that can be called here, or sent to be called by a worker.

Owns `Task`, the base class of all tasks, with Celery's options, hooks and methods. `task(...)` only runs, here;
`task.delay(...)` and `task.apply_async(...)` only send. The message carries the task's name, never its code. Each
process has one instance a task, so what a body keeps on `self` stays there between calls.

Typed by the function behind it: `delay` takes its parameters, and the result gives its value, also of a coroutine.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, ParamSpec, TypeVar, cast, overload

from ...transport.message import Envelope, Flag
from ...transport.verbs import TaskPolicy
from .. import signals
from ..bodies import pack_call
from ..current import Frame, app_by_key, current_frame, get_current_app, set_top_frame, worker_frame
from ..errors import Retry
from ..identity import new_id, origin
from ..results.result import AsyncResult as Result
from ..results.result import ResultBase
from .attributes import TaskAttributes
from .call import Plan, Prepared, build, make_plan, note_sent
from .eager import apply_here, through_the_wire
from .many import send_many
from .options import PLANNED, check_call_options, deadline_of, policy_of
from .request import Context
from .retry import add_autoretry, retry
from .signature import Signature

if TYPE_CHECKING:
    from ..app import App
    from ..results.eager import EagerResult

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

_IGNORE_RESULT: Final = int(Flag.IGNORE_RESULT)


class Task(TaskAttributes, Generic[P, R_co]):
    """The base class of tasks. A class of tasks defines `run`; a function becomes its `run`."""

    _app: App | None = None
    _plan: Plan | None = None
    #: What was announced last, and of which version of the settings it is.
    _policy: tuple[int, TaskPolicy] | None = None
    _bound: bool = False
    #: What `app.task` was given: the function, and the options; None for a class of tasks.
    wrapped: Callable[..., Any] | None = None
    #: The app's own class, where no other was named as the base.
    implicit_base: type[Task[..., Any]] | None = None
    given: ClassVar[dict[str, Any]] = {}

    def __setattr__(self, attribute: str, value: Any) -> None:
        object.__setattr__(self, attribute, value)
        if attribute in PLANNED:
            object.__setattr__(self, "_plan", None)
            object.__setattr__(self, "_policy", None)

    # --- what it belongs to

    @property
    def app(self) -> App:
        """The app that the task is registered with; the current one for a task that is with none."""
        return self._app or get_current_app()

    @app.setter
    def app(self, app: App) -> None:
        self._app = app

    def bind_to(self, app: App) -> None:
        """Join an app: take the settings' annotations, the app's strictness, and automatic retries."""
        self._app = app
        if self._bound:
            return
        self._bound = True
        if "typing" not in self.__dict__ and all("typing" not in cls.__dict__ for cls in _own_classes(self)):
            self.typing = app.strict_typing
        for attribute, value in app.annotations_of(self):
            # On the class, so that a function becomes a method.
            setattr(type(self), attribute.removeprefix("@"), value)
        self._plan = None
        self._policy = None
        add_autoretry(self)
        self.on_bound(app)

    @property
    def request(self) -> Context:
        """The present call; an empty one outside of any."""
        frame = current_frame()
        while frame is not None:
            if frame.task is self:
                return frame.request
            frame = frame.below
        return Context()

    def push_request(self, *args: Any, **kwargs: Any) -> None:
        """Enter a call with a request of these attributes, for tests of a body; `pop_request` leaves it."""
        set_top_frame(Frame(self, Context(*args, **kwargs), current_frame()))

    def pop_request(self) -> None:
        """Leave the call that `push_request` entered."""
        frame = current_frame()
        if frame is not None:
            set_top_frame(frame.below)

    @property
    def function_name(self) -> str:
        """What errors about a call's arguments call the body."""
        named = self.wrapped if self.wrapped is not None else self.run
        return str(getattr(named, "__name__", "run"))

    def overrides(self, method: str) -> bool:
        """Tell whether the task's class has a method of its own in place of `Task`'s."""
        return getattr(type(self), method) is not getattr(Task, method)

    # --- running

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The body."""
        raise TypeError(f"task {self.name or type(self).__name__} has no body; define its method run()")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the body here and now. A coroutine function's gives a coroutine."""
        frame = current_frame()
        if frame is not None and frame.task is self and not frame.request.called_directly and not frame.entered:
            # A worker's call came by way of an overridden __call__: it is this very request.
            frame.entered = True
            return cast("R_co", self.run(*args, **kwargs))
        app = self._app or get_current_app()
        if not app.finalized:
            app.finalize(auto=True)
        made = Frame(self, Context(args=args, kwargs=kwargs), frame)
        set_top_frame(made)
        try:
            value: Any = self.run(*args, **kwargs)
        finally:
            set_top_frame(frame)
        if type(value) is CoroutineType:
            return cast("R_co", _within(made, cast("Coroutine[Any, Any, object]", value)))
        return cast("R_co", value)

    @property
    def body(self) -> Callable[..., Any]:
        """What a worker calls: `run`, or the whole task where `__call__` is overridden."""
        return cast("Callable[..., Any]", self) if self.overrides("__call__") else self.run

    # --- sending

    @overload
    def delay(self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Result[T]: ...
    @overload
    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Result[R_co]: ...
    def delay(self, *args: Any, **kwargs: Any) -> Result[Any]:
        """Send a call with these arguments; return its result once a broker has accepted it.

        Raises TypeError when the arguments do not fit, EncodeError when they cannot be sent, and an
        OperationalError or MailboxFull when no broker took it.
        """
        return self.apply_async(args, kwargs)

    @overload
    def apply_async(
        self: Task[P, Coroutine[Any, Any, T]],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: object = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> Result[T]: ...
    @overload
    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: object = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> Result[R_co]: ...
    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: object = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> Result[Any]:
        """Send a call with options; return its result once a broker has accepted it.

        Options: countdown, eta, expires, priority, queue, exchange, routing_key, serializer, compression, headers,
        time_limit, soft_time_limit, ignore_result, max_deliveries, root_id, parent_id, group_id and others of
        Celery's. `link` and `link_error` are signatures to call after a success or a failure. Raises as `delay`,
        and ValueError or TypeError for options that cannot be.
        """
        args = () if args is None else args
        kwargs = {} if kwargs is None else kwargs
        plan = self._plan
        app = self._app
        if plan is None or app is None or plan.version != plan.layers.version:
            plan = self._new_plan()
            app = self.app
        if plan.check is not None:
            plan.check(*args, **kwargs)
        if (
            plan.simple
            and not options
            and task_id is None
            and link is None
            and link_error is None
            and shadow is None
            and current_frame() is None
            and not signals.before_task_publish.receivers
        ):
            id = new_id()
            content, body = pack_call(args, kwargs, plan.content, id)
            prepared = Prepared(
                plan.mailbox, Envelope(id, plan.name, content, body, plan.flags, plan.priority, 0, origin(), plan.more)
            )
        else:
            shadow = shadow or self.shadow_name(tuple(args), dict(kwargs), options)
            if app.conf.task_always_eager:
                check_call_options(options, self.name)
                serializer = options.get("serializer") or self.serializer
                args, kwargs = through_the_wire(self, args, kwargs, serializer)
                return self.apply(args, kwargs, task_id=task_id, link=link, link_error=link_error, **options)
            prepared = build(
                app,
                self.name,
                args,
                kwargs,
                options,
                task=self,
                task_id=task_id,
                link=link,
                link_error=link_error,
                shadow=shadow,
            )
        sent = app.sender.send(
            prepared,
            deadline_seconds=deadline_of(options) if options else None,
            background=plan.background,
        )
        envelope = prepared.envelope
        result: Result[Any] = Result(
            envelope.id, None, self.name, app, ignored=bool(envelope.flags & _IGNORE_RESULT), sent=sent
        )
        if current_frame() is not None or signals.after_task_publish.receivers or signals.task_sent.receivers:
            note_sent(prepared, args, kwargs, result, add_to_parent=options.get("add_to_parent", True))
        return result

    def _new_plan(self) -> Plan:
        app = self.app
        app.finalize(auto=True)
        if self._app is None:
            self.bind_to(app)
        plan = make_plan(self)
        self._plan = plan
        return plan

    def plan(self) -> Plan:
        """Return what all calls of the task have in common now."""
        plan = self._plan
        if plan is None or plan.version != plan.layers.version:
            plan = self._new_plan()
        return plan

    @overload
    def send_many(self: Task[P, Coroutine[Any, Any, T]], calls: Iterable[Any], **options: Any) -> list[Result[T]]: ...
    @overload
    def send_many(self, calls: Iterable[Any], **options: Any) -> list[Result[R_co]]: ...
    def send_many(self, calls: Iterable[Any], **options: Any) -> list[Result[Any]]:
        """Send thousands of calls at once; return their results, in order, once all are accepted.

        A call is a tuple or list of positional arguments, or a dict of keyword arguments. The options are those
        of `apply_async` and hold for all. Raises as `apply_async`; when it raises before anything was sent
        (TypeError, EncodeError, ValueError), nothing was sent.
        """
        return send_many(self, calls, options)

    @overload
    def apply(
        self: Task[P, Coroutine[Any, Any, T]],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int = 0,
        throw: bool | None = None,
        logfile: str | None = None,
        loglevel: int | None = None,
        headers: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult[T]: ...
    @overload
    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int = 0,
        throw: bool | None = None,
        logfile: str | None = None,
        loglevel: int | None = None,
        headers: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult[R_co]: ...
    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int = 0,
        throw: bool | None = None,
        logfile: str | None = None,
        loglevel: int | None = None,
        headers: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult[Any]:
        """Run the task here and now the way a worker would, with hooks and retries; return its result.

        With `throw` (by default, task_eager_propagates) what the body raises is raised.
        """
        if headers is not None:
            options["headers"] = headers
        return apply_here(
            self,
            args,
            kwargs,
            link=link,
            link_error=link_error,
            task_id=task_id,
            retries=retries,
            throw=throw,
            options=options,
        )

    # --- calls that are written down

    @overload
    def s(self: Task[P, Coroutine[Any, Any, T]], *args: Any, **kwargs: Any) -> Signature[T]: ...
    @overload
    def s(self, *args: Any, **kwargs: Any) -> Signature[R_co]: ...
    def s(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """Return a signature with these arguments, perhaps not all of them yet."""
        return self.signature(args, kwargs)

    @overload
    def si(self: Task[P, Coroutine[Any, Any, T]], *args: Any, **kwargs: Any) -> Signature[T]: ...
    @overload
    def si(self, *args: Any, **kwargs: Any) -> Signature[R_co]: ...
    def si(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """Return an immutable signature with these arguments."""
        return self.signature(args, kwargs, immutable=True)

    def signature(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        **extra: Any,
    ) -> Signature[R_co]:
        """Return a signature with these arguments and options."""
        made: Signature[R_co] = Signature(self.name, args, kwargs, options, immutable=immutable, app=self.app, **extra)
        return made

    subtask = signature

    def signature_from_request(
        self,
        request: Context | None = None,
        args: Any = None,
        kwargs: Any = None,
        queue: str | None = None,
        **extra_options: Any,
    ) -> Signature[R_co]:
        """Return a signature that sends the present call again, under the same id."""
        request = self.request if request is None else request
        options = {key: value for key, value in request.as_execution_options().items() if value is not None}
        info = request.delivery_info or {}
        options["queue"] = queue or info.get("routing_key")
        options["priority"] = info.get("priority")
        options = {key: value for key, value in {**options, **extra_options}.items() if value is not None}
        return self.signature(
            request.args if args is None else args, request.kwargs if kwargs is None else kwargs, options
        )

    # --- inside the body

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Run this call again later, by raising `Retry`: the same message, id and links, one more on its count.

        The delay is `countdown` seconds, or until `eta`; by default `default_retry_delay`. `args` and `kwargs`
        replace the call's own. With `throw=False` the exception is returned: the retry takes place when the body
        returns. Beyond `max_retries` it raises `exc`, or MaxRetriesExceededError. Outside a worker it raises
        the exception that is being handled, or `exc`.
        """
        return retry(self, args, kwargs, exc, throw, eta, countdown, max_retries, **options)

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None, **kwargs: Any
    ) -> None:
        """Say how far the body is: `result.state` and `result.info` show it. Outside a worker it does nothing."""
        frame = worker_frame()
        report = None if frame is None else frame.request.report_state
        if report is not None and (task_id is None or (frame is not None and task_id == frame.request.id)):
            report(state, meta)

    def add_trail(self, result: ResultBase) -> ResultBase:
        """Count a result among the children of the present call; return it."""
        if self.trail:
            self.request.children.append(result)
        return result

    def AsyncResult(self, task_id: str, **kwargs: Any) -> Result[R_co]:
        """Return the result of a call of this task by its id."""
        made: Result[R_co] = Result(task_id, task_name=self.name, app=self.app, **kwargs)
        return made

    # --- as a value

    def policy(self) -> TaskPolicy:
        """Return what a worker announces of this task to its broker."""
        version = self.app.conf.version
        if self._policy is None or self._policy[0] != version:
            self._policy = (version, policy_of(self))
        return self._policy[1]

    def __repr__(self) -> str:
        app = self._app
        if app is None:
            return f"<unbound {type(self).__name__} {self.name}>"
        return f"<@task: {self.name} of {app.main or '__main__'} at {id(app):#x}>"

    def __reduce__(self) -> Any:
        return find_task, (self.app.key, self.name, type(self).__module__)


def find_task(key: str, name: str, module: str | None = None) -> Task[..., Any]:
    """Return the task of a pickle: by its name, of the same app if that lives here, else of the current one."""
    app = app_by_key(key) or get_current_app()
    return app.task_by_name(name, module)


async def _within(frame: Frame, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine with its request on top, wherever it is awaited."""
    before = current_frame()
    set_top_frame(Frame(frame.task, frame.request, before))
    try:
        return await coroutine
    finally:
        set_top_frame(before)


def _own_classes(task: Task[..., Any]) -> list[type]:
    mro = type(task).__mro__
    return list(mro[: mro.index(Task)])
