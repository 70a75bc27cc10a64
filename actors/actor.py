"""Actors: objects with a mailbox, that handle one message at a time.

Owns `Actor`, the base class, and how classes of actors are found by the name that messages carry. A class is known
from its definition on: its registered name is its module's and its own, by the rule of tasks (`tasks/naming.py`).
What a message may call is what `methods_of` lists and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..transport.message import NAME_CHARACTERS_MAX
from .tasks.naming import generate_name

if TYPE_CHECKING:
    from .app import App


class Actor:
    """The base class of actors: state, and methods that messages call, plain ones or coroutines.

    A named actor is made without arguments, where there is room, when its first message comes. An exception in a
    method is the actor's crash: the asker gets `ActorFailed`, and the actor is started anew.
    """

    #: Its state survives the process that hosts it: where a message has changed it, it is kept in the commit that ends
    #: the message, both or neither. A message that raises leaves it as it was.
    durable: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in ("snapshot", "restore") if cls.durable else ():
            if inspect.iscoroutinefunction(getattr(cls, name)):
                raise TypeError(f"{cls.__qualname__}.{name} is a coroutine function; it must be a plain one")
        _defined[f"{cls.__module__}.{cls.__qualname__}"] = cls
        _table_changed()

    def on_start(self) -> Any:
        """Called before the first message, in each incarnation."""

    def on_stop(self, reason: str) -> Any:
        """Called before the actor goes away in order: not after a crash. What it changes is not kept."""

    def snapshot(self) -> Any:
        """Return the state of a durable actor, a value that can be sent: all of its attributes, unless overridden.

        Called after each message. It is compared with the last one by its bytes.
        """
        return vars(self)

    def restore(self, state: Any) -> None:
        """Take over what `snapshot` returned, before `on_start`: called on a new instance if there is a state."""
        vars(self).update(state)


#: Every class of actors of the process, by module and qualified name; a later definition takes the name over.
_defined: dict[str, type[Actor]] = {}

_version = 0


def _table_changed() -> None:
    global _version
    _version += 1


_HOOKS = frozenset(name for name in vars(Actor) if not name.startswith("_"))


_methods: dict[type, Mapping[str, Callable[..., Any]]] = {}


def methods_of(cls: type[Any]) -> Mapping[str, Callable[..., Any]]:
    """Return what messages may call on actors of a class: its public methods, without the hooks of `Actor`."""
    known = _methods.get(cls)
    if known is None:
        known = _methods[cls] = _find_methods(cls)
    return known


def _find_methods(cls: type[Any]) -> Mapping[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    for name in dir(cls):
        if name.startswith("_") or name in _HOOKS:
            continue
        attribute = inspect.getattr_static(cls, name)
        if inspect.isfunction(attribute):
            found[name] = attribute
    return found


class ActorClasses(Mapping[str, type[Actor]]):
    """The classes of actors that an app's workers can host, by their registered names."""

    def __init__(self, app: App) -> None:
        self._app = app
        #: Those that were added under a name of their own: shipped ones, whose module is not here.
        self._added: dict[str, type[Actor]] = {}
        self._table: dict[str, type[Actor]] = {}
        self._table_version = -1

    def name_of(self, cls: type[Any]) -> str:
        """Return the registered name of a class."""
        for name, known in self._added.items():
            if known is cls:
                return name
        return generate_name(self._app.main, cls.__qualname__, cls.__module__)

    def add(self, cls: type[Any], name: str | None = None) -> str:
        """Register a class, under this name or its own; return the name.

        Raises TypeError for what is no class of actors, ValueError for a name that is too long.
        """
        if not isinstance(cls, type) or not issubclass(cls, Actor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"an actor is an instance of a subclass of Actor, and {cls!r} is none")
        name = name or self.name_of(cls)
        if len(name) > NAME_CHARACTERS_MAX // 2:
            raise ValueError(
                f"a class of actors has a name of at most {NAME_CHARACTERS_MAX // 2} characters; "
                f"{name!r} has {len(name)}"
            )
        if self._added.get(name) is not cls:
            self._added[name] = cls
            _table_changed()
        return name

    def _all(self) -> dict[str, type[Actor]]:
        if self._table_version != _version:
            version = _version
            self._table = {
                generate_name(self._app.main, cls.__qualname__, cls.__module__): cls for cls in list(_defined.values())
            }
            self._table.update(self._added)
            self._table_version = version
        return self._table

    def __getitem__(self, name: str) -> type[Actor]:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())
