"""The spawner: a process that forks the children of one pool, waits for them, and leaves nothing behind (spec D31).

    python -m greenroom.supervisor.pool.spawner CONFIG

It has one thread and no ZeroMQ, so a fork of it is a clean one, and PDEATHSIG of its children means its own end.
Before the first fork it imports the application, so that children start at once and share its memory. If that
import starts threads, or fails, the spawner executes itself anew without it, and each child imports for itself: a
process with threads must not be forked, and the error is the children's to tell.

How nothing stays behind:

- the node's parent ends: EOF on the control socket; children and what they started are killed, then it ends. While
  it still imports it reads no socket, so that for this time PDEATHSIG does the same;
- it ends itself: its children get SIGKILL by PDEATHSIG, and the node's parent adopts and kills what they started;
- a child ends: before it is waited for, its process group is killed; then what it started elsewhere, which this
  process adopted by then.

Only this process waits for its children, so a pid that it signals is never another's.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType

import msgspec

from ...actors.imports import import_task_modules
from ...actors.worker.child import run_child
from ...actors.worker.control import ChildConfig, Wish
from ...actors.worker.load import find_app
from ...actors.worker.wishes import wish_of
from .channel import Channel
from .kernel import (
    adopt_orphans,
    children_of,
    die_with_parent,
    name_process,
    prefer_as_victim,
    threads_of_this_process,
)
from .oom import OomKills
from .orders import IMPORT_FAILED, Answer, CannotFork, ForkOrder, HasEnded, HasForked, Order, SpawnerConfig, TakesOrders
from .orphans import CHILD_MARK, kill_group, kill_orphans

#: What a child runs: returns its exit code.
Body = Callable[[ChildConfig, int], int]

#: How long killed processes are waited for when the node is gone. One in a system call that does not return would
#: keep the spawner for ever, and the kernel ends it anyway.
LAST_WAIT_SECONDS = 10.0
#: Exit code of a child whose body raised, as Python's own.
EXIT_RAISED = 1
#: Thousandths of the memory by which the OOM killer rather takes a child than those who would notice.
VICTIM_PREFERENCE = 100

#: Meant for the node's parent, which decides what they mean for the children.
_NOT_FOR_US = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

_orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
_configs = msgspec.msgpack.Decoder(ChildConfig)
_encoder = msgspec.msgpack.Encoder()


class _Child:
    """A child that was not waited for yet."""

    __slots__ = ("killed", "mark", "number", "pid")

    def __init__(self, number: int, pid: int, mark: str) -> None:
        self.number = number
        self.pid = pid
        self.mark = mark
        self.killed = False


class Spawner:
    """The loop of a spawner: orders in, answers out, children forked and waited for."""

    def __init__(self, config: SpawnerConfig, body: Body) -> None:
        """Begin; whatever processes the application's import has started are helpers, and left alone."""
        self._body = body
        self._pid = os.getpid()
        self._control = Channel(socket.socket(fileno=config.control))
        self._by_pid: dict[int, _Child] = {}
        self._by_number: dict[int, _Child] = {}
        self._helpers = frozenset(children_of(self._pid))
        self._oom = OomKills()
        self._wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wake_write = wake_write
        signal.signal(signal.SIGCHLD, _notice)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._answer(TakesOrders(config.reason, config.wish))

    def run(self) -> None:
        """Work until the node's parent is gone."""
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        while not self._control.closed:
            wanted = select.POLLIN | (select.POLLOUT if self._control.wants_to_send else 0)
            poller.register(self._control.fileno(), wanted)
            for descriptor, _ in poller.poll():
                if descriptor == self._wake_read:
                    _drain(descriptor)
            self._reap()
            self._control.flush()
            for message in self._control.receive():
                self._obey(_orders.decode(message))
        self._end_all()

    def _obey(self, order: Order) -> None:
        if isinstance(order, ForkOrder):
            self._fork(order, self._control.take_descriptor())
            return
        child = self._by_number.get(order.number)
        if child is None:
            return
        if order.signal == signal.SIGKILL:
            child.killed = True
            kill_group(child.pid)
        else:
            os.kill(child.pid, order.signal)

    def _fork(self, order: ForkOrder, pipe: int) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            os.close(pipe)
            self._answer(CannotFork(order.number, str(error)))
            return
        if pid == 0:
            self._become_child(order, pipe)
        os.close(pipe)
        self._by_pid[pid] = self._by_number[order.number] = _Child(order.number, pid, order.mark)
        self._answer(HasForked(order.number, pid))

    def _become_child(self, order: ForkOrder, pipe: int) -> None:
        """Turn this process, just forked, into a child; does not return."""
        code = EXIT_RAISED
        try:
            die_with_parent(signal.SIGKILL)
            if os.getppid() != self._pid:
                os._exit(EXIT_RAISED)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, *_NOT_FOR_US):
                if signal.getsignal(number) is _notice:
                    signal.signal(number, signal.SIG_DFL)
            os.setsid()
            self._control.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            os.environ[CHILD_MARK] = order.mark
            name_process(f"greenroom:{order.number}")
            prefer_as_victim(VICTIM_PREFERENCE)
            gc.enable()
            code = self._body(_configs.decode(order.config), pipe)
        except SystemExit as error:
            code = _exit_code(error)
        except BaseException:
            # The node learns of it by the exit code, people by this.
            traceback.print_exc()
        finally:
            _flush()
            os._exit(code)

    def _reap(self) -> None:
        """Wait for whoever has ended, children and orphans, and kill what they left."""
        while (pid := _ended_child()) is not None:
            child = self._by_pid.pop(pid, None)
            if child is not None:
                del self._by_number[child.number]
                # Before it is waited for: until then nobody else can have its pid.
                kill_group(pid)
            _, status, usage = os.wait4(pid, 0)
            if child is not None:
                self._tell_end(child, status, usage.ru_maxrss)
            self._kill_orphans()

    def _tell_end(self, child: _Child, status: int, max_rss_kib: int) -> None:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        exit_code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        oom = number == signal.SIGKILL and not child.killed and self._oom.claim()
        self._answer(HasEnded(child.number, exit_code, number, oom, max_rss_kib))

    def _kill_orphans(self) -> None:
        kill_orphans(
            own=self._by_pid.keys() | self._helpers,
            living=self._by_pid.keys(),
            marks=[child.mark for child in self._by_pid.values()],
        )

    def _end_all(self) -> None:
        """Kill everything below this process, and wait for it."""
        deadline = time.monotonic() + LAST_WAIT_SECONDS
        for known in (*self._by_pid, *self._helpers):
            kill_group(known)
        self._by_pid.clear()
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        while time.monotonic() < deadline:
            while (pid := _ended_child()) is not None:
                kill_group(pid)
                os.wait4(pid, 0)
            if not kill_orphans(own=(), living=(), marks=()):
                break
            poller.poll(1000 * (deadline - time.monotonic()))
            _drain(self._wake_read)

    def _answer(self, answer: Answer) -> None:
        self._control.send(_encoder.encode(answer))


