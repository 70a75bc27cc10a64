"""The tasks of an application: how functions and classes become tasks, and when they join.

Owns `Registering`, the part of `App` that knows its tasks. A function becomes a task when it is decorated; it *joins*
(takes its settings, the annotations, automatic retries) when the app is finalized, at the first use of any task. So
decorating reads no settings.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, cast, overload

from . import signals
from .configured import Configured
from .current import actions_for_every_app
from .errors import DuplicateTaskNameWarning
from .settings.loader import import_by_name
from .tasks.annotations import annotations_of
from .tasks.make import make_task
from .tasks.naming import generate_name
from .tasks.registry import TaskRegistry
from .tasks.task import Task as BaseTask

if TYPE_CHECKING:
    from .app import App

P = ParamSpec("P")
R = TypeVar("R")


class Registering(Configured):
    """Something with tasks."""

    #: The class of all its tasks, or the path of one, unless a task names another.
    task_cls: type[BaseTask[..., Any]] | str = BaseTask

    def __init__(
        self,
        main: str | None,
        changes: Mapping[str, Any],
        source: Any,
        tasks: Mapping[str, BaseTask[..., Any]] | None,
        task_cls: type[BaseTask[..., Any]] | str | None,
        *,
        namespace: str | None,
        silent: bool,
        autofinalize: bool,
        strict_typing: bool,
    ) -> None:
        super().__init__(changes, source, namespace=namespace, silent=silent)
        #: Its name, the first part of its tasks' names where they are defined in the program itself.
        self.main = main
        self.autofinalize = autofinalize
        self.strict_typing = strict_typing
        self.finalized = False
        if task_cls is not None:
            self.task_cls = task_cls
        self.on_after_finalize = signals.Signal("app.on_after_finalize")
        self._lock = threading.RLock()
        self._finalizing = False
        self._tasks = TaskRegistry(tasks or {})
        self._pending: deque[BaseTask[..., Any]] = deque()
        self._own_task_cls: type[BaseTask[..., Any]] | None = None
        #: What was assigned to `Task`.
        self.replaced_task: type[BaseTask[..., Any]] | None = None

    @property
    def _app(self) -> App:
        return cast("App", self)

    @overload
    def task(
        self,
        fun: Callable[Concatenate[Any, P], R],
        /,
        *,
        bind: Literal[True],
        name: str | None = None,
        base: Any = None,
        lazy: bool = True,
        **options: Any,
    ) -> BaseTask[P, R]: ...
    @overload
    def task(
        self,
        fun: Callable[P, R],
        /,
        *,
        bind: Literal[False] = False,
        name: str | None = None,
        base: Any = None,
        lazy: bool = True,
        **options: Any,
    ) -> BaseTask[P, R]: ...
    @overload
    def task(
        self, /, *, bind: Literal[True], name: str | None = None, base: Any = None, lazy: bool = True, **options: Any
    ) -> Callable[[Callable[Concatenate[Any, P], R]], BaseTask[P, R]]: ...
    @overload
    def task(
        self,
        /,
        *,
        bind: Literal[False] = False,
        name: str | None = None,
        base: Any = None,
        lazy: bool = True,
        **options: Any,
    ) -> Callable[[Callable[P, R]], BaseTask[P, R]]: ...
    def task(self, /, *args: Any, **options: Any) -> Any:
        """Make a task of a function: `@app.task`, `@app.task(name=..., bind=True, ...)`, `app.task(fun, name=...)`.

        The options are the attributes of `Task`, and `base`, its class. Of two functions under one name, the first
        is the task. Raises TypeError for anything else than one function and options by name.
        """
        if len(args) == 1 and callable(args[0]):
            return self.add_function(args[0], options)
        if args:
            raise TypeError(
                "app.task takes one function, or options by name: @app.task(name='...'), or both: "
                f"app.task(function, name='...'); got {', '.join(map(repr, args))}"
            )

        def decorate(function: Callable[..., Any]) -> BaseTask[..., Any]:
            return self.add_function(function, options)

        return decorate

    def add_function(self, function: Callable[..., Any], options: Mapping[str, Any]) -> BaseTask[..., Any]:
        """Do what `task` does, with the options as a mapping."""
        given = dict(options)
        lazy = given.pop("lazy", True)
        base = given.pop("base", None)
        name: str = given.pop("name", None) or self.gen_task_name(function.__name__, function.__module__)
        with self._lock:
            known = self._tasks.get(name)
            if known is not None:
                if _is_another(known, function):
                    warnings.warn(
                        f"two functions are named {name!r}: the task stays {known!r}. Give one of them another name= "
                        "(in an interactive session, app.tasks.unregister(name) lets a new one take its place)",
                        DuplicateTaskNameWarning,
                        stacklevel=3,
                    )
                return known
            task = make_task(self._app, function, name, base or self.Task, given)
            self._tasks[name] = task
            if base is None:
                task.implicit_base = self._own_task_cls
            self._pending.append(task)
            if self.finalized or not lazy:
                self._bind_pending()
        return task

    def register_task(self, task: BaseTask[..., Any] | type[BaseTask[..., Any]], **options: Any) -> BaseTask[..., Any]:
        """Register an instance of a class of tasks, or of a class; return the task."""
        made = task() if isinstance(task, type) else task
        for option, value in options.items():
            setattr(made, option, value)
        if not made.name:
            made.name = self.gen_task_name(type(made).__name__, type(made).__module__)
        with self._lock:
            self._tasks[made.name] = made
            made.app = self._app
            self._pending.append(made)
            if self.finalized:
                self._bind_pending()
        return made

    def gen_task_name(self, name: str, module: str | None) -> str:
        """Return the name of a task that has none of its own. May be overridden."""
        return generate_name(self.main, name, module)

    @property
    def tasks(self) -> TaskRegistry:
        """The registered tasks by name; looking at it finalizes the app."""
        self.finalize(auto=True)
        return self._tasks

    def task_by_name(self, name: str, module: str | None = None) -> BaseTask[..., Any]:
        """Return a task; where it is not registered yet, after importing the module that defines it.

        Raises NotRegistered.
        """
        if name not in self.tasks and module and module not in sys.modules:
            import_by_name(module)
        return self._tasks[name]

    @property
    def Task(self) -> type[BaseTask[..., Any]]:
        """The class of its tasks, to subclass or to replace."""
        if self._own_task_cls is None:
            base = self.task_cls
            if isinstance(base, str):
                base = cast("type[BaseTask[..., Any]]", import_by_name(base))
            self._own_task_cls = cast(
                "type[BaseTask[..., Any]]", type("Task", (base,), {"_app": self, "__module__": base.__module__})
            )
        return self._own_task_cls

    @Task.setter
    def Task(self, cls: type[BaseTask[..., Any]]) -> None:
        self._own_task_cls = self.replaced_task = cls

    def put_task(self, task: BaseTask[..., Any] | str) -> BaseTask[..., Any]:
        """Register a task that is to be filled in, or return the one of this name, to be bound when all are there."""
        if isinstance(task, str):
            found = self._tasks[task]
            self._pending.append(found)
            return found
        self._tasks[task.name] = task
        return task

    @contextmanager
    def loading(self) -> Generator[None]:
        """Within this, looking at the tasks finalizes nothing: they are being put in place."""
        with self._lock:
            finalizing, self._finalizing = self._finalizing, True
            try:
                yield
            finally:
                self._finalizing = finalizing
        if self.finalized:
            self._bind_pending()

    def finalize(self, auto: bool = False) -> None:
        """Bind all tasks that were decorated, and those that are shared. Done by itself at the first use of one.

        Raises RuntimeError where it would be done by itself (`auto`) and `autofinalize` is off.
        """
        if self.finalized:
            return
        with self._lock:
            if self.finalized or self._finalizing:
                return
            if auto and not self.autofinalize:
                raise RuntimeError(
                    "Contract breach: app not finalized; with autofinalize=False, call app.finalize() before "
                    "using its tasks"
                )
            self._finalizing = True
            try:
                for action in actions_for_every_app():
                    action(self._app)
                self._bind_pending()
                self.finalized = True
            finally:
                self._finalizing = False
            self.on_after_finalize.send(sender=self)

    def _bind_pending(self) -> None:
        while self._pending:
            task = self._pending.popleft()
            replaced = task.implicit_base
            if replaced is not None and replaced is not self._own_task_cls:
                # app.Task was replaced after this function was decorated.
                task.__class__ = type(
                    make_task(self._app, cast("Any", task.wrapped), task.name, self.Task, dict(task.given))
                )
            task.bind_to(self._app)

    def annotations_of(self, task: BaseTask[..., Any]) -> list[tuple[str, Any]]:
        """Return what the setting task_annotations says of a task."""
        return annotations_of(self.conf.task_annotations, task)


def _is_another(task: BaseTask[..., Any], function: Callable[..., Any]) -> bool:
    known = task.wrapped
    return known is None or known.__code__ is not getattr(function, "__code__", None)
