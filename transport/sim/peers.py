"""Peers of a simulated broker: clients, children and nodes that keep to the protocol and fail when told to.

Owns what each of them must do for the broker's promises to hold, in the plainest form: number what they say, say again
what was not answered, list what they hold before they start anything, give back what is recalled, leave a page of
evidence when they die. Nothing happens by itself: a test connects, reads, starts, settles, cuts and kills.

A connection ends in one of three ways. `drop`: its peer knows at once and the broker with the next `tell_closed`.
`cut`: packets vanish in both directions, the broker closes it when it has been silent for SILENCE, and the peer knows
when it is told to `connect` again. Or the broker cuts it, which the peer sees when it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from ..codec import cut_group, encode_publish
from ..message import Delivery, Envelope, Outcome
from ..requests import FetchedState, FetchState
from ..verbs import (
    PROTOCOL_VERSION,
    Applied,
    Attach,
    Attached,
    ChildKind,
    Confirm,
    Credit,
    Deliver,
    FromBroker,
    Goodbye,
    Hello,
    Holding,
    Op,
    Ping,
    Pong,
    Publish,
    Recall,
    Reply,
    Report,
    Request,
    Reset,
    Return,
    RingEntry,
    Role,
    Settle,
    Spawn,
    Started,
    ToBroker,
    Welcome,
)
from .broker import SimBroker

#: A link that is silent for so long is closed by the broker's driver, and not believed by its peer (microseconds).
SILENCE = 6_000_000
_fetched = msgspec.msgpack.Decoder(FetchedState)


class Network:
    """One broker at a time, and the links to it."""

    def __init__(self, sim: SimBroker) -> None:
        self.sim = sim
        #: Links that have ended, of which the broker was not told yet.
        self.ended: list[int] = []
        #: Links that carry nothing any more -> boot time since when.
        self.cuts: dict[int, int] = {}

    def tell_closed(self) -> list[int]:
        """Tell the broker of the links that have ended, or have been silent for too long; return them."""
        now = self.sim.now.boot
        silent = [link for link, since in self.cuts.items() if now - since >= SILENCE]
        for link in silent:
            del self.cuts[link]
        ended, self.ended = [*self.ended, *silent], []
        self.sim.close(*ended)
        return ended

    def replace(self, sim: SimBroker) -> None:
        """The broker is another one: every link is gone."""
        self.sim = sim
        self.ended = []
        self.cuts = {}


class Peer:
    """One session."""

    role = Role.CLIENT

    def __init__(self, network: Network, session: str, node: str) -> None:
        self.network = network
        self.session = session
        self.node = node
        self.link = 0
        self.links = 0
        self.welcomed = False
        self.is_cut = False
        #: What was numbered and not answered.
        self.outbox: dict[int, ToBroker] = {}
        self.number = 0

    def connect(self) -> None:
        """Open a new link and say Hello; the old one ends."""
        self.drop()
        self.links += 1
        self.link = self.network.sim.connect()
        self.say(Hello(PROTOCOL_VERSION, self.role, self.node, self.session, 1, self.links, "host", 1))

    def drop(self) -> None:
        """Lose the link, and what was under way to this peer."""
        if self.link:
            self.network.ended.append(self.link)
            self.network.cuts.pop(self.link, None)
        self.forget_link()

    def forget_link(self) -> None:
        """There is no link."""
        self.link = 0
        self.welcomed = self.is_cut = False

    def cut(self) -> None:
        """From now on nothing passes the link; neither end knows."""
        if self.link and not self.is_cut:
            self.is_cut = True
            self.network.cuts[self.link] = self.network.sim.now.boot

    def say(self, *verbs: ToBroker) -> None:
        """Say this on the present link; it is lost without one."""
        if self.link and not self.is_cut:
            self.network.sim.say(self.link, *verbs)

    def add(self, make: Callable[[int], ToBroker]) -> int:
        """Number a verb, keep it until it is answered, and say it if there is a link."""
        self.number += 1
        verb = self.outbox[self.number] = make(self.number)
        if self.welcomed:
            self.say(verb)
        return self.number

    def read(self) -> list[FromBroker]:
        """Take in what the broker said; return it."""
        sim = self.network.sim
        if not self.link or self.is_cut:
            return []
        told = sim.heard(self.link)
        for verb in told:
            if isinstance(verb, Ping):
                self.say(Pong(verb.number))
            elif isinstance(verb, Applied):
                self.outbox = {
                    number: said
                    for number, said in self.outbox.items()
                    if number > verb.number or isinstance(said, Request)
                }
            elif isinstance(verb, Welcome):
                self.welcomed = True
                for said in self.outbox.values():
                    self.say(said)
                self.greeted()
            elif isinstance(verb, Reset | Goodbye):
                self.drop()
                return told
            else:
                self.hear(verb)
        if self.link in sim.closed:
            self.forget_link()
        return told

    def greeted(self) -> None:
        """The broker said Welcome, and what it had not answered was said again."""

    def hear(self, verb: FromBroker) -> None:
        """Take in one verb that only this role understands."""


class SimClient(Peer):
    """Publishes in numbered batches."""

    def __init__(self, network: Network, session: str) -> None:
        super().__init__(network, session, "client")
        self.next_batch = 1
        #: Batches that were not answered: their bytes.
        self.unconfirmed: dict[int, list[bytes]] = {}
        self.confirms: dict[int, Confirm] = {}
        self.others: list[FromBroker] = []

    def publish(self, mailbox: str, envelopes: Sequence[Envelope]) -> int:
        """Send one batch of one mailbox; return its number."""
        number = self.next_batch
        self.next_batch += 1
        parts: list[bytes] = []
        group = cut_group(mailbox, envelopes, parts)
        answered = min(self.unconfirmed, default=number) - 1
        message = self.unconfirmed[number] = encode_publish(Publish(0, number, answered, [group]), parts)
        if self.welcomed and not self.is_cut:
            self.network.sim.deliver(self.link, message)
        return number

    def greeted(self) -> None:
        for message in list(self.unconfirmed.values()):
            if self.link and not self.is_cut:
                self.network.sim.deliver(self.link, message)

    def hear(self, verb: FromBroker) -> None:
        if isinstance(verb, Confirm):
            if self.unconfirmed.pop(verb.number, None) is not None:
                self.confirms[verb.number] = verb
        else:
            self.others.append(verb)


class Body(msgspec.Struct):
    """One delivery in a child."""

    delivery: Delivery
    lease: int
    running: bool = False
    since: int = 0


class SimChild(Peer):
    """Holds, starts and settles deliveries; its page outlives it."""

    role = Role.CHILD

    def __init__(
        self,
        node: SimNode,
        number: int,
        mailboxes: list[str],
        *,
        slots: int = 1,
        window: int = 1,
        kind: ChildKind = ChildKind.POOL,
        actors: Sequence[str] = (),
    ) -> None:
        super().__init__(node.network, f"{node.session}/{number}", node.node)
        self.parent = node
        self.mailboxes = mailboxes
        self.slots = slots
        self.window = window
        self.kind = kind
        self.actors = list(actors)
        self.attached = False
        self.alive = True
        self.held: dict[int, Body] = {}
        #: Deliveries of what runs here already, under newer leases.
        self.again: dict[int, Body] = {}
        #: Bodies that ran to their end and whose outcome was lost with the process: (position, lease).
        self.finished: list[tuple[int, int]] = []
        #: By mailbox what it knows of an actor's state: since which lease it has the actor, and the state; None: asked.
        self.states: dict[str, tuple[int, bytes | None]] = {}
        #: Questions for a state, by their number: the mailbox, and since when it had the actor.
        self.asked: dict[int, tuple[str, int]] = {}

    def forget_link(self) -> None:
        super().forget_link()
        self.attached = False

    def greeted(self) -> None:
        bodies = [*self.held.values(), *self.again.values()]
        held = [Holding(body.delivery.position, body.lease, body.running) for body in bodies]
        self.say(Attach(self.mailboxes, self.slots, self.window, self.kind, held, [], self.actors))

    def hear(self, verb: FromBroker) -> None:
        if isinstance(verb, Deliver):
            for delivery in verb.deliveries:
                body = self.held.get(delivery.position)
                place = self.again if body is not None and body.running else self.held
                place[delivery.position] = Body(delivery, verb.lease, since=verb.since)
        elif isinstance(verb, Recall):
            self.give_back(verb.positions or [*self.held, *self.again])
        elif isinstance(verb, Attached):
            self.attached = True
        elif isinstance(verb, Reply):
            self.outbox.pop(verb.number, None)
            mailbox, since = self.asked.pop(verb.number, ("", 0))
            if self.states.get(mailbox) == (since, None):
                self.states[mailbox] = (since, _fetched.decode(verb.value).snapshot)

    def state_of(self, body: Body) -> bytes | None:
        """The state of this delivery's actor before it; None: the broker was asked, and has not answered."""
        mailbox = body.delivery.mailbox
        since, state = self.states.get(mailbox, (0, None))
        if since != body.since:
            self.states[mailbox] = (body.since, None)
            params = msgspec.Raw(msgspec.msgpack.encode(FetchState(mailbox)))
            self.asked[self.number + 1] = (mailbox, body.since)
            self.add(lambda number: Request(number, Op.STATE, params))
            return None
        return state

    @property
    def may_start(self) -> bool:
        """Whether it believes that what it holds is its own (spec D18, D19)."""
        if not self.alive or not self.attached or sum(body.running for body in self.held.values()) >= self.slots:
            return False
        since = self.network.cuts.get(self.link) if self.is_cut else None
        return not self.is_cut or (since is not None and self.network.sim.now.boot - since < SILENCE)

    def ready(self) -> list[int]:
        """Positions that it could start next: of one actor only the first, and only if none runs."""
        actors: dict[str, None] = {body.delivery.mailbox: None for body in self.held.values() if body.running}
        positions: list[int] = []
        for position, body in self.held.items():
            mailbox = body.delivery.mailbox
            if body.running or (mailbox.startswith("actor:") and mailbox in actors):
                continue
            if mailbox.startswith("actor:"):
                actors[mailbox] = None
            positions.append(position)
        return positions

    def start(self, position: int, *, tell: bool = False) -> Body:
        """Mark the body started in the page; `tell`: it runs long enough for the broker to hear of it."""
        body = self.held[position]
        body.running = True
        if tell:
            self.say(Started([position]))
        return body

    def settle(self, outcomes: list[Outcome]) -> None:
        """Put outcomes of running bodies into the page's outbox and send them."""
        for outcome in outcomes:
            self._over(outcome.position)
        self.add(lambda number: Settle(number, outcomes))

    def lose_outcome(self, position: int) -> None:
        """The body ran to its end; the process dies before its outcome has a place in the page."""
        self.finished.append((position, self.held[position].lease))
        self._over(position)

    def _over(self, position: int) -> None:
        del self.held[position]
        if position in self.again:
            self.held[position] = self.again.pop(position)

    def give_back(self, positions: Sequence[int]) -> None:
        """Give back what has not started of these."""
        given: list[int] = []
        leases: list[int] = []
        for position in positions:
            place = self.again if position in self.again else self.held
            body = place.get(position)
            if body is not None and not body.running:
                given.append(position)
                leases.append(place.pop(position).lease)
        if given:
            self.add(lambda number: Return(number, given, self.window, leases))

    def change_window(self, window: int) -> None:
        """Tell how much it may hold from now on."""
        self.window = window
        self.say(Credit(window))

    def page(self, *, node_lost: bool = False) -> Report:
        """What its page tells of it."""
        ring = [RingEntry(position, body.lease, False) for position, body in self.held.items() if body.running]
        ring += [RingEntry(position, lease, True) for position, lease in self.finished]
        outbox = [verb for verb in self.outbox.values() if isinstance(verb, Settle)]
        return Report(0, self.session, None, 9, outbox=outbox, ring=ring, node_lost=node_lost)

    def die(self) -> None:
        """The process is gone; the kernel closes its connection unless the network is cut."""
        self.alive = False
        if self.is_cut:
            self.forget_link()
        self.drop()
        self.parent.children.pop(self.session, None)


class SimNode(Peer):
    """Makes children and reports their ends."""

    role = Role.NODE

    def __init__(self, network: Network, session: str, host: str) -> None:
        super().__init__(network, session, f"celery@{host}")
        self.children: dict[str, SimChild] = {}
        self.made = 0
        #: Children that it was asked for: kind -> how many it should have.
        self.asked: dict[int, int] = {}

    def child(
        self,
        mailboxes: list[str],
        *,
        slots: int = 1,
        window: int = 1,
        kind: ChildKind = ChildKind.POOL,
        actors: Sequence[str] = (),
    ) -> SimChild:
        """Start a child process."""
        self.made += 1
        child = SimChild(self, self.made, mailboxes, slots=slots, window=window, kind=kind, actors=actors)
        self.children[child.session] = child
        child.connect()
        return child

    def report(self, report: Report) -> None:
        """Say how a child ended."""
        self.add(lambda number: msgspec.structs.replace(report, number=number))

    def hear(self, verb: FromBroker) -> None:
        if isinstance(verb, Spawn):
            self.asked[verb.kind] = verb.count
