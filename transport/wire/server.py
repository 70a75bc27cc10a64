"""The broker's driver: sockets, store and clock around a core that decides everything.

One pass of the loop: read what is ready (bounded), give it to the core as one `Received`, then what ended,
what the store answered, and a tick if one is due; then send what the core wants said, as few frames as
possible, since a frame is what is ready now. Commits run in the store's thread meanwhile (storekeeper.py).
Which connection is which and when one is over is in connections.py.

What is judged here and not in the core is authentication: a connection's first frame must begin with a
Hello that presents the broker's token (Unix sockets need none), else it gets a Reset and is cut; the core
never hears of it.

Limits: FRAMES_MAX or BYTES_MAX a pass, so that commits are answered under load. A frame for a link whose
buffer is full comes back to the core as LinkBlocked.
"""

from __future__ import annotations

import logging
import os
import select
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import zmq

from ..broker.core import Broker
from ..broker.events import (
    CloseLink,
    Drain,
    Effect,
    Event,
    Frame,
    LinkBlocked,
    LinksClosed,
    Notice,
    PagesRead,
    Persist,
    PersistFailed,
    ReadPages,
    Received,
    RoomRegained,
    Send,
    Stop,
    Tick,
    WakeAt,
)
from ..broker.settings import BrokerSettings
from ..clock import Clock, Now, system_now
from ..codec import BadFrame, decode_to_broker, encode
from ..errors import FrameTooLarge
from ..peer.framing import frames_of
from ..store.base import Store
from ..store.records import Recovered
from ..verbs import FromBroker, Hello, Report, Reset
from .binding import Binding
from .connections import Connection, Connections
from .socket_calls import MORE, NOBLOCK, has_input, receive_rest, send_parts
from .storekeeper import Broken, NoRoom, Room, StoreKeeper
from .token import tokens_match
from .wakeup import Wakeup
from .witness import Witness

FRAMES_MAX: Final = 512
BYTES_MAX: Final = 8 << 20
#: How long the frames of connections that are over are looked for under load.
DRAIN_PATIENCE: Final = 200_000
#: How often a full store is asked whether it has room again.
ROOM_INTERVAL: Final = 1_000_000
#: How often it is said that connections cannot be accepted.
COMPLAINT_INTERVAL: Final = 60_000_000
#: What was said last may take this long to leave when the broker stops.
FAREWELL_MILLISECONDS: Final = 500

#: Notices of the core that nobody needs to act on; all others are warnings.
GOOD_NEWS: Final = frozenset({"room_regained", "sessions_forgotten"})

#: A frame of no verbs: what a connection is probed with.
_PROBE: Final = encode([])[0]
#: How libzmq tells the peer of a Unix socket: with its user, group and process. Others are numeric addresses.
_UNIX_PEER: Final = "localhost:"
_logger = logging.getLogger("greenroom.broker")


class Core(Protocol):
    """What is driven: `transport.broker.core.Broker`."""

    def start(self, now: Now) -> list[Effect]:
        """Begin after recovery."""
        ...

    def apply(self, event: Event, now: Now) -> list[Effect]:
        """Take one event."""
        ...


MakeCore = Callable[[Recovered, BrokerSettings, str, Now], Core]
#: (node, sessions) -> reports of the pages that were found (spec D16). It may wait for processes to end.
ReadPagesOf = Callable[[str, list[str]], list[Report]]


