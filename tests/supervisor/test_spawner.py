"""The spawner as a process: what it forks, what it tells of ends, and that nothing stays behind it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from greenroom.actors.worker.control import ChildConfig
from greenroom.supervisor.pool.channel import Channel
from greenroom.supervisor.pool.orders import Answer, HasEnded, HasForked, SpawnerConfig, TakesOrders
from greenroom.supervisor.pool.spawner_link import SpawnerLink

pytestmark = [pytest.mark.live, pytest.mark.skipif(sys.platform != "linux", reason="prctl and /proc")]

HERE = Path(__file__).parent
PATIENCE_SECONDS = 20.0


class Pool:
    """A spawner and the pipes of its children, for a test that speaks with them one after another."""

    def __init__(self, path: Path, *, app: str = "", modules: list[str] | None = None) -> None:
        config = SpawnerConfig(
            control=-1, parent=0, app=app, modules=modules or [], path=[str(HERE), str(path)], body="puppet:puppet"
        )
        self.link = SpawnerLink(1, config)
        self.pipes: dict[int, Channel] = {}
        self._answers: list[Answer] = []

    def answer(self, wanted: Callable[[Answer], bool]) -> Answer:
        """Return the first answer of the spawner that is wanted, and forget it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            for n, answer in enumerate(self._answers):
                if wanted(answer):
                    return self._answers.pop(n)
            assert not self.link.channel.closed, f"the spawner is gone; it had said {self._answers}"
            wait_for_input(self.link.channel, deadline)
            self._answers += self.link.answers()

    def up(self) -> TakesOrders:
        answer = self.answer(lambda answer: isinstance(answer, TakesOrders))
        assert isinstance(answer, TakesOrders)
        return answer

    def order(self, number: int) -> None:
        config = ChildConfig(
            app="x", broker="tcp://x", node="n@h", node_session="s", incarnation=1, number=number, page="/nowhere"
        )
        self.pipes[number] = self.link.fork(number, f"s/{number}", msgspec.msgpack.encode(config))

    def fork(self, number: int) -> int:
        """Fork a child, and return its pid once it runs."""
        self.order(number)
        answer = self.answer(lambda answer: isinstance(answer, HasForked) and answer.number == number)
        assert isinstance(answer, HasForked)
        assert self.ask(number, "who")["pid"] == answer.pid
        return answer.pid

    def tell(self, number: int, *word: Any) -> None:
        self.pipes[number].send(msgspec.msgpack.encode(word))

    def ask(self, number: int, *word: Any) -> Any:
        self.tell(number, *word)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            messages = self.pipes[number].receive()
            if messages:
                return msgspec.msgpack.decode(messages[0])
            assert not self.pipes[number].closed, f"child {number} is gone"
            wait_for_input(self.pipes[number], deadline)

    def end(self, number: int) -> HasEnded:
        answer = self.answer(lambda answer: isinstance(answer, HasEnded) and answer.number == number)
        assert isinstance(answer, HasEnded)
        return answer

    def close(self) -> None:
        self.link.kill()
        self.link.close()
        for pipe in self.pipes.values():
            pipe.close()
        try:
            os.waitpid(self.link.pid, 0)
        except ChildProcessError:
            return


