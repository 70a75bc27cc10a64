"""A worker node's parent: it keeps the pool and answers for its children at the broker (spec D4, D14, D16, D19).

    python -m greenroom.supervisor.cluster.node DESCRIPTOR        a NodeConfig, MessagePack, is read from there

Owns the one loop of the process: the line to the broker, the pool, signals. It runs no user code, and it is not in
the way of messages: each child has a line of its own. What it does for them: it tells them that the broker was heard
(a stamp in their pages), reports their ends with their evidence, starts the children that the broker asks for, and
ends those that a revoke names. While the broker is away the children go on, and so does this.

`run_node` returns the exit code: 0 after an orderly stop, else as `pool.machine` says: 1 the supervision gave up,
3 the application cannot be loaded, 4 children had to be killed, 5 the broker refused this node; and 2 of this process
where the node could not be started at all.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType

import msgspec
import uuid_utils

from ...actors.connecting import addresses_of
from ...actors.worker.control import ChildConfig
from ...transport.clock import MICROSECONDS, Clock, system_now
from ...transport.errors import GreenroomError
from ...transport.page import DamagedPage, PageContents
from ...transport.peer.attachment import Attached, Attachment, Detached, Ended, Passed, Refused
from ...transport.peer.line import News
from ...transport.verbs import Applied, ChildKind, FromBroker, Role, Spawn, Terminate, Trouble
from ...transport.wire.line import SocketLine
from ...transport.wire.wakeup import Wakeup
from ..pool.events import (
    BrokerReachable,
    Bury,
    Fork,
    Notice,
    PoolReady,
    SpawnAsked,
    StartPool,
    Stop,
    StopAsked,
    TerminateAsked,
    Troubled,
)
from ..pool.kernel import adopt_orphans, name_process
from ..pool.machine import PoolMachine
from ..pool.orders import SpawnerConfig
from ..pool.pool import Pool
from .config import NodeConfig, node_name
from .folder import NodeFolder, abandoned_folders
from .logs import set_up_logging
from .ready import Word, read_config, say
from .reports import Reports
from .signals import TAKEN, Signals
from .witness import NodeWitness

#: What a command line that cannot be has everywhere.
EXIT_MISCONFIGURED = 2
EXIT_REFUSED = 5
#: After the last child: how long the broker may take to confirm the reports. Their pages keep them otherwise.
LAST_WORD = 5 * MICROSECONDS
#: How long after an attachment the folders of dead nodes are looked at again: their last processes may have been
#: ending when they were looked at first.
LOOK_AGAIN = 2 * MICROSECONDS
#: The loop looks up at least so often: its wait is on a clock that stands still while the machine sleeps.
LONGEST_WAIT_MILLISECONDS = 60_000

_log = logging.getLogger("greenroom.node")


class NodeReady(msgspec.Struct, frozen=True):
    """What a node knows when all its ordinary children are ready: for a banner, or whoever started it."""

    name: str
    session: str
    broker: str
    pool: str
    concurrency: int
    mailboxes: list[str]
    tasks: list[str]


def run_node(
    config: NodeConfig,
    *,
    on_ready: Callable[[NodeReady], None] | None = None,
    on_failed: Callable[[str], None] | None = None,
    clock: Clock = system_now,
) -> int:
    """Run a worker node in this process until it is stopped; return the exit code.

    It must be called in the main thread: it takes the signals, and adopts the orphans of its children. `on_ready` is
    called once, or `on_failed` with the reason if it ends before it was ready. Raises NodeConfigError or AddressError
    for a configuration that cannot be, OSError when the runtime folder cannot be made.
    """
    config.check()
    node = Node(config, on_ready, on_failed, clock)
    try:
        return node.run()
    finally:
        node.close()


class Node:
    """The parent of one worker node."""

    def __init__(
        self,
        config: NodeConfig,
        on_ready: Callable[[NodeReady], None] | None,
        on_failed: Callable[[str], None] | None,
        clock: Clock,
    ) -> None:
        self._config = config
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._clock = clock
        self._limits = config.pool_limits()
        self.name = node_name(config.name)
        self.session = str(uuid_utils.uuid7())
        self._addresses = addresses_of(config.broker)
        self._witness = NodeWitness(config, self.session) if config.event_log else None
        self._folder = NodeFolder.create(self.session, self.name, self._addresses)
        self._selector = selectors.EpollSelector()
        self._signals = Signals(term_is_quit=os.environ.get("REMAP_SIGTERM") == "SIGQUIT")
        self._came: list[int] = []
        self._wakeup = Wakeup()
        self._attachment = Attachment(
            role=Role.NODE,
            node=self.name,
            session=self.session,
            addresses=self._addresses,
            incarnation=config.incarnation,
            host=socket.gethostname(),
            pid=os.getpid(),
            pinged=True,
        )
        self._line = SocketLine(self._attachment, clock, (self._selector.fileno(),))
        self._reports = Reports(self._attachment, self.session)
        spawner = SpawnerConfig(
            control=-1,
            parent=-1,
            lock=self._folder.lock,
            mark=self.session,
            app=config.app,
            modules=config.modules,
            path=config.path,
            body=config.body,
            preload=config.preload and not config.app_blob,
            open_to_app=config.open_to_app,
        )
        self._pool = Pool(
            PoolMachine(self._limits, config.pool, config.open_to_app),
            self._selector,
            spawner,
            child=self._child_config,
            bury=self._bury,
            notice=self._tell,
            ready=self._ready,
            troubled=self._troubled,
            clock=clock,
        )
        self._heard = 0
        #: When the folders of dead nodes are looked at again, and when the last word is over; 0: not now.
        self._look_again = 0
        self._until = 0
        #: Why there is no broker at present, as it was told last.
        self._detached = ""
        #: What is wrong with the pool, for the broker's status.
        self._trouble = ""
        #: What was told of the application that cannot be used.
        self._told = ""

    def run(self) -> int:
        """Run until the pool is over and the broker knows it."""
        self._take_signals()
        adopt_orphans()
        name_process("greenroom-node")
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._woken)
        for descriptor in (self._config.lifeline, self._config.ready):
            if descriptor >= 0:
                # They came by inheritance, and are for this process alone.
                os.set_inheritable(descriptor, False)
        if self._config.lifeline >= 0:
            self._selector.register(self._config.lifeline, selectors.EVENT_READ, self._lifeline_ready)
        self._line.start()
        self._pool.tell(StartPool())
        while not self._is_done():
            self._line.send()
            for descriptor in self._line.wait(self._wait_milliseconds()):
                if descriptor == self._selector.fileno():
                    for key, mask in self._selector.select(0):
                        key.data(mask)
            self._take_in_signals()
            for news in self._line.receive():
                self._hear(news)
            self._note_heard()
            self._tick()
        assert self._pool.over is not None
        code, reason = self._pool.over.code, self._pool.over.reason
        if code:
            why = "" if not reason or reason in self._told else f": {reason}"
            _log.error("the worker ends with exit code %d%s", code, why)
        if self._on_failed is not None:
            self._on_failed(reason or "it was stopped")
        self._line.leave("the worker stops")
        return code

    def close(self) -> None:
        """Let go of everything. Children that still run are killed."""
        self._pool.close()
        self._line.close()
        if self._witness is not None:
            self._witness.close()
        self._selector.close()
        self._folder.close(keep=not self._config.for_one_broker)

    # ---- the loop ----

    def _is_done(self) -> bool:
        """Whether all is said. After the last child the reports are waited for, within reason."""
        if self._pool.over is None:
            return False
        if self._until == 0:
            self._until = self._clock().boot + LAST_WORD
        return not len(self._reports) or not self._line.attached or self._clock().boot >= self._until

    def _wait_milliseconds(self) -> int:
        dues = [due for due in (self._pool.wake_at(), self._look_again, self._until) if due]
        if not dues:
            return LONGEST_WAIT_MILLISECONDS
        # Rounded up: a wait that ends a little too early would be a busy one.
        return min(max(0, min(dues) - self._clock().boot) // 1000 + 1, LONGEST_WAIT_MILLISECONDS)

    def _tick(self) -> None:
        boot = self._clock().boot
        wake = self._pool.wake_at()
        if wake is not None and wake <= boot:
            self._pool.tick()
        if self._look_again and self._look_again <= boot:
            self._look_again = 0
            self._report_dead_nodes()

    def _note_heard(self) -> None:
        if self._attachment.heard_at > self._heard:
            self._heard = self._attachment.heard_at
            self._pool.broker_heard(self._heard)

    # ---- the broker ----

    def _hear(self, news: News) -> None:
        match news:
            case Passed(verbs):
                for verb in verbs:
                    self._obey(verb)
            case Attached():
                _log.info("attached to the broker at %s", self._config.broker)
                self._detached = ""
                self._pool.tell(BrokerReachable(True))
                self._look_again = self._clock().boot + LOOK_AGAIN
                self._report_dead_nodes()
                if self._trouble:
                    self._attachment.say(Trouble(self._trouble))
            case Detached(reason, was_attached):
                # A broker that stays away is told of once, not with each try.
                level = logging.WARNING if was_attached or reason != self._detached else logging.DEBUG
                self._detached = reason
                _log.log(level, "no broker at %s (%s); trying again", self._config.broker, reason)
                self._pool.tell(BrokerReachable(False))
            case Refused(reason):
                self._pool.tell(StopAsked(Stop.COLD, EXIT_REFUSED, f"the broker refused this node: {reason}"))
            case Ended():
                pass

    def _obey(self, verb: FromBroker) -> None:
        match verb:
            case Applied(number):
                self._reports.applied(number)
            case Spawn(kind, count):
                self._pool.tell(SpawnAsked(ChildKind(kind), count))
            case Terminate(session, position, number):
                node, _, child = session.rpartition("/")
                if node == self.session and child.isdigit():
                    self._pool.tell(TerminateAsked(int(child), position, number))
            case _:
                _log.warning("the broker said %s to a node, which means nothing to it", type(verb).__name__)

    def _report_dead_nodes(self) -> None:
        for folder in abandoned_folders(self._addresses):
            count = self._reports.of_dead_node(folder)
            _log.info("reported %d children of a dead node, by the pages in %s", count, folder.path)

    # ---- the pool ----

    def _child_config(self, fork: Fork) -> ChildConfig:
        config = self._config
        if self._witness is not None:
            self._witness.forked(fork)
        return ChildConfig(
            app=config.app,
            app_blob=config.app_blob,
            broker=config.broker,
            node=self.name,
            node_session=self.session,
            incarnation=config.incarnation,
            number=fork.number,
            kind=fork.kind,
            pool=fork.pool,
            slots=fork.slots,
            mailboxes=config.mailboxes,
            page=self._folder.page(self.name, config.incarnation, fork.number),
            loglevel=config.loglevel,
            max_tasks=config.max_tasks,
            max_memory_kib=config.max_memory_kib,
            time_limit=config.time_limit,
            soft_time_limit=config.soft_time_limit,
            modules=config.modules,
            signing_key=config.signing_key,
            settings=config.settings,
            event_log=config.event_log,
            event_log_bytes=config.event_log_bytes,
        )

    def _bury(self, end: Bury, evidence: PageContents | DamagedPage) -> None:
        if self._witness is not None:
            self._witness.died(end, evidence)
        self._reports.of_child(end, evidence)

    def _ready(self, ready: PoolReady) -> None:
        _log.info("%s is ready", self.name)
        if self._witness is not None:
            self._witness.ready()
        self._on_failed = None
        if self._on_ready is not None:
            self._on_ready(
                NodeReady(
                    name=self.name,
                    session=self.session,
                    broker=self._config.broker,
                    pool=ready.pool,
                    concurrency=ready.concurrency,
                    mailboxes=ready.mailboxes,
                    tasks=ready.tasks,
                )
            )

    def _tell(self, notice: Notice) -> None:
        if notice.kind == "unusable":
            self._told = notice.text
        _log.log(logging.WARNING if notice.grave else logging.INFO, "%s: %s", notice.kind, notice.text)

    def _troubled(self, troubled: Troubled) -> None:
        self._trouble = troubled.text
        # To a broker that is away it is said when it is back.
        self._attachment.say(Trouble(self._trouble))

    # ---- signals ----

    def _take_signals(self) -> None:
        # The handlers run between two instructions of the loop; all they do is to end its wait.
        for number in (*TAKEN, signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(number)
        self._wakeup.wake()

    def _take_in_signals(self) -> None:
        while self._came:
            number = self._came.pop(0)
            if number == signal.SIGCHLD:
                self._pool.reap()
            elif number == signal.SIGUSR1:
                _log.warning("stacks, as SIGUSR1 asked:\n%s", _stacks())
            else:
                asked = self._signals.means(number)
                if asked is not None:
                    _log.info("signal %s", signal.Signals(number).name)
                    self._pool.tell(asked)

    def _woken(self, _mask: int) -> None:
        self._wakeup.clear()

    def _lifeline_ready(self, _mask: int) -> None:
        if not os.read(self._config.lifeline, 4096):
            self._selector.unregister(self._config.lifeline)
            self._pool.tell(StopAsked(Stop.COLD, reason="whoever started this worker is gone"))


def _stacks() -> str:
    """Return what every thread of this process is doing."""
    names: dict[int | None, str] = {thread.ident: thread.name for thread in threading.enumerate()}
    frames: dict[int, FrameType] = sys._current_frames()  # pyright: ignore[reportPrivateUsage]  # the only way
    return "\n".join(
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in frames.items()
    )


def main(arguments: list[str]) -> int:
    """Run a node by the configuration that is read from a descriptor; return the exit code."""
    config = read_config(int(arguments[0]), NodeConfig)
    if config is None:
        return EXIT_MISCONFIGURED
    set_up_logging(config.loglevel)

    def ready(told: NodeReady) -> None:
        say(config.ready, Word(name=told.name, mailboxes=told.mailboxes, tasks=told.tasks))

    def failed(reason: str) -> None:
        say(config.ready, Word(failed=reason))

    try:
        return run_node(config, on_ready=ready, on_failed=failed)
    except (GreenroomError, OSError) as error:
        failed(str(error))
        _log.error("the worker could not start: %s", error)
        return EXIT_MISCONFIGURED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
