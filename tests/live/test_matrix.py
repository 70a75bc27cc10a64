"""The matrix of acks and crashes, each cell with real processes (spec celery.md 1.8, S15, S17, S19, S22).

One cluster, one child: so the task after a crash can only run in a fresh one.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greenroom import AsyncResult, PoisonMessage, Reject, TimeLimitExceeded, WorkerLostError
from greenroom.transport.message import State
from greenroom.transport.requests import PurgeMailbox
from greenroom.transport.verbs import Known, Op

from . import crashes
from .cluster import Cluster, Worker, wait_for
from .crashes import HOLD, SELF_INFLICTED, ending, lines_of

pytestmark = pytest.mark.live

RESULT_SECONDS = 30.0
#: A lost child is known in under a second.
KNOWN_SECONDS = 1.0
#: How each way to end a process is told in words, and in a dead letter.
TOLD: dict[str, tuple[str, int | None, int]] = {
    "sys.exit": ("exitcode 3", 3, 0),
    "os._exit": ("exitcode 4", 4, 0),
    "SIGKILL": ("signal 9 (SIGKILL)", None, 9),
    "SIGSEGV": ("signal 11 (SIGSEGV)", None, 11),
    "SIGTERM from outside": ("signal 15 (SIGTERM)", None, 15),
}
ACKED = ("early", "early, reject", "late")
DELIVERIES_MAX = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(crashes.app) as cluster:
        cluster.start_broker()
        cluster.start_worker("crashes", "-c", "1")
        yield cluster


@pytest.fixture(autouse=True)
def empty_mailbox(cluster: Cluster) -> Iterator[None]:
    """What a failed test leaves is not the next one's."""
    yield
    cluster.client.request(Op.PURGE, PurgeMailbox("celery"))


@pytest.fixture
def worker(cluster: Cluster) -> Worker:
    return cluster.workers[0]


