"""One peer's attachment to one broker: links come and go, the session stays (spec D1, D3, D4, D19).

The same machine serves a client, a node's parent and a child. It opens no socket: its driver carries out the
effects and tells what happened.

    state        event          next         effects, in order
    idle         Start          connecting   OpenLink
    connecting   LinkOpened     greeted      Transmit(Hello)
    greeted      Welcome        attached     Transmit(what the outbox holds), Attached
    any link     LinkLost       lost         CloseLink, Detached
    any link     Reset          lost         CloseLink, Detached
    any link     Reset, final   ended        CloseLink, Refused
    lost         Tick           connecting   OpenLink, on a new socket, after the backoff
    lost         Hurry          connecting   OpenLink, if the backoff's first step has passed
    any link     Renew          connecting   CloseLink, OpenLink, under another session
    any          Leave          ended        Transmit(Goodbye), CloseLink, Ended

Each OpenLink has a new number, and whatever is told of an older one is ignored: a frame or a loss of a link
that is over can never disturb the present one. The backoff goes from 0.1 s, doubling, to 5 s, without
jitter, and starts anew at each Welcome; of several addresses the next one is tried each time.

*Numbered verbs* (Settle, Return, Report, Progress, Request) go through `add`: they are encoded once, kept,
and said again byte for byte after each Welcome, before the owner is told `Attached`, so that what a child
has settled is known before it lists what it holds. `Applied` removes all up to its number except requests,
`Reply` removes the request that it answers. Publishes have numbers of their own (publisher.py). *Unnumbered
verbs* go through `say`: they belong to the link and are dropped with it; the owner says them again on
`Attached`.

Nothing is sent before `flush` or an effect says so; `flush` packs what waits into as few frames as the limits
allow. Verbs of another epoch than the link's Welcome, and brokers whose epoch went back, are refused.

Limits: OUTBOX_BYTES_MAX and OUTBOX_VERBS_MAX unanswered, GREETING_PATIENCE from OpenLink to Welcome.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from ..clock import Now
from ..codec import FRAME_BYTES_MAX, BadFrame, Parts
from ..errors import FrameTooLarge, LocalProtocolError
from ..verbs import (
    PROTOCOL_VERSION,
    Applied,
    Confirm,
    Deliver,
    FromBroker,
    Goodbye,
    Hello,
    Ping,
    Pong,
    Reply,
    Request,
    Reset,
    Role,
    ToBroker,
    Welcome,
)
from .packing import pack_verbs

BACKOFF_FIRST: Final = 100_000
BACKOFF_MAX: Final = 5_000_000
#: From the opening of a link to its Welcome; a peer that accepts and says nothing is as good as none.
GREETING_PATIENCE: Final = 4_000_000
#: What the broker may be silent for where it promised pings (a node's link), before the link is given up.
SILENCE_MAX: Final = 6_000_000
OUTBOX_BYTES_MAX: Final = 64 << 20
OUTBOX_VERBS_MAX: Final = 100_000

_encoder = msgspec.msgpack.Encoder()


class State(enum.Enum):
    """Where an attachment stands."""

    IDLE = "idle"
    CONNECTING = "connecting"
    GREETED = "greeted"
    ATTACHED = "attached"
    LOST = "lost"
    ENDED = "ended"


# --- events ------------------------------------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True):
    """Attach from now on."""


class LinkOpened(msgspec.Struct, frozen=True):
    """A socket for this link exists and has begun to connect; `token` is what its Hello shall present."""

    link: int
    token: bytes = b""


class LinkLost(msgspec.Struct, frozen=True):
    """This link's connection ended, could not be made, or took no more frames."""

    link: int
    reason: str = "the connection closed"


class Heard(msgspec.Struct, frozen=True):
    """A frame came on this link."""

    link: int
    verbs: list[FromBroker] | BadFrame


class Tick(msgspec.Struct, frozen=True):
    """Time has passed: at least as far as the last WakeAt asked."""


class Hurry(msgspec.Struct, frozen=True):
    """Somebody waits: try now if the backoff would wait longer, though not before BACKOFF_FIRST has passed."""


class Renew(msgspec.Struct, frozen=True):
    """The broker has forgotten the session: go on as `session`, never used before, on a new link at once."""

    session: str


class Leave(msgspec.Struct, frozen=True):
    """Say goodbye and end."""

    reason: str = ""


Event = Start | LinkOpened | LinkLost | Heard | Tick | Hurry | Renew | Leave

