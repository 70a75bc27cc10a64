"""Finding the application that a child is to run: by name, as `-A` has it, or by value.

`module:attribute` names it. A module alone is searched as Celery does: its attributes `app` and `celery`, then, if it
is a package, its submodules `app` and `celery`, then any application among its attributes.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from ..app import App
from ..errors import ImproperlyConfigured
from ..shipping import load_shipped

_NAMES = ("app", "celery")


def find_app(name: str) -> App:
    """Return the application of this name. Raises ImproperlyConfigured, and whatever importing raises."""
    folder = os.getcwd()
    if folder not in sys.path:
        # As for a program that is started here.
        sys.path.insert(0, folder)
    module_name, _, attribute = name.partition(":")
    module = importlib.import_module(module_name)
    if attribute:
        found: object = module
        for part in attribute.split("."):
            found = getattr(found, part, None)
        if isinstance(found, App):
            return found
        raise ImproperlyConfigured(
            f"{name!r} names {found!r}, which is no application; expected module:attribute of an App"
        )
    app = _search(module)
    if app is None:
        raise ImproperlyConfigured(
            f"module {module_name!r} has no application; expected an attribute app = App(...), or name it as "
            f"{module_name}:attribute"
        )
    return app


def load_app(name: str, blob: bytes) -> App:
    """Return the application of a child, by name or, where there is none, by value. Raises as `find_app`."""
    return load_shipped(blob) if blob else find_app(name)


def _search(module: ModuleType) -> App | None:
    for name in _NAMES:
        found = getattr(module, name, None)
        if isinstance(found, App):
            return found
    if hasattr(module, "__path__"):
        for name in _NAMES:
            submodule = f"{module.__name__}.{name}"
            try:
                found_there = _search(importlib.import_module(submodule))
            except ModuleNotFoundError as error:
                if error.name != submodule:
                    # It is there, and something that it imports is not.
                    raise
                continue
            if found_there is not None:
                return found_there
    return next((value for value in vars(module).values() if isinstance(value, App)), None)
