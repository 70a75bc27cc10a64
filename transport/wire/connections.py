"""Which connections a broker's socket has, which frames are whose, and when one is over (spec D2).

Owns the numbers that the core knows links by, and the verdict that a connection ended. libzmq tells three
things that must be brought together: frames come with a routing id; the first frame of a routing id can be
asked for its file descriptor; the monitor says which descriptor was accepted or disconnected. A
descriptor's number is used again by the next connection, and the monitor runs ahead of the frames, so a
disconnection alone does not say whose it is:

- every connection that has the descriptor is a *suspect*, and so is one that is first heard on it a little later;
- a suspect is probed: a mandatory send to a routing id whose pipe has ended fails with EHOSTUNREACH, and by then
  all that it had sent is in the socket's queues;
- a suspect that can still be sent to after VERDICT_PATIENCE is alive if the descriptor is open (it belongs to the
  new one, and the suspicion was about the old), else it is given up.

The driver reads its socket until it is empty between the verdict and telling the core, so that frames of
the dead come before their end. A connection that was accepted and says nothing for HELLO_PATIENCE is cut,
and so is one that the core closed, CUT_GRACE later: the last words to it shall arrive.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

VERDICT_PATIENCE: Final = 200_000
#: How long after its end a connection's first frame may still be found unread.
UNCLAIMED_PATIENCE: Final = 10_000_000
HELLO_PATIENCE: Final = 5_000_000
CUT_GRACE: Final = 200_000
#: How soon a suspect is probed again.
PROBE_INTERVAL: Final = 1_000


class Connection:
    """One connection. `number` is the core's name for it; 0 once the core closed it, or if turned away."""

    __slots__ = ("descriptor", "inode", "number", "over", "routing_id")

    def __init__(self, routing_id: bytes, number: int, descriptor: int, inode: int) -> None:
        self.routing_id = routing_id
        self.number = number
        self.descriptor = descriptor
        self.inode = inode
        #: The verdict was spoken.
        self.over = False