# --- effects -----------------------------------------------------------------------------------------------------


class OpenLink(msgspec.Struct, frozen=True):
    """Open a new socket to `address`, then tell LinkOpened or LinkLost with this number."""

    link: int
    address: str


class CloseLink(msgspec.Struct, frozen=True):
    """Close this link's socket. Nothing needs to be told of it any more.

    `orderly`: what was handed out for it shall still leave, for a fraction of a second; else it is dropped.
    """

    link: int
    orderly: bool = False


class Transmit(msgspec.Struct, frozen=True):
    """Send these messages on this link, in order; if one finds no room, tell LinkLost."""

    link: int
    messages: list[Parts]


class Attached(msgspec.Struct, frozen=True):
    """The broker said Welcome, and what was unanswered was said again: now say what the link needs."""

    link: int
    welcome: Welcome


class Detached(msgspec.Struct, frozen=True):
    """There is no link at present; another try follows by itself. `was_attached`: it had got a Welcome."""

    reason: str
    was_attached: bool


class Passed(msgspec.Struct, frozen=True):
    """Verbs for the owner, in order. Applied and Reply are among them, after the outbox has seen them."""

    verbs: list[FromBroker]


class Refused(msgspec.Struct, frozen=True):
    """The broker will not have this peer, and trying again does not mend it. The attachment ended."""

    reason: str


class Ended(msgspec.Struct, frozen=True):
    """The attachment is over as it was asked to be."""


class WakeAt(msgspec.Struct, frozen=True):
    """Tell Tick at this boot time, unless a later WakeAt says another. 0: not needed."""

    boot: int


Effect = OpenLink | CloseLink | Transmit | Attached | Detached | Passed | Refused | Ended | WakeAt


