"""The children of a worker node, for real: what the pool's machine decides, done with processes, pipes and pages.

Owns the spawners' processes, the children's pipes and pages, and the waiting for processes that the node's parent
has adopted. It decides nothing: every event goes to the machine, every effect is carried out. It never waits; its
owner's loop calls it when a descriptor is ready, a signal has come or time is up.

A child's end is told by its spawner. Only when the spawner itself is gone does the parent, to whom the kernel gives
the spawner's children, wait for them here.
"""

from __future__ import annotations

import os
import selectors
import signal
from collections import deque
from collections.abc import Callable

import msgspec

from ...actors.worker.control import ChildConfig, FromChild
from ...transport.clock import Clock
from ...transport.page import DamagedPage, HeardStamp, PageContents, read_page
from .channel import Channel
from .events import (
    Bury,
    ChildEnded,
    Exit,
    Fork,
    Forked,
    ForkFailed,
    KillSpawner,
    Look,
    Looked,
    Notice,
    PoolEffect,
    PoolEvent,
    PoolReady,
    RetireSpawner,
    Said,
    Say,
    Signal,
    SpawnerEnded,
    SpawnerUp,
    StartSpawner,
    Tick,
    Troubled,
)
from .kernel import children_of
from .machine import PoolMachine
from .orders import IMPORT_FAILED, Answer, CannotFork, HasEnded, HasForked, SpawnerConfig, TakesOrders
from .orphans import kill_group, kill_orphans
from .spawner_link import SpawnerLink, SpawnerStartFailed

Evidence = PageContents | DamagedPage

_from_child: msgspec.msgpack.Decoder[FromChild] = msgspec.msgpack.Decoder(FromChild)
_encoder = msgspec.msgpack.Encoder()


class _Process:
    """One child as the parent knows it: its pipe, its page, and from its end on what the page holds."""

    __slots__ = ("channel", "evidence", "generation", "page", "pid", "stamp")

    def __init__(self, generation: int, page: str, channel: Channel) -> None:
        self.generation = generation
        self.page = page
        self.channel = channel
        self.pid = 0
        self.stamp: HeardStamp | None = None
        self.evidence: Evidence | None = None


