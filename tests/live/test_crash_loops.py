"""A module whose every task ends its process: its children are replaced, but not in a loop, and the worker goes on.

And what must not be held back by that: the successor of one that is killed from outside, as often as it happens.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from greenroom.supervisor.pool.limits import PoolLimits
from greenroom.transport.clock import MICROSECONDS

from . import crashes
from .cluster import Cluster, Worker, wait_for
from .crashes import lines_of

pytestmark = pytest.mark.live

LIMITS = PoolLimits()
CHILDREN = 2
#: Far more than are run before they are purged.
MESSAGES = 400
#: After the deaths that are borne, so many rounds: 0.1, 0.2, 0.4, 0.8, 1.6 s apart.
ROUNDS = 6
ROUNDS_SECONDS = 3.1
RESULT_SECONDS = 30.0
KILLS = 20
KILL_EVERY_SECONDS = 0.5
#: From a kill until something runs in its place; the bar is for 99 in 100.
AGAIN_SECONDS = 1.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(crashes.app) as cluster:
        cluster.start_broker()
        yield cluster


def trouble_of(cluster: Cluster, worker: Worker) -> str:
    return next(session.trouble for session in cluster.status().sessions if session.session == worker.session)


@pytest.mark.parametrize("how", ["os._exit", "sys.exit"])
def test_a_module_whose_every_task_ends_its_process_is_no_fork_loop(cluster: Cluster, tmp_path: Path, how: str) -> None:
    run = str(tmp_path / "run")
    mailbox = f"broken.{how}"
    worker = cluster.start_worker("crashes", "-c", str(CHILDREN), "-Q", mailbox)
    try:
        crashes.ending["early"].send_many([(run, how)] * MESSAGES, queue=mailbox)
        starts = LIMITS.crashes_max + 1 + ROUNDS * CHILDREN
        wait_for(lambda: len(lines_of(run)) >= starts, f"{starts} should have died")
        at = [line["at"] for line in lines_of(run)]
        # The first ones have successors at once, those after them with longer and longer waits between the rounds.
        assert at[LIMITS.crashes_max] - at[0] < LIMITS.deaths_period / MICROSECONDS
        assert at[starts - 1] - at[LIMITS.crashes_max + CHILDREN] >= ROUNDS_SECONDS
        assert trouble_of(cluster, worker).startswith("crash_loop: ")
        assert "crash_loop: children" in cluster.command("status").stdout
        assert cluster.command("purge", mailbox, "--force").returncode == 0
        # The worker is up, and works as soon as the next child is there.
        result = crashes.whoami.apply_async(queue=mailbox)
        pid = result.get(timeout=RESULT_SECONDS)
        wait_for(lambda: not trouble_of(cluster, worker), "it should be over", within=60.0)
        # From now on a successor comes at once.
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        wait_for(lambda: len(cluster.children(worker)) == CHILDREN, "there should be a successor", within=AGAIN_SECONDS)
        assert time.monotonic() - began < AGAIN_SECONDS
        log = worker.log.read_text()
        assert log.count("crash_loop: ") == 1
        assert log.count("crash_loop_over: ") == 1
        assert "start_failed" not in log
        assert worker.running
    finally:
        worker.kill()


def test_children_that_are_killed_every_half_second_have_their_successors_at_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    worker = cluster.start_worker("crashes", "-c", str(CHILDREN), "-Q", "killed")

    def kill_one(run: str) -> float:
        """Kill a child that runs something; return after how many seconds that began again."""
        began = time.monotonic()
        result = crashes.ending["late, reject"].apply_async((run, crashes.HOLD), queue="killed")
        (line,) = wait_for(lambda: lines_of(run), "it should start")
        os.kill(line["pid"], signal.SIGKILL)
        killed = time.time()
        again = wait_for(lambda: lines_of(run)[1:], "it should start again")
        result.revoke(terminate=True)
        wait_for(lambda: len(cluster.children(worker)) == CHILDREN, "there should be a successor", AGAIN_SECONDS)
        wait_for(lambda: time.monotonic() - began >= KILL_EVERY_SECONDS, "half a second should pass")
        return float(again[0]["at"]) - killed

    try:
        seconds = [kill_one(str(tmp_path / str(number))) for number in range(KILLS)]
        assert max(seconds) < AGAIN_SECONDS
        assert "crash_loop" not in worker.log.read_text()
    finally:
        worker.kill()