class Attachment:
    """A session at a broker. `session` must never have been used by anybody else."""

    def __init__(
        self,
        *,
        role: Role,
        node: str,
        session: str,
        addresses: Sequence[str],
        incarnation: int = 1,
        host: str = "",
        pid: int = 0,
        pinged: bool = False,
    ) -> None:
        """`pinged`: the broker pings this role (nodes), so that its silence means that it is gone."""
        if not addresses:
            raise LocalProtocolError("an attachment needs the address of a broker, none was given")
        self.role = role
        self.node = node
        self.session = session
        self.addresses = tuple(addresses)
        self.incarnation = incarnation
        self.host = host
        self.pid = pid
        self.pinged = pinged
        self.state = State.IDLE
        #: The number of the newest link; 0 before the first.
        self.link = 0
        #: Boot time when the broker was last heard; 0: never. Survives links (spec D19).
        self.heard_at = 0
        self.welcome: Welcome | None = None
        #: The numbers of verbs that were added and not answered, with their bytes, in order.
        self._outbox: dict[int, bytes] = {}
        self._outbox_bytes = 0
        self._requests: dict[int, None] = {}
        self._number = 0
        #: Encoded verbs that wait for the next flush of the present link.
        self._waiting: list[bytes] = []
        self._failures = 0
        self._lost_at = 0
        self._wake = 0
        self._epochs: dict[str, int] = {}

    # --- what the owner says -------------------------------------------------------------------------------------

    def add(self, make: Callable[[int], ToBroker]) -> int:
        """Number a verb, keep it until it is answered, and return the number. `flush` sends it.

        `make` is called with the number. Raises FrameTooLarge for a verb that fits no frame,
        LocalProtocolError when the outbox is full or the attachment has ended; then no number was used.
        """
        if self.state is State.ENDED:
            raise LocalProtocolError(f"session {self.session} has ended; nothing can be said in it any more")
        number = self._number + 1
        verb = make(number)
        encoded = self._encode(verb)
        if len(self._outbox) >= OUTBOX_VERBS_MAX or self._outbox_bytes + len(encoded) > OUTBOX_BYTES_MAX:
            raise LocalProtocolError(
                f"session {self.session} has {len(self._outbox)} unanswered verbs of {self._outbox_bytes} "
                f"bytes, the limits are {OUTBOX_VERBS_MAX} and {OUTBOX_BYTES_MAX}; wait for answers"
            )
        self._number = number
        self._outbox[number] = encoded
        self._outbox_bytes += len(encoded)
        if type(verb) is Request:
            self._requests[number] = None
        if self.state is State.ATTACHED:
            self._waiting.append(encoded)
        return number

    def say(self, verb: ToBroker) -> bool:
        """Let `flush` send a verb on the present link; False, and dropped, unless attached."""
        if self.state is not State.ATTACHED:
            return False
        self._waiting.append(self._encode(verb))
        return True

    def encoded(self, number: int) -> bytes:
        """Return the bytes of an unanswered verb. Raises KeyError when it has been answered."""
        return self._outbox[number]

    def drop(self, number: int) -> None:
        """Forget an unanswered verb: its caller has given up waiting. The broker may still act on it."""
        encoded = self._outbox.pop(number, None)
        self._requests.pop(number, None)
        if encoded is not None:
            self._outbox_bytes -= len(encoded)

    def flush(self) -> list[Parts]:
        """Return the messages to be sent now, in order, on the present link; each is handed out once."""
        if not self._waiting:
            return []
        waiting, self._waiting = self._waiting, []
        return pack_verbs(waiting)

    @property
    def unanswered(self) -> int:
        """How many numbered verbs wait for an answer."""
        return len(self._outbox)

    @property
    def waiting(self) -> bool:
        """Whether `flush` has something to hand out."""
        return bool(self._waiting)

    # --- what happens --------------------------------------------------------------------------------------------

    def apply(self, event: Event, now: Now) -> list[Effect]:
        """Take one event; return what the driver must do, in order. Events of older links change nothing."""
        if self.state is State.ENDED:
            return []
        if isinstance(event, Heard):
            return self._heard(event, now) if event.link == self.link and self._has_link() else []
        if isinstance(event, Tick):
            return self._tick(now)
        if isinstance(event, LinkLost):
            return self._lose(event.reason, now) if event.link == self.link and self._has_link() else []
        if isinstance(event, LinkOpened):
            return self._greet(event) if event.link == self.link and self.state is State.CONNECTING else []
        if isinstance(event, Start):
            return self._connect(now) if self.state is State.IDLE else []
        if isinstance(event, Hurry):
            return self._hurry(now) if self.state is State.LOST else []
        if isinstance(event, Renew):
            return self._renew(event.session, now)
        return self._leave(event)

    def _has_link(self) -> bool:
        return self.state in (State.CONNECTING, State.GREETED, State.ATTACHED)

    def _connect(self, now: Now) -> list[Effect]:
        self.state = State.CONNECTING
        self.link += 1
        self._wake = now.boot + GREETING_PATIENCE
        address = self.addresses[(self.link - 1) % len(self.addresses)]
        # The link may be lost while it is opened, and then the backoff has the last word.
        return [WakeAt(self._wake), OpenLink(self.link, address)]

    def _hurry(self, now: Now) -> list[Effect]:
        if now.boot < self._lost_at + BACKOFF_FIRST:
            self._wake = min(self._wake, self._lost_at + BACKOFF_FIRST)
            return [WakeAt(self._wake)]
        return self._connect(now)

    def _renew(self, session: str, now: Now) -> list[Effect]:
        self.session = session
        if not self._has_link():
            return []
        link = self.link
        self.welcome = None
        self._waiting = []
        return [CloseLink(link), *self._connect(now)]

    def _greet(self, event: LinkOpened) -> list[Effect]:
        self.state = State.GREETED
        hello = Hello(
            version=PROTOCOL_VERSION,
            role=self.role,
            node=self.node,
            session=self.session,
            incarnation=self.incarnation,
            link=self.link,
            host=self.host,
            pid=self.pid,
            token=event.token,
        )
        return [Transmit(self.link, [[_encoder.encode([hello])]])]

    def _heard(self, event: Heard, now: Now) -> list[Effect]:
        verbs = event.verbs
        if isinstance(verbs, BadFrame):
            return self._lose(f"the broker sent what is no frame: {verbs.reason}", now)
        self.heard_at = now.boot
        effects: list[Effect] = []
        passed: list[FromBroker] = []
        for verb in verbs:
            kind = type(verb)
            if kind is Deliver or kind is Confirm:
                # Said by a broker that was replaced since (spec D19), or before it said Welcome.
                if self.welcome is not None and verb.epoch >= self.welcome.epoch:  # type: ignore[union-attr]
                    passed.append(verb)
            elif kind is Applied:
                self._forget_up_to(verb.number)  # type: ignore[union-attr]
                passed.append(verb)
            elif kind is Reply:
                self.drop(verb.number)  # type: ignore[union-attr]
                passed.append(verb)
            elif isinstance(verb, Ping):
                if self.state is State.ATTACHED:
                    effects.append(Transmit(self.link, [[_encoder.encode([Pong(verb.number)])]]))
            elif isinstance(verb, Welcome):
                effects += self._welcomed(verb, now)
            elif isinstance(verb, Reset):
                effects += self._reset(verb, now)
            elif isinstance(verb, Goodbye):
                effects += self._lose(f"the broker said goodbye: {verb.reason}", now)
            elif not isinstance(verb, Pong):
                passed.append(verb)
            if not self._has_link():
                break
        if passed:
            effects.append(Passed(passed))
        if self.pinged and self.state is State.ATTACHED:
            self._wake = now.boot + SILENCE_MAX
            effects.append(WakeAt(self._wake))
        return effects

    def _welcomed(self, welcome: Welcome, now: Now) -> list[Effect]:
        if self.state is not State.GREETED:
            return self._lose("the broker said Welcome twice", now)
        if welcome.version != PROTOCOL_VERSION:
            return self._refuse(
                f"the broker speaks protocol {welcome.version}, this end speaks {PROTOCOL_VERSION}; "
                "bring both ends to one release of greenroom"
            )
        known = self._epochs.get(welcome.broker, 0)
        if welcome.epoch < known:
            return self._lose(f"the broker is at epoch {welcome.epoch}, and {known} was seen already", now)
        self._epochs[welcome.broker] = welcome.epoch
        self.welcome = welcome
        self.state = State.ATTACHED
        self._failures = 0
        self._waiting = []
        self._wake = 0
        effects: list[Effect] = [WakeAt(0)]
        if self._outbox:
            effects.append(Transmit(self.link, pack_verbs(list(self._outbox.values()))))
        effects.append(Attached(self.link, welcome))
        return effects

    def _reset(self, reset: Reset, now: Now) -> list[Effect]:
        return self._refuse(reset.reason) if reset.final else self._lose(reset.reason, now)

    def _refuse(self, reason: str) -> list[Effect]:
        link = self.link
        self._end()
        return [CloseLink(link), WakeAt(0), Refused(reason)]

    def _lose(self, reason: str, now: Now) -> list[Effect]:
        was_attached = self.state is State.ATTACHED
        self.state = State.LOST
        self.welcome = None
        self._waiting = []
        self._lost_at = now.boot
        self._wake = now.boot + min(BACKOFF_FIRST << min(self._failures, 16), BACKOFF_MAX)
        self._failures += 1
        return [CloseLink(self.link), Detached(reason, was_attached), WakeAt(self._wake)]

    def _tick(self, now: Now) -> list[Effect]:
        if not self._wake or now.boot < self._wake:
            return []
        if self.state is State.LOST:
            return self._connect(now)
        if self.state is State.ATTACHED:
            return self._lose(f"the broker was silent for {SILENCE_MAX // 1_000_000} s", now)
        if self._has_link():
            return self._lose(f"no Welcome came within {GREETING_PATIENCE // 1_000_000} s", now)
        return []

    def _leave(self, leave: Leave) -> list[Effect]:
        link = self.link
        attached, had_link = self.state is State.ATTACHED, self._has_link()
        waiting = self._waiting
        self._end()
        effects: list[Effect] = []
        if attached:
            effects.append(Transmit(link, pack_verbs([*waiting, _encoder.encode(Goodbye(leave.reason))])))
        if had_link:
            effects.append(CloseLink(link, orderly=True))
        return [*effects, WakeAt(0), Ended()]

    def _end(self) -> None:
        self.state = State.ENDED
        self.welcome = None
        self._waiting = []
        self._wake = 0

    def _forget_up_to(self, number: int) -> None:
        answered: list[int] = []
        for kept in self._outbox:  # in order of number: dicts keep it
            if kept > number:
                break
            if kept not in self._requests:
                answered.append(kept)
        for kept in answered:
            self._outbox_bytes -= len(self._outbox.pop(kept))

    def _encode(self, verb: ToBroker) -> bytes:
        encoded = _encoder.encode(verb)
        if len(encoded) + 1 > FRAME_BYTES_MAX:
            raise FrameTooLarge(
                f"a {type(verb).__name__} of {len(encoded)} bytes fits no frame of {FRAME_BYTES_MAX}",
                frame_bytes=len(encoded),
                frame_bytes_max=FRAME_BYTES_MAX,
            )
        return encoded
