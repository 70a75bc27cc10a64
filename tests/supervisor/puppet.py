"""A body for children in tests: it does what it is told on its pipe, and answers each word.

Words and answers are framed like everything on that pipe; a word is a MessagePack list, an answer any value.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

import msgspec

from greenroom.actors.worker.control import ChildConfig

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]


def puppet(config: ChildConfig, pipe: int) -> int:
    """Obey until told to exit, or until the pipe ends."""
    with socket.socket(fileno=pipe) as connection:
        while True:
            word = receive(connection)
            if word is None:
                return 0
            if word[0] == "exit":
                return int(word[1])
            send(connection, obey(config, word))


def obey(config: ChildConfig, word: list[Any]) -> Any:
    match word:
        case ["who"]:
            return {
                "pid": os.getpid(),
                "parent": os.getppid(),
                "session": os.getsid(0),
                "mark": os.environ.get("GREENROOM_CHILD"),
                "number": config.number,
                "death_signal": _death_signal(),
                "modules": [name for name in ("puppet_app", "puppet_threads", "zmq") if name in sys.modules],
                "descriptors": _descriptors(),
                "terminates": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
            }
        case ["raise"]:
            raise RuntimeError("the puppet was told to raise")
        case ["sys_exit", code]:
            sys.exit(code)
        case ["os_exit", code]:
            os._exit(code)
        case ["kill", number]:
            os.kill(os.getpid(), number)
            signal.pause()
        case ["child"]:
            return subprocess.Popen(SLEEPER).pid
        case ["detached_child"]:
            return subprocess.Popen(SLEEPER, start_new_session=True).pid
        case ["daemon"]:
            # The one in between ends at once, so that whoever adopts orphans gets the daemon.
            code = f"import subprocess; print(subprocess.Popen({SLEEPER!r}, start_new_session=True, stdout=-3).pid)"
            return int(subprocess.check_output([sys.executable, "-c", code]))
        case ["plain_fork"]:
            pid = os.fork()
            if pid == 0:
                while True:
                    signal.pause()
            return pid
        case ["ignore", number]:
            signal.signal(number, signal.SIG_IGN)
        case ["allocate", mebibytes]:
            return len(b"x" * (mebibytes << 20))
        case ["fill_stderr"]:
            threading.Thread(target=fill_stderr, daemon=True).start()
        case _:
            raise ValueError(f"a word that no puppet knows: {word}")
    return None


def _descriptors() -> list[str]:
    """Say what the open descriptors above the standard ones are."""
    links: list[str] = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            links += [os.readlink(f"/proc/self/fd/{name}")] if int(name) > 2 else []
    return links


def fill_stderr() -> None:
    while True:
        sys.stderr.write("x" * 65536)


def _death_signal() -> int:
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0)
    return number.value


def receive(connection: socket.socket) -> list[Any] | None:
    header = _exactly(connection, 4)
    if header is None:
        return None
    body = _exactly(connection, int.from_bytes(header, "big"))
    return None if body is None else msgspec.msgpack.decode(body)


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            return None
        data += more
    return data


def send(connection: socket.socket, answer: Any) -> None:
    body = msgspec.msgpack.encode(answer)
    connection.sendall(len(body).to_bytes(4, "big") + body)
