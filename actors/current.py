"""Which application and which task are at work here and now.

Owns two answers that differ between threads and coroutines. *The current app*: the one that was made last in this
thread with `set_as_current`; where there is none, the default app, which is the one that was made last in the
process, or else a new one without a name. *The current task*: the top of a stack of calls, one `Frame` each, that
follows a coroutine wherever it runs.

It also remembers what `shared_task` has for apps that are still to come.
"""

from __future__ import annotations

import contextvars
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

if TYPE_CHECKING:
    from ..transport.peer.contract import Promise
    from .app import App
    from .tasks.request import Context
    from .tasks.task import Task

T = TypeVar("T")

# --- apps -----------------------------------------------------------------------------------------------------


class _Local(threading.local):
    app: App | None = None


_local = _Local()
_lock = threading.RLock()
_default_app: App | None = None
#: The default was chosen by `set_default` and stays, whatever is made afterwards.
_default_is_chosen = False
_make_app: Callable[[], App] | None = None
#: Every app of the process, by its key, for as long as somebody holds it.
_apps: weakref.WeakValueDictionary[str, App] = weakref.WeakValueDictionary()
#: What `shared_task` does with every app, in the order of decorating.
_for_every_app: list[Callable[[App], object]] = []


def get_current_app() -> App:
    """Return the app that is at work here; make a default one where there is none yet."""
    return _local.app or get_default_app()


def get_default_app() -> App:
    """Return the app of threads that have none of their own."""
    global _default_app
    if _default_app is None:
        with _lock:
            if _default_app is None and _make_app is not None:
                _default_app = _make_app()
    return cast("App", _default_app)


def set_current_app(app: App | None) -> None:
    """Make `app` the current one of this thread; with None, go back to the default app."""
    global _default_app
    _local.app = app
    if app is not None and not _default_is_chosen:
        _default_app = app


def set_default_app(app: App | None) -> None:
    """Make `app` the default one of the whole process, for good; with None, forget the default."""
    global _default_app, _default_is_chosen
    _default_app = app
    _default_is_chosen = app is not None


def make_default_apps_with(make: Callable[[], App]) -> None:
    """Say how an app is made where one is needed and none was made."""
    global _make_app
    _make_app = make


def register_app(app: App) -> None:
    """Remember a new app, or one that took over another's key."""
    _apps[app.key] = app


def app_by_key(key: str) -> App | None:
    """Return the living app with this key."""
    return _apps.get(key)


def forget_app(app: App) -> None:
    """Take a closed app out of all that is remembered here."""
    global _default_app, _default_is_chosen
    if _local.app is app:
        _local.app = None
    if _default_app is app:
        _default_app = None
        _default_is_chosen = False
    if _apps.get(app.key) is app:
        del _apps[app.key]


def do_with_every_app(action: Callable[[App], object]) -> None:
    """Call `action` with every app that is finalized now, and with every other one once it will be."""
    with _lock:
        _for_every_app.append(action)
        finalized = [app for app in list(_apps.values()) if app.finalized]
    for app in finalized:
        action(app)


def actions_for_every_app() -> list[Callable[[App], object]]:
    """Return what is to be done with an app that is being finalized."""
    return list(_for_every_app)


# --- tasks ----------------------------------------------------------------------------------------------------


class Frame:
    """One call of a task that is going on here. `below` is the call that it was made in."""

    __slots__ = ("below", "entered", "request", "task")

    def __init__(self, task: Task[..., Any], request: Context, below: Frame | None) -> None:
        self.task = task
        self.request = request
        self.below = below
        #: The task's own `__call__` has run, so that another one is a call of its own.
        self.entered = False


FrameToken = contextvars.Token["Frame | None"]

_frame: Final[contextvars.ContextVar[Frame | None]] = contextvars.ContextVar("greenroom_frame", default=None)

#: Returns the top frame, or None outside of tasks.
current_frame: Final = _frame.get


def remember_unconfirmed(promise: Promise[object]) -> None:
    """Note what a task sends without waiting: its outcome waits for the broker's word.

    Else it would be lost with the task's process, and the task, being done, would not run again to send it anew.
    """
    frame = _frame.get()
    if frame is not None:
        frame.request.confirm_later(promise)


def push_frame(task: Task[..., Any], request: Context) -> FrameToken:
    """Enter a call of `task`; give the token to `pop_frame` when it is over."""
    return _frame.set(Frame(task, request, _frame.get()))


def pop_frame(token: FrameToken) -> None:
    """Leave the call that `push_frame` entered, in the same thread or coroutine."""
    _frame.reset(token)


def set_top_frame(frame: Frame | None) -> None:
    """Make `frame` the top of the stack: one that was pushed by hand, or one that was there before."""
    _frame.set(frame)


def get_current_task() -> Task[..., Any] | None:
    """Return the task that is being called here, or None."""
    frame = _frame.get()
    return None if frame is None else frame.task


def worker_frame() -> Frame | None:
    """Return the innermost call that a worker made (or eager mode in its place), not the task's own code."""
    frame = _frame.get()
    while frame is not None and frame.request.called_directly:
        frame = frame.below
    return frame


# --- waiting for results inside tasks ------------------------------------------------------------------------

#: None: as the place says, which is not inside a task.
_may_join: Final[contextvars.ContextVar[bool | None]] = contextvars.ContextVar("greenroom_may_join", default=None)


def joining_would_block() -> bool:
    """Tell whether waiting for a result here could hold up the worker that is to make it."""
    allowed = _may_join.get()
    if allowed is not None:
        return not allowed
    frame = worker_frame()
    return frame is not None and not frame.request.is_eager


@contextmanager
def allow_join_result() -> Generator[None]:
    """Within this, results may be waited for inside a task. The worker must have room for both."""
    token = _may_join.set(True)
    try:
        yield
    finally:
        _may_join.reset(token)


@contextmanager
def denied_join_result() -> Generator[None]:
    """Within this, results may not be waited for."""
    token = _may_join.set(False)
    try:
        yield
    finally:
        _may_join.reset(token)


# --- proxies --------------------------------------------------------------------------------------------------


class Proxy(Generic[T]):
    """Stands for whatever `resolve` returns at the moment of use."""

    __slots__ = ("__weakref__", "_resolve")

    def __init__(self, resolve: Callable[[], T]) -> None:
        object.__setattr__(self, "_resolve", resolve)

    def _get_current_object(self) -> T:
        """Return what the proxy stands for now."""
        resolve: Callable[[], T] = object.__getattribute__(self, "_resolve")
        return resolve()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get_current_object(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._get_current_object(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._get_current_object(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        target: Any = self._get_current_object()
        return target(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self._get_current_object())

    def __str__(self) -> str:
        return str(self._get_current_object())

    def __bool__(self) -> bool:
        return bool(self._get_current_object())

    def __dir__(self) -> list[str]:
        return dir(self._get_current_object())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Proxy):
            other = cast("Proxy[object]", other)._get_current_object()
        return bool(self._get_current_object() == other)

    def __hash__(self) -> int:
        return hash(self._get_current_object())

    def __reduce__(self) -> Any:
        target: Any = self._get_current_object()
        return target.__reduce__()

    @property
    def __class__(self) -> type[Any]:
        return type(self._get_current_object())

    @__class__.setter
    def __class__(self, cls: type[Any]) -> None:
        raise TypeError("the class of a proxy is that of what it stands for")


current_app: Final[App] = cast("App", Proxy(get_current_app))
current_task: Final[Task[..., Any]] = cast("Task[..., Any]", Proxy(get_current_task))
