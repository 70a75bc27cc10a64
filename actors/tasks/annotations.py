"""What the setting `task_annotations` says of a task: attributes that the application's owner puts over its own.

An annotation is a dict from a task's name, or `*` for all, to attributes; an object with `annotate(task)` and
`annotate_any()`, or the path of one; or a list of these. Those of the name come before those of `*`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from ..settings.loader import import_by_name

if TYPE_CHECKING:
    from .task import Task


def annotations_of(annotations: Any, task: Task[..., Any]) -> list[tuple[str, Any]]:
    """Return the attributes for a task and their values, in the order of setting them."""
    if not annotations:
        return []
    found: list[tuple[str, Any]] = []
    items = cast("list[Any]", annotations) if isinstance(annotations, list | tuple) else [annotations]
    for annotation in items:
        if isinstance(annotation, str):
            annotation = import_by_name(annotation)
        if isinstance(annotation, type):
            annotation = cast("Any", annotation)()
        if isinstance(annotation, Mapping):
            table = cast("Mapping[str, Any]", annotation)
            parts = [table.get("*"), table.get(task.name)]
        else:
            parts = [_ask(annotation, "annotate_any"), _ask(annotation, "annotate", task)]
        # The name's own come last, so that they hold.
        for part in parts:
            if part:
                found.extend(cast("Mapping[str, object]", part).items())
    return found


def _ask(annotation: Any, method: str, *args: Any) -> Any:
    function = getattr(annotation, method, None)
    return function(*args) if function is not None else None