def wait_for_input(channel: Channel, deadline: float) -> None:
    remaining = deadline - time.monotonic()
    assert remaining > 0, "nothing came in time"
    select.select([channel.fileno()], [], [], remaining)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_gone(*pids: int, within: float = 2.0) -> None:
    """Wait for the ends of these processes, which need not be ours."""
    deadline = time.monotonic() + within
    while left := [pid for pid in pids if is_running(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        select.select([], [], [], 0.005)


def descriptors_of(pid: int) -> set[str]:
    """Return what the open descriptors of a process stand for."""
    return {os.readlink(link) for link in list(Path(f"/proc/{pid}/fd").iterdir()) if os.path.lexists(link)}


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    pool = Pool(tmp_path)
    yield pool
    pool.close()


# ---- what a child is ----


def test_d31_a_child_leads_a_session_of_its_own_and_dies_with_its_spawner(pool: Pool) -> None:
    pool.up()
    pid = pool.fork(1)
    who = pool.ask(1, "who")
    assert who["parent"] == pool.link.pid
    assert who["session"] == pid
    assert who["death_signal"] == signal.SIGKILL
    assert who["mark"] == "s/1"
    assert who["number"] == 1
    assert who["terminates"]


def test_a_child_has_no_descriptor_of_the_spawner_or_of_its_siblings(pool: Pool) -> None:
    pool.up()
    pool.fork(1)
    pool.fork(2)
    spawners = descriptors_of(pool.link.pid) - descriptors_of(os.getpid())
    assert len(spawners) == 2, "the socket to the parent, and the pipe that wakes it"
    first, second = set(pool.ask(1, "who")["descriptors"]), set(pool.ask(2, "who")["descriptors"])
    assert not spawners & (first | second)
    # What is left in common comes from whoever started the tests.
    assert not {name for name in first & second if name.startswith("socket:")}


def test_d31_the_application_is_imported_once_before_the_forks(tmp_path: Path) -> None:
    (tmp_path / "puppet_app.py").write_text("print('imported once')\n")
    pool = Pool(tmp_path, app="puppet_app:app")
    try:
        assert pool.up().reason == ""
        pool.fork(1)
        assert "puppet_app" in pool.ask(1, "who")["modules"]
    finally:
        pool.close()


def test_d31_an_application_that_starts_threads_is_left_to_the_children_with_a_notice(tmp_path: Path) -> None:
    (tmp_path / "puppet_threads.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, name='ticker', daemon=True).start()\n"
    )
    pool = Pool(tmp_path, app="puppet_threads")
    try:
        assert "ticker" in pool.up().reason
        pool.fork(1)
        assert "puppet_threads" not in pool.ask(1, "who")["modules"]
    finally:
        pool.close()


def test_an_application_that_cannot_be_imported_is_left_to_the_children(tmp_path: Path) -> None:
    (tmp_path / "puppet_app.py").write_text("import no_such_module_at_all\n")
    pool = Pool(tmp_path, app="puppet_app")
    try:
        assert "no_such_module_at_all" in pool.up().reason
        pool.fork(1)
    finally:
        pool.close()


# ---- what is told of an end ----


@pytest.mark.parametrize(
    ("word", "exit_code", "number"),
    [
        (("exit", 0), 0, 0),
        (("exit", 7), 7, 0),
        (("sys_exit", 3), 3, 0),
        (("sys_exit", "a text"), 1, 0),
        (("os_exit", 5), 5, 0),
        (("raise",), 1, 0),
        (("kill", int(signal.SIGKILL)), None, signal.SIGKILL),
        (("kill", int(signal.SIGSEGV)), None, signal.SIGSEGV),
        (("kill", int(signal.SIGTERM)), None, signal.SIGTERM),
        (("kill", int(signal.SIGABRT)), None, signal.SIGABRT),
    ],
)
def test_exit_codes_and_signals_are_told_apart(
    pool: Pool, word: tuple[Any, ...], exit_code: int | None, number: int
) -> None:
    pool.up()
    pool.fork(1)
    pool.tell(1, *word)
    end = pool.end(1)
    assert (end.exit_code, end.signal, end.oom) == (exit_code, number, False)
    assert end.max_rss_kib > 1000


def test_an_end_is_told_at_once_while_other_children_run_on(pool: Pool) -> None:
    pool.up()
    pool.fork(1)
    other = pool.fork(2)
    before = time.monotonic()
    pool.tell(1, "exit", 0)
    pool.end(1)
    assert time.monotonic() - before < 1.0
    assert pool.ask(2, "who")["pid"] == other


def test_a_signal_for_a_child_that_is_gone_is_nothing(pool: Pool) -> None:
    pool.up()
    pool.fork(1)
    pool.tell(1, "exit", 0)
    pool.end(1)
    pool.link.signal(1, signal.SIGKILL)
    assert pool.fork(2)


def test_a_fork_order_and_a_kill_behind_it_keep_their_order(pool: Pool) -> None:
    pool.order(1)
    pool.link.signal(1, signal.SIGKILL)
    assert pool.end(1).signal == signal.SIGKILL


def test_sigterm_to_the_spawner_is_not_for_it(pool: Pool) -> None:
    pool.up()
    os.kill(pool.link.pid, signal.SIGTERM)
    os.kill(pool.link.pid, signal.SIGINT)
    assert pool.fork(1)


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A memory cgroup with room for little more than a spawner; this test's process can't be in it."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = Path("/sys/fs/cgroup", controllers, place.lstrip("/"))
        group = root / f"greenroom-test-{os.getpid()}"
        limit = group / ("memory.limit_in_bytes" if controllers else "memory.max")
        try:
            group.mkdir()
            limit.write_text(str(200 << 20))
        except OSError:
            group.rmdir() if group.is_dir() else None
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("no memory cgroup can be made here")


def test_a_kill_by_the_oom_killer_is_told_from_others(tmp_path: Path, small_group: Path) -> None:
    program = (
        "import os, sys\n"
        f"open({str(small_group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
        f"sys.path.insert(0, {str(HERE)!r})\n"
        "from pathlib import Path\n"
        "import test_spawner\n"
        f"pool = test_spawner.Pool(Path({str(tmp_path)!r}))\n"
        "pool.up()\n"
        "pool.fork(1)\n"
        "pool.tell(1, 'kill', 9)\n"
        "first = pool.end(1)\n"
        "pool.fork(2)\n"
        "pool.tell(2, 'allocate', 500)\n"
        "second = pool.end(2)\n"
        "print(first.signal, first.oom, second.signal, second.oom)\n"
        "pool.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["9", "False", "9", "True"]


# ---- nothing stays behind ----


def test_s13f_what_a_child_started_ends_with_it(pool: Pool) -> None:
    pool.up()
    pool.fork(1)
    family = [pool.ask(1, word) for word in ("child", "detached_child", "daemon", "plain_fork")]
    assert all(is_running(pid) for pid in family)
    pool.tell(1, "kill", int(signal.SIGKILL))
    pool.end(1)
    assert_gone(*family)


def test_s13f_what_another_child_started_in_the_background_is_left_alone(pool: Pool) -> None:
    pool.up()
    pool.fork(1)
    pool.fork(2)
    mine = [pool.ask(1, word) for word in ("child", "daemon")]
    others = [pool.ask(2, word) for word in ("child", "detached_child", "daemon")]
    pool.link.signal(1, signal.SIGKILL)
    pool.end(1)
    assert_gone(*mine)
    assert all(is_running(pid) for pid in others)


def test_a_child_that_ignores_sigterm_and_fills_stderr_is_killed_with_its_tree(pool: Pool) -> None:
    pool.up()
    pid = pool.fork(1)
    grandchild = pool.ask(1, "child")
    pool.ask(1, "ignore", int(signal.SIGTERM))
    pool.link.signal(1, signal.SIGTERM)
    assert pool.ask(1, "who")["pid"] == pid
    pool.link.signal(1, signal.SIGKILL)
    assert pool.end(1).signal == signal.SIGKILL
    assert_gone(pid, grandchild)


def test_s13f_kill_of_the_spawner_ends_its_children(pool: Pool) -> None:
    pool.up()
    children = [pool.fork(1), pool.fork(2)]
    os.kill(pool.link.pid, signal.SIGKILL)
    assert_gone(*children)


def test_s13f_the_end_of_the_parent_ends_spawner_children_and_grandchildren(tmp_path: Path) -> None:
    program = (
        "import signal, sys\n"
        f"sys.path.insert(0, {str(HERE)!r})\n"
        "from pathlib import Path\n"
        "import test_spawner\n"
        f"pool = test_spawner.Pool(Path({str(tmp_path)!r}))\n"
        "pool.up()\n"
        "pids = [pool.link.pid, pool.fork(1), pool.fork(2)]\n"
        "pids += [pool.ask(1, word) for word in ('child', 'detached_child', 'daemon', 'plain_fork')]\n"
        "print(*pids, flush=True)\n"
        "signal.pause()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 7
    assert all(is_running(pid) for pid in pids)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert_gone(*pids)


def test_s13f_the_end_of_the_parent_during_the_import_ends_the_spawner(tmp_path: Path) -> None:
    (tmp_path / "puppet_app.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    program = (
        "import signal, sys\n"
        f"sys.path.insert(0, {str(HERE)!r})\n"
        "from pathlib import Path\n"
        "import test_spawner\n"
        f"pool = test_spawner.Pool(Path({str(tmp_path)!r}), app='puppet_app')\n"
        "print(pool.link.pid, flush=True)\n"
        "signal.pause()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    lines = [parent.stdout.readline().strip(), parent.stdout.readline().strip()]
    assert "importing" in lines
    (spawner,) = [int(line) for line in lines if line.isdigit()]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert_gone(spawner)
