"""The standard library as user code in a simulated world meets it: virtual time, seeded chance, simulated processes.

Owns the replacements of functions in `time`, `datetime`, `random`, `uuid`, `os` and `signal`, and of Greenroom's own
ids. They are put in once (`install`) and stay; each asks who is calling, and does what the original does for everybody
who is in no realm. Modules that had taken a function out of its module before (`from time import sleep`) get the
replacement too, by `substitute`, which looks at each module once.

`datetime.now` and `utcnow` read the clock in C, and so their class itself is changed: a substitute class would be met
only by those who look it up in its module, and could not be pickled.
"""

from __future__ import annotations

import ctypes
import datetime
import functools
import gc
import os
import random
import signal
import sys
import threading
import time
import uuid
from asyncio import events
from collections.abc import Callable
from typing import Any, Final

from ...actors import identity
from ...transport.clock import MICROSECONDS
from . import escapes, loop
from .child_process import ChildProcess
from .realm import Realm, current_realm

#: Between the beginning of UUIDs' time in 1582 and of Unix's, in 100 ns.
_UUID_EPOCH: Final = 0x01B21DD213814000
#: A multicast address, which is no machine's.
_NODE: Final = 0x0100_0000_0001

_REALTIME: Final = 0
#: By the id of an original, the original (so that the id stays its own) and what stands in its place.
_replaced: dict[int, tuple[object, object]] = {}
#: By name, the id of a module that was looked at.
_seen: dict[str, int] = {}
_modules = 0


def install() -> None:
    """Put the replacements in, once; from the second call on, only look at modules that are new."""
    if not _replaced:
        # Kept from now on: in a realm the process would have another number.
        identity.origin()
        identity.make_ids_with(_new_id)
        _install_time()
        _install_datetime()
        _install_chance()
        _install_processes()
        for function in (loop.new_event_loop, loop.set_event_loop, loop.get_event_loop):
            _replace(events, function.__name__, function)
        _install_threads()
        escapes.install()
    substitute()


def substitute() -> None:
    """Replace what modules have taken out of their module before."""
    global _modules
    if len(sys.modules) == _modules:
        return
    _modules = len(sys.modules)
    for name, module in list(sys.modules.items()):
        if _seen.get(name) == id(module):
            continue
        _seen[name] = id(module)
        if name.partition(".")[0] in _LEFT_ALONE:
            continue
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            found = _replaced.get(id(value))
            if found is not None and not attribute.startswith("__"):
                setattr(module, attribute, found[1])


#: They measure themselves, and make up their own chance.
_LEFT_ALONE: Final = frozenset(
    {"_pytest", "coverage", "hypothesis", "pluggy", "pytest", "pytest_timeout", "threading", "xdist", __name__}
)


def _replace(module: Any, name: str, inside: Callable[..., Any]) -> None:
    """Let `inside(realm, ...)` answer for `module.name` in a realm."""
    original = getattr(module, name, None)
    if original is None:
        # Not on this platform, or not in this Python.
        return

    @functools.wraps(original)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        realm = current_realm()
        return original(*args, **kwargs) if realm is None else inside(realm, *args, **kwargs)

    _replaced[id(original)] = (original, replacement)
    setattr(module, name, replacement)


def _new_id() -> object:
    realm = current_realm()
    return identity.uuid7() if realm is None else realm.new_id()


# --- time ---------------------------------------------------------------------------------------------------------


def _install_time() -> None:
    gmtime, localtime, ctime, strftime = time.gmtime, time.localtime, time.ctime, time.strftime

    def gmtime_inside(realm: Realm, seconds: float | None = None) -> time.struct_time:
        return gmtime(_seconds(realm) if seconds is None else seconds)

    def localtime_inside(realm: Realm, seconds: float | None = None) -> time.struct_time:
        return localtime(_seconds(realm) if seconds is None else seconds)

    def ctime_inside(realm: Realm, seconds: float | None = None) -> str:
        return ctime(_seconds(realm) if seconds is None else seconds)

    def strftime_inside(realm: Realm, form: str, when: Any = None) -> str:
        return strftime(form, localtime(_seconds(realm)) if when is None else when)

    _replace(time, "time", _seconds)
    _replace(time, "time_ns", _nanoseconds)
    for name in ("monotonic", "perf_counter", "process_time", "thread_time"):
        _replace(time, name, _boot_seconds)
        _replace(time, f"{name}_ns", _boot_nanoseconds)
    _replace(time, "clock_gettime", _clock_seconds)
    _replace(time, "clock_gettime_ns", _clock_nanoseconds)
    _replace(time, "sleep", Realm.sleep)
    _replace(time, "gmtime", gmtime_inside)
    _replace(time, "localtime", localtime_inside)
    _replace(time, "ctime", ctime_inside)
    _replace(time, "strftime", strftime_inside)


def _seconds(realm: Realm) -> float:
    return realm.now.wall / MICROSECONDS


def _nanoseconds(realm: Realm) -> int:
    return realm.now.wall * 1_000


def _boot_seconds(realm: Realm) -> float:
    return realm.now.boot / MICROSECONDS


def _boot_nanoseconds(realm: Realm) -> int:
    return realm.now.boot * 1_000


def _clock_seconds(realm: Realm, clock: int) -> float:
    return _seconds(realm) if clock == _REALTIME else _boot_seconds(realm)


def _clock_nanoseconds(realm: Realm, clock: int) -> int:
    return _nanoseconds(realm) if clock == _REALTIME else _boot_nanoseconds(realm)


