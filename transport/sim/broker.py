"""A broker with its store, driven one step at a time: for tests of the core and for simulated clusters.

`SimBroker` is a driver like the one over ZeroMQ, with everything in the caller's hand: links are numbers, frames go
through the codec, time stands still until `advance`, and a commit happens when `commit` is called (or at once, with
`eager`). A crash throws the broker away and keeps what its store had committed.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from .. import codec
from ..broker.core import Broker
from ..broker.events import (
    CloseLink,
    DeadRead,
    Effect,
    Event,
    Frame,
    LinksClosed,
    Notice,
    PagesRead,
    Persist,
    Persisted,
    PersistFailed,
    ReadDead,
    ReadDue,
    ReadPages,
    ReadReady,
    ReadResults,
    ReadRows,
    ReadStates,
    Received,
    ResultsRead,
    RoomRegained,
    RowsRead,
    Send,
    StatesRead,
    Stop,
    Sweep,
    Tick,
    WakeAt,
)
from ..broker.settings import BrokerSettings
from ..clock import Now
from ..codec import BadFrame
from ..errors import StoreError, StoreFull
from ..message import Envelope
from ..store.base import Store
from ..store.records import Record, Synchronous
from ..verbs import FromBroker, Publish, Report, ToBroker

#: When simulated time begins.
BEGINNING = Now(1_000_000_000, 1_700_000_000_000_000)


class SimBroker:
    """One broker, its store and its links."""

    def __init__(
        self,
        store: Store,
        settings: BrokerSettings | None = None,
        *,
        now: Now = BEGINNING,
        eager: bool = True,
        pages: Callable[[str, list[str]], list[Report]] | None = None,
        on_send: Callable[[int, FromBroker], None] | None = None,
        on_persist: Callable[[list[Record]], None] | None = None,
    ) -> None:
        """`pages` answers ReadPages with what lies on this host. `on_send` is called for each verb that leaves,
        `on_persist` when records are made, before they are committed."""
        self.store = store
        self.settings = settings or BrokerSettings()
        self.now = now
        self.eager = eager
        self.inbox: dict[int, list[FromBroker]] = {}
        #: Links that the broker has cut.
        self.closed: dict[int, str] = {}
        self.notices: list[Notice] = []
        self.stopped: Stop | None = None
        self.wake_at = 0
        self.commits = 0
        self._pages = pages
        self._on_send = on_send
        self._on_persist = on_persist
        self._links = itertools.count(1)
        #: Persists and reads, in the order in which they were asked for.
        self._queue: deque[Effect] = deque()
        self._no_room = False
        self.broker = Broker(store.open(), self.settings, "sim", now)
        self._carry_out(self.broker.start(now))

    # --- links ---------------------------------------------------------------------------------------------------

    def connect(self) -> int:
        """Open a link; return its number."""
        link = next(self._links)
        self.inbox[link] = []
        return link

    def say(self, link: int, *verbs: ToBroker) -> None:
        """Let the peer of this link say these verbs in one frame."""
        self.deliver(link, codec.encode(verbs))

    def publish(
        self, link: int, number: int, mailbox: str, envelopes: Sequence[Envelope], *, answered: int = 0
    ) -> None:
        """Let the peer of this link publish one group as batch `number`."""
        parts: list[bytes] = []
        group = codec.cut_group(mailbox, envelopes, parts)
        self.deliver(link, codec.encode_publish(Publish(0, number, answered, [group]), parts))

    def deliver(self, link: int, message: list[bytes]) -> None:
        """Hand the broker one message of this link as it came from the wire; nothing of a link that it has cut."""
        if link in self.closed:
            return
        verbs = codec.decode_to_broker(message)
        self.apply(Received([Frame(link, verbs, message[1:], sum(map(len, message)))]))

    def close(self, *links: int) -> None:
        """These connections end. The broker hears nothing of those that it cut itself."""
        ended = [link for link in links if link not in self.closed]
        for link in ended:
            self.closed[link] = "ended by its peer"
        if ended:
            self.apply(LinksClosed(ended))

    def heard(self, link: int) -> list[FromBroker]:
        """Return and forget what this link was told."""
        told, self.inbox[link] = self.inbox[link], []
        return told

    # --- time and disk -------------------------------------------------------------------------------------------

    def advance(self, microseconds: int) -> None:
        """Let this much time pass, waking the broker whenever it asked to be woken."""
        end = self.now.boot + microseconds
        while self.wake_at and self.wake_at <= end:
            step = max(0, self.wake_at - self.now.boot)
            self.now = Now(self.now.boot + step, self.now.wall + step)
            self.wake_at = 0
            self.apply(Tick())
        step = end - self.now.boot
        if step > 0:
            self.now = Now(end, self.now.wall + step)
            self.apply(Tick())

    def apply(self, event: Event) -> None:
        """Give the broker an event and carry out what it asks."""
        if self.stopped is None:
            self._carry_out(self.broker.apply(event, self.now))

    def commit(self) -> bool:
        """Do what waits for the store up to and with one group commit; False if nothing waited."""
        if not self._queue:
            return False
        if not isinstance(self._queue[0], Persist):
            try:
                self._read(self._queue.popleft())
            except StoreError as error:
                self.apply(PersistFailed(0, 0, False, str(error)))
            return True
        group: list[Persist] = []
        for effect in self._queue:
            if not isinstance(effect, Persist):
                break
            group.append(effect)
        for _ in group:
            self._queue.popleft()
        records: list[Record] = [record for persist in group for record in persist.records]
        synchronous = max(persist.synchronous for persist in group)
        try:
            committed = self.store.commit(records, Synchronous(synchronous))
        except StoreError as error:
            # Whatever was asked for after a failed commit fails with it: its records are made anew.
            rest = [effect for effect in self._queue if isinstance(effect, Persist)]
            self._queue = deque(effect for effect in self._queue if not isinstance(effect, Persist))
            last = (group + rest)[-1].serial
            self._no_room = True
            self.apply(PersistFailed(group[0].serial, last, isinstance(error, StoreFull), str(error)))
            return True
        self.commits += 1
        self.apply(Persisted(group[-1].serial, committed.duplicates))
        return True

    @property
    def waits(self) -> bool:
        """Whether something waits for the store."""
        return bool(self._queue)

    def settle(self) -> None:
        """Commit until nothing waits."""
        while self.commit():
            pass

    def ask_for_room(self) -> None:
        """After a commit found no room: tell the broker if the store has room again."""
        if self._no_room and self.store.has_room():
            self._no_room = False
            self.apply(RoomRegained())

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        failure = ""
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect)
                case CloseLink():
                    self.closed.setdefault(effect.link, effect.reason)
                case WakeAt():
                    self.wake_at = effect.boot
                case Notice():
                    self.notices.append(effect)
                case Stop():
                    self.stopped = effect
                case Sweep():
                    try:
                        self.store.sweep(self.now.wall, effect.limit)
                    except StoreError as error:
                        failure = str(error)
                case _:
                    if isinstance(effect, Persist) and self._on_persist is not None:
                        self._on_persist(effect.records)
                    self._queue.append(effect)
        if failure:
            self.apply(PersistFailed(0, 0, False, failure))
        if self.eager:
            self.settle()

    def _send(self, effect: Send) -> None:
        message = codec.encode(effect.verbs)
        verbs = codec.decode_from_broker(message)
        assert not isinstance(verbs, BadFrame)
        if self._on_send is not None:
            for verb in verbs:
                self._on_send(effect.link, verb)
        self.inbox.setdefault(effect.link, []).extend(verbs)

    def _read(self, effect: Effect) -> None:
        store = self.store
        match effect:
            case ReadReady():
                rows = store.read_ready(effect.mailbox, effect.priority, effect.after, effect.messages_max)
                self.apply(RowsRead(effect.token, rows))
            case ReadDue():
                self.apply(
                    RowsRead(effect.token, store.read_due((effect.after_due, effect.after_base), effect.messages_max))
                )
            case ReadRows():
                self.apply(RowsRead(effect.token, store.read_rows(effect.positions)))
            case ReadResults():
                self.apply(ResultsRead(effect.token, store.read_results(effect.ids, self.now.wall)))
            case ReadDead():
                letters = store.read_dead(
                    after=effect.after, limit=effect.limit, mailbox=effect.mailbox, name=effect.name, ids=effect.ids
                )
                self.apply(DeadRead(effect.token, letters))
            case ReadStates():
                self.apply(StatesRead(effect.token, store.read_states(effect.mailboxes)))
            case ReadPages():
                if self._pages is not None:
                    self.apply(PagesRead(effect.node, self._pages(effect.node, effect.sessions)))
            case _:
                pass
