"""What an application needs of the floor above: to run clusters and workers.

Owns the `Runtime` contract and the one that is installed. The root of the package hands in how it is loaded; it is
loaded when an application first asks for it, so that a program that only sends never pays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .app import App


class Runtime(Protocol):
    """Who can run brokers and workers."""

    def run(self, app: App, *, workers: int, **options: Any) -> AbstractContextManager[Any]:
        """Return an embedded cluster, a broker with its store and `workers` worker processes, for a `with`.

        Entering it starts the cluster and points the app to it; leaving it stops all that was started.
        """
        ...

    def worker_main(self, app: App, argv: Sequence[str]) -> int:
        """Run a worker of this app with the arguments of `greenroom worker`, until it stops; return its exit code."""
        ...

    def start(self, app: App, argv: Sequence[str]) -> int:
        """Run the command line for this app; return its exit code."""
        ...


_load: Callable[[], Runtime] | None = None
_runtime: Runtime | None = None


def install_runtime(load: Callable[[], Runtime]) -> None:
    """Say how the runtime is loaded when it is first needed."""
    global _load, _runtime
    _load, _runtime = load, None


def runtime() -> Runtime:
    """Return the runtime. Raises RuntimeError where none is installed."""
    global _runtime
    if _runtime is None:
        if _load is None:
            raise RuntimeError("nothing that can run a cluster is installed; import greenroom, not greenroom.actors")
        _runtime = _load()
    return _runtime