def _install_datetime() -> None:
    cls = datetime.datetime
    # `today` asks `time.time`, and `date.today` does.
    members: dict[str, Any] = gc.get_referents(cls.__dict__)[0]
    now, utcnow = members["now"], members["utcnow"]

    def now_inside(owner: type[datetime.datetime], tz: datetime.tzinfo | None = None) -> datetime.datetime:
        """As `datetime.datetime.now`; in a simulated world, its time."""
        realm = current_realm()
        if realm is None:
            found: datetime.datetime = now.__get__(None, owner)(tz)
            return found
        return owner.fromtimestamp(_seconds(realm), tz)

    def utcnow_inside(owner: type[datetime.datetime]) -> datetime.datetime:
        """As `datetime.datetime.utcnow`; in a simulated world, its time."""
        realm = current_realm()
        if realm is None:
            found: datetime.datetime = utcnow.__get__(None, owner)()
            return found
        return owner.fromtimestamp(_seconds(realm), datetime.UTC).replace(tzinfo=None)

    members["now"] = classmethod(now_inside)
    members["utcnow"] = classmethod(utcnow_inside)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))


# --- chance -------------------------------------------------------------------------------------------------------


def _install_chance() -> None:
    hidden = random.random.__self__  # type: ignore[attr-defined]
    for name in dir(random):
        function = getattr(random, name)
        if getattr(function, "__self__", None) is hidden:
            _replace(random, name, functools.partial(_draw, name))
    seed = random.Random.seed

    def seed_inside(self: random.Random, a: Any = None, version: int = 2) -> None:
        """As `random.Random.seed`; in a simulated world, one without a seed gets the world's."""
        realm = current_realm()
        if a is None and realm is not None:
            a = realm.urandom(16)
        seed(self, a, version)

    random.Random.seed = seed_inside  # type: ignore[method-assign]
    _replace(os, "urandom", Realm.urandom)
    _replace(os, "getrandom", _getrandom)
    _replace(uuid, "uuid1", _uuid1)
    random._urandom = os.urandom  # type: ignore[attr-defined]


def _getrandom(realm: Realm, size: int, flags: int = 0) -> bytes:
    return realm.urandom(size)


def _draw(name: str, realm: Realm, *args: Any, **kwargs: Any) -> Any:
    return getattr(realm.random, name)(*args, **kwargs)


def _uuid1(realm: Realm, node: int | None = None, clock_seq: int | None = None) -> uuid.UUID:
    ticks = realm.now.wall * 10 + _UUID_EPOCH
    sequence = int.from_bytes(realm.urandom(2)) & 0x3FFF if clock_seq is None else clock_seq & 0x3FFF
    fields = (
        ticks & 0xFFFF_FFFF,
        ticks >> 32 & 0xFFFF,
        ticks >> 48 & 0xFFF,
        sequence >> 8,
        sequence & 0xFF,
        _NODE if node is None else node,
    )
    return uuid.UUID(fields=fields, version=1)


# --- threads and processes -----------------------------------------------------------------------------------------


def _install_threads() -> None:
    # Before Python 3.12 no audit event tells of them.
    for module, name in ((threading, "_start_new_thread"), (threading, "_start_joinable_thread")):
        start = getattr(module, name, None)

        def start_inside(realm: Realm, *args: Any, start: Any = start, **kwargs: Any) -> Any:
            error = escapes.escape(realm, "thread", "threading")
            if error is not None:
                raise error
            return start(*args, **kwargs)

        _replace(module, name, start_inside)
    threading.Condition.wait = _waiting(threading.Condition.wait)  # type: ignore[method-assign]


def _waiting(original: Callable[..., bool]) -> Callable[..., bool]:
    """What events, queues and semaphores wait by: in a realm, for another fiber, which must have its turn meanwhile."""

    def wait(self: Any, timeout: float | None = None) -> bool:
        """As `threading.Condition.wait`; in a simulated world, on its time."""
        realm = current_realm()
        if realm is None or realm.clockwork.closed or realm.allowed["thread"] > 0:
            # Where real threads are allowed, it may be for one of them.
            return original(self, timeout)
        if not self._is_owned():
            raise RuntimeError("cannot wait on un-acquired lock")
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.append(waiter)
        saved = self._release_save()
        notified = False
        try:
            notified = realm.poll(lambda: waiter.acquire(blocking=False), timeout)
        finally:
            self._acquire_restore(saved)
            if not notified and waiter in self._waiters:
                self._waiters.remove(waiter)
        return notified

    return wait


def _install_processes() -> None:
    getpid, kill, leave, abort, raise_signal = os.getpid, os.kill, os._exit, os.abort, signal.raise_signal

    def child(realm: Realm) -> ChildProcess | None:
        process = realm.process
        return process if isinstance(process, ChildProcess) else None

    def getpid_inside(realm: Realm) -> int:
        process = child(realm)
        return getpid() if process is None else process.pid

    def kill_inside(realm: Realm, pid: int, number: int) -> None:
        process = child(realm)
        if process is None or pid != process.pid:
            kill(pid, number)
        elif number:
            process.kill(number)

    def exit_inside(realm: Realm, status: int) -> None:
        process = child(realm)
        if process is None:
            leave(status)
        else:
            process.exit(status)

    def abort_inside(realm: Realm) -> None:
        process = child(realm)
        if process is None:
            abort()
        else:
            process.kill(signal.SIGABRT)

    def raise_inside(realm: Realm, number: int) -> None:
        process = child(realm)
        if process is None:
            raise_signal(number)
        else:
            process.kill(number)

    _replace(os, "getpid", getpid_inside)
    _replace(os, "kill", kill_inside)
    _replace(os, "_exit", exit_inside)
    _replace(os, "abort", abort_inside)
    _replace(signal, "raise_signal", raise_inside)
