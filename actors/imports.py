"""Which modules an application's workers import, so that its tasks are there.

Owns `autodiscover_tasks` and the import of `imports` and `include`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from . import signals

if TYPE_CHECKING:
    from types import ModuleType

    from .app import App

Packages = Iterable[str] | Callable[[], Iterable[str]] | None


def import_task_modules(app: App) -> list[str]:
    """Import all that the app's workers need; return the names. Raises what importing raises."""
    for receiver, answer in signals.import_modules.send(sender=app):
        if isinstance(answer, Exception):
            # Logged there; a worker without its tasks must not start.
            raise answer
        del receiver
    conf = app.conf
    names = list(dict.fromkeys([*_names(conf.imports), *_names(conf.include)]))
    for name in names:
        importlib.import_module(name)
    return names


def _names(value: Any) -> list[str]:
    if not value:
        return []
    return [value] if isinstance(value, str) else list(value)


def autodiscover(app: App, packages: Packages, related_name: str | None, *, force: bool) -> None:
    """Import `related_name` of each package when the workers import, or now with `force`."""
    if force:
        _discover(packages, related_name)
        return

    def discover(**_kwargs: Any) -> None:
        _discover(packages, related_name)

    signals.import_modules.connect(discover, sender=app, weak=False)


def _discover(packages: Packages, related_name: str | None) -> list[ModuleType]:
    names = packages() if callable(packages) else packages or ()
    found = (find_related_module(package, related_name) for package in names)
    return [module for module in found if module is not None]


def find_related_module(package: str, related_name: str | None) -> ModuleType | None:
    """Import `package.related_name`, or the package itself for None; return it, or None where there is none.

    A dotted path to an object in a package is taken as the package. Raises ModuleNotFoundError for a package that
    does not exist, and whatever a module that exists raises.
    """
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        parent, _, _ = package.rpartition(".")
        if not parent or error.name != package:
            raise
        # The path of a class, such as Django's configuration of an app.
        package = parent
        module = importlib.import_module(package)
    if not related_name:
        return module
    name = f"{package}.{related_name}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            # The module is there, and something that it imports is not.
            raise
        return None
