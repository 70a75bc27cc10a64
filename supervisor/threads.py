"""Children that are threads of this process: a link, an HTTP server, a beat.

Owns `ThreadRunner` and the `ThreadChild` that the target of such a child is handed as its first argument.
The target says when it is up, returns when it is asked to stop, and may raise: that is its crash.

A thread cannot be killed. One that does not stop within its budget is abandoned: reported as killed and
left behind, and what it does after that is on its own. So targets must watch `stopping`.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from ..transport.errors import GreenroomError
from .reasons import KILLED, NORMAL, SHUTDOWN, ExitReason, crashed
from .runner import ChildRun

_log = logging.getLogger("greenroom.supervisor")


class ThreadChild:
    """What the target of a thread child knows of its supervision.

    `stopping` is set when it is to return; `run` names it: its path, spec and incarnation.
    """

    def __init__(self, run: ChildRun) -> None:
        self.run = run
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._ended = False

    def started(self) -> None:
        """Say that the child is up; those after it are started now."""
        with self._lock:
            if not self._ended:
                self.run.started()

    def end(self, reason: ExitReason) -> None:
        """Report the end of this child, once: by its return, its exception or its being abandoned."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self.run.exited(reason)


class ThreadRunner:
    """Runs `target(child, *args, **kwargs)` of a spec in a thread; `child` is a `ThreadChild`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: dict[str, ThreadChild] = {}

    def start(self, run: ChildRun) -> None:
        """Start the thread; the child is up when it says so."""
        child = ThreadChild(run)
        with self._lock:
            self._children[run.path] = child
        threading.Thread(target=self._body, args=(child,), name=run.path, daemon=True).start()

    def stop(self, run: ChildRun, reason: ExitReason, budget_seconds: float | None) -> None:
        """Set `stopping`."""
        child = self._children.get(run.path)
        if child is not None:
            child.stopping.set()

    def kill(self, run: ChildRun) -> None:
        """Abandon the thread."""
        child = self._children.get(run.path)
        if child is not None:
            child.stopping.set()
            self._end(child, KILLED)

    def _body(self, child: ThreadChild) -> None:
        spec: Any = child.run.spec
        try:
            spec.target(child, *spec.args, **spec.kwargs)
        except BaseException as error:
            # The supervisor learns of it by the reason, and tells. A traceback adds to that only where the text was
            # not written for people: a broker that finds its data folder taken needs none.
            level = logging.DEBUG if isinstance(error, GreenroomError) else logging.ERROR
            _log.log(level, "child %s failed", child.run.path, exc_info=True)
            self._end(child, crashed(f"{type(error).__name__}: {error}"))
        else:
            self._end(child, SHUTDOWN if child.stopping.is_set() else NORMAL)

    def _end(self, child: ThreadChild, reason: ExitReason) -> None:
        # Forgotten before it is reported: after the report the next incarnation may take its place.
        with self._lock:
            if self._children.get(child.run.path) is child:
                del self._children[child.run.path]
        child.end(reason)
