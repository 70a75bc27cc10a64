"""A small cluster around one broker in which anything may go wrong, under a referee's eyes.

`World` has clients, nodes with children, an operator, a disk and a clock, and a method for everything that can happen
to them; a test decides what happens when. Nothing happens in between: commits and reads wait for `commit_once`, and
what was said waits to be read. `check` judges the broker's tables; `drain` lets everything come to its end, with no
more faults, and finds what was lost on the way.

Task types (`TASKS`) differ in their flags and speed; those named poison kill the process that runs them, always.
"""

from __future__ import annotations

import msgspec

from ..broker.settings import BrokerSettings
from ..clock import Now
from ..message import Envelope, Flag, Follow, Kind, More, Outcome, Result, Retry, State
from ..requests import DeadFilter, Declare, FetchedState, PurgeMailbox, Revoke
from ..store.memory import MemoryDisk
from ..store.records import Lease, Record
from ..verbs import ChildKind, Durability, FromBroker, Goodbye, Op, Reply, Report, Request
from .audit import audit, audit_store, check_credit, leftovers
from .broker import BEGINNING, SimBroker
from .facts import Facts
from .peers import Body, Network, Peer, SimChild, SimClient, SimNode
from .referee import Referee, bound_of, is_blamed
from .watched import WatchedStore

SECOND = 1_000_000
LATE = int(Flag.ACKS_LATE)
SAFE = int(Flag.ACKS_LATE | Flag.REJECT_ON_WORKER_LOST)
#: Task types: their flags, and what their bodies take in microseconds.
TASKS = {
    "early": (0, 10),
    "late": (LATE, 10),
    "safe": (SAFE, 10),
    "slow": (SAFE, 50_000),
    "early_slow": (0, 50_000),
    "retried": (LATE | int(Flag.RETRY_ON_WORKER_LOST), 10),
    "limited": (SAFE | int(Flag.REDELIVER_ON_TIMEOUT), 10),
    "poison": (SAFE, 10),
    "early_poison": (0, 10),
}
#: As messages of an actor they leave its state as it is. The state of any other is the positions that it handled.
UNCHANGING = ("late", "early_slow")
TASK_MAILBOXES = ["disk", "other", "small", "process", "memory"]
MAILBOXES = (*TASK_MAILBOXES, "actor:Counter:a", "actor:Counter:b")
#: Messages that the mailbox "small" may hold.
SMALL = 6
DURABILITIES = {"process": Durability.PROCESS, "memory": Durability.MEMORY}
#: Small numbers, so that every limit is met.
SETTINGS = BrokerSettings(head_messages_max=4, window_max=6, acquired_max=4, unacknowledged_bytes_max=1 << 20)
#: A poison message that was not given the time to die may have been ended by hand.
ENDS_OF_POISON = ("dead", "revoked", "expired", "purged", "settled", "terminated", "renewed", "TimeLimitExceeded")


