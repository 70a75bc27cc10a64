"""The broker's process: one supervisor, and the broker's server as its significant child.

    python -m greenroom.supervisor.cluster.broker DESCRIPTOR     a BrokerConfig, MessagePack, is read from there

This file owns the process: what it is configured with, signals, exit codes. A broker that stops by itself (a failed
fsync, a damaged row) is not started anew in the same process, since its store must not be asked twice (spec G15):
the supervisor ends with it, and the process exits non-zero.

Exit codes: 0 after TERM or INT, 1 when the broker stopped by itself, 2 when it could not start.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import msgspec

from ...transport.broker.core import Broker
from ...transport.broker.settings import BrokerSettings
from ...transport.clock import system_now
from ...transport.errors import GreenroomError
from ...transport.event_log import BYTES_MAX_DEFAULT, EventLog
from ...transport.page import read_pages
from ...transport.store.choose import choose_store
from ...transport.verbs import Report
from ...transport.wire.server import BrokerServer
from ...transport.wire.witness import LANE, Witness
from ..driver import StartFailed, SupervisorDriver
from ..events import Reported
from ..spec import ChildSpec, Supervisor
from ..threads import ThreadChild, ThreadRunner
from .folders import node_folder
from .logs import set_up_logging
from .ready import Word, read_config, say

DEFAULT_ADDRESS = "tcp://127.0.0.1:5670"
DEFAULT_DATA = ".greenroom"
EXIT_NOT_STARTED = 2
#: How long a lost node's children may take to end before their pages are read without them; in seconds.
PAGES_PATIENCE = 5.0

#: How long the router's thread may keep the interpreter from the store's. At Python's own 5 ms a single commit takes
#: 6 ms beside a busy router, at half a millisecond less than 2.
SWITCH_SECONDS = 0.0005

_log = logging.getLogger("greenroom.broker")


class BrokerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker's process is started with."""

    bind: tuple[str, ...] = (DEFAULT_ADDRESS,)
    data: str = DEFAULT_DATA
    #: A store's URL; empty: SQLite in the data folder.
    store: str = ""
    name: str = ""
    settings: BrokerSettings = BrokerSettings()
    loglevel: str = "INFO"
    #: The file in which the broker writes what happens, and its limit in bytes; empty: none.
    event_log: str = ""
    event_log_bytes: int = BYTES_MAX_DEFAULT
    #: A folder to be removed in the end, whoever is left to see it; empty: none.
    temporary: str = ""
    #: A descriptor whose EOF means that whoever started this broker is gone: it stops. -1: none.
    lifeline: int = -1
    #: A descriptor that is told the address once it listens (`ready.Word`). -1: none.
    ready: int = -1


def run_broker(config: BrokerConfig, *, on_ready: Callable[[str], None] | None = None) -> int:
    """Run a broker until it is told to stop; return the process's exit code.

    `on_ready` is called with the first address once it listens. Must be called in the main thread, whose handlers
    for TERM and INT it takes. Raises what makes a start impossible: StoreError, AddressError, ...
    """
    done = threading.Event()
    stopping = threading.Event()
    outcome = Outcome()
    witness = _witness(config) if config.event_log else None
    sys.setswitchinterval(SWITCH_SECONDS)

    def told(number: int, frame: FrameType | None) -> None:
        stopping.set()
        done.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    if config.lifeline >= 0:
        threading.Thread(target=_hold, args=(config.lifeline, stopping, done), daemon=True).start()
    spec = Supervisor(
        [
            ChildSpec(
                _serve,
                config,
                outcome,
                on_ready,
                witness,
                name="broker",
                restart="temporary",
                shutdown=30.0,
                significant=True,
            )
        ],
        auto_shutdown="any_significant",
    )
    runner = ThreadRunner()
    driver = SupervisorDriver(spec, lambda _: runner, name="broker", on_report=_report)
    try:
        driver.start()
    except StartFailed:
        if outcome.failure is not None:
            raise outcome.failure from None
        raise
    threading.Thread(target=_await_end, args=(driver, done), daemon=True).start()
    # Waits in slices: a signal's handler runs in this thread, between them.
    while not done.wait(1.0):
        pass
    driver.stop()
    return 0 if stopping.is_set() and not outcome.exit_code else outcome.exit_code or 1


