"""An application by value, for embedded clusters: what a worker needs and cannot import.

A script, a notebook and an interactive session define their tasks in `__main__`, which no other process can import.
`ship` writes down the app's settings, those tasks and classes of actors, and the receivers of signals beside them;
`load_shipped` makes the app of it in a worker, under the same key and with the same names (`__main__.add`). What can
be imported is named and imported there.

The order of loading matters, because functions mean their app and one another: the app comes first, then an empty
task for every name, then the functions, for which both are there already.

Loading runs what was written: only a node's own parent is listened to, never the wire.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from . import signals
from .current import Proxy, actions_for_every_app, app_by_key, register_app
from .settings.loader import import_by_name
from .tasks.make import make_task
from .tasks.naming import MAIN_MODULES
from .tasks.task import Task

if TYPE_CHECKING:
    from .actor import Actor
    from .app import App


_OWN_PACKAGE = __name__.partition(".")[0] + "."


def ship(app: App) -> bytes:
    """Return the app by value. Raises what pickling raises for something that cannot be written down."""
    # Here and below, so that who never ships holds no pickle loader.
    from ..transport import pickling

    app.finalize()
    path = _path_of(app)
    tasks = {name: task for name, task in app.tasks.items() if not _is_imported(task, task_module(task), path)}
    actors = {name: cls for name, cls in app.actors.items() if not _is_importable_class(cls)}
    modules = {task_module(task) for name, task in app.tasks.items() if name not in tasks} | {
        cls.__module__ for name, cls in app.actors.items() if name not in actors
    }
    header = {
        "key": app.key,
        "main": app.main,
        "path": path,
        "strict_typing": app.strict_typing,
        "names": list(tasks),
        "modules": sorted(modules),
        "sys_path": [os.path.abspath(entry) for entry in sys.path],
    }
    body: dict[str, Any] = {
        "settings": app.conf.changes if path else app.conf.without_defaults(),
        "task_cls": app.task_cls,
        "replaced_task": app.replaced_task,
        "tasks": {name: _spec_of(task) for name, task in tasks.items()},
        "actors": actors,
        "receivers": _receivers(),
    }
    app_class = pickling.dumps_cloudpickle(type(app))
    return pickling.dumps_pickle((header, app_class, pickling.dumps_cloudpickle(body)))


def load_shipped(data: bytes) -> App:
    """Return the app that `ship` wrote down, as the current app of this process.

    Raises what importing and loading raise.
    """
    from ..transport import pickling

    header, app_class, blob = cast("tuple[dict[str, Any], bytes, bytes]", pickling.loads(data))
    sys.path.extend(entry for entry in header["sys_path"] if entry not in sys.path)
    app = _app_of(header, lambda: cast("type[App]", pickling.loads(app_class)))
    app.set_current()
    for module in header["modules"]:
        importlib.import_module(module)
    with app.loading():
        for action in actions_for_every_app():
            action(app)
        for name in header["names"]:
            shell: Task[..., Any] = Task()
            shell.name = name
            app.put_task(shell)
        body = cast("dict[str, Any]", pickling.loads(blob))
        app.conf.update(body["settings"])
        app.task_cls = body["task_cls"]
        if body["replaced_task"] is not None:
            app.Task = body["replaced_task"]
        for name, spec in body["tasks"].items():
            _fill(app, name, spec)
        for name, cls in cast("dict[str, type[Actor]]", body["actors"]).items():
            app.actors.add(cls, name)
    for name, receiver, sender in body["receivers"]:
        signals.ALL[name].connect(receiver, sender=sender, weak=False)
    return app


def restore_app(cls: type[App], main: str | None, key: str, settings: Mapping[str, Any]) -> App:
    """Return the app of a pickle: the one with this key if it lives here, else a new one with these settings."""
    app = app_by_key(key)
    if app is None:
        app = cls(main, set_as_current=False, changes=settings)
        app.key = key
        register_app(app)
    return app


def task_module(task: Task[..., Any]) -> str:
    """Return the module that defines a task's function or class."""
    return cast("str", getattr(task.wrapped, "__module__", None) or type(task).__module__)


def _app_of(header: Mapping[str, Any], load_class: Callable[[], type[App]]) -> App:
    if header["path"]:
        app = cast("App", import_by_name(header["path"]))
    else:
        cls = load_class()
        # A class of apps may have brought its app along, if its methods mean it.
        app = app_by_key(header["key"]) or cls(header["main"], strict_typing=header["strict_typing"])
    app.key = header["key"]
    register_app(app)
    return app


def _path_of(app: App) -> str:
    """Return where the app can be imported from, as module:attribute; "" if nowhere."""
    for module_name, module in list(sys.modules.items()):
        if module_name in MAIN_MODULES or getattr(module, "__spec__", None) is None:
            continue
        if module_name.startswith(_OWN_PACKAGE):
            # Our own modules remember apps too; a fresh process remembers others, or none.
            continue
        for name, value in list(vars(module).items()):
            if value is app and _is_importable_module(module_name):
                return f"{module_name}:{name}"
    return ""


def _is_imported(task: Task[..., Any], module: str, path: str) -> bool:
    """Tell whether importing the task's module registers it with the worker's app."""
    if not _is_importable_module(module):
        return False
    found = getattr(sys.modules.get(module), task.function_name, None)
    # A shared task registers with whatever app there is; another one with the app of its module.
    return type(found) is Proxy or (bool(path) and found is task)


def _is_importable_class(cls: type) -> bool:
    if not _is_importable_module(cls.__module__):
        return False
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls


def _is_importable_module(name: str) -> bool:
    if name in MAIN_MODULES:
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _spec_of(task: Task[..., Any]) -> tuple[Any, ...]:
    function = task.wrapped
    if function is not None:
        base = None if task.implicit_base is not None else type(task).__mro__[1]
        return "function", function, base, dict(task.given)
    made_here = ("_app", "_plan", "_bound", "run")
    return "class", type(task), {key: value for key, value in vars(task).items() if key not in made_here}


def _fill(app: App, name: str, spec: tuple[Any, ...]) -> None:
    """Turn the empty task of this name into what its spec says; whoever holds it already holds the right one."""
    shell = app.put_task(name)
    if spec[0] == "function":
        _, function, base, options = spec
        made = make_task(app, function, name, base or app.Task, options)
        shell.__class__ = type(made)
    else:
        _, cls, state = spec
        shell.__class__ = cls
        for attribute, value in state.items():
            setattr(shell, attribute, value)
    shell.name = name


def _receivers() -> list[tuple[str, Callable[..., Any], str | None]]:
    """Return the receivers of signals that the program itself defines, of any sender or of one by name."""
    found: list[tuple[str, Callable[..., Any], str | None]] = []
    for name, signal in signals.ALL.items():
        for known in signal.receivers:
            receiver = known.resolve()
            if getattr(receiver, "__module__", "") in MAIN_MODULES and isinstance(known.sender, str | None):
                found.append((name, cast("Callable[..., Any]", receiver), known.sender))
    return found
