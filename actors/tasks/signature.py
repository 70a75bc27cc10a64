"""A signature: a call that is written down, to be made later, elsewhere or by somebody else.

It is a dict (task, args, kwargs, options, subtask_type, immutable), so that it travels as plain data. Arguments that
come at the call stand before its own; keyword arguments and options of the call win over its own. An *immutable*
signature takes no arguments from whoever calls it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from ..current import get_current_app
from ..errors import NotSupported
from ..identity import new_id

if TYPE_CHECKING:
    from ..app import App
    from ..results.eager import EagerResult
    from ..results.result import AsyncResult
    from .call import Prepared
    from .task import Task

R_co = TypeVar("R_co", covariant=True)


class Signature(dict[str, Any], Generic[R_co]):
    """A call of a task. Made by `task.s(...)`, `task.si(...)`, `app.signature(...)`, or from a dict of its form."""

    _app: App | None = None

    def __init__(
        self,
        task: str | Task[..., Any] | Mapping[str, Any] | None = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        type: Task[..., Any] | None = None,
        subtask_type: str | None = None,
        immutable: bool = False,
        app: App | None = None,
        **extra: Any,
    ) -> None:
        self._app = app
        if isinstance(task, Mapping):
            super().__init__(task)
            return
        registered = task if task is not None and not isinstance(task, str) else type
        name = task if isinstance(task, str) else None if registered is None else registered.name
        if app is None and registered is not None:
            self._app = registered.app
        super().__init__(
            task=name,
            args=tuple(args or ()),
            kwargs=dict(kwargs or {}),
            options={**(options or {}), **extra},
            subtask_type=subtask_type,
            immutable=immutable,
        )

    # --- what it says

    @property
    def app(self) -> App:
        """The app that it is called with: the one that made it, else the current one."""
        return self._app or get_current_app()

    @property
    def task(self) -> str:
        """The task's name."""
        return cast("str", self["task"])

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task

    @property
    def type(self) -> Task[..., Any] | None:
        """The task, if it is registered here."""
        return self.app.tasks.get(self.task)

    @property
    def args(self) -> tuple[Any, ...]:
        """Its positional arguments."""
        return tuple(self.get("args") or ())

    @property
    def kwargs(self) -> dict[str, Any]:
        """Its keyword arguments."""
        return cast("dict[str, Any]", self.get("kwargs") or {})

    @property
    def options(self) -> dict[str, Any]:
        """Its options, as for `apply_async`."""
        return cast("dict[str, Any]", self.setdefault("options", {}))

    @property
    def immutable(self) -> bool:
        """Whether it takes no arguments at the call."""
        return bool(self.get("immutable"))

    @immutable.setter
    def immutable(self, value: bool) -> None:
        self["immutable"] = value

    @property
    def subtask_type(self) -> str | None:
        """What kind of workflow it is; None for a task."""
        return cast("str | None", self.get("subtask_type"))

    @property
    def id(self) -> str | None:
        """The id that it will be sent under, if that is settled."""
        return cast("str | None", self.options.get("task_id"))

    # --- making others of it

    def clone(
        self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Signature[R_co]:
        """Return a copy with these arguments before its own, and these keyword arguments and options over its own."""
        merged_args, merged_kwargs, merged_options = self._merge(args, kwargs, options)
        copied: Signature[R_co] = Signature(
            cast("Mapping[str, Any]", deepcopy(dict[str, Any](self, args=(), kwargs={})))
        )
        copied._app = self._app
        copied.update(args=merged_args, kwargs=merged_kwargs, options=deepcopy(merged_options))
        return copied

    partial = clone

    def replace(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Signature[R_co]:
        """Return a copy with these in place of its own; None leaves its own."""
        copied = self.clone()
        if args is not None:
            copied["args"] = tuple(args)
        if kwargs is not None:
            copied["kwargs"] = dict(kwargs)
        if options is not None:
            copied["options"] = dict(options)
        return copied

    def _merge(
        self,
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any] | None,
        *,
        force: bool = False,
    ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        merged_options = {**self.options, **(options or {})}
        if self.immutable and not force:
            return self.args, dict(self.kwargs), merged_options
        return (*(args or ()), *self.args), {**self.kwargs, **(kwargs or {})}, merged_options

    # --- changing it

    def set(self, immutable: bool | None = None, **options: Any) -> Signature[R_co]:
        """Set options; return the signature itself."""
        if immutable is not None:
            self.immutable = immutable
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Say whether it takes arguments at the call."""
        self.immutable = immutable

    def link(self, callback: Mapping[str, Any]) -> Mapping[str, Any]:
        """Call `callback` with the result once the task succeeded; return `callback`."""
        return self._append("link", callback)

    def link_error(self, errback: Mapping[str, Any]) -> Mapping[str, Any]:
        """Call `errback` when the task fails; return `errback`."""
        return self._append("link_error", errback)

    def on_error(self, errback: Mapping[str, Any]) -> Signature[R_co]:
        """The same as `link_error`, but return the signature itself."""
        self.link_error(errback)
        return self

    def _append(self, option: str, signature: Mapping[str, Any]) -> Mapping[str, Any]:
        present = self.options.get(option)
        links: list[Any] = (
            list(cast("list[Any]", present)) if isinstance(present, list | tuple) else ([present] if present else [])
        )
        if signature not in links:
            links.append(signature)
        self.options[option] = links
        return signature

    def freeze(self, _id: str | None = None, **options: Any) -> AsyncResult[R_co]:
        """Settle the id that it will be sent under, and return its result."""
        task_id: str = _id or self.options.get("task_id") or new_id()
        self.options["task_id"] = task_id
        for name, value in options.items():
            if value is not None:
                self.options[name] = value
        return cast("AsyncResult[R_co]", self.app.AsyncResult(task_id, task_name=self.task))

    # A dict's own | would merge the two, and half of what was meant to run would be forgotten without a word.

    def __or__(self, other: Any) -> NoReturn:
        raise _no_canvas(self, other)

    def __ror__(self, other: Any) -> NoReturn:
        raise _no_canvas(other, self)

    def __ior__(self, other: Any) -> NoReturn:
        raise _no_canvas(self, other)

    # --- calling

    def __call__(self, *args: Any, **kwargs: Any) -> R_co:
        """Run the task here and now."""
        merged_args, merged_kwargs, _ = self._merge(args, kwargs, None)
        task: Any = self._registered()
        return cast("R_co", task(*merged_args, **merged_kwargs))

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[R_co]:
        """Send it, with these arguments before and over its own."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> AsyncResult[R_co]:
        """Send it, with these arguments before and over its own, and these options over its own."""
        merged_args, merged_kwargs, merged_options = self._merge(args, kwargs, options)
        if route_name is not None:
            merged_options["route_name"] = route_name
        task = self.type
        if task is not None:
            return cast("AsyncResult[R_co]", task.apply_async(merged_args, merged_kwargs, **merged_options))
        return cast("AsyncResult[R_co]", self.app.send_task(self.task, merged_args, merged_kwargs, **merged_options))

    def apply(
        self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> EagerResult[R_co]:
        """Run the task here and now, as a worker would."""
        merged_args, merged_kwargs, merged_options = self._merge(args, kwargs, options)
        return cast("EagerResult[R_co]", self._registered().apply(merged_args, merged_kwargs, **merged_options))

    def prepare(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Prepared:
        """Return the message of this call and its mailbox, without sending it: what a worker settles with."""
        merged_args, merged_kwargs, merged_options = self._merge(args, kwargs, options)
        return self.app.prepare(self.task, merged_args, merged_kwargs, **merged_options)

    def _registered(self) -> Task[..., Any]:
        return self.app.tasks[self.task]

    # --- as a value

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], app: App | None = None) -> Signature[Any]:
        """Return a signature for a dict of its form."""
        made: Signature[Any] = cls(data, app=app)
        return made

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """Return how the call would be written, as in `tasks.add(1, y=2)`."""
        merged_args, merged_kwargs, _ = self._merge(args, kwargs, None)
        words = [*map(repr, merged_args), *(f"{key}={value!r}" for key, value in merged_kwargs.items())]
        return f"{self.task}({', '.join(words)})"

    def __repr__(self) -> str:
        return self.reprcall()

    def __deepcopy__(self, memo: dict[int, Any]) -> Signature[R_co]:
        memo[id(self)] = self
        copied: Signature[R_co] = Signature(cast("Mapping[str, Any]", deepcopy(dict(self), memo)), app=self._app)
        return copied

    def __reduce__(self) -> Any:
        return signature, (dict(self),)


def _no_canvas(first: object, second: object) -> NotSupported:
    names = [part.task if isinstance(part, Signature) else type(part).__name__ for part in (first, second)]
    return NotSupported(
        f"{names[0]} | {names[1]}: there are no canvases yet, so | makes no chain of signatures. Link them: "
        "first.apply_async(link=second) calls second with first's result"
    )


def signature(
    task: str | Task[..., Any] | Mapping[str, Any],
    args: Iterable[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    app: App | None = None,
    **extra: Any,
) -> Signature[Any]:
    """Return a signature: of a task's name or a task, or of a dict of a signature's form."""
    if isinstance(task, Signature):
        return cast("Signature[object]", task).clone()
    made: Signature[Any] = Signature(task, args, kwargs, options, app=app, **extra)
    return made


def maybe_signature(data: Any, app: App | None = None) -> Signature[Any] | None:
    """Return a signature for a dict of its form; a signature as it is, and None for None."""
    if data is None:
        return None
    if isinstance(data, Signature):
        return cast("Signature[object]", data)
    made: Signature[Any] = Signature(cast("Mapping[str, object]", data), app=app)
    return made
