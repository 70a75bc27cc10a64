"""The parent's side of a spawner: its start, the orders to it, its answers, and its end.

Owns the process and the socket. It decides nothing and waits for nothing; the parent's loop watches `fileno()`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress

import msgspec

from ...transport.errors import GreenroomError
from .channel import Channel
from .orders import Answer, ForkOrder, Order, SignalOrder, SpawnerConfig

_MODULE = f"{__package__}.spawner"

_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_encoder = msgspec.msgpack.Encoder()


class SpawnerStartFailed(GreenroomError):
    """Raised when the system refuses to start the spawner's process."""


class SpawnerLink:
    """A running spawner. `generation` tells it from those before and after it."""

    def __init__(self, generation: int, config: SpawnerConfig) -> None:
        """Start it; `control` and `parent` of the config are filled in here. Raises SpawnerStartFailed."""
        self.generation = generation
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            raise SpawnerStartFailed(f"the spawner cannot be started: {error}") from error
        config = msgspec.structs.replace(config, control=theirs.fileno(), parent=os.getpid())
        arguments = [sys.executable, "-m", _MODULE, msgspec.json.encode(config).decode()]
        handed_down = [descriptor for descriptor in (config.control, config.lock) if descriptor >= 0]
        try:
            for descriptor in handed_down:
                os.set_inheritable(descriptor, True)
            # A session of its own: a signal to the parent's group, such as Ctrl-C, is the parent's to answer, and
            # a SIGKILL to the group leaves somebody who ends the children.
            self.pid = os.posix_spawn(
                sys.executable,
                arguments,
                os.environ,
                file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD],
            )
        except OSError as error:
            ours.close()
            raise SpawnerStartFailed(f"the spawner cannot be started: {error}") from error
        finally:
            for descriptor in handed_down:
                os.set_inheritable(descriptor, False)
            theirs.close()
        self.channel = Channel(ours)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.channel.fileno()

    def fork(self, number: int, mark: str, config: bytes) -> Channel:
        """Order a child; return the parent's end of its pipe. Raises OSError where there is no room for a pipe."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._order(ForkOrder(number, mark, config), theirs.detach())
        return Channel(ours)

    def signal(self, number: int, signal_number: int) -> None:
        """Have a child signalled, after it was forked."""
        self._order(SignalOrder(number, signal_number))

    def answers(self) -> list[Answer]:
        """Return what it said. `channel.closed` turns true once it is gone."""
        return [_answers.decode(message) for message in self.channel.receive()]

    def kill(self) -> None:
        """End it and, by PDEATHSIG, its children. It must not have been waited for."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of it: it kills what is left of its children and ends."""
        self.channel.close()

    def _order(self, order: Order, *descriptors: int) -> None:
        self.channel.send(_encoder.encode(order), descriptors)