def _report(path: str, report: Reported) -> None:
    """Note what the supervisor says: its one child tells by itself why it stops, and whoever starts it why not."""
    _log.debug("child %s: %s: %s", path, report.kind, report.reason)


def _await_end(driver: SupervisorDriver, done: threading.Event) -> None:
    """Tell the main thread that the supervisor has ended by itself."""
    driver.wait()
    done.set()


def _hold(lifeline: int, stopping: threading.Event, done: threading.Event) -> None:
    """Stop when the other end of the lifeline is gone."""
    with os.fdopen(lifeline, "rb", buffering=0) as file:
        while file.read(4096):
            pass
    stopping.set()
    done.set()


class Outcome:
    """How the server ended, told across threads."""

    def __init__(self) -> None:
        self.exit_code = 0
        self.failure: BaseException | None = None


def _serve(
    child: ThreadChild,
    config: BrokerConfig,
    outcome: Outcome,
    on_ready: Callable[[str], None] | None,
    witness: Witness | None,
) -> None:
    """The server's thread."""
    data = Path(config.data)
    name = config.name or f"broker@{socket.gethostname()}"
    try:
        store = choose_store(config.store or str(data))
        server = BrokerServer(
            config.bind,
            store,
            config.settings,
            name,
            make_core=Broker,
            data_folder=data,
            read_pages=pages_of_node,
            witness=witness,
        )
    except BaseException as error:
        outcome.failure = error
        raise
    threading.Thread(target=_watch, args=(child, server, on_ready), name="greenroom-broker-watch", daemon=True).start()
    try:
        outcome.exit_code = server.run()
    except BaseException as error:
        outcome.failure = error
        outcome.exit_code = 2
        raise
    if outcome.exit_code:
        raise RuntimeError(f"the broker stopped by itself with exit code {outcome.exit_code}")


def _witness(config: BrokerConfig) -> Witness:
    """Open the log of events. Raises OSError."""

    def closed(reason: str) -> None:
        _log.warning("event_log_closed: %s; the broker goes on without", reason)

    log = EventLog(config.event_log, LANE, system_now, bytes_max=config.event_log_bytes, on_closed=closed)
    return Witness(log, system_now)


def _watch(child: ThreadChild, server: BrokerServer, on_ready: Callable[[str], None] | None) -> None:
    """Say when the server listens, and pass a request to stop on to it."""
    try:
        server.wait_until_bound()
    except BaseException:  # `run` raises the same in its own thread, where it is told
        return
    child.started()
    if on_ready is not None:
        on_ready(server.address)
    child.stopping.wait()
    server.stop()


def pages_of_node(node: str, sessions: list[str]) -> list[Report]:
    """What the pages of a lost node's children on this host tell (spec D16); waits a little for their ends."""
    folder = node_folder(node)
    if not folder.is_dir():
        return []
    wanted = set(sessions)
    deadline = threading.Event()
    reports: list[Report] = []
    waited = 0.0
    while wanted:
        for contents in read_pages(folder, sessions=wanted):
            reports.append(contents.report(0, node_lost=True))
            wanted.discard(contents.session)
        if not wanted or waited >= PAGES_PATIENCE:
            break
        deadline.wait(0.05)
        waited += 0.05
    return reports


def main(arguments: list[str]) -> int:
    """Run a broker by the BrokerConfig (MessagePack) that is read from a descriptor; return the exit code."""
    config = read_config(int(arguments[0]), BrokerConfig)
    if config is None:
        return EXIT_NOT_STARTED
    for descriptor in (config.lifeline, config.ready):
        if descriptor >= 0:
            # They came by inheritance, and are for this process alone.
            os.set_inheritable(descriptor, False)
    set_up_logging(config.loglevel)
    try:
        return run_broker(config, on_ready=lambda address: say(config.ready, Word(address=address)))
    except (GreenroomError, OSError) as error:
        say(config.ready, Word(failed=str(error)))
        return EXIT_NOT_STARTED
    finally:
        if config.temporary:
            shutil.rmtree(config.temporary, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
