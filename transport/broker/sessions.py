"""Sessions: who is attached, what they hold, what they were told and what they may still be given.

A session outlives its links. A client's session numbers its batches; a child's holds leases; a node's speaks for its
children. `link` is 0 while the session has none. A session is `open`, which is to say that it may be given messages,
from its Attach on a link until that link ends, except while it has too much to read.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from ..verbs import ChildKind, FromBroker, Role

if TYPE_CHECKING:
    from .held import Message
    from .mailbox import Mailbox


class Session:
    """One peer of the broker."""

    __slots__ = (
        "acknowledged_bytes",
        "actors",
        "applied",
        "attached",
        "closed_at",
        "goodbye",
        "held",
        "host",
        "id",
        "incarnation",
        "judge_at",
        "kind",
        "link",
        "link_number",
        "mailboxes",
        "marked_bytes",
        "marks",
        "node",
        "open",
        "owned",
        "parent",
        "pid",
        "role",
        "sent_bytes",
        "serves",
        "slots",
        "spawn_asked",
        "stalled_at",
        "starving",
        "trouble",
        "unconfirmed_bytes",
        "unread_bytes",
        "watched",
        "window",
        "withheld",
        "withheld_bytes",
    )

    def __init__(self, id: str, role: Role, node: str) -> None:
        self.id = id
        self.role = role
        self.node = node
        self.host = ""
        self.pid = 0
        self.incarnation = 0
        self.link = 0
        self.link_number = 0
        #: Boot time at which the link closed; 0 while there is one.
        self.closed_at = 0
        self.goodbye = False
        #: The last number applied of what is not a publish; in memory only.
        self.applied = 0
        # --- children ---
        self.kind = ChildKind.POOL
        self.mailboxes: list[str] = []
        self.actors: list[str] = []
        #: Its mailboxes, and its actor classes as `nodes.service_of` names them.
        self.serves: dict[str, None] = {}
        self.slots = 0
        self.window = 0
        self.held: dict[int, Message] = {}
        #: It has said Attach on the present link.
        self.attached = False
        #: It may be given messages, as far as its window goes: attached, and it reads what it is sent. `Outflow` tells.
        self.open = False
        #: Mailboxes to be looked at when it gains room, those that got least first.
        self.starving: dict[str, Mailbox] = {}
        #: Mailboxes of the actors that it has.
        self.owned: dict[str, Mailbox] = {}
        #: Boot time at which what it holds is judged without evidence; 0: not waiting for any.
        self.judge_at = 0
        #: The session id of the node whose child this is; of a node, its own.
        self.parent = id.partition("/")[0] if role is Role.CHILD else id
        # --- nodes ---
        #: What is wrong with its children, in its words.
        self.trouble = ""
        #: Kind of child -> boot time at which the node was last asked for one.
        self.spawn_asked: dict[int, int] = {}
        # --- results ---
        self.watched: dict[str, None] = {}
        # --- back-pressure (spec D9) ---
        self.unconfirmed_bytes = 0
        #: On the present link: sent, known to have been read, and sent when the last mark was set.
        self.sent_bytes = 0
        self.acknowledged_bytes = 0
        self.marked_bytes = 0
        #: (number of a Ping, what had been sent before it).
        self.marks: deque[tuple[int, int]] = deque()
        #: Unacknowledged, or promised and not sent yet.
        self.unread_bytes = 0
        #: Boot time since which too much is unacknowledged; 0: it is not.
        self.stalled_at = 0
        self.withheld: deque[tuple[FromBroker, int]] = deque()
        self.withheld_bytes = 0

    @property
    def free_slots(self) -> int:
        """Bodies that it could start at once."""
        return self.slots - len(self.held)

    @property
    def room(self) -> int:
        """Messages that it may be given now, buffered ones included."""
        return self.window - len(self.held) if self.open else 0


class Publishing(msgspec.Struct):
    """What a partition remembers of a session's batches (spec D6): kept in the store, moves with the partition."""

    applied: int = 0
    #: The last number whose outcome is committed and may be told again.
    committed: int = 0
    #: Outcomes other than "accepted", by number: (refusal, detail). Those up to `answered` are forgotten.
    refused: dict[int, tuple[int, str]] = {}
    durability: int = 2
    seen_at: int = 0


_encoder = msgspec.msgpack.Encoder()
_refused = msgspec.msgpack.Decoder(dict[int, tuple[int, str]])


def encode_refused(publishing: Publishing) -> bytes:
    """A session's refusals as the store keeps them: empty when there are none, as nearly always."""
    return _encoder.encode(publishing.refused) if publishing.refused else b""


def decode_refused(blob: bytes) -> dict[int, tuple[int, str]]:
    """Read what `encode_refused` made. Raises msgspec.DecodeError where the bytes are damaged."""
    return _refused.decode(blob) if blob else {}