class Connections:
    """All connections of one ROUTER socket. Times are boot microseconds."""

    def __init__(self) -> None:
        #: Routing id -> connection; those that the core closed stay until they end, so that they are not
        #: heard.
        self.by_id: dict[bytes, Connection] = {}
        self.by_number: dict[int, Connection] = {}
        self._by_descriptor: dict[int, list[Connection]] = {}
        #: Descriptors that the monitor says are open -> their inode.
        self._open: dict[int, int] = {}
        #: Descriptor -> when ends were told of it that are not yet known to be the end of anybody.
        self._unclaimed: dict[int, list[int]] = {}
        self._suspects: dict[Connection, int] = {}
        #: (when, descriptor, inode): accepted connections that have not said Hello, in order of time.
        self._silent: deque[tuple[int, int, int]] = deque()
        #: The same of connections that are to be cut.
        self._condemned: deque[tuple[int, int, int]] = deque()
        self._numbers = 0

    # --- what the monitor tells ----------------------------------------------------------------------------------

    def accepted(self, descriptor: int, now: int) -> None:
        """The socket has a new connection on this descriptor."""
        inode = inode_of(descriptor)
        self._open[descriptor] = inode
        self._silent.append((now + HELLO_PATIENCE, descriptor, inode))

    def turn_away(self, descriptor: int) -> None:
        """Cut a connection that was just accepted."""
        cut(descriptor, self._open[descriptor])

    def disconnected(self, descriptor: int, now: int) -> None:
        """A connection on this descriptor is over."""
        self._open.pop(descriptor, None)
        self._has_unclaimed_end(descriptor, now)
        self._unclaimed.setdefault(descriptor, []).append(now)
        for connection in self._by_descriptor.get(descriptor, ()):
            if not connection.over:
                self._suspects[connection] = now + VERDICT_PATIENCE

    # --- what frames and the core tell ---------------------------------------------------------------------------

    def greeted(self, routing_id: bytes, descriptor: int, now: int, *, welcome: bool) -> Connection:
        """A routing id was heard for the first time. `welcome`: it gets a number; else it is cut in a moment.

        The monitor must have been read after the frame was.
        """
        number = 0
        if welcome:
            self._numbers += 1
            number = self._numbers
        connection = Connection(routing_id, number, descriptor, inode_of(descriptor))
        self.by_id[routing_id] = connection
        self._by_descriptor.setdefault(descriptor, []).append(connection)
        if number:
            self.by_number[number] = connection
        else:
            self._condemned.append((now + CUT_GRACE, descriptor, connection.inode))
        if self._has_unclaimed_end(descriptor, now) or descriptor not in self._open:
            self._suspects[connection] = now + VERDICT_PATIENCE
        return connection

    def close(self, number: int, now: int) -> None:
        """The core is done with this connection: it is not heard any more, and cut after CUT_GRACE."""
        connection = self.by_number.pop(number, None)
        if connection is None:
            return
        connection.number = 0
        self._condemned.append((now + CUT_GRACE, connection.descriptor, connection.inode))

    # --- verdicts ------------------------------------------------------------------------------------------------

    def judge(self, probe: Callable[[bytes], bool], now: int) -> list[Connection]:
        """Return the connections that are over; their frames count until they are forgotten.

        `probe(routing_id)` tells whether it can be sent to.
        """
        if not self._suspects:
            return []
        over: list[Connection] = []
        for connection, until in list(self._suspects.items()):
            if probe(connection.routing_id):
                if now < until:
                    continue
                if connection.descriptor in self._open:
                    del self._suspects[connection]
                    continue
            del self._suspects[connection]
            connection.over = True
            over.append(connection)
            self._claim_end(connection.descriptor)
        return over

    def forget(self, connection: Connection) -> int:
        """Everything of it has been read. Return its number, 0 if the core has none for it."""
        self.by_id.pop(connection.routing_id, None)
        self.by_number.pop(connection.number, None)
        owners = self._by_descriptor[connection.descriptor]
        owners.remove(connection)
        if not owners:
            del self._by_descriptor[connection.descriptor]
        return connection.number

    def cut_overdue(self, now: int) -> None:
        """Cut what said no Hello in time and what was closed; the monitor will tell that they are over."""
        while self._silent and self._silent[0][0] <= now:
            _, descriptor, inode = self._silent.popleft()
            if self._open.get(descriptor) == inode and not self._is_claimed(descriptor, inode):
                cut(descriptor, inode)
        while self._condemned and self._condemned[0][0] <= now:
            _, descriptor, inode = self._condemned.popleft()
            cut(descriptor, inode)

    def wake_at(self, now: int) -> int:
        """Return when `judge` or `cut_overdue` has something to do; 0: not at all so far."""
        times = [queue[0][0] for queue in (self._silent, self._condemned) if queue]
        if self._suspects:
            times.append(now + PROBE_INTERVAL)
        return min(times, default=0)

    def _has_unclaimed_end(self, descriptor: int, now: int) -> bool:
        """Forget old ends; tell whether a late one may be that of a connection that is heard only now."""
        ends = self._unclaimed.get(descriptor)
        if ends is None:
            return False
        # Older ones are of connections that never said a word.
        ends = [at for at in ends if now - at < UNCLAIMED_PATIENCE]
        if ends:
            self._unclaimed[descriptor] = ends
            return True
        del self._unclaimed[descriptor]
        return False

    def _claim_end(self, descriptor: int) -> None:
        ends = self._unclaimed.get(descriptor)
        if ends is not None:
            ends.pop(0)
            if not ends:
                del self._unclaimed[descriptor]

    def _is_claimed(self, descriptor: int, inode: int) -> bool:
        return any(connection.inode == inode for connection in self._by_descriptor.get(descriptor, ()))


def inode_of(descriptor: int) -> int:
    """Return what tells this socket from the next one on the same descriptor; 0 if it is closed already."""
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return 0


def cut(descriptor: int, inode: int) -> bool:
    """Shut a connection down under libzmq, which then sees it end; False if it is gone.

    The descriptor is libzmq's to close. What is shut is a duplicate that was checked to be the same socket, so that
    a number that was used again meanwhile harms nobody; only where the process has no descriptor left for that is
    the number itself trusted for the moment between two calls.
    """
    try:
        copy = os.dup(descriptor)
    except OSError as error:
        return error.errno == errno.EMFILE and inode_of(descriptor) == inode and _shut(descriptor)
    try:
        return inode != 0 and inode_of(copy) == inode and _shut(copy)
    finally:
        os.close(copy)


def _shut(descriptor: int) -> bool:
    """Shut down the socket, and leave the descriptor as it is."""
    try:
        opened = socket.socket(fileno=descriptor)
    except OSError:
        return False
    try:
        opened.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    finally:
        opened.detach()
    return True
