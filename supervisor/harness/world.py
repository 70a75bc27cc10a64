"""The simulated world: a cluster of production machines around one application, in one thread.

Owns who there is: a broker and its disk, worker nodes with their children, clients; and what becomes of them. The
application's own link is routed: a call made in a body goes over its child's link, one made in the test over the first
client's. Everything runs on virtual time (`clockwork`) and is told to the trace (`trace`), where faults and invariants
listen.

`settle` ends the chaos: no more faults, whoever is missing comes back, and then everything must come to rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from ...actors.app import App
from ...transport.broker.settings import BrokerSettings
from ...transport.peer.results import is_terminal
from ...transport.sim.clock import BOOT_START
from ...transport.sim.network import SimLink, Way
from ...transport.verbs import Known, Report
from ..pool.limits import PoolLimits
from .broker_process import COMMIT_TIME, BrokerProcess
from .child_process import ChildProcess
from .client import SECOND, SimClient
from .clockwork import Clockwork, Process
from .disks import StoreName, make_disk
from .effects import Effects
from .escapes import allowing
from .node_process import NodeProcess
from .observer import Observed
from .operator import Operator
from .patches import install
from .realm import Realm
from .trace import Trace

ADDRESS: Final = "tcp://broker:5757"
#: How long a world may take to be up: simulated time.
UP_WITHIN: Final = 60 * SECOND
#: How long it may take to come to rest after the last fault.
REST_WITHIN: Final = 3_600 * SECOND
#: After so much a broker that stopped of itself is started again, as its service manager would.
BROKER_RESTART: Final = SECOND


class NeverAtRest(AssertionError):
    """Raised when a world does not come to rest after its faults have stopped (QUIESCE)."""


class World:
    """A cluster around one application."""

    def __init__(
        self,
        app: App,
        *,
        nodes: int = 1,
        slots: int = 1,
        children: int = 1,
        clients: int = 1,
        pool: str = "prefork",
        settings: BrokerSettings | None = None,
        choose: Callable[[int], int] = lambda _: 0,
        max_tasks: int = 0,
        store: StoreName = "memory",
        seed: int = 0,
        commit_time: int = COMMIT_TIME,
    ) -> None:
        """Build it; nothing runs yet. `choose` is asked whose turn it is (see `clockwork`); `seed` decides what user
        code draws by chance (see `realm`); `commit_time` is what a commit of the broker takes, in microseconds."""
        self.app = app
        self.clockwork = Clockwork(choose)
        self.trace = Trace(BOOT_START, lambda: self.clockwork.now.boot)
        install()
        #: What user code sees of the outside. Within `realm.inside()` the caller is user code of this world.
        self.realm = Realm(self.clockwork, self.trace, seed)
        self.settings = settings or BrokerSettings()
        #: What is seen of the broker, in all its lives.
        self.observed = Observed(self.trace, "broker")
        self.disk = make_disk(store)
        self._commit_time = commit_time
        self._pids = itertools.count(100)
        self._sessions = itertools.count(1)
        self._lanes: dict[str, str] = {}
        self._pool = pool
        self._limits = PoolLimits(concurrency=children * slots if pool in ("threads", "asyncio") else children)
        self._max_tasks = max_tasks
        self._nodes_made = 0
        self._strangers = 0
        self._operator: Operator | None = None
        #: No more faults begin.
        self.is_calm = False
        self.broker: BrokerProcess
        #: Nodes that there are, dead ones among them.
        self.nodes: list[NodeProcess] = []
        self.clients: list[SimClient] = []
        #: The links that a process that is stopped had.
        self._links_of_stopped: dict[Process, list[SimLink]] = {}
        self._start_broker()
        for _ in range(clients):
            self.add_client()
        for _ in range(nodes):
            self.add_node()

    # --- who there is --------------------------------------------------------------------------------------------

    @property
    def children(self) -> list[ChildProcess]:
        """Every child that lives."""
        return [child for node in self.nodes if node.alive for child in node.children.values() if child.alive]

    def add_client(self) -> SimClient:
        """Add a client."""
        process = Process(self.clockwork, f"client{len(self.clients)}")
        client = SimClient(process, self.trace, [ADDRESS], self._session(process.lane))
        self.clients.append(client)
        return client

    def add_node(self) -> NodeProcess:
        """Add a worker node."""
        self._nodes_made += 1
        node = NodeProcess(
            self.clockwork,
            self.trace,
            self.app,
            self._limits,
            self._pool,
            lane=f"w{self._nodes_made}",
            session=self._session(f"w{self._nodes_made}"),
            broker=ADDRESS,
            mailboxes=[],
            pids=lambda: next(self._pids),
            max_tasks=self._max_tasks,
            realm=self.realm,
        )
        self.nodes.append(node)
        return node

    def _start_broker(self) -> None:
        self.broker = BrokerProcess(
            self.clockwork,
            self.trace,
            ADDRESS,
            self.disk.store(),
            self.settings,
            pages=self._pages,
            lane_of=self.lane_of,
            observed=self.observed,
            ended=self._broker_ended,
            commit_time=self._commit_time,
        )

    def _broker_ended(self) -> None:
        """It stopped of itself, or its disk stopped it: somebody mends the disk and starts it again."""
        self.disk.crash(power=False)
        self.disk.heal()
        if self.broker.found_damage and self.disk.put_copy_back() and self.broker.core is not None:
            # It had begun on the damaged one, and what it has accepted since is not on the copy.
            self.observed.disk_lied = True
        self.clockwork.after(BROKER_RESTART, self.restart_broker)

    def _pages(self, node: str, sessions: list[str]) -> list[Report]:
        """No page lies on the broker's host: it is another one than the nodes'."""
        return []

    def lane_of(self, session: str) -> str:
        """Return whose session this is."""
        node, slash, rest = session.partition("/")
        lane = self._lanes.get(node, session)
        return f"{lane}/{rest}" if slash else lane

    def _session(self, lane: str) -> str:
        session = f"session-{next(self._sessions)}"
        self._lanes[session] = lane
        return session

    # --- what happens to them ------------------------------------------------------------------------------------

    def kill_broker(self, *, power: bool = False, kept: float = 0.0) -> None:
        """SIGKILL: what was not committed is gone; with its `power`, what was not synced but for this share of it."""
        if self.broker.alive:
            self.observed.power_lost = self.observed.power_lost or power
            self.disk.crash(power=power, kept=kept)
            self.broker.die()

    def restart_broker(self) -> None:
        """Start the broker again, on the same disk."""
        if not self.broker.alive:
            self._start_broker()

    def kill_client(self, number: int) -> None:
        """SIGKILL: nobody waits for its calls any more; what it has said is underway."""
        self.clients[number].kill()

    def client(self, number: int) -> SimClient:
        """Return the client of this number; if it is dead, its next life, which knows nothing of the one before."""
        client = self.clients[number]
        if not client.process.alive:
            process = Process(self.clockwork, client.process.lane)
            client = SimClient(process, self.trace, [ADDRESS], self._session(process.lane))
            self.clients[number] = client
        return client

    @property
    def peers(self) -> list[Process]:
        """Everybody who lives and talks to the broker."""
        clients = [client.process for client in self.clients if client.process.alive]
        return [*self.children, *(node for node in self.nodes if node.alive), *clients]

    @property
    def mailboxes(self) -> list[str]:
        """The broker's mailboxes by name."""
        core = self.broker.core
        return [] if core is None else sorted(core.broker.desk.mailboxes)

    @property
    def operator(self) -> Operator:
        """Who looks after the cluster; he comes when he is first asked for."""
        if self._operator is None:
            process = Process(self.clockwork, "operator")
            self._operator = Operator(SimClient(process, self.trace, [ADDRESS], self._session(process.lane)))
        return self._operator

    def count_stranger(self) -> int:
        """Return the number of one more peer who is no part of the cluster."""
        self._strangers += 1
        return self._strangers

    def process(self, lane: str) -> Process | None:
        """Return who lives on this lane of the timeline."""
        everybody = [self.broker, *(client.process for client in self.clients), *self.nodes, *self.children]
        return next((process for process in everybody if process.lane == lane and process.alive), None)

    def link(self, lane: str) -> SimLink | None:
        """Return the connection to the broker of who lives on this lane."""
        for client in self.clients:
            if client.process.lane == lane:
                return client.link
        process = self.process(lane)
        return process.line.link if isinstance(process, (NodeProcess, ChildProcess)) else None

    def links_of(self, process: Process) -> list[SimLink]:
        """Return every connection that this process has; the broker has all."""
        if process is self.broker:
            return [link for peer in self.peers for link in self.links_of(peer)]
        links = [self.link(process.lane)]
        if isinstance(process, ChildProcess) and process.client is not None:
            links.append(process.client.link)
        return [link for link in links if link is not None]

    def links_of_host(self, host: str) -> list[SimLink]:
        """Return every connection of this host's processes."""
        return [link for process in self.peers if process.host == host for link in self.links_of(process)]

    def pause(self, process: Process) -> None:
        """SIGSTOP. Its heartbeats stop with it, and its links do not outlive that for long."""
        if process.alive and not process.paused:
            links = self._links_of_stopped[process] = self.links_of(process)
            for link in links:
                self.clockwork.network.mute(link, self._end_of(process))
            process.pause()

    def resume(self, process: Process) -> None:
        """SIGCONT, if it was stopped."""
        if process.paused:
            # Its peers may have others by now: it does not know yet.
            for link in self._links_of_stopped.pop(process):
                self.clockwork.network.unmute(link, self._end_of(process))
            process.resume()

    def _end_of(self, process: Process) -> Way:
        """Which end of its links a process is: the one to which this way leads."""
        return Way.TO_BROKER if process is self.broker else Way.TO_PEER

    def step_wall(self, microseconds: int) -> None:
        """Set everybody's wall clock ahead, or back by a negative number."""
        self.clockwork.clock.step_wall(microseconds)

    # --- user code -----------------------------------------------------------------------------------------------

    def effects(self, name: str | None = None) -> Effects:
        """Return what user code has recorded as done, under one name or under any."""
        return Effects(self.realm, name)

    def allow(self, *kinds: str) -> AbstractContextManager[None]:
        """Within this, user code may leave the simulation: "open", "socket", "process", "thread".

        Raises ValueError for a kind that there is not.
        """
        return allowing(self.realm, *kinds)

    # --- time ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Let everybody come up. Raises NeverAtRest when they do not."""
        if not self.clockwork.run(lambda: all(node.ready for node in self.nodes), UP_WITHIN):
            raise NeverAtRest(f"the nodes were not ready within {UP_WITHIN // SECOND} simulated seconds")

    def run_for(self, seconds: float) -> None:
        """Let so much time pass."""
        self.clockwork.run_for(round(seconds * SECOND))

    def settle(self, within: int = REST_WITHIN, hopeless: Callable[[], bool] = lambda: False) -> None:
        """Let everything come to its end, with no more faults. Raises NeverAtRest and EscapedSimulation.

        `hopeless` tells that it will not come to that, however long one waits.
        """
        self.is_calm = True
        self.disk.heal()
        self.clockwork.network.rejoin_all()
        for clock in self.clockwork.clocks:
            clock.go_right()
        self.restart_broker()
        for process in (self.broker, *self.peers):
            self.resume(process)
        if not any(node.is_serving for node in self.nodes):
            self.add_node()
        began = self.clockwork.now.boot
        self.clockwork.run(lambda: self.is_well() or hopeless(), within)
        if not self.is_well():
            raise NeverAtRest(
                f"QUIESCE: {self._unfinished()} messages were not finished{self._unwell()}{self._untold()} "
                f"{(self.clockwork.now.boot - began) // SECOND} simulated seconds after the last fault"
            )
        if self.realm.escaped is not None:
            # Raised before where it happened, unless its process died of it or user code swallowed it.
            raise self.realm.escaped

    def is_well(self) -> bool:
        """Whether it is at rest, every worker is there and has said what it knows, and no body runs any more.

        Nobody knows of a call that was lost with its client: who waits for its result waits for ever, and is no reason.
        """
        return self._is_quiet() and not self._unwell() and not self._untold()

    def _unwell(self) -> str:
        nodes = [node.lane for node in self.nodes if node.is_serving and not node.is_heard]
        children = [child.lane for child in self.children if child.is_busy]
        absent = f", {', '.join(nodes)} not heard" if nodes else ""
        return f"{absent}, {', '.join(children)} still busy" if children else absent

    def at_rest(self) -> bool:
        """Whether nothing waits, nothing runs and every call is answered."""
        return self._is_quiet() and not any(client.awaited for client in self._speakers)

    def _is_quiet(self) -> bool:
        core = self.broker.core
        if core is None or not self.broker.is_up or core.waits:
            return False
        return self._unfinished() == 0 and all(client.is_idle() for client in self._speakers)

    @property
    def _speakers(self) -> list[SimClient]:
        """Everybody who may ask for something, and lives."""
        operator = [] if self._operator is None else [self._operator.client]
        return [client for client in (*self.clients, *operator) if client.process.alive]

    def _untold(self) -> str:
        """Results that the broker has and somebody waits for, in words; empty: there are none."""
        for client in self._speakers:
            if client.awaited and self.broker.is_up:
                for row in self.broker.bare_store.read_results(client.awaited, self.broker.now.wall):
                    if is_terminal(Known(row.id, row.state, row.blob)):
                        return f", {client.process.lane} was not told of {row.id}"
        return ""

    def _unfinished(self) -> int:
        core = self.broker.core
        if core is None:
            return 0
        return sum(mailbox.depth for mailbox in core.broker.desk.mailboxes.values())

    def close(self) -> None:
        """Let go of everything."""
        self.clockwork.close()
        self.disk.close()
