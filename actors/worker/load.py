"""Finding the application that a child is to run: by name, as `-A` has it, or by value.

`module:attribute` names it. A module alone is searched as Celery does: its attributes `app` and `celery`, then, if it
is a package, its submodules `app` and `celery`, then any application among its attributes.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from ..app import App
from ..errors import ImproperlyConfigured
from ..shipping import load_shipped

_NAMES = ("app", "celery")
_OUR_FOLDER = str(Path(__file__).parents[2])
_IMPORTLIB_FOLDER = str(Path(importlib.__file__).parent)


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


def why_not(error: BaseException, name: str) -> tuple[str, str]:
    """Return why the application of this name (empty: by value) cannot be loaded, in a sentence, and a traceback.

    The traceback begins where the application's own code does; it is empty where the sentence says all.
    """
    what = f"the application {name!r}" if name else "the application"
    if isinstance(error, ImproperlyConfigured):
        return str(error), ""
    module = name.partition(":")[0]
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        return (
            f"{what} cannot be found: there is no module {error.name!r} in {os.getcwd()} or elsewhere on sys.path; "
            "start in the folder where it is, or name it as module or module:attribute"
        ), ""
    frame = error.__traceback__
    while frame is not None and _is_machinery(frame.tb_frame.f_code.co_filename):
        frame = frame.tb_next
    lines = traceback.format_exception(type(error), error, frame)
    return f"{what} cannot be loaded: {type(error).__name__}: {error}", "".join(lines).rstrip()


def _is_machinery(file: str) -> bool:
    """Tell whether a frame of this file leads to the application, and is not part of it."""
    return file.startswith((_OUR_FOLDER, "<frozen importlib", _IMPORTLIB_FOLDER))


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