class Pool:
    """A pool that runs. `over` is the machine's last word, once all children are gone and buried."""

    def __init__(
        self,
        machine: PoolMachine,
        selector: selectors.BaseSelector,
        spawner: SpawnerConfig,
        *,
        child: Callable[[Fork], ChildConfig],
        bury: Callable[[Bury, Evidence], None],
        notice: Callable[[Notice], None],
        ready: Callable[[PoolReady], None],
        troubled: Callable[[Troubled], None],
        clock: Clock,
    ) -> None:
        """`child` makes a child's configuration, `bury` takes its end and its page; the others are told.

        Descriptors are registered at `selector` with a function as their data, to be called when they are ready.
        """
        self._machine = machine
        self._selector = selector
        self._spawner_config = spawner
        self._child = child
        self._bury = bury
        self._notice = notice
        self._ready = ready
        self._troubled = troubled
        self._clock = clock
        self._spawners: dict[int, SpawnerLink] = {}
        self._processes: dict[int, _Process] = {}
        self._by_pid: dict[int, int] = {}
        #: Children of this process from before there was a pool: somebody else's.
        self._strangers = frozenset(children_of(os.getpid()))
        self._retired: set[int] = set()
        self._heard = 0
        self._events: deque[PoolEvent] = deque()
        self._busy = False
        self.over: Exit | None = None

    # ---- for the owner's loop ----

    def tell(self, event: PoolEvent) -> None:
        """Let the machine have an event, and do what it says."""
        self._events.append(event)
        if self._busy:
            # Told while carrying out an effect: the loop below comes to it.
            return
        self._busy = True
        try:
            while self._events:
                for effect in self._machine.apply(self._events.popleft(), self._clock()):
                    self._act(effect)
        finally:
            self._busy = False

    def wake_at(self) -> int | None:
        """Return the boot time at which `tick` is wanted, or None."""
        return self._machine.wake_at()

    def tick(self) -> None:
        """Time has passed."""
        self.tell(Tick())

    def broker_heard(self, boot: int) -> None:
        """Stamp the children's pages: the broker was heard at this boot time (spec D19)."""
        self._heard = boot
        for process in self._processes.values():
            # A page that could not be opened when its child got ready would stay silent, and its child start nothing.
            self._open_page(process)
            if process.stamp is not None:
                process.stamp.stamp(boot)

    def reap(self) -> None:
        """Wait for those children of this process that have ended: spawners, and whatever it adopted."""
        while (pid := _ended_child()) is not None:
            number = self._by_pid.get(pid)
            link = next((link for link in self._spawners.values() if link.pid == pid), None)
            if link is not None:
                # Before it is forgotten: what it had said of its children.
                self._spawner_readable(link)
            elif number is not None:
                kill_group(pid)
            _, status, usage = os.wait4(pid, 0)
            self._retired.discard(pid)
            if link is not None:
                self._spawner_ended(link, _in_words(status))
            elif number is not None:
                exit_code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
                number_of_signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
                self._ended(HasEnded(number, exit_code, number_of_signal, False, usage.ru_maxrss))
            self._kill_orphans()

    def close(self) -> None:
        """Let go of everything; what still runs is killed."""
        for link in self._spawners.values():
            self._unregister(link.channel)
            link.close()
        for process in self._processes.values():
            self._forget(process)
        self._spawners.clear()
        self._processes.clear()

    # ---- spawners ----

    def _start_spawner(self, generation: int) -> None:
        try:
            link = SpawnerLink(generation, self._spawner_config)
        except SpawnerStartFailed as error:
            self.tell(SpawnerEnded(generation, str(error)))
            return
        self._spawners[generation] = link
        self._register(link.channel, lambda: self._spawner_readable(link))

    def _spawner_readable(self, link: SpawnerLink) -> None:
        for answer in self._answers_of(link):
            match answer:
                case TakesOrders(reason, wish):
                    if reason and not reason.startswith(IMPORT_FAILED):
                        text = f"the application is not imported before the fork: {reason}"
                        self._notice(Notice("not_preloaded", text))
                    self.tell(SpawnerUp(link.generation, wish))
                case HasForked(number, pid):
                    process = self._processes.get(number)
                    if process is not None:
                        process.pid = pid
                        self._by_pid[pid] = number
                    self.tell(Forked(number, pid))
                case CannotFork(number, reason):
                    process = self._processes.pop(number, None)
                    if process is not None:
                        self._forget(process)
                    self.tell(ForkFailed(number, reason))
                case HasEnded():
                    self._ended(answer)
        if link.channel.closed:
            # Its end is told by the kernel; if it only closed its socket, that end comes now.
            self._unregister(link.channel)
            link.kill()

    def _answers_of(self, link: SpawnerLink) -> list[Answer]:
        try:
            return link.answers()
        except msgspec.MsgspecError as error:
            # What it says of its children cannot be believed any more. Its end is told by the kernel.
            self._notice(Notice("bad_word", f"the spawner said what nobody understands: {error}", grave=True))
            link.kill()
            return []

    def _spawner_ended(self, link: SpawnerLink, how: str) -> None:
        if self._spawners.pop(link.generation, None) is None:
            return
        self._unregister(link.channel)
        link.close()
        for process in self._processes.values():
            if process.generation == link.generation and process.pid:
                # PDEATHSIG has done it already, unless the child took that off. It is ours now, so the pid is its.
                kill_group(process.pid)
        self.tell(SpawnerEnded(link.generation, how))

    def _retire_spawner(self, generation: int) -> None:
        link = self._spawners.pop(generation, None)
        if link is not None:
            self._retired.add(link.pid)
            self._unregister(link.channel)
            link.close()

    def _kill_orphans(self) -> None:
        """End what the children of a dead spawner had started: the kernel has given it to this process."""
        spawners = {link.pid for link in self._spawners.values()} | self._retired
        kill_orphans(
            own=self._strangers | spawners | self._by_pid.keys(),
            living=self._by_pid.keys(),
            marks=(),
            # As process 1 it adopts strangers as well.
            only_marked=self._spawner_config.mark if os.getpid() == 1 else "",
        )

    # ---- children ----

    def _fork(self, fork: Fork) -> None:
        link = self._spawners.get(fork.generation)
        if link is None:
            # It is gone, and the machine is about to hear it.
            return
        config = self._child(fork)
        mark = f"{config.node_session}/{config.number}"
        try:
            channel = link.fork(fork.number, mark, _encoder.encode(config))
        except OSError as error:
            # No descriptors are left, say. It is told like a fork that the spawner could not make.
            self.tell(ForkFailed(fork.number, str(error)))
            return
        process = _Process(fork.generation, config.page, channel)
        self._processes[fork.number] = process
        self._register(channel, lambda: self._child_readable(fork.number))
        self._watch(link.channel)

    def _child_readable(self, number: int) -> None:
        process = self._processes.get(number)
        if process is None:
            return
        for message in process.channel.receive():
            try:
                said = _from_child.decode(message)
            except msgspec.MsgspecError as error:
                # User code has written into a descriptor that it did not open.
                self._notice(Notice("bad_word", f"child {number} said what nobody understands: {error}", grave=True))
                continue
            self._open_page(process)
            self.tell(Said(number, said))
        if process.channel.broken:
            text = f"child {number} has broken its pipe; it ends when what it runs is over"
            self._notice(Notice("bad_word", text, grave=True))
            process.channel.broken = False
        if process.channel.closed:
            # Our end too: what it is told does not reach it any more, so it must see that nobody is there.
            self._unregister(process.channel)
            process.channel.close()

    def _open_page(self, process: _Process) -> None:
        """Begin to stamp the page of a child, once it has made it."""
        if process.stamp is not None or process.evidence is not None:
            return
        try:
            process.stamp = HeardStamp(process.page)
        except (OSError, ValueError):
            # A child that has not come so far; the next word of it is the next occasion.
            return
        if self._heard:
            process.stamp.stamp(self._heard)

    def _ended(self, ended: HasEnded) -> None:
        process = self._processes.get(ended.number)
        if process is None:
            return
        # All that it had said comes before its end. Its pipe goes before its page is read, which takes a descriptor.
        self._child_readable(ended.number)
        self._unregister(process.channel)
        process.channel.close()
        self._by_pid.pop(process.pid, None)
        evidence = read_page(process.page)
        if isinstance(evidence, DamagedPage) and evidence.missing and process.stamp is not None:
            # It was there: somebody has cleaned up, and what had started nobody can tell.
            evidence = DamagedPage(process.page, "it was removed while its child lived")
        process.evidence = evidence
        page = evidence if isinstance(evidence, PageContents) else None
        self.tell(
            ChildEnded(
                ended.number,
                exit_code=ended.exit_code,
                signal=ended.signal,
                oom=ended.oom,
                max_rss_kib=ended.max_rss_kib,
                ran=page is not None and page.started > 0,
                finished=0 if page is None else page.finished,
            )
        )

    def _bury_child(self, effect: Bury) -> None:
        process = self._processes.pop(effect.number, None)
        if process is None:
            return
        self._forget(process)
        self._bury(effect, process.evidence or read_page(process.page))

    def _look(self, look: Look) -> None:
        process = self._processes.get(look.number)
        evidence = None if process is None else read_page(process.page)
        ring = evidence.ring if isinstance(evidence, PageContents) else []
        bodies = [entry for entry in ring if not entry.finished]
        wanted = [entry for entry in bodies if entry.position == look.position and look.lease in (0, entry.lease)]
        others = [entry.position for entry in bodies if entry not in wanted]
        self.tell(Looked(look.number, look.position, bool(wanted), others))

    def _signal(self, effect: Signal) -> None:
        process = self._processes.get(effect.number)
        link = None if process is None else self._spawners.get(process.generation)
        if link is not None:
            link.signal(effect.number, effect.signal)
            self._watch(link.channel)
        elif process is not None and process.pid in self._by_pid and effect.signal == signal.SIGKILL:
            # Its spawner is gone, so it is ours, and was not waited for.
            kill_group(process.pid)

    def _say(self, effect: Say) -> None:
        process = self._processes.get(effect.number)
        if process is not None:
            process.channel.send(_encoder.encode(effect.message))
            self._watch(process.channel)

    def _forget(self, process: _Process) -> None:
        self._by_pid.pop(process.pid, None)
        self._unregister(process.channel)
        process.channel.close()
        if process.stamp is not None:
            process.stamp.close()
            process.stamp = None

    # ---- effects and descriptors ----

    def _act(self, effect: PoolEffect) -> None:
        match effect:
            case Fork():
                self._fork(effect)
            case Say():
                self._say(effect)
            case Signal():
                self._signal(effect)
            case Look():
                self._look(effect)
            case Bury():
                self._bury_child(effect)
            case StartSpawner(generation):
                self._start_spawner(generation)
            case RetireSpawner(generation):
                self._retire_spawner(generation)
            case KillSpawner(generation):
                if generation in self._spawners:
                    self._spawners[generation].kill()
            case PoolReady():
                self._ready(effect)
            case Notice():
                self._notice(effect)
            case Troubled():
                self._troubled(effect)
            case Exit():
                self.over = effect

    def _register(self, channel: Channel, readable: Callable[[], None]) -> None:
        def ready(mask: int) -> None:
            if mask & selectors.EVENT_WRITE:
                channel.flush()
                self._watch(channel)
            if mask & selectors.EVENT_READ:
                readable()

        self._selector.register(channel, selectors.EVENT_READ, ready)

    def _watch(self, channel: Channel) -> None:
        """Wait for room as long as something is unsent."""
        if channel.fileno() < 0:
            return
        key = self._selector.get_map().get(channel)
        if key is not None:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.wants_to_send else 0)
            if key.events != wanted:
                self._selector.modify(channel, wanted, key.data)

    def _unregister(self, channel: Channel) -> None:
        if channel.fileno() >= 0 and self._selector.get_map().get(channel) is not None:
            self._selector.unregister(channel)


def _ended_child() -> int | None:
    """Return the pid of a child that has ended and was not waited for, or None."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if ended is None else int(ended.si_pid)


def _in_words(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return f"exit code {os.WEXITSTATUS(status)}"