class BrokerServer:
    """A broker that listens. `run` blocks until it is over; everything else may be called by any thread."""

    def __init__(
        self,
        bind: Sequence[str],
        store: Store,
        settings: BrokerSettings,
        name: str,
        *,
        make_core: MakeCore = Broker,
        data_folder: Path | None = None,
        read_pages: ReadPagesOf | None = None,
        clock: Clock = system_now,
        witness: Witness | None = None,
    ) -> None:
        """`witness` writes down what happens here, in a log of events."""
        self._bind = list(bind)
        self._witness = witness
        self._settings = settings
        self._name = name
        self._make_core = make_core
        self._data_folder = data_folder
        self._read_pages = read_pages
        self._clock = clock
        self._wakeup = Wakeup()
        self._keeper = StoreKeeper(store, self._wakeup, lambda: clock().wall)
        self._connections = Connections()
        #: Link -> verbs to be sent at the end of the pass.
        self._outgoing: dict[int, list[FromBroker]] = {}
        #: Events that came of acting, or from other threads.
        self._events: deque[Event] = deque()
        self._wake = 0
        self._last_serial = 0
        self._room_at = 0
        #: The spare descriptor was freed: whoever is accepted with it is cut.
        self._turning_away = False
        self._complain_at = 0
        #: Connections that are over, until everything of them was read; and until when that may take.
        self._over: list[Connection] = []
        self._over_until = 0
        self._stopped: Stop | None = None
        self._bound = threading.Event()
        self._failure: BaseException | None = None
        self._addresses: list[str] = []

    @property
    def addresses(self) -> list[str]:
        """Where it listens, actual ports filled in; empty before it does."""
        return list(self._addresses)

    @property
    def address(self) -> str:
        """The first of them; empty before it listens."""
        return self._addresses[0] if self._addresses else ""

    def wait_until_bound(self, timeout_seconds: float | None = None) -> bool:
        """Wait until it listens; False if it did not in time. Raises what made `run` fail before."""
        bound = self._bound.wait(timeout_seconds)
        if self._failure is not None:
            raise self._failure
        return bound

    def stop(self) -> None:
        """End in order: goodbyes, the last commits, then `run` returns. May be called by signal handlers."""
        self._events.append(Drain())
        self._wakeup.wake()

    def run(self) -> int:
        """Recover, listen and serve; return the exit code of the core's Stop.

        Raises what the store's open or the binding raises. May be called once.
        """
        context = zmq.Context()
        try:
            recovered = self._keeper.open()
            try:
                binding = Binding(context, self._bind, self._data_folder)
                try:
                    self._addresses = [str(address) for address in binding.addresses]
                    return self._serve(binding, recovered)
                finally:
                    binding.close(FAREWELL_MILLISECONDS)
            finally:
                self._keeper.close()
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._bound.set()
            context.term()
            self._wakeup.close()

    # --- the loop ------------------------------------------------------------------------------------------------

    def _serve(self, binding: Binding, recovered: Recovered) -> int:
        self._binding = binding
        self._socket = binding.socket
        self._monitor = binding.monitor
        self._token = binding.token
        now = self._clock()
        self._core = self._make_core(recovered, self._settings, self._name, now)
        # One bare poll: libzmq's own costs several times as much, and an idle round trip has two of them.
        poll = select.poll()
        descriptors = (binding.socket.FD, binding.monitor.FD, self._wakeup.fileno())
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        if self._witness is not None:
            self._witness.begins(self._name, recovered.epoch)
        self._act(self._core.start(now))
        self._send_all()
        self._bound.set()
        while self._stopped is None:
            # A send takes in what the socket's descriptor would have told, so libzmq is asked before each
            # wait.
            wait = 0 if has_input(binding.socket) else self._timeout_milliseconds()
            for descriptor, _ in poll.poll(wait):
                if descriptor == descriptors[1]:
                    self._read_monitor()
                elif descriptor == descriptors[2]:
                    self._wakeup.clear()
            self._pass()
        return self._stopped.exit_code

    def _timeout_milliseconds(self) -> int | None:
        now = self._clock().boot
        if self._events or self._over:
            return 0
        times = [at for at in (self._wake, self._room_at, self._connections.wake_at(now)) if at]
        # Rounded up: a tick must not come before its time.
        return max(0, -(-(min(times) - now) // 1_000)) if times else None

    def _pass(self) -> None:
        """Do all that is ready."""
        now = self._clock()
        connections = self._connections
        # The verdict comes first, then the reading: so the core has every frame of the dead before it hears
        # of the death. Others may keep the socket from ever being empty, so that has a bound too (spec D2).
        over = connections.judge(self._probe, now.boot)
        if over:
            self._over_until = self._over_until or now.boot + DRAIN_PATIENCE
            self._over += over
        frames, emptied = self._receive(now)
        if frames:
            self._tell(Received(frames), now)
        if self._over and (emptied or now.boot >= self._over_until):
            over, self._over, self._over_until = self._over, [], 0
            links = [number for number in map(connections.forget, over) if number]
            if links:
                self._tell(LinksClosed(links), now)
        self._answer_store(now)
        while self._events:
            self._tell(self._events.popleft(), now)
        if self._wake and now.boot >= self._wake:
            self._wake = 0
            self._tell(Tick(), now)
        if self._room_at and now.boot >= self._room_at:
            self._room_at = 0
            self._keeper.ask_for_room()
        self._send_all()
        connections.cut_overdue(now.boot)
        if self._turning_away and self._binding.regain_spare():
            self._turning_away = False

    def _tell(self, event: Event, now: Now) -> None:
        if self._stopped is None:
            if self._witness is not None:
                self._witness.hears(event)
            self._act(self._core.apply(event, now))

    # --- reading -------------------------------------------------------------------------------------------------

    def _receive(self, now: Now) -> tuple[list[Frame], bool]:
        """Read frames until there are none or a pass has enough; tell which of the two."""
        frames: list[Frame] = []
        room = BYTES_MAX
        by_id = self._connections.by_id
        socket = self._socket
        while has_input(socket):
            routing_id = socket.recv(NOBLOCK)
            connection = by_id.get(routing_id)
            if connection is None:
                self._greet(routing_id, frames, now)
                continue
            parts = receive_rest(socket)
            if connection.number:
                size = len(parts[0]) if len(parts) == 1 else sum(map(len, parts))
                room -= size
                frames.append(Frame(connection.number, decode_to_broker(parts), parts[1:], size))
                if len(frames) == FRAMES_MAX or room <= 0:
                    return frames, False
        return frames, True

    def _greet(self, routing_id: bytes, frames: list[Frame], now: Now) -> None:
        """Read the first message of a routing id; give it a number if it may come in."""
        first = self._socket.recv(NOBLOCK, copy=False)
        parts = [first.bytes]
        if first.more:
            parts += receive_rest(self._socket)
        try:
            descriptor = first.get(zmq.SRCFD)
            peer = first.get("Peer-Address")
        except zmq.ZMQError:
            # A peer of ZMTP 1 or 2, or whoever sends noise that looks like it: not heard, and cut for its silence.
            return
        assert isinstance(descriptor, int)
        assert isinstance(peer, str)
        self._read_monitor()
        verbs = decode_to_broker(parts)
        refusal = self._refusal(routing_id, verbs, peer)
        connection = self._connections.greeted(routing_id, descriptor, now.boot, welcome=refusal is None)
        if refusal is None:
            frames.append(Frame(connection.number, verbs, parts[1:], sum(map(len, parts))))
        else:
            self._send(connection, encode([refusal]))

    def _refusal(self, routing_id: bytes, verbs: object, peer: str) -> Reset | None:
        """Tell why this first frame does not open the door, if so."""
        if isinstance(verbs, BadFrame):
            return Reset(f"that was no frame: {verbs.reason}")
        if not (isinstance(verbs, list) and verbs and isinstance(verbs[0], Hello)):
            return Reset("the first verb on a link is Hello")
        if not routing_id.startswith(b"\0"):
            return Reset("a link has no routing id of its own choice", final=True)
        if not peer.startswith(_UNIX_PEER) and not tokens_match(self._token, verbs[0].token):
            return Reset(
                "not allowed: the token of this broker is needed; it lies in its data folder and in "
                "$XDG_RUNTIME_DIR/greenroom or ~/.greenroom of the user who runs it",
                final=True,
            )
        return None

    def _read_monitor(self) -> None:
        now = self._clock().boot
        while has_input(self._monitor):
            event, value = struct.unpack("=hi", receive_rest(self._monitor)[0])
            if event == zmq.EVENT_ACCEPTED:
                self._connections.accepted(value, now)
                if self._turning_away:
                    self._connections.turn_away(value)
            elif event == zmq.EVENT_DISCONNECTED:
                self._connections.disconnected(value, now)
            else:
                self._turn_away(value, now)

    def _turn_away(self, error: int, now: int) -> None:
        """No descriptor is left for a peer that waits to be accepted. libzmq would try for ever and take a core for
        it; so the spare descriptor is freed for the peer, who is then cut and comes back later.
        """
        if self._binding.spend_spare():
            self._turning_away = True
        if now >= self._complain_at:
            self._complain_at = now + COMPLAINT_INTERVAL
            _logger.warning(
                "a connection could not be accepted: %s; peers are turned away (is the limit of open files, "
                "`ulimit -n`, too low for their number?)",
                os.strerror(error),
            )

    # --- the store -----------------------------------------------------------------------------------------------

    def _answer_store(self, now: Now) -> None:
        for answer in self._keeper.collect():
            if isinstance(answer, NoRoom):
                # All that was asked for so far has failed with it; what the core asks from here on may
                # succeed.
                self._keeper.resume()
                self._room_at = self._room_at or now.boot + ROOM_INTERVAL
                self._tell(PersistFailed(answer.first, self._last_serial, True, answer.reason), now)
            elif isinstance(answer, Room):
                if answer.regained:
                    self._tell(RoomRegained(), now)
                else:
                    self._room_at = now.boot + ROOM_INTERVAL
            elif isinstance(answer, Broken):
                self._tell(PersistFailed(0, self._last_serial, False, answer.reason), now)
                self._stop(Stop(1, answer.reason))
            else:
                self._tell(answer, now)

    # --- acting --------------------------------------------------------------------------------------------------

    def _act(self, effects: list[Effect]) -> None:
        if self._witness is not None:
            self._witness.does(effects)
        outgoing = self._outgoing
        for effect in effects:
            if isinstance(effect, Send):
                waiting = outgoing.get(effect.link)
                if waiting is None:
                    outgoing[effect.link] = list(effect.verbs)
                else:
                    waiting += effect.verbs
            elif isinstance(effect, Persist):
                self._last_serial = effect.serial
                self._keeper.submit(effect)
            elif isinstance(effect, WakeAt):
                self._wake = effect.boot
            elif isinstance(effect, CloseLink):
                self._send_to(effect.link, outgoing.pop(effect.link, []))
                self._connections.close(effect.link, self._clock().boot)
                _logger.info("link %d closed: %s", effect.link, effect.reason)
            elif isinstance(effect, Notice):
                level = logging.INFO if effect.kind in GOOD_NEWS else logging.WARNING
                facts = ", ".join(f"{name} {value}" for name, value in effect.fields.items())
                _logger.log(level, "%s: %s", effect.kind, facts)
            elif isinstance(effect, ReadPages):
                self._find_pages(effect)
            elif isinstance(effect, Stop):
                self._stop(effect)
            else:
                self._keeper.submit(effect)

    def _stop(self, stop: Stop) -> None:
        if self._stopped is None:
            self._stopped = stop
            level = logging.INFO if stop.exit_code == 0 else logging.CRITICAL
            _logger.log(level, "the broker stops: %s", stop.reason)
            if self._witness is not None:
                self._witness.ends(stop)

    def _find_pages(self, effect: ReadPages) -> None:
        """Let a thread look, since it may have to wait for processes to end."""
        read = self._read_pages
        if read is None:
            self._events.append(PagesRead(effect.node, []))
            return

        def look() -> None:
            reports: list[Report] = []
            try:
                reports = read(effect.node, list(effect.sessions))
            except Exception:  # the core goes on without evidence (D16); the operator learns why from the log
                _logger.exception("the pages of node %s could not be read", effect.node)
            self._events.append(PagesRead(effect.node, reports))
            self._wakeup.wake()

        threading.Thread(target=look, name="greenroom-pages", daemon=True).start()

    # --- sending -------------------------------------------------------------------------------------------------

    def _send_all(self) -> None:
        if self._witness is not None:
            # Written before it is said: in the log causes stand before what they cause.
            self._witness.flush()
        if self._outgoing:
            outgoing, self._outgoing = self._outgoing, {}
            for link, verbs in outgoing.items():
                self._send_to(link, verbs)

    def _send_to(self, link: int, verbs: list[FromBroker]) -> None:
        """Say all of this to one link; what found no room goes back to the core."""
        connection = self._connections.by_number.get(link)
        if connection is None or not verbs:
            return
        try:
            messages = frames_of(verbs)
        except FrameTooLarge:
            _logger.exception("link %d: what was to be said fits no frame", link)
            return
        for index, (_, parts) in enumerate(messages):
            if not self._send(connection, parts):
                unsent = [verb for said, _ in messages[index:] for verb in said]
                self._events.append(LinkBlocked(link, unsent))
                return

    def _send(self, connection: Connection, parts: Sequence[bytes]) -> bool:
        """Send one message whole or not at all; False if the buffer is full. To the dead it is dropped."""
        try:
            self._socket.send(connection.routing_id, MORE)
            send_parts(self._socket, parts)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
        return True

    def _probe(self, routing_id: bytes) -> bool:
        """Tell whether libzmq still has a pipe for this routing id."""
        try:
            self._socket.send(routing_id, MORE)
            self._socket.send(_PROBE, NOBLOCK)
        except zmq.Again:
            return True
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True