def load_body(name: str) -> Body:
    """Return what children run: a function named as module:function, or ours. Raises ImportError."""
    if not name:
        return run_child
    module, _, function = name.partition(":")
    body: Body = getattr(importlib.import_module(module), function)
    return body


def preload(config: SpawnerConfig) -> tuple[str, Wish]:
    """Import the application; return why this process can't be forked with it, or nothing, and what it wishes."""
    wish = Wish()
    try:
        if config.body:
            # Not a worker's child, so it is no application of ours that it runs.
            importlib.import_module(config.app.partition(":")[0])
        else:
            app = find_app(config.app)
            import_task_modules(app)
            wish = wish_of(app, config.open_to_app)
        for module in config.modules:
            importlib.import_module(module)
    except BaseException as error:
        # Its children import it again, and tell the node what is wrong with it.
        return f"{IMPORT_FAILED}: {type(error).__name__}: {error}", wish
    threads = threads_of_this_process()
    if threads > 1 or threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate()[1:]) or "not Python's"
        return f"its import starts threads ({threads - 1}: {names}), which do not survive a fork", wish
    return "", wish


def main(arguments: list[str]) -> int:
    """Run a spawner as the command line says; return its exit code."""
    config = msgspec.json.decode(arguments[0], type=SpawnerConfig)
    die_with_parent(signal.SIGKILL)
    if os.getppid() != config.parent:
        return EXIT_RAISED
    adopt_orphans()
    name_process("greenroom-spawn")
    for number in _NOT_FOR_US:
        signal.signal(number, _notice)
    for descriptor in (config.control, config.lock):
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)
    sys.path[:0] = [folder for folder in config.path if folder not in sys.path]
    # What lies in the spawner's memory is shared with its children as long as nobody writes to it.
    gc.disable()
    body = load_body(config.body)
    if config.preload and config.app:
        reason, wish = preload(config)
        _flush()
        config = msgspec.structs.replace(config, preload=not reason, reason=reason, wish=wish)
        if reason:
            _execute_again(config)
    gc.collect()
    gc.freeze()
    spawner = Spawner(config, body)
    die_with_parent(0)
    if os.getppid() == config.parent:
        spawner.run()
    return 0


def _execute_again(config: SpawnerConfig) -> None:
    """Become a spawner that has not imported the application; threads and all that it opened end with this."""
    for descriptor in (config.control, config.lock):
        if descriptor >= 0:
            os.set_inheritable(descriptor, True)
    os.execv(sys.executable, [*sys.orig_argv[:-1], msgspec.json.encode(config).decode()])


def _ended_child() -> int | None:
    """Return the pid of a child that has ended and was not waited for, or None."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if ended is None else int(ended.si_pid)


def _exit_code(error: SystemExit) -> int:
    """Return the exit code that Python itself would make of this."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return EXIT_RAISED


def _notice(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the signal has woken the loop, and that is all that it is for.

    Not SIG_IGN, which would be handed down to what the application starts.
    """


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 4096):
            pass
    except BlockingIOError:
        return


def _flush() -> None:
    """Write out what was printed; before a fork, or every child would print it again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            # Closed, or nobody reads it: there is nobody to tell.
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
