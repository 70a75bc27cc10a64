"""Where a task's messages go.

Owns `Router`: the routes of `task_routes`, in order, each a table (names, globs with `*`, patterns), a function
`route(name, args, kwargs, options, task=None)`, an object with `route_for_task(name, args, kwargs)`, or the dotted
path of one of these. The first that answers decides. Precedence, highest first: the call's options, the task's own
attributes, the routes, the default queue.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from ..errors import ImproperlyConfigured
from ..settings.loader import import_by_name
from .queues import Queues

Route = dict[str, Any]


class TableRoute:
    """Routes by the task's name."""

    def __init__(self, table: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> None:
        items = cast("Iterable[tuple[Any, Any]]", table.items() if isinstance(table, Mapping) else table)
        self._exact: dict[str, Any] = {}
        self._patterns: list[tuple[re.Pattern[str], Any]] = []
        for name, route in items:
            if isinstance(name, re.Pattern):
                self._patterns.append((cast("re.Pattern[str]", name), route))
            elif "*" in name:
                self._patterns.append((re.compile(glob_pattern(name)), route))
            else:
                self._exact[name] = route

    def __call__(self, name: str) -> Route | None:
        """Return the route of a task, or None."""
        if name in self._exact:
            return as_route(self._exact[name])
        for pattern, route in self._patterns:
            if pattern.match(name):
                return as_route(route)
        return None


class Router:
    """The routes of one application."""

    def __init__(self, routes: Any, queues: Queues, default_queue: Any) -> None:
        self.queues = queues
        self._default_queue = default_queue
        self._routes: Final = [_prepare(route) for route in _list_of(routes)]
        #: Some route looks at more than the name, so that each call must be routed anew.
        self.dynamic: Final = any(not isinstance(route, TableRoute) for route in self._routes)

    def lookup(
        self, name: str, args: Any = (), kwargs: Any = None, options: Mapping[str, Any] | None = None, task: Any = None
    ) -> Route | None:
        """Return what the first route that answers says, or None."""
        for route in self._routes:
            answer: Any
            if isinstance(route, TableRoute):
                answer = route(name)
            elif hasattr(route, "route_for_task"):
                answer = route.route_for_task(name, args, kwargs or {})
            else:
                answer = route(name, args, kwargs or {}, dict(options or {}), task=task)
            if answer is not None:
                return as_route(answer)
        return None

    def route(
        self, options: Route, name: str, args: Any = (), kwargs: Any = None, task: Any = None
    ) -> tuple[str, Route]:
        """Return the mailbox of a call, and its options with those of the route under them.

        Raises QueueNotFound.
        """
        route = self.lookup(name, args, kwargs, options, task) if self._routes else None
        if route is not None:
            if any(options.get(key) is not None for key in ("queue", "exchange", "routing_key")):
                # A call that says where it goes says all of it.
                route = {key: route[key] for key in route if key not in ("queue", "exchange", "routing_key")}
            options = {**route, **{key: value for key, value in options.items() if value is not None}}
        return self.queues.mailbox(options, self._default_queue), options


def glob_pattern(glob: str) -> str:
    """Return the pattern of a name with `*` for any characters, at least one."""
    return "".join(".+" if part == "*" else re.escape(part) for part in re.split(r"(\*)", glob)) + r"\Z"


def as_route(route: Any) -> Route:
    """Return a route as options; a text is the name of a queue."""
    if isinstance(route, str):
        return {"queue": route}
    if isinstance(route, Mapping):
        table = cast("Mapping[object, Any]", route)
        return {str(key): value for key, value in table.items()}
    if hasattr(route, "name"):
        return {"queue": route}
    raise ImproperlyConfigured(f"a route must be a queue's name or a dict of options, not {route!r}")


def _list_of(routes: Any) -> list[Any]:
    if routes is None:
        return []
    return list(cast("list[Any]", routes)) if isinstance(routes, list | tuple) else [routes]


def _prepare(route: Any) -> TableRoute | Any:
    if isinstance(route, tuple):
        pair = cast("tuple[object, ...]", route)
        if len(pair) == 2 and isinstance(pair[0], str | re.Pattern):
            # A pair of a table that was written without its own brackets.
            table: list[tuple[object, object]] = [pair]
            return TableRoute(table)
    if isinstance(route, Mapping | list | tuple):
        return TableRoute(cast("Mapping[Any, Any]", route))
    if isinstance(route, str):
        route = import_by_name(route)
    if isinstance(route, type):
        made: Callable[[], Any] = route
        route = made()
    if not callable(route) and not hasattr(route, "route_for_task"):
        raise ImproperlyConfigured(
            f"task_routes holds {route!r}; expected a dict, a function, an object with route_for_task, or its path"
        )
    return route