class World:
    """Everybody, and what they do."""

    def __init__(self) -> None:
        self.facts = Facts()
        self.referee = Referee(self.facts, DURABILITIES, SETTINGS.acquired_max)
        self.disk = MemoryDisk()
        self.clients: list[SimClient] = []
        self.nodes: list[SimNode] = []
        #: Reports that their nodes have not said, and pages of dead nodes' children.
        self.unreported: list[tuple[SimNode, Report]] = []
        self.pages: list[Report] = []
        self.batches: dict[tuple[str, int], list[Envelope]] = {}
        #: Bodies that must not start twice: by id, how often they have.
        self.starts: dict[str, int] = {}
        self.sessions_by_link: dict[int, str] = {}
        self.made = 0
        self.requests = 0
        self.unanswered: dict[int, None] = {}
        self.network = Network(self.open_broker(BEGINNING))
        self.operator = self.client("operator")
        self.client("client1")
        self.client("client2")
        self.ask(Op.DECLARE, Declare("small", max_messages=SMALL))
        for name, durability in DURABILITIES.items():
            self.ask(Op.DECLARE, Declare(name, durability=durability))
        self.node("n1")
        self.node("n2")
        self.settle_store()

    @property
    def sim(self) -> SimBroker:
        """The broker of the moment."""
        return self.network.sim

    @property
    def children(self) -> list[SimChild]:
        """Every child that lives."""
        return [child for node in self.nodes for child in node.children.values()]

    @property
    def everybody(self) -> list[Peer]:
        """Every peer that lives."""
        return [*self.clients, *self.nodes, *self.children]

    def open_broker(self, now: Now) -> SimBroker:
        """Open a broker on the disk."""
        self.store = WatchedStore(self.referee, self.disk)
        return SimBroker(
            self.store,
            SETTINGS,
            now=now,
            eager=False,
            pages=lambda node, sessions: [page for page in self.pages if page.session in sessions],
            on_send=self._sent,
            on_persist=self._persisting,
        )

    def _sent(self, link: int, verb: FromBroker) -> None:
        session = self.sessions_by_link.get(link)
        if session is not None:
            self.referee.sent(session, verb)
            if isinstance(verb, Reply):
                self._state_told(session, verb)

    def _state_told(self, session: str, reply: Reply) -> None:
        """STATE: who asks for an actor's state is told what is on the disk."""
        for child in self.children:
            if child.session == session and reply.number in child.asked:
                kept = self.referee.states.states.get(child.asked[reply.number][0])
                told = msgspec.msgpack.decode(reply.value, type=FetchedState)
                self.referee.states.judged += 1
                assert told.snapshot == (kept.blob if kept is not None else b""), f"STATE: {session} is told {told}"

    def _persisting(self, records: list[Record]) -> None:
        """CREDIT, at the end of the pass that gave."""
        given = [record for record in records if isinstance(record, Lease) and record.lease not in self.referee.made]
        self.referee.making(records, self.sim.now.wall)
        check_credit(self.sim.broker, given, SETTINGS.short_task)

    # --- who comes and goes --------------------------------------------------------------------------------------

    def client(self, session: str) -> SimClient:
        """A new client."""
        client = SimClient(self.network, session)
        self.clients.append(client)
        self.connect(client)
        self.read(client)
        return client

    def node(self, session: str) -> SimNode:
        """A new node with two children for tasks and one for actors."""
        node = SimNode(self.network, session, session)
        self.nodes.append(node)
        self.connect(node)
        self.read(node)
        self.child(node, TASK_MAILBOXES, 1, 1)
        self.child(node, TASK_MAILBOXES, 2, 4)
        self.child(node, [], 2, 4, ChildKind.ACTORS)
        return node

    def child(
        self, node: SimNode, mailboxes: list[str], slots: int, window: int, kind: ChildKind = ChildKind.POOL
    ) -> SimChild:
        """A new child of a node."""
        child = node.child(mailboxes, slots=slots, window=window, kind=kind, actors=["Counter"])
        if kind == ChildKind.QUARANTINE:
            self.facts.quarantine[child.session] = None
        self.sessions_by_link[child.link] = child.session
        return child

    def connect(self, peer: Peer) -> None:
        """Let a peer open a new link."""
        self.facts.breaks[peer.session] += 1
        peer.connect()
        self.sessions_by_link[peer.link] = peer.session

    def lose(self, peer: Peer, how: str) -> None:
        """Let a peer's link be dropped, cut or replaced."""
        self.facts.breaks[peer.session] += 1
        if how == "cut":
            peer.cut()
        elif how == "replace":
            self.connect(peer)
        else:
            peer.drop()

    def all_come_back(self) -> None:
        """Everybody without a link opens one."""
        for peer in self.everybody:
            if not peer.link or peer.is_cut:
                self.connect(peer)

    def tell_closed(self) -> None:
        """The broker hears of the links that have ended."""
        for link in (*self.network.ended, *self.network.cuts):
            # In any case now: the broker may have given it something since it broke.
            self._session_breaks(self.sessions_by_link.get(link, ""))
        self.network.tell_closed()

    def _session_breaks(self, session: str) -> None:
        """What it holds may be judged without evidence from now on."""
        self.facts.breaks[session] += 1
        known = self.sim.broker.desk.sessions.get(session)
        for message in known.held.values() if known is not None else ():
            self.facts.held_at_loss[message.envelope.id] += 1

    def read(self, peer: Peer) -> None:
        """Let a peer take in what it was told."""
        had_link = peer.link
        told = peer.read()
        if had_link and not peer.link:
            self.facts.breaks[peer.session] += 1
        for verb in told:
            if isinstance(verb, Reply):
                self.unanswered.pop(verb.number, None)
        if isinstance(peer, SimClient):
            for number, confirm in peer.confirms.items():
                for envelope in self.batches.pop((peer.session, number), ()):
                    known = envelope.id in self.referee.first or envelope.id in self.facts.transient
                    assert confirm.refusal or known, f"LOSS: {envelope.id} was confirmed and is nowhere"

    def read_all(self) -> None:
        """Let everybody read."""
        for peer in self.everybody:
            self.read(peer)

    # --- publishing ----------------------------------------------------------------------------------------------

    def publish(self, client: SimClient, mailbox: str, messages: list[tuple[str, str, int]]) -> None:
        """Publish messages, each (task, flavour, seconds), in one batch."""
        envelopes = [self.envelope(mailbox, *message) for message in messages]
        small = self.sim.broker.desk.mailboxes.get("small")
        before = small.depth if small is not None else 0
        number = client.publish(mailbox, envelopes)
        self.batches[client.session, number] = envelopes
        small = self.sim.broker.desk.mailboxes.get("small")
        if mailbox == "small" and small is not None and small.depth > SMALL and client.welcomed:
            assert small.depth < before + len(envelopes), f"BOUND: {before} and {len(envelopes)} more in {SMALL}"

    def envelope(self, mailbox: str, task: str, flavour: str, seconds: int) -> Envelope:
        """A new message."""
        self.made += 1
        id = f"chosen{seconds % 4}" if "chosen" in flavour else f"id{self.made}"
        flags = TASKS[task][0] | (Flag.CHOSEN_ID if "chosen" in flavour else 0)
        more = More(max_retries=1, retry_delay=SECOND)
        if "eta" in flavour:
            more.delay = seconds * SECOND
        if flavour == "expiring":
            more.expires_in = seconds * SECOND
        if flavour == "tight":
            more.max_deliveries = 1
        is_actor = mailbox.startswith("actor:")
        if is_actor:
            more.actor_class = "Counter"
        if mailbox == "memory":
            self.facts.transient[id] = None
        plain = flavour in ("plain", "priority", "chosen", "big") and not is_actor and task != "retried"
        return Envelope(
            id,
            task,
            "msgpack",
            b"x" * (700_000 if flavour == "big" else 10),
            int(flags),
            5 if flavour == "priority" else 0,
            Kind.ACTOR if is_actor else Kind.TASK,
            more=None if plain else more,
        )

    # --- bodies --------------------------------------------------------------------------------------------------

    def pick(self, which: int) -> SimChild | None:
        """One of the children, of those that hold something if there are any."""
        busy = [child for child in self.children if child.held] or self.children
        return busy[which % len(busy)] if busy else None

    def start(self, child: SimChild, *, tell: bool = False) -> None:
        """Start the next body of a child, if it may. AMO, and that suspects are alone."""
        ready = child.ready()
        if not child.may_start or not ready:
            return
        delivery = child.start(ready[0], tell=tell).delivery
        envelope = delivery.envelope
        id = envelope.id
        if not envelope.flags & LATE and envelope.kind != Kind.ACTOR:
            self.starts[id] = self.starts.get(id, 0) + 1
            assert self.starts[id] == 1 or id in self.facts.excused, f"AMO: {id} starts again"
        past = self.referee.pasts.get(delivery.position)
        suspect = past is not None and is_blamed(past, bound_of(envelope))
        # Whoever had it before may still run it, from before it was one.
        assert not suspect or child.kind == ChildKind.QUARANTINE or delivery.deliveries == 1, f"{id} runs among others"
        if child.kind == ChildKind.QUARANTINE and self.referee.durability(delivery.mailbox):
            assert suspect, f"{id} is no suspect and runs in quarantine"
            assert len(child.held) == 1, f"{id} is not alone in quarantine"

    def finish(self, child: SimChild, body: Body, how: str) -> None:
        """Let a running body come to its end."""
        delivery = body.delivery
        envelope = delivery.envelope
        position = delivery.position
        runtime = TASKS[envelope.name][1]
        state = b""
        if envelope.kind == Kind.ACTOR:
            known = child.state_of(body)
            if known is None:
                return
            state = known
        outcome = Outcome(position, body.lease, State.SUCCESS, runtime, encoded_result(State.SUCCESS))
        if envelope.kind == Kind.AFTERMATH:
            outcome.result = b""
        elif how == "failure":
            outcome.state, outcome.result = State.FAILURE, encoded_result(State.FAILURE)
        elif how == "ignored":
            outcome.state, outcome.result = State.IGNORED, b""
        elif how == "requeue":
            outcome.state, outcome.result = State.REQUEUED, b""
        elif how.startswith("retry"):
            more = msgspec.structs.replace(envelope.more or More(), retries=delivery.deliveries)
            outcome.state, outcome.result = State.RETRY, encoded_result(State.RETRY)
            outcome.retry = Retry(msgspec.structs.replace(envelope, more=more), 0 if "soon" in how else SECOND)
        elif how == "follow":
            self.made += 1
            outcome.follows = [Follow("other", [Envelope(f"follow{self.made}", "safe", "msgpack", b"", SAFE)])]
        if outcome.state in (State.RETRY, State.REQUEUED):
            self.starts.pop(envelope.id, None)
            self.facts.returned[position, body.lease] = None
            self.facts.renewed[position] = None
        else:
            self.facts.said[position] = outcome.state
        if envelope.kind == Kind.ACTOR and outcome.state == State.SUCCESS and envelope.name not in UNCHANGING:
            self.facts.before[position, body.lease] = state
            handled = [*msgspec.msgpack.decode(state, type=list[int]), position] if state else [position]
            outcome.snapshot = self.facts.snapshots[position, body.lease] = msgspec.msgpack.encode(handled)
            child.states[delivery.mailbox] = (body.since, outcome.snapshot)
        child.settle([outcome])

    def work(self, child: SimChild, how: str) -> None:
        """Finish what runs here, or die of it."""
        running = [body for body in child.held.values() if body.running]
        envelopes = [body.delivery.envelope for body in running]
        if any("poison" in envelope.name and envelope.kind != Kind.AFTERMATH for envelope in envelopes):
            self.kill(child, "crash", "now")
            return
        for body in running:
            self.finish(child, body, how)

    def give_back(self, child: SimChild, positions: list[int]) -> None:
        """Let a child give back what it has not started of these."""
        for position in positions:
            self.facts.returned[position, child.held[position].lease] = None
        child.give_back(positions)

    # --- deaths --------------------------------------------------------------------------------------------------

    def kill(self, child: SimChild, how: str, when: str) -> None:
        """Let a child die: `how` it came to that, and `when` its node says so."""
        running = [body.delivery for body in child.held.values() if body.running]
        timed_out: list[int] = []
        terminated: list[int] = []
        if running and how == "limit":
            timed_out = [running[0].position]
            self.facts.timed_out[running[0].envelope.id] += 1
        elif running and how == "kill":
            terminated = [running[0].position]
            self.facts.killed[running[0].envelope.id] = None
        elif running and how == "late word":
            child.lose_outcome(running.pop(0).position)
        if how in ("crash", "late word"):
            for delivery in running:
                self.facts.died[delivery.envelope.id] += 1
        page = msgspec.structs.replace(
            child.page(), timed_out=timed_out, terminated=terminated, orderly=how == "orderly"
        )
        self._child_goes(child)
        if when == "now":
            child.parent.report(page)
        elif when == "later":
            self.unreported.append((child.parent, page))
        else:
            self.pages.append(page)

    def _child_goes(self, child: SimChild) -> None:
        self.facts.gone[child.session] = None
        self._session_breaks(child.session)
        child.die()

    def report_one(self) -> None:
        """A node says of a child what it has not said yet."""
        if self.unreported:
            node, page = self.unreported.pop(0)
            if node in self.nodes:
                node.report(page)
            else:
                self.pages.append(page)

    def report_pages(self) -> None:
        """A node finds the pages that others left behind."""
        pages, self.pages = self.pages, []
        for page in pages:
            self.nodes[0].report(page)

    def kill_node(self, node: SimNode, *, evidence: bool) -> None:
        """Let a node die with its children; another one comes. `evidence`: the pages are left."""
        self.nodes.remove(node)
        self.facts.breaks[node.session] += 1
        for child in list(node.children.values()):
            if evidence:
                self.pages.append(child.page(node_lost=True))
            self._child_goes(child)
        node.drop()
        self.made += 1
        self.node(f"node{self.made}")

    def nodes_obey(self) -> None:
        """Nodes make the children that they were asked for, and keep one for tasks."""
        for node in self.nodes:
            self.read(node)
            if not node.link:
                continue
            for kind, count in node.asked.items():
                have = sum(child.kind == kind for child in node.children.values())
                for _ in range(min(2, count) - have):
                    if kind == ChildKind.QUARANTINE:
                        self.child(node, TASK_MAILBOXES, 1, 1, ChildKind.QUARANTINE)
                    else:
                        self.child(node, [], 2, 4, ChildKind(kind))
            node.asked.clear()
            if not any(child.kind == ChildKind.POOL for child in node.children.values()):
                self.child(node, TASK_MAILBOXES, 2, 4)

    # --- the operator --------------------------------------------------------------------------------------------

    def ask(self, op: Op, params: msgspec.Struct) -> None:
        """Let the operator ask for something."""
        self.requests += 1
        if self.operator.welcomed:
            self.unanswered[self.requests] = None
        self.operator.say(Request(self.requests, op, msgspec.Raw(msgspec.msgpack.encode(params))))

    def revoke(self, which: int, *, terminate: bool) -> None:
        """Revoke one of the unsettled messages."""
        ids = [known.envelope.id for known in self.referee.unsettled().values()]
        ids = [id for id in ids if not id.endswith(".aftermath")]
        if ids:
            self.facts.revoked[ids[which % len(ids)]] = None
            self.ask(Op.REVOKE, Revoke([ids[which % len(ids)]], terminate))

    def purge(self, mailbox: str, *, state: bool = False) -> None:
        """Purge a mailbox, of an actor with its state."""
        if self.operator.welcomed:
            self.facts.purged[mailbox] = self.sim.broker.desk.next_position - 1
            self.ask(Op.PURGE, PurgeMailbox(mailbox, state))

    def act_on_the_dead(self, op: Op) -> None:
        """Redrive or purge all dead letters."""
        self.ask(op, DeadFilter())

    # --- disk and time -------------------------------------------------------------------------------------------

    def _look_at_the_clock(self) -> None:
        self.referee.latest = max(self.referee.latest, self.sim.now.wall)

    def commit_once(self) -> None:
        """Let the store do the next thing."""
        self._look_at_the_clock()
        self.sim.commit()

    def settle_store(self) -> None:
        """Let the store do everything."""
        self._look_at_the_clock()
        self.sim.settle()

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        end = self.sim.now.boot + int(seconds * SECOND)
        while self.sim.now.boot < end:
            self.tell_closed()
            self.sim.advance(min(SECOND, end - self.sim.now.boot))
            self._look_at_the_clock()
            for link in self.sim.closed:
                # Also those that the broker has cut, of which nobody else knows yet.
                self._session_breaks(self.sessions_by_link.pop(link, ""))
        self.sim.ask_for_room()

    def step_wall(self, seconds: int) -> None:
        """Somebody sets the clock."""
        now = self.sim.now
        self.sim.now = Now(now.boot, now.wall + seconds * SECOND)

    def stand_still(self) -> None:
        """The broker's process was stopped: time has passed, and what happened meanwhile comes all at once."""
        now = self.sim.now
        self.sim.now = Now(now.boot + 20 * SECOND, now.wall + 20 * SECOND)
        self.tell_closed()

    def kill_broker(self, how: str) -> None:
        """The broker ends: "kill", "power", "disk" (a failed fsync) or "disk keeps" (which wrote all the same)."""
        self._everything_breaks()
        if how.startswith("disk"):
            self.disk.failure, self.disk.failure_keeps = "a failed fsync", "keeps" in how
            self.settle_store()
            self.disk.failure, self.disk.failure_keeps = "", False
        self.store.crash(power=how == "power")
        if how == "power":
            self.referee.lost_power(self.disk)
        self._restart()

    def _everything_breaks(self) -> None:
        for session in self.sim.broker.desk.sessions:
            self._session_breaks(session)

    def _restart(self) -> None:
        self.referee.excuse(Durability.MEMORY)
        for id in self.facts.transient:
            self.facts.excused[id] = None
        # What was over in memory may not be so on the disk.
        for lease in self.disk.tables[Lease].values():
            self.facts.breaks[lease.session] += 1
            for position in lease.positions:
                if position in self.referee.known:
                    self.facts.held_at_loss[self.referee.known[position].envelope.id] += 1
        for peer in self.everybody:
            self.facts.breaks[peer.session] += 1
            peer.forget_link()
        self.unanswered.clear()
        self.sessions_by_link.clear()
        self.network.replace(self.open_broker(self.sim.now))
        self.connect(self.operator)

    # --- judging -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Judge the broker's tables. A broker that stopped for want of room is started again with room."""
        sim = self.sim
        self._look_at_the_clock()
        if sim.stopped is not None:
            assert "fit" in sim.stopped.reason, sim.stopped.reason
            self._everything_breaks()
            self.store.crash()
            self.disk.room_bytes = None
            self._restart()
            return
        if sim.broker.recovering:
            return
        audit(sim.broker)
        if not sim.waits:
            audit_store(sim.broker, self.disk)
        for notice in sim.notices:
            assert "missing" not in notice.kind, notice

    def drain(self) -> None:
        """Let everything come to its end without more faults: everything settles, and nothing is left over."""
        self.disk.room_bytes = None
        # The clock is right again.
        self.sim.now = Now(self.sim.now.boot, max(self.sim.now.wall, self.referee.latest))
        for _ in range(60):
            self.all_come_back()
            self.read_all()
            self.pass_time(5)
            for _ in range(8):
                self.settle_store()
                self.read_all()
                self.nodes_obey()
                for child in self.children:
                    if child.kind != ChildKind.QUARANTINE and child.window < 4:
                        child.change_window(4)
                    self.start(child)
                    self.work(child, "success")
            self.check()
            if not self.referee.unsettled() and not any(m.depth for m in self.sim.broker.desk.mailboxes.values()):
                break
        left = [(known.position, known.envelope.id, known.mailbox) for known in self.referee.unsettled().values()]
        assert not left, f"QUIESCE: {left}"
        assert not self.unanswered, f"requests {list(self.unanswered)} were not answered"
        for known in self.referee.known.values():
            envelope = known.envelope
            end = self.referee.ends.get(envelope.id)
            assert end is not None or envelope.id in self.facts.excused, f"LOSS: {envelope.id}"
            if envelope.name == "poison" and envelope.kind == Kind.TASK and envelope.id not in self.facts.excused:
                assert end in ENDS_OF_POISON, f"POISON: {envelope.id} is {end}"
        self._states_are_what_was_handled()
        self._everybody_goes()

    def _states_are_what_was_handled(self) -> None:
        """STATE: no actor has handled a message twice, and in the order of its leases."""
        for mailbox, state in self.referee.states.states.items():
            handled = msgspec.msgpack.decode(state.blob, type=list[int])
            assert len(set(handled)) == len(handled), f"STATE: {mailbox} has handled {handled}"
            leases = [known.leased[2] for at in handled if (known := self.referee.known[at]).leased is not None]
            assert leases == sorted(leases), f"STATE: {mailbox} has handled {handled} under {leases}"

    def _everybody_goes(self) -> None:
        for peer in self.everybody:
            peer.say(Goodbye("done"))
        for node in self.nodes:
            for child in list(node.children.values()):
                self._child_goes(child)
            node.drop()
        for client in self.clients:
            client.drop()
        for _ in range(3):
            self.pass_time(13)
            self.settle_store()
        audit(self.sim.broker)
        left = leftovers(self.sim.broker)
        assert not left, f"everybody has gone, and the broker still has {left}"


def encoded_result(state: State) -> bytes:
    """The Result that a child sends."""
    return msgspec.msgpack.encode(Result(state))
