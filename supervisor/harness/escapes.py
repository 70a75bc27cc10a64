"""What user code in a simulated world may not do: leave it. Real I/O is neither repeatable nor taken back.

Owns the audit hook that sees sockets, processes and changes of files (threads are seen by `patches`), and the judgement
on who did it: only user code (a body, or a test in its world) is held to it. Greenroom itself, Hypothesis, pytest and
imports are not. The hook cannot be taken out again, so it is put in once and asks first whether anybody is in a realm.

An escape raises `EscapedSimulation` in user code, and again in the test even if user code has swallowed it.
"""

from __future__ import annotations

import inspect
import os
import site
import sys
import sysconfig
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from .realm import Realm, current_realm

#: What can be allowed, and what it is in words.
KINDS: Final[dict[str, str]] = {
    "open": "changes files",
    "socket": "uses the network",
    "process": "starts or signals a process",
    "thread": "starts a thread",
}
_EVENTS: Final[dict[str, str]] = {
    "open": "open",
    **dict.fromkeys(("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"), "open"),
    **dict.fromkeys(("socket.__new__", "socket.connect", "socket.bind", "socket.getaddrinfo"), "socket"),
    **dict.fromkeys(("socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto", "socket.sendmsg"), "socket"),
    **dict.fromkeys(("subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.posix_spawn"), "process"),
    **dict.fromkeys(("os.exec", "os.kill", "os.killpg", "pty.spawn"), "process"),
}
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class EscapedSimulation(RuntimeError):
    """Raised when user code in a simulated world does something outside of it that is not allowed."""


def install() -> None:
    """Put the hook in, once."""
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)


@contextmanager
def allowing(realm: Realm, *kinds: str) -> Generator[None]:
    """Within this, everybody in the realm may do these (`KINDS`). Raises ValueError for a kind that there is not."""
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"there is nothing to allow called {kind!r}; there are {', '.join(KINDS)}")
    realm.allowed.update(kinds)
    try:
        yield
    finally:
        realm.allowed.subtract(kinds)


def escape(realm: Realm, kind: str, what: str) -> EscapedSimulation | None:
    """Judge what the caller is about to do: the error to raise, or None if it may, or is no user code."""
    if realm.allowed[kind] > 0 or realm.clockwork.closed:
        return None
    place = _place(inspect.currentframe())
    if place is None:
        return None
    error = EscapedSimulation(
        f"{place} {KINDS[kind]} ({what}), on {realm.lane}: in a simulated world that would happen again at each try, "
        f"and no fault could undo it. Put a fake in its place, or allow it with sim.allow({kind!r})"
    )
    realm.escaped = realm.escaped or error
    return error


_installed = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    kind = _EVENTS.get(event)
    if kind is None:
        return
    realm = current_realm()
    if realm is None or (event == "open" and not _writes(*arguments)):
        return
    shown = arguments[0] if event != "socket.__new__" and arguments else ""
    error = escape(realm, kind, f"{event} {shown!r}" if isinstance(shown, str | bytes | int) and shown else event)
    if error is not None:
        raise error


def _writes(path: Any, mode: str | None, flags: int) -> bool:
    if isinstance(path, int) or path == os.devnull:
        # A descriptor that is open already, or nothing.
        return False
    return any(letter in mode for letter in "wax+") if mode else bool(flags & _WRITING)


# --- who did it ---------------------------------------------------------------------------------------------------

_HOUSE: Final = Path(__file__).resolve().parents[2]
#: Frames of these are looked through: what they do, they do for their caller.
_STANDARD: Final = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})
_INSTALLED: Final = tuple({*site.getsitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
_OWN: Final = tuple(f"{_HOUSE / floor}{os.sep}" for floor in ("actors", "supervisor", "transport"))
#: They write down what they have found, in the middle of a test.
_TOOLS: Final = tuple(
    f"{os.sep}{name}{os.sep}" for name in ("hypothesis", "_hypothesis_pytestplugin", "_pytest", "pluggy", "coverage")
)
_LOOKED_THROUGH: Final = tuple(str(_HOUSE / "supervisor" / "harness" / name) for name in ("escapes.py", "patches.py"))
#: Its frames stand between a function that was given to an executor and whoever gave it.
_EXECUTOR: Final = str(_HOUSE / "supervisor" / "harness" / "loop.py")


def _place(frame: FrameType | None) -> str | None:
    """Where user code is, as "file:line"; None: it was not user code."""
    nearest = ""
    while frame is not None:
        name = frame.f_code.co_filename
        is_installed = name.startswith(_INSTALLED)
        if name.startswith("<frozen importlib"):
            return None
        if name == _EXECUTOR:
            return nearest or "a function in an executor"
        if name in _LOOKED_THROUGH:
            frame = frame.f_back
            continue
        if name.startswith(_OWN):
            return nearest or None
        if is_installed and not nearest:
            if any(tool in name for tool in _TOOLS):
                return None
            nearest = f"{name}:{frame.f_lineno}"
        elif not is_installed and not name.startswith((*_STANDARD, *_OWN, "<frozen")):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return nearest or None