@pytest.fixture
def run(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def call(rule: str, run: str, how: str, **options: Any) -> AsyncResult[Any]:
    """Send a task that ends its process in this way."""
    held = how if how in SELF_INFLICTED else HOLD
    return ending[rule].apply_async((run, held), **options)


def next_run(run: str, number: int) -> dict[str, Any]:
    """Wait for a run's start, counted from 1."""
    return wait_for(lambda: lines_of(run)[number - 1 : number], f"run {number} should start")[0]


def end_from_outside(how: str, run: str, number: int) -> float:
    """See to it that a run ends, if it does not do that by itself; return when."""
    line = next_run(run, number)
    if how in SELF_INFLICTED:
        return float(line["at"])
    os.kill(line["pid"], signal.SIGTERM)
    return time.time()


def is_zombie_or_gone(pid: int) -> bool:
    """Whether a process runs no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def open_gate(gate: Path) -> None:
    """Let the body that waits at it go on."""
    with gate.open("wb"):
        pass


def ended(result: AsyncResult[Any]) -> tuple[Any, float]:
    """Wait for the end; return the value or the exception, and when it was known."""
    value = result.get(timeout=RESULT_SECONDS, propagate=False)
    return value, time.time()


def pid_after(cluster: Cluster, *dead: int) -> int:
    """Run another task; it must be in a process that is not one of these. Return its pid."""
    pid = crashes.whoami.delay().get(timeout=RESULT_SECONDS)
    assert pid not in dead
    return pid


# ---- a process that dies ----


@pytest.mark.parametrize("rule", ACKED)
@pytest.mark.parametrize("how", TOLD)
def test_s15_a_task_whose_process_died_is_not_run_again(cluster: Cluster, run: str, how: str, rule: str) -> None:
    result = call(rule, run, how)
    died_at = end_from_outside(how, run, 1)
    error, known_at = ended(result)
    assert known_at - died_at < KNOWN_SECONDS
    assert result.state == "FAILURE"
    assert type(error) is WorkerLostError
    assert str(error) == f"Worker exited prematurely: {TOLD[how][0]}."
    pid_after(cluster, lines_of(run)[0]["pid"])
    cluster.wait_until_empty()
    assert len(lines_of(run)) == 1
    assert result.id not in [letter.id for letter in cluster.dead_letters()]


@pytest.mark.parametrize("how", TOLD)
def test_s17_a_task_that_kills_its_process_each_time_is_a_dead_letter_after_three_runs(
    cluster: Cluster, worker: Worker, run: str, how: str
) -> None:
    result = call("late, reject", run, how)
    died = [end_from_outside(how, run, number) for number in range(1, DELIVERIES_MAX + 1)]
    error, known_at = ended(result)
    text, exit_code, number = TOLD[how]
    lines = lines_of(run)
    # The first redelivery is at once, the second a second later (D26: and up to 20 %).
    assert lines[1]["at"] - died[0] < KNOWN_SECONDS
    assert 0.99 < lines[2]["at"] - died[1] < 1.2 + KNOWN_SECONDS
    assert known_at - died[2] < KNOWN_SECONDS
    assert result.state == "FAILURE"
    assert type(error) is PoisonMessage
    assert isinstance(error, WorkerLostError)
    assert f"{DELIVERIES_MAX} deliveries" in str(error)
    assert text in str(error)
    pid_after(cluster, *[line["pid"] for line in lines])
    cluster.wait_until_empty()
    assert [line["redelivered"] for line in lines_of(run)] == [False, True, True]
    assert [line["deliveries"] for line in lines_of(run)] == [1, 2, 3]
    story = cluster.story(result.id)
    assert story is not None
    assert story["task"] == "end (late, reject)"
    assert (story["mailbox"], story["deliveries"]) == ("celery", DELIVERIES_MAX)
    assert text in story["reason"]
    assert [attempt["pid"] for attempt in story["attempts"]] == [line["pid"] for line in lines]
    assert {(attempt["exit_code"], attempt["signal"]) for attempt in story["attempts"]} == {(exit_code, number)}
    assert {attempt["cause"] for attempt in story["attempts"]} == {"solo"}
    assert {attempt["node"] for attempt in story["attempts"]} == {worker.node}
    assert all(attempt["max_rss"] > 0 for attempt in story["attempts"])
    for attempt, line in zip(story["attempts"], lines, strict=True):
        assert attempt["started_at"] <= line["at"] <= attempt["ended_at"]
    assert story["first_failure"] <= story["last_failure"]
    assert story["counters"]["crashes_solo"] == DELIVERIES_MAX


def test_s17_max_deliveries_of_one_sets_a_task_aside_after_its_first_crash(cluster: Cluster, run: str) -> None:
    result = call("late, reject, one delivery", run, "SIGKILL")
    error, _ = ended(result)
    assert type(error) is PoisonMessage
    assert "was set aside after 1 delivery that ended badly: signal 9 (SIGKILL)" in str(error)
    assert len(lines_of(run)) == 1
    assert result.id in [letter.id for letter in cluster.dead_letters()]


def test_s17_a_dead_letter_that_is_redriven_has_fresh_counters(cluster: Cluster, run: str) -> None:
    result = call("late, reject", run, "SIGKILL")
    ended(result)
    done = cluster.command("dead", "redrive", result.id, "--json")
    assert done.returncode == 0, done.stderr
    next_run(run, 2 * DELIVERIES_MAX)
    wait_for(lambda: result.id in [letter.id for letter in cluster.dead_letters()], "it should be set aside again")
    assert len(lines_of(run)) == 2 * DELIVERIES_MAX
    story = cluster.story(result.id)
    assert story is not None
    assert story["redriven"] == 1


def test_a_retry_on_worker_lost_runs_three_times_and_fails_as_a_lost_worker(cluster: Cluster, run: str) -> None:
    states: list[int] = []

    def learn(known: Known) -> None:
        states.append(known.state)

    result = call("late, retry", run, "SIGKILL")
    cluster.client.on_result(result.id, learn)
    error, _ = ended(result)
    wait_for(lambda: State.FAILURE in states, "the states should be told")
    assert list(dict.fromkeys(states)) == [State.RETRY, State.FAILURE]
    assert type(error) is WorkerLostError
    assert str(error) == "Worker exited prematurely: signal 9 (SIGKILL)."
    assert result.state == "FAILURE"
    assert [line["retries"] for line in lines_of(run)] == [0, 1, 2]
    lines = lines_of(run)
    assert all(after["at"] - before["at"] >= crashes.RETRY_SECONDS for before, after in itertools.pairwise(lines))
    cluster.wait_until_empty()
    assert len(lines_of(run)) == 3
    assert cluster.story(result.id) is None


# ---- time limits ----


@pytest.mark.parametrize("rule", [*ACKED, "late, reject", "early, no ack on timeout"])
def test_a_hard_time_limit_acks(cluster: Cluster, run: str, rule: str) -> None:
    result = call(rule, run, HOLD, time_limit=0.3)
    error, known_at = ended(result)
    line = lines_of(run)[0]
    assert 0.25 < known_at - line["at"] < 0.3 + KNOWN_SECONDS
    assert result.state == "FAILURE"
    assert type(error) is TimeLimitExceeded
    assert str(error) == "TimeLimitExceeded(0.3,)"
    pid_after(cluster, line["pid"])
    cluster.wait_until_empty()
    assert len(lines_of(run)) == 1
    assert result.id not in [letter.id for letter in cluster.dead_letters()]


def test_s18_without_acks_on_timeout_a_hard_time_limit_redelivers_within_the_bound(cluster: Cluster, run: str) -> None:
    result = call("late, no ack on timeout", run, HOLD, time_limit=0.3)
    error, _ = ended(result)
    assert result.state == "FAILURE"
    assert type(error) is PoisonMessage
    pid_after(cluster, *[line["pid"] for line in lines_of(run)])
    cluster.wait_until_empty()
    assert len(lines_of(run)) == DELIVERIES_MAX
    story = cluster.story(result.id)
    assert story is not None
    assert {attempt["cause"] for attempt in story["attempts"]} == {"timeout"}
    assert "hard time limit" in story["reason"]
    for attempt in story["attempts"]:
        assert 0.25 < attempt["ended_at"] - attempt["started_at"] < 0.3 + KNOWN_SECONDS
    assert story["counters"]["timeouts"] == DELIVERIES_MAX


# ---- bodies that end by themselves ----


@pytest.mark.parametrize("rule", list(crashes.failing))
def test_a_task_that_raises_runs_once_and_its_child_lives_on(cluster: Cluster, run: str, rule: str) -> None:
    result = crashes.failing[rule].delay(run)
    error, _ = ended(result)
    assert result.state == "FAILURE"
    assert repr(error) == "ValueError('as told')"
    cluster.wait_until_empty()
    assert crashes.whoami.delay().get(timeout=RESULT_SECONDS) == lines_of(run)[0]["pid"]
    assert len(lines_of(run)) == 1


def test_a_success_whose_child_died_afterwards_stays_a_success(cluster: Cluster, run: str) -> None:
    result = crashes.succeed_and_die.delay(run)
    assert ended(result)[0] == 42
    pid_after(cluster, lines_of(run)[0]["pid"])
    cluster.wait_until_empty()
    assert result.state == "SUCCESS"
    assert len(lines_of(run)) == 1


@pytest.mark.parametrize("deduplicate", [True, False])
def test_a_redelivered_message_whose_task_succeeded_is_skipped_where_that_is_asked_for(
    cluster: Cluster, run: str, tmp_path: Path, deduplicate: bool
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    crashes.app.conf.worker_deduplicate_successful_tasks = deduplicate
    try:
        # Twice the same message, as from a program that lost count of what it had sent.
        envelope = crashes.app.prepare("wait (late, reject)", (run, str(gate))).envelope
    finally:
        crashes.app.conf.worker_deduplicate_successful_tasks = False
    result: AsyncResult[int] = crashes.app.AsyncResult(envelope.id)
    cluster.client.publish("celery", [envelope]).result(RESULT_SECONDS)
    next_run(run, 1)
    open_gate(gate)
    ended(result)
    cluster.client.publish("celery", [envelope]).result(RESULT_SECONDS)
    os.kill(next_run(run, 3)["pid"], signal.SIGKILL)
    if not deduplicate:
        assert next_run(run, 4)["redelivered"]
        open_gate(gate)
    cluster.wait_until_empty()
    assert len(lines_of(run)) == (3 if deduplicate else 5)
    assert crashes.app.AsyncResult(envelope.id).state == "SUCCESS"


def test_a_refused_message_is_a_failure_and_no_dead_letter(cluster: Cluster, run: str) -> None:
    result = crashes.refuse.delay(run)
    with pytest.raises(Reject) as caught:
        result.get(timeout=RESULT_SECONDS)
    assert (caught.value.reason, caught.value.requeue) == ("out of stock", False)
    assert result.state == "FAILURE"
    cluster.wait_until_empty()
    assert len(lines_of(run)) == 1
    assert cluster.story(result.id) is None


def test_s18_a_message_that_its_body_gives_back_comes_again_with_a_growing_delay(cluster: Cluster, run: str) -> None:
    result = crashes.give_back.delay(run, 2)
    assert ended(result)[0] == 3
    lines = lines_of(run)
    assert [line["redelivered"] for line in lines] == [False, True, True]
    first, second = (after["at"] - before["at"] for before, after in itertools.pairwise(lines))
    assert second > first > 0.05


# ---- who is told ----


def test_s22_a_failing_task_calls_its_hooks_in_the_child_that_ran_it(cluster: Cluster, run: str) -> None:
    result = crashes.raise_key_error.delay(run)
    error, _ = ended(result)
    assert type(error) is KeyError
    lines = wait_for(lambda: lines_of(run)[2:], "both hooks should be called") and lines_of(run)
    assert [line.get("hook") for line in lines] == [None, "on_failure", "after_return"]
    assert lines[1]["exc"] == "KeyError()"
    assert lines[1]["traceback"] == "str"
    assert len({line["pid"] for line in lines}) == 1


def test_s22_hooks_and_errbacks_run_in_an_ordinary_child_after_a_worker_was_lost(cluster: Cluster, run: str) -> None:
    result = crashes.hooked_end.apply_async((run, "SIGKILL"), link_error=crashes.errback.s(run))
    error, _ = ended(result)
    assert type(error) is WorkerLostError
    lines = wait_for(lambda: len(lines_of(run)) == 4 and lines_of(run), "hooks and the errback should run")
    assert isinstance(lines, list)
    started, *told = lines
    by_hook = {line.get("hook", "errback"): line for line in told}
    assert by_hook["on_failure"]["id"] == result.id
    assert by_hook["on_failure"]["exc"] == "WorkerLostError('Worker exited prematurely: signal 9 (SIGKILL).')"
    assert by_hook["after_return"]["status"] == "FAILURE"
    assert by_hook["errback"]["errback"] == result.id
    assert "WorkerLostError" in by_hook["errback"]["exc"]
    assert all(line["pid"] != started["pid"] for line in told)
    cluster.wait_until_empty()
    assert len(lines_of(run)) == 4


def test_s22_hooks_run_after_a_hard_time_limit(cluster: Cluster, run: str) -> None:
    result = crashes.hooked_end.apply_async((run, HOLD), time_limit=0.3)
    error, _ = ended(result)
    assert type(error) is TimeLimitExceeded
    wait_for(lambda: len(lines_of(run)) == 3, "both hooks should be called")
    assert [line.get("hook") for line in lines_of(run)] == [None, "on_failure", "after_return"]


def test_s22_hooks_run_once_for_a_dead_letter_and_for_no_redelivery_before_it(cluster: Cluster, run: str) -> None:
    crashes.hooked_end.reject_on_worker_lost = True
    try:
        result = crashes.hooked_end.delay(run, "SIGKILL")
    finally:
        del crashes.hooked_end.reject_on_worker_lost
    error, _ = ended(result)
    assert type(error) in (PoisonMessage, WorkerLostError)
    cluster.wait_until_empty()
    hooks = [line["hook"] for line in lines_of(run) if "hook" in line]
    assert hooks == ["on_failure", "after_return"]


# ---- revoked ----


@pytest.mark.parametrize("parent_is_slow", [False, True])
@pytest.mark.parametrize(
    "task", [crashes.wait_early, crashes.wait_late, crashes.wait_reject], ids=lambda task: task.name
)
def test_s16_a_terminated_task_is_revoked_and_not_redelivered(
    cluster: Cluster, worker: Worker, run: str, tmp_path: Path, task: Any, parent_is_slow: bool
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    result: AsyncResult[int] = task.delay(run, str(gate))
    line = next_run(run, 1)
    if parent_is_slow:
        # The child obeys before its parent has heard of it: no other death may be seen in that.
        worker.send(signal.SIGSTOP)
    result.revoke(terminate=True)
    if parent_is_slow:
        wait_for(lambda: is_zombie_or_gone(line["pid"]), "the child should end")
        worker.send(signal.SIGCONT)
    error, _ = ended(result)
    assert result.state == "REVOKED"
    assert "terminated" in str(error)
    pid_after(cluster, line["pid"])
    cluster.wait_until_empty()
    assert len(lines_of(run)) == 1
    assert result.id not in [letter.id for letter in cluster.dead_letters()]


def test_s16_a_task_that_was_revoked_before_it_started_does_not_run(cluster: Cluster, run: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    first = crashes.wait_late.delay(run, str(gate))
    next_run(run, 1)
    second = crashes.count.delay(run)
    second.revoke()
    open_gate(gate)
    assert ended(first)[0]
    ended(second)
    assert second.state == "REVOKED"
    cluster.wait_until_empty()
    assert [line["id"] for line in lines_of(run)] == [first.id, first.id]
