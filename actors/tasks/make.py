"""A function becomes a task.

Owns the class that is made for each decorated function, and `shared_task`, which registers with every app.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, cast, overload

from ..current import Proxy, do_with_every_app, get_current_app
from .options import FROM_SETTINGS
from .task import Task

if TYPE_CHECKING:
    from ..app import App

P = ParamSpec("P")
R = TypeVar("R")


def make_task(
    app: App, function: Callable[..., Any], name: str, base: type[Task[..., Any]], options: dict[str, Any]
) -> Task[..., Any]:
    """Return a task whose body is `function`, not yet bound to the app's settings."""
    bind = bool(options.get("bind"))
    body = function if bind else staticmethod(function)
    said = {key: value for key, value in options.items() if value is not None or key not in FROM_SETTINGS}
    attributes: dict[str, Any] = {
        **said,
        "_app": app,
        "wrapped": staticmethod(function),
        "given": options,
        "name": name,
        "abstract": False,
        "run": body,
        "__doc__": function.__doc__,
        # The instance's: the class itself has its name from the call below.
        "__name__": getattr(function, "__name__", "task"),
        "__module__": function.__module__,
        "__wrapped__": staticmethod(function),
    }
    cls = cast("type[Task[..., Any]]", type(getattr(function, "__name__", "task"), (base,), attributes))
    return cls()


@overload
def shared_task(
    function: Callable[Concatenate[Any, P], R], /, *, bind: Literal[True], name: str | None = None, **options: Any
) -> Task[P, R]: ...
@overload
def shared_task(
    function: Callable[P, R], /, *, bind: Literal[False] = False, name: str | None = None, **options: Any
) -> Task[P, R]: ...
@overload
def shared_task(
    *, bind: Literal[True], name: str | None = None, **options: Any
) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...
@overload
def shared_task(
    *, bind: Literal[False] = False, name: str | None = None, **options: Any
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def shared_task(*args: Any, **options: Any) -> Any:
    """Make a task of every app, those to come included; it stands for the one of the current app.

    Takes what `App.task` takes, with and without options, and raises as it does.
    """
    if len(args) == 1 and callable(args[0]):
        return _share(args[0], options)
    if args:
        raise TypeError(
            "shared_task takes one function, or options by name: @shared_task(name='...'), or both: "
            f"shared_task(function, name='...'); got {', '.join(map(repr, args))}"
        )

    def decorate(function: Callable[..., Any]) -> Any:
        return _share(function, options)

    return decorate


def _share(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    name: str | None = options.get("name")

    def add(app: App) -> Task[..., Any]:
        return app.add_function(function, {**options})

    def resolve() -> Task[..., Any]:
        app = get_current_app()
        return app.tasks[name or app.gen_task_name(function.__name__, function.__module__)]

    do_with_every_app(add)
    proxy: Proxy[Task[..., Any]] = Proxy(resolve)
    return proxy
