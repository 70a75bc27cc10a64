"""The application: settings, tasks and actors under one name, and the way to the brokers.

Owns `App`, with Celery's constructor, decorators and methods. Nothing is connected, read or imported before it is
needed: settings at the first look at one, tasks' bindings at the first use of one (`finalize`), the link to a broker
at the first call.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, Unpack, overload

from ..transport.message import Flag
from ..transport.peer.contract import Client
from . import shipping, signals
from .actor import Actor, ActorClasses
from .connecting import connect
from .current import (
    current_frame,
    forget_app,
    get_current_task,
    make_default_apps_with,
    register_app,
    set_current_app,
    set_default_app,
    worker_frame,
)
from .errors import AlwaysEagerIgnored
from .identity import new_id
from .imports import Packages, autodiscover, import_task_modules
from .log import Logging
from .ref import ActorRef
from .registering import Registering
from .results.result import AsyncResult as Result
from .results.sets import GroupResult as Group
from .results.sets import ResultSet as Results
from .runtime import Cluster, ClusterOptions, runtime
from .sender import ClientFactory, Sender
from .settings.loader import default_source
from .tasks.call import Prepared, build, note_sent
from .tasks.many import send_signatures
from .tasks.options import deadline_of
from .tasks.signature import Signature, signature
from .tasks.task import Task as BaseTask

if TYPE_CHECKING:
    pass

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A", bound=Actor)

#: How long a closing app waits for what it sent in the background.
CLOSE_SECONDS: Final = 10.0


class App(Registering):
    """An application. Its constructor takes what Celery's takes; other keywords are settings."""

    def __init__(
        self,
        main: str | None = None,
        loader: Any = None,
        backend: str | None = None,
        amqp: Any = None,
        events: Any = None,
        log: Any = None,
        control: Any = None,
        set_as_current: bool = True,
        tasks: Mapping[str, BaseTask[..., Any]] | None = None,
        broker: str | Sequence[str] | None = None,
        include: Iterable[str] | None = None,
        changes: Mapping[str, Any] | None = None,
        config_source: Any = None,
        fixups: Any = None,
        task_cls: type[BaseTask[..., Any]] | str | None = None,
        autofinalize: bool = True,
        namespace: str | None = None,
        strict_typing: bool = True,
        config_source_silent: bool = False,
        **settings: Any,
    ) -> None:
        #: Known to nobody else: what a pickle of this app, or of a task of it, means.
        self.key = new_id()
        self.set_as_current = set_as_current
        given = {"broker_url": broker, "result_backend": backend, "include": include}
        # A setting that is None says so: `result_expires=None` is not the same as none.
        changed = {**(changes or {}), **{key: value for key, value in given.items() if value is not None}, **settings}
        self.on_after_fork = signals.Signal("app.on_after_fork")
        super().__init__(
            main,
            changed,
            config_source,
            tasks,
            task_cls,
            namespace=namespace,
            silent=config_source_silent,
            autofinalize=autofinalize,
            strict_typing=strict_typing,
        )
        self.sender = Sender(self, connect)
        self.log = Logging(self)
        self.actors = ActorClasses(self)
        register_app(self)
        if set_as_current:
            self.set_current()

    # --- which app is at work

    def set_current(self) -> None:
        """Make this the current app of this thread."""
        set_current_app(self)

    def set_default(self) -> None:
        """Make this the app of all threads that have no other."""
        set_default_app(self)

    @property
    def current_task(self) -> BaseTask[..., Any] | None:
        """The task that is being called here."""
        return get_current_task()

    @property
    def current_worker_task(self) -> BaseTask[..., Any] | None:
        """The task that a worker runs here, also while its body calls others."""
        frame = worker_frame()
        return None if frame is None else frame.task

    def close(self) -> None:
        """End the link to the brokers and forget the app.

        What was sent in the background is flushed first; raises its first refusal, or TimeoutError when it was not
        confirmed within CLOSE_SECONDS.
        """
        try:
            self.sender.flush(CLOSE_SECONDS)
        finally:
            self.sender.close()
            forget_app(self)

    def __enter__(self) -> App:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- modules

    def autodiscover_tasks(
        self, packages: Packages = None, related_name: str | None = "tasks", force: bool = False
    ) -> None:
        """Import the module `related_name` of each package (None: the package) when a worker imports.

        With `force`, now. Raises ModuleNotFoundError then for a package that does not exist.
        """
        autodiscover(self, packages, related_name, force=force)

    def import_modules(self) -> list[str]:
        """Import what the workers need: `imports`, `include`, what is discovered; return the names of the first two."""
        return import_task_modules(self)

    # --- calls

    @property
    def client(self) -> Client:
        """The link to the brokers."""
        return self.sender.client

    @property
    def client_factory(self) -> ClientFactory:
        """Makes the link; a test puts one in place that needs no broker."""
        return self.sender.make_client

    @client_factory.setter
    def client_factory(self, make: ClientFactory) -> None:
        self.sender.close()
        self.sender.make_client = make

    def disconnect(self) -> None:
        """End the link to the brokers; the next call makes another, by the settings of then."""
        self.sender.close()

    def prepare(
        self,
        name: str,
        args: Any = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> Prepared:
        """Return the message of a call by name and its mailbox, without sending it. Raises as `send_task`."""
        task = self.tasks.get(name)
        args = () if args is None else args
        kwargs = {} if kwargs is None else kwargs
        if task is not None and shadow is None:
            shadow = task.shadow_name(args, kwargs, options)
        return build(
            self,
            name,
            args,
            kwargs,
            options,
            task=task,
            task_id=task_id,
            link=link,
            link_error=link_error,
            shadow=shadow,
        )

    def send_task(
        self,
        name: str,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> Result[Any]:
        """Send a call by the task's name, which need not be registered here; return its result.

        Takes the options of `Task.apply_async`; a registered task's own options count too. Raises the same.
        """
        conf = self.conf
        if conf.task_always_eager:
            warnings.warn(
                "task_always_eager has no effect on send_task, which knows no body to run",
                AlwaysEagerIgnored,
                stacklevel=2,
            )
        prepared = self.prepare(name, args, kwargs, task_id, link, link_error, shadow, **options)
        sent = self.sender.send(
            prepared,
            deadline_seconds=deadline_of(options),
            background=conf.task_publish_confirm == "background",
        )
        envelope = prepared.envelope
        result: Result[Any] = Result(
            envelope.id, None, name, self, ignored=bool(envelope.flags & Flag.IGNORE_RESULT), sent=sent
        )
        if current_frame() is not None or signals.after_task_publish.receivers or signals.task_sent.receivers:
            add_to_parent = options.get("add_to_parent", True)
            note_sent(prepared, args or (), kwargs or {}, result, add_to_parent=add_to_parent)
        return result

    def send_many(self, signatures: Iterable[Any], **options: Any) -> list[Result[Any]]:
        """Send thousands of signatures at once; return their results, in order, once all are accepted.

        The options win over the signatures' own. Raises as `send_task`; nothing was sent where it raises for a
        wrong call.
        """
        return send_signatures(self, signatures, options)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was sent in the background is accepted.

        Raises the first refusal since the last flush, and TimeoutError after `timeout` seconds.
        """
        self.sender.flush(timeout)

    def signature(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """Return a signature: of a name or a task with args, kwargs, options, or of a dict of its form."""
        return signature(*args, app=self, **kwargs)

    def AsyncResult(self, id: str, *args: Any, **kwargs: Any) -> Result[Any]:
        """Return the result of a task by its id."""
        kwargs.setdefault("app", self)
        return Result(id, *args, **kwargs)

    def GroupResult(self, id: str = "", results: Iterable[Any] = (), **kwargs: Any) -> Group:
        """Return the results of a group."""
        kwargs.setdefault("app", self)
        return Group(id, results, **kwargs)

    def ResultSet(self, results: Iterable[Any], **kwargs: Any) -> Results:
        """Return several results together."""
        kwargs.setdefault("app", self)
        return Results(results, **kwargs)

    # --- schedules

    def add_periodic_task(
        self,
        schedule: Any,
        sig: Signature[Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> str:
        """Add an entry to `beat_schedule`: `sig` with these arguments, each time `schedule` says; return its key."""
        call = sig.clone(args, kwargs)
        key = name or repr(call)
        entry = {
            "task": call.task,
            "schedule": schedule,
            "args": call.args,
            "kwargs": call.kwargs,
            "options": {**call.options, **options},
        }
        self.conf.beat_schedule = {**(self.conf.beat_schedule or {}), key: entry}
        return key

    # --- actors

    def actor(self, cls: type[A]) -> type[A]:
        """Register a class of actors with this app alone, as a decorator; defining one registers it with all."""
        self.actors.add(cls)
        return cls

    @overload
    def ref(self, actor: type[A], key: str) -> ActorRef[A]: ...
    @overload
    def ref(self, actor: str, key: str) -> ActorRef[Any]: ...
    def ref(self, actor: type[Any] | str, key: str) -> ActorRef[Any]:
        """Return the ref of a named actor, of a class or of the registered name of one. It need not live yet."""
        if isinstance(actor, str):
            return ActorRef(actor, key, app=self, cls=self.actors.get(actor))
        return ActorRef(self.actors.add(actor), key, app=self, cls=actor)

    # --- running

    def run(self, workers: int = 2, **options: Unpack[ClusterOptions]) -> AbstractContextManager[Cluster, None]:
        """Return an embedded cluster for a `with`: a broker, its store and `workers` worker processes.

        Within it, calls of this app go there, and its tasks run there, those of `__main__` included. At its end what
        runs is finished; what waits is gone, unless `data` names a folder to keep it in. With 0 workers it is a
        broker alone. Raises ValueError for options that cannot be; entering it raises GreenroomError where broker or
        workers cannot start.
        """
        return runtime().run(self, workers=workers, **options)

    def worker_main(self, argv: Sequence[str] | None = None) -> int:
        """Run a worker with the arguments of `greenroom worker` (by default those of the program); return its code.

        Raises ValueError where the first of them is another verb.
        """
        words = list(sys.argv[1:] if argv is None else argv)
        if words and words[0] == "worker":
            words = words[1:]
        elif argv is not None and words and not words[0].startswith("-"):
            raise ValueError(f"worker_main runs a worker, not {words[0]!r}; use app.start({words!r})")
        return runtime().worker_main(self, words)

    def start(self, argv: Sequence[str] | None = None) -> int:
        """Run the command line for this app; return its exit code."""
        return runtime().start(self, list(sys.argv[1:] if argv is None else argv))

    def ship(self) -> bytes:
        """Return all that a worker needs of this app and cannot import; see `shipping`."""
        return shipping.ship(self)

    # --- as a value

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.main or '__main__'} at {id(self):#x}>"

    def __reduce__(self) -> Any:
        return shipping.restore_app, (type(self), self.main, self.key, self._conf.without_defaults())


def _default_app() -> App:
    """Make the app of a program that made none and uses one."""
    app = App("default", set_as_current=False)
    source = default_source()
    if source is not None:
        app.config_from_object(source)
    return app


make_default_apps_with(_default_app)
