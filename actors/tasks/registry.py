"""The registry of an application's tasks: their names, and the tasks behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import NotRegistered

if TYPE_CHECKING:
    from .task import Task


class TaskRegistry(dict[str, "Task[..., Any]"]):
    """A dict of tasks by name. A name that is not there raises `NotRegistered`."""

    def __missing__(self, name: str) -> Task[..., Any]:
        raise NotRegistered(name)

    def register(self, task: Task[..., Any]) -> None:
        """Add a task under its own name."""
        self[task.name] = task

    def unregister(self, name: str | Task[..., Any]) -> None:
        """Remove a task. Raises NotRegistered."""
        key = name if isinstance(name, str) else name.name
        if key not in self:
            raise NotRegistered(key)
        del self[key]

    def regular(self) -> dict[str, Task[..., Any]]:
        """Return the tasks that are called by people and programs: all."""
        return dict(self)

    def periodic(self) -> dict[str, Task[..., Any]]:
        """Return the tasks that are periodic by themselves, which are none: schedules are settings."""
        return {}
