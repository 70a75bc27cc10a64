"""A simulated broker: the production core and a real store, behind a simulated network and disk.

Owns the process: its listening end, the commit that is on its way, and what is left of it when it dies. Commits take
`commit_time`, during which others are collected, as in production (`transport.wire.storekeeper`). What a crash leaves
is the disk's business: `make_store` opens a store on it, and `crashed` tells it how the broker ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ...transport.broker.events import CloseLink, Effect, Frame, LinkBlocked, LinksClosed, Received, Send, Tick
from ...transport.broker.settings import BrokerSettings
from ...transport.codec import BadFrame, Parts, decode_to_broker
from ...transport.errors import StoreCorrupt, StoreFailed
from ...transport.peer.framing import frames_of
from ...transport.sim.broker import SimBroker
from ...transport.sim.faults import DiskStopped
from ...transport.store.base import Store
from ...transport.verbs import ALLOWED, Applied, Deliver, FromBroker, Hello, Report
from .clockwork import Clockwork, Process
from .observer import Observed, ObservedStore
from .trace import Kind, Trace

#: What a group commit takes where the disk is calm: about an fdatasync.
COMMIT_TIME = 400
#: How often a full store is asked for room.
ROOM_INTERVAL = 1_000_000


_ROLES: Final[dict[int, tuple[type, ...]]] = {int(role): verbs for role, verbs in ALLOWED.items()}


class Driven(SimBroker):
    """The core's driver: links are the network's, commits happen when the process says so."""

    def __init__(self, process: BrokerProcess, store: Store, settings: BrokerSettings) -> None:
        self._process = process
        super().__init__(
            store,
            settings,
            now=process.now,
            eager=False,
            pages=process.pages,
            on_persist=process.observed.making,
        )

    def _carry_out(self, effects: list[Effect]) -> None:  # type: ignore[override]
        super()._carry_out(effects)
        for effect in effects:
            if isinstance(effect, CloseLink):
                self._process.cut(effect.link)

    def _send(self, effect: Send) -> None:
        self._process.say(effect.link, effect.verbs)


class BrokerProcess(Process):
    """One life of a broker. After a death the world makes another one at the same address."""

    def __init__(
        self,
        clockwork: Clockwork,
        trace: Trace,
        address: str,
        store: Store,
        settings: BrokerSettings,
        *,
        pages: Callable[[str, list[str]], list[Report]],
        lane_of: Callable[[str], str],
        observed: Observed,
        ended: Callable[[], object] = lambda: None,
        lane: str = "broker",
        commit_time: int = COMMIT_TIME,
    ) -> None:
        """`pages(node, sessions)` returns the reports of the pages that lie on this host; `lane_of(session)` tells
        whose session it is, for the timeline. `ended` is called when it ends by itself or by its disk, not by
        `die`."""
        super().__init__(clockwork, lane)
        self.address = address
        self.store = ObservedStore(store, observed)
        #: The same for those who look on: what they read is not the broker's reading.
        self.bare_store = store
        self.observed = observed
        self.commit_time = commit_time
        #: Why the core stopped, if it did.
        self.over = ""
        self._trace = trace
        self._lane_of = lane_of
        self._ended = ended
        self._settings = settings
        self._pages = pages
        self._names: dict[int, str] = {}
        #: The session of each link, and the latest link of each session.
        self._sessions: dict[int, str] = {}
        self._links: dict[str, int] = {}
        #: What each link's role may say; nothing before its Hello.
        self._allowed: dict[int, tuple[type, ...]] = {}
        #: Its store was damaged, and said so.
        self.found_damage = False
        self._blocked: list[tuple[int, list[FromBroker]]] = []
        self.core: Driven | None = None
        self._fiber = self.fiber(self._live)
        self._commit_at = 0
        self._room_at = 0

    @property
    def is_up(self) -> bool:
        """Whether it listens and has recovered."""
        return self.alive and self.core is not None and self.core.stopped is None and not self.core.broker.recovering

    # --- what the driver does ------------------------------------------------------------------------------------

    def pages(self, node: str, sessions: list[str]) -> list[Report]:
        """Return the reports of the pages that a dead node's children left on this host."""
        reports = self._pages(node, sessions)
        for report in reports:
            self.observed.heard("", report)
        return reports

    def say(self, link: int, verbs: list[FromBroker]) -> None:
        """Send these to a link."""
        lane = self._names.get(link, f"link {link}")
        session = self._sessions.get(link, "")
        for verb in verbs:
            self.observed.said(session, verb)
            if isinstance(verb, Deliver):
                for delivery in verb.deliveries:
                    self._trace.note(
                        Kind.DELIVER,
                        self.lane,
                        to=lane,
                        id=delivery.envelope.id,
                        task=delivery.envelope.name,
                        position=delivery.position,
                        lease=verb.lease,
                    )
            elif isinstance(verb, Applied):
                self._trace.note(Kind.APPLIED, self.lane, to=lane, number=verb.number)
        messages = frames_of(verbs)
        for index, (_, parts) in enumerate(messages):
            if not self._end.send(link, parts):
                self._blocked.append((link, [verb for said, _ in messages[index:] for verb in said]))
                return

    def cut(self, link: int) -> None:
        """Close a link after what was sent on it."""
        self._broke(link)
        self._end.close(link)

    # --- the process ---------------------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            self._run()
        except (StoreFailed, StoreCorrupt, DiskStopped) as error:
            # The disk's last word: a store that cannot be opened, or a process that ended within a call of it.
            self.over = str(error)
        self.found_damage = self.store.is_damaged
        self._trace.note(Kind.DEATH, self.lane, how=self.over)
        self.clockwork.network.unlisten(self.address)
        self._ended()
        super().die()

    def _run(self) -> None:
        clockwork = self.clockwork
        self._end = clockwork.network.listen(self.address)
        self._end.news = self._fiber.wake
        self._trace.note(Kind.BROKER_UP, self.lane)
        core = self.core = Driven(self, self.store, self._settings)
        notices = 0
        while core.stopped is None:
            core.now = now = self.now
            received = self._end.receive()
            if received:
                self._take(core, received)
            closed = self._end.take_closed()
            if closed:
                for link in closed:
                    self._broke(link)
                core.apply(LinksClosed(closed))
            if self._commit_at and now.boot >= self._commit_at:
                self._commit_at = 0
                self._trace.note(Kind.WRITE, self.lane)
                if core.commit():
                    self._trace.note(Kind.COMMIT, self.lane, number=core.commits)
            while self._blocked:
                core.apply(LinkBlocked(*self._blocked.pop(0)))
            if core.wake_at and now.boot >= core.wake_at:
                core.wake_at = 0
                core.apply(Tick())
            if now.boot >= self._room_at:
                self._room_at = now.boot + ROOM_INTERVAL
                core.ask_for_room()
            if core.waits and not self._commit_at:
                self._commit_at = now.boot + self.commit_time
            for notice in core.notices[notices:]:
                self._trace.note(Kind.NOTICE, self.lane, notice=notice.kind, **notice.fields)
            notices = len(core.notices)
            times = [at for at in (core.wake_at, self._commit_at) if at]
            if core.stopped is None:
                self._fiber.sleep(min(times, default=0))
        self.over = core.stopped.reason

    def _take(self, core: Driven, received: list[tuple[int, Parts]]) -> None:
        """Tell the core what came: all at once, but what it may refuse by itself."""
        frames: list[Frame] = []
        links = core.broker.desk.links
        for link, message in received:
            frame = self._frame(link, message)
            if link in links and self._is_allowed(link, frame):
                frames.append(frame)
                continue
            if frames:
                core.apply(Received(frames))
                frames = []
            # What is due goes out first: it would at anything that happens.
            core.apply(Tick())
            self.observed.doubted()
            is_greeted = link in links
            core.apply(Received([frame]))
            if is_greeted or link not in links:
                self.observed.refused()
        if frames:
            core.apply(Received(frames))

    def _frame(self, link: int, message: Parts) -> Frame:
        verbs = decode_to_broker(message)
        if isinstance(verbs, list):
            for verb in verbs:
                if isinstance(verb, Hello):
                    self._names[link] = self._lane_of(verb.session)
                    if self._links.get(verb.session, link) != link:
                        # Its old link is still up, and from here on nobody listens there.
                        self._trace.note(Kind.DETACHED, self.lane, to=self._names[link])
                    self._sessions[link] = verb.session
                    self._links[verb.session] = link
                    self._allowed[link] = _ROLES.get(verb.role, ())
                if isinstance(verb, self._allowed.get(link, ())):
                    self.observed.heard(self._sessions[link], verb)
        return Frame(link, verbs, message[1:], sum(map(len, message)))

    def _is_allowed(self, link: int, frame: Frame) -> bool:
        """Whether it is a frame, and begins with what its sender may say, if it says anything."""
        verbs = frame.verbs
        return not isinstance(verbs, BadFrame) and all(
            isinstance(verb, self._allowed.get(link, ())) for verb in verbs[:1]
        )

    def _broke(self, link: int) -> None:
        session = self._sessions.pop(link, "")
        self._allowed.pop(link, None)
        if session and self._links.get(session) == link:
            del self._links[session]
            self._trace.note(Kind.DETACHED, self.lane, to=self._names[link])
            self.observed.broke(session)

    def die(self) -> None:
        """End at once: links break, and what was not committed is gone."""
        if self.alive:
            self.clockwork.network.unlisten(self.address)
            self._trace.note(Kind.DEATH, self.lane)
        super().die()
