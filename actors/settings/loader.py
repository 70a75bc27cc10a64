"""Where settings come from: objects, modules, environment variables, command lines.

Owns the reading of each into a plain dict of settings by their present names, with a namespace's prefix taken off.
Nothing here remembers anything; when a source is read is `Settings`' decision.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from ..errors import ImproperlyConfigured
from .defaults import OPTIONS
from .names import OLD_NAMES, check_not_mixed, new_name

#: The environment variables that name a module of settings for the default app, and its name where they do not.
CONFIG_MODULE_VARIABLES: Final = ("GREENROOM_CONFIG_MODULE", "CELERY_CONFIG_MODULE")
DEFAULT_CONFIG_MODULE: Final = "celeryconfig"

#: section.name=value or name=value.
_ARGUMENT: Final = re.compile(r"\.?(?P<name>\w+(?:\.\w+)*)=(?P<value>.*)", re.DOTALL)


def read_source(source: object, *, namespace: str | None, silent: bool) -> dict[str, Any]:
    """Return the settings of a dict, a module, a class, any object with attributes, or the name of one.

    A name is that of a module, `module:attribute`, or a dotted path to an attribute. With a namespace, only keys
    with its prefix count. Raises ImproperlyConfigured or ImportError, unless `silent`, for what cannot be imported.
    """
    if isinstance(source, str):
        try:
            source = import_by_name(source)
        except (ImportError, AttributeError):
            if silent:
                return {}
            raise
    return normalise(_items_of(source), namespace=namespace)


def normalise(items: Mapping[str, Any], *, namespace: str | None) -> dict[str, Any]:
    """Return settings by their present names. Raises ImproperlyConfigured where old and new names are mixed."""
    if namespace:
        prefix = namespace if namespace.endswith("_") else f"{namespace}_"
        return {
            name[len(prefix) :].lower(): value
            for name, value in items.items()
            if name.upper().startswith(prefix.upper())
        }
    check_not_mixed(items)
    return {new_name(name): value for name, value in items.items()}


def import_by_name(name: str) -> object:
    """Return what `module`, `module:attribute` or `module.attribute` names.

    The working folder is importable, since settings often lie beside the program. Raises ImportError or
    AttributeError.
    """
    module, colon, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if colon:
        found: object = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        parent, _, last = name.rpartition(".")
        if not parent or error.name not in (name, None) or _is_module(name):
            if name.endswith(".py"):
                raise ImproperlyConfigured(
                    f"settings are imported, not opened: write {name[:-3]!r} in place of {name!r}"
                ) from error
            raise
        holder = importlib.import_module(parent)
        if not hasattr(holder, last):
            if name.endswith(".py"):
                raise ImproperlyConfigured(
                    f"settings are imported, not opened: write {name[:-3]!r} in place of {name!r}"
                ) from error
            raise
        return getattr(holder, last)


def module_of_variable(variable: str, *, silent: bool) -> str | None:
    """Return the module that an environment variable names.

    Raises ImproperlyConfigured where it is not set, or returns None if `silent`.
    """
    name = os.environ.get(variable)
    if name:
        return name
    if silent:
        return None
    raise ImproperlyConfigured(
        f"the environment variable {variable!r} is not set, and the settings could not be loaded; "
        f"set it to the name of a module, as in {variable}=proj.settings"
    )


def default_source() -> str | None:
    """Return the module of settings of a program that made no app: named by a variable, or celeryconfig."""
    for variable in CONFIG_MODULE_VARIABLES:
        if os.environ.get(variable):
            return os.environ[variable]
    return DEFAULT_CONFIG_MODULE if _is_module(DEFAULT_CONFIG_MODULE) else None


def read_arguments(arguments: Iterable[str], *, namespace: str | None = None) -> dict[str, Any]:
    """Return the settings of words like `worker.concurrency=4`, `task_serializer=json`.

    With a namespace `worker`, `.concurrency=4` and `concurrency=4` mean worker_concurrency where that exists.
    Raises ImproperlyConfigured for a word that is no setting, and for a value of the wrong kind.
    """
    settings: dict[str, Any] = {}
    for argument in arguments:
        match = _ARGUMENT.fullmatch(argument)
        if match is None:
            raise ImproperlyConfigured(f"{argument!r} is no setting; write name=value, as in worker.concurrency=4")
        name = match["name"].replace(".", "_").lower()
        if namespace and namespace != "celery" and f"{namespace}_{name}" in OPTIONS:
            name = f"{namespace}_{name}"
        name = new_name(name)
        option = OPTIONS.get(name)
        if option is None:
            raise ImproperlyConfigured(f"there is no setting {name!r}, which {argument!r} means to set")
        try:
            settings[name] = option.from_text(match["value"])
        except (ValueError, TypeError) as error:
            raise ImproperlyConfigured(
                f"setting {name} needs a value of kind {option.kind}, not {match['value']!r}"
            ) from error
    return settings


def _items_of(source: object) -> dict[str, Any]:
    if isinstance(source, Mapping):
        return {str(name): value for name, value in cast("Mapping[object, Any]", source).items()}
    if source is None:
        return {}
    names = [name for name in dir(source) if not name.startswith("_")]
    # Django's settings raise for what is listed and not set.
    return {name: getattr(source, name) for name in names if _counts(name) and hasattr(source, name)}


def _counts(name: str) -> bool:
    """Tell whether an attribute of a module may be a setting: imported names and functions are not."""
    return name in OPTIONS or name in OLD_NAMES or name.isupper() or name.islower()


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False
