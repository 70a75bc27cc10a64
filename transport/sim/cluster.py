"""A broker with a client, a node and its children, where what is said is heard at once.

`Cluster` is for tests that tell one story: nothing fails unless the story says so, every commit happens when it is
asked for (with `eager`), and peers read as soon as they are looked at. Stories with every fault in every order are
told by `world`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from ..broker.settings import BrokerSettings
from ..clock import Now
from ..message import Envelope, Flag, Kind, More, Outcome, Result, Retry, State
from ..requests import SHAPES, DeadFilter, DeadInfo, MailboxInfo
from ..store.memory import MemoryDisk, MemoryStore
from ..verbs import ChildKind, FromBroker, Op, Reply, Report, Request
from .audit import audit, audit_store
from .broker import BEGINNING, SimBroker
from .peers import Network, SimChild, SimClient, SimNode

SECOND = 1_000_000
SAFE = int(Flag.ACKS_LATE | Flag.REJECT_ON_WORKER_LOST)
_result = msgspec.msgpack.Decoder(Result)

Verb = TypeVar("Verb")


class Cluster:
    """One broker and those around it."""

    def __init__(self, settings: BrokerSettings | None = None, *, eager: bool = True) -> None:
        self.settings = settings or BrokerSettings()
        self.eager = eager
        self.disk = MemoryDisk()
        #: Pages that are found when the broker looks for them.
        self.pages: list[Report] = []
        self.network = Network(self._open())
        self.client = self.new_client("client")
        self.node = self.new_node("node")
        self._requests = 0

    def _open(self) -> SimBroker:
        self.store = MemoryStore(self.disk)
        now = self.network.sim.now if hasattr(self, "network") else BEGINNING
        return SimBroker(self.store, self.settings, now=now, eager=self.eager, pages=self._pages_of)

    def _pages_of(self, node: str, sessions: list[str]) -> list[Report]:
        return [page for page in self.pages if page.session in sessions]

    @property
    def sim(self) -> SimBroker:
        """The broker of the moment."""
        return self.network.sim

    # --- peers ---------------------------------------------------------------------------------------------------

    def new_client(self, session: str) -> SimClient:
        """A client with a link."""
        client = SimClient(self.network, session)
        client.connect()
        client.read()
        return client

    def new_node(self, session: str) -> SimNode:
        """A node with a link and no children."""
        node = SimNode(self.network, session, "host")
        node.connect()
        node.read()
        return node

    def child(
        self,
        *mailboxes: str,
        slots: int = 1,
        window: int = 1,
        kind: ChildKind = ChildKind.POOL,
        actors: Sequence[str] = (),
        node: SimNode | None = None,
    ) -> SimChild:
        """An attached child; of "celery" if no mailbox is named and it is not for actors."""
        names = list(mailboxes) or ([] if kind == ChildKind.ACTORS else ["celery"])
        child = (node or self.node).child(names, slots=slots, window=window, kind=kind, actors=actors)
        child.read()
        child.read()
        return child

    def read(self) -> None:
        """Let every living peer read until there is nothing more to read."""
        for _ in range(3):
            for peer in (self.client, self.node, *self.node.children.values()):
                peer.read()

    # --- what happens --------------------------------------------------------------------------------------------

    def publish(
        self,
        *ids: str,
        mailbox: str = "celery",
        flags: int = SAFE,
        name: str = "task",
        priority: int = 0,
        body: bytes = b"body",
        more: More | None = None,
        client: SimClient | None = None,
    ) -> int:
        """Publish messages with these ids in one batch; return its number."""
        is_actor = mailbox.startswith("actor:")
        if is_actor:
            more = more or More(actor_class=mailbox.split(":")[1])
        kind = Kind.ACTOR if is_actor else Kind.TASK
        envelopes = [
            Envelope(
                id,
                name,
                "msgpack",
                body,
                flags,
                priority,
                kind,
                more=None if more is None else msgspec.structs.replace(more),
            )
            for id in ids
        ]
        publisher = client or self.client
        number = publisher.publish(mailbox, envelopes)
        publisher.read()
        return number

    def start(self, child: SimChild) -> list[str]:
        """Let a child read and start as many bodies as it may; return the ids of what runs in it now."""
        child.read()
        while child.may_start and child.ready():
            child.start(child.ready()[0])
        return [body.delivery.envelope.id for body in child.held.values() if body.running]

    def settle(
        self, child: SimChild, state: int = State.SUCCESS, *, runtime: int = 10, retry: Retry | None = None
    ) -> list[str]:
        """Let a child's running bodies end in this state, in one Settle; return their ids."""
        running = [body for body in child.held.values() if body.running]
        result = msgspec.msgpack.encode(Result(state))
        child.settle([Outcome(body.delivery.position, body.lease, state, runtime, result, retry) for body in running])
        child.read()
        return [body.delivery.envelope.id for body in running]

    def run(self, child: SimChild) -> list[str]:
        """Let a child run all that it is given, successfully; return the ids in the order of their starts."""
        ran: list[str] = []
        while self.start(child):
            ran += self.settle(child)
        return ran

    def kill(self, child: SimChild, *, report: bool = True, **page: Any) -> Report:
        """Let a child be killed; its node says so, with these fields of the Report changed."""
        said = msgspec.structs.replace(child.page(), **page)
        child.die()
        self.network.tell_closed()
        if report:
            self.node.report(said)
        return said

    def kill_node(self) -> list[Report]:
        """Let the node and its children be killed; return what their pages tell. Another node comes, childless."""
        pages = [child.page(node_lost=True) for child in self.node.children.values()]
        for child in list(self.node.children.values()):
            child.die()
        self.node.drop()
        self.network.tell_closed()
        self.node = self.new_node(f"{self.node.session}+")
        return pages

    def restart(self, *, power: bool = False) -> None:
        """Let the broker be killed, or lose its power, and come back. Nobody has a link any more."""
        self.store.crash(power=power)
        for peer in (self.client, self.node, *self.node.children.values()):
            peer.forget_link()
        self.network.replace(self._open())

    def reconnect(self) -> None:
        """Let every living peer open a new link, and read."""
        for peer in (self.client, self.node, *self.node.children.values()):
            peer.connect()
        self.read()

    def pass_time(self, seconds: float) -> None:
        """Let time pass; silent links are closed on the way."""
        end = self.sim.now.boot + int(seconds * SECOND)
        while self.sim.now.boot < end:
            self.network.tell_closed()
            self.sim.advance(min(SECOND, end - self.sim.now.boot))

    def jump(self, seconds: int) -> None:
        """Let the broker stand still for so long, and go on."""
        now = self.sim.now
        self.sim.now = Now(now.boot + seconds * SECOND, now.wall + seconds * SECOND)
        self.pass_time(2)

    # --- looking -------------------------------------------------------------------------------------------------

    def ask(self, op: Op, params: msgspec.Struct) -> Any:
        """Let the client ask the broker; return the answer as its struct. Raises AssertionError with its error."""
        self._requests += 1
        self.client.say(Request(self._requests, op, msgspec.Raw(msgspec.msgpack.encode(params))))
        self.client.read()
        replies = [verb for verb in self.client.others if isinstance(verb, Reply) and verb.number == self._requests]
        assert len(replies) == 1, f"{len(replies)} answers"
        assert not replies[0].error, replies[0].error
        return msgspec.msgpack.decode(replies[0].value, type=SHAPES[op][1])

    def mailbox(self, name: str = "celery") -> MailboxInfo:
        """One mailbox as an operator sees it, after an audit of the broker's tables."""
        audit(self.sim.broker)
        if not self.sim.waits:
            audit_store(self.sim.broker, self.disk)
        return self.sim.broker.admin.info(self.sim.broker.desk.mailbox(name))

    def result(self, id: str) -> Result | None:
        """What the store keeps of this id."""
        rows = self.store.read_results([id], self.sim.now.wall)
        return _result.decode(rows[0].blob) if rows else None

    def error(self, id: str) -> str:
        """The type of the error that the store keeps of this id; empty if there is none."""
        result = self.result(id)
        return result.failure.exc_type if result is not None and result.failure is not None else ""

    def dead(self) -> list[DeadInfo]:
        """Every dead letter."""
        letters: list[DeadInfo] = self.ask(Op.DEAD_LIST, DeadFilter()).letters
        return letters


def said(told: Sequence[FromBroker], kind: type[Verb]) -> list[Verb]:
    """The verbs of one kind among those that a peer was told."""
    return [verb for verb in told if isinstance(verb, kind)]
