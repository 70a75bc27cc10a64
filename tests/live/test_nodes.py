"""Worker nodes that are killed, stopped, and whose children are replaced (spec celery.md S2, S12-S14; chaos.md 2, 3).

One broker. Each test has mailboxes of its own and starts the nodes that it needs.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from greenroom import AsyncResult, MailboxFull, TimeLimitExceeded, WorkerLostError
from greenroom.transport.page import PageContents, read_page

from . import crashes
from .cluster import GONE_SECONDS, Cluster, Worker, wait_for
from .crashes import HOLD, lines_of

pytestmark = pytest.mark.live

RESULT_SECONDS = 30.0
#: After the death of a node, its work is elsewhere within this time.
NODE_LOST_SECONDS = 7.0
#: The same where nothing tells what had started: 7 s are waited for evidence (D16), and then a little.
NO_EVIDENCE_SECONDS = 8.5

StartWorker = Callable[..., Worker]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(crashes.app) as cluster:
        cluster.start_broker()
        yield cluster


@pytest.fixture
def mailbox(request: pytest.FixtureRequest) -> str:
    """A mailbox that only this test uses."""
    return str(request.node.name).replace("[", ".").replace("]", "")


@pytest.fixture
def start(cluster: Cluster, mailbox: str) -> Iterator[StartWorker]:
    """Starts nodes with one child for this test's mailbox; they are killed after it."""
    started: list[Worker] = []

    def start(*arguments: str, **options: Any) -> Worker:
        worker = cluster.start_worker("crashes", "-Q", mailbox, *(arguments or ("-c", "1")), **options)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.kill()


@pytest.fixture
def run(tmp_path: Path) -> str:
    return str(tmp_path / "run")


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def open_gate(gate: Path) -> None:
    """Let the body that waits at it go on."""
    with gate.open("wb"):
        pass


def next_run(run: str, number: int = 1) -> dict[str, Any]:
    """Wait for a run's start, counted from 1."""
    return wait_for(lambda: lines_of(run)[number - 1 : number], f"run {number} should start")[0]


def ended(result: AsyncResult[Any]) -> Any:
    """Wait for the end; return the value or the exception."""
    return result.get(timeout=RESULT_SECONDS, propagate=False)


def hold_some(
    cluster: Cluster, mailbox: str, rule: str, tmp_path: Path, start: StartWorker
) -> tuple[list[AsyncResult[int]], list[Path], Worker]:
    """Have the one child of the one node run one message, and hold others; what it does not hold runs elsewhere.

    Returns the results of what it runs and holds, the files of their runs, and the other node.
    """
    freeze = crashes.freeze[rule]
    quick = str(tmp_path / "quick")
    # Only what was measured to be short is given ahead of time.
    for result in freeze.send_many([(quick,)] * 200, queue=mailbox):
        result.get(timeout=RESULT_SECONDS)
    files = [tmp_path / "run", *[tmp_path / f"other{number}" for number in range(20)]]
    os.mkfifo(tmp_path / "gate")
    results = freeze.send_many(
        [(str(files[0]), str(tmp_path / "gate")), *[(str(path),) for path in files[1:]]], queue=mailbox
    )
    next_run(str(files[0]))
    other = start()

    def rest_is_done() -> bool:
        return cluster.mailbox(mailbox).ready == 0 and cluster.children(other)[0].held == 0

    wait_for(rest_is_done, "what is not held should run elsewhere")
    held = [index for index, path in enumerate(files) if index == 0 or not path.exists()]
    assert len(held) > 1, "the child should hold some"
    return [results[index] for index in held], [files[index] for index in held], other


# ---- a node is killed ----


@pytest.mark.parametrize("rule", ["early", "late"])
def test_s12_what_a_killed_node_held_runs_elsewhere(
    cluster: Cluster, start: StartWorker, mailbox: str, rule: str, tmp_path: Path
) -> None:
    first = start()
    (started, *held), (run, *files), other = hold_some(cluster, mailbox, rule, tmp_path, start)
    os.killpg(first.pid, signal.SIGKILL)
    killed_at = time.monotonic()
    pids = {ended(result) for result in held}
    value = ended(started)
    assert time.monotonic() - killed_at < NODE_LOST_SECONDS
    assert pids == {cluster.children(other)[0].pid}
    lines = [lines_of(path) for path in files]
    assert [len(line) for line in lines] == [1] * len(files)
    assert all(line[0]["redelivered"] for line in lines)
    if rule == "early":
        # S13: it may have done its work, so it never runs again.
        assert type(value) is WorkerLostError
        assert len(lines_of(run)) == 1
    else:
        # S14
        assert {value} == pids
        assert [line["redelivered"] for line in lines_of(run)] == [False, True]
    cluster.wait_until_empty(mailbox)
    assert not [letter for letter in cluster.dead_letters() if letter.mailbox == mailbox]


@pytest.mark.parametrize("rule", ["early", "late"])
def test_d16_a_node_that_leaves_no_evidence_is_judged_after_seven_seconds(
    cluster: Cluster, start: StartWorker, mailbox: str, rule: str, tmp_path: Path
) -> None:
    # As on another machine: the broker can't see its pages.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    first = start(environment={"XDG_RUNTIME_DIR": str(elsewhere)})
    results, files, _ = hold_some(cluster, mailbox, rule, tmp_path, start)
    first.kill()
    killed_at = time.monotonic()
    values = [ended(result) for result in results]
    assert NODE_LOST_SECONDS - 0.5 < time.monotonic() - killed_at < NO_EVIDENCE_SECONDS
    runs = [len(lines_of(path)) for path in files]
    if rule == "early":
        # Nobody can say which of them ran: none may run twice.
        assert {type(value) for value in values} == {WorkerLostError}
        assert runs == [1] + [0] * (len(files) - 1)
    else:
        assert all(isinstance(value, int) for value in values)
        assert runs == [2] + [1] * (len(files) - 1)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["early", "late"])
def test_d19_a_node_that_was_stopped_until_it_was_given_up_wakes_up_harmless(
    cluster: Cluster, start: StartWorker, mailbox: str, rule: str, tmp_path: Path
) -> None:
    first = start()
    results, files, other = hold_some(cluster, mailbox, rule, tmp_path, start)
    family = [pid for pid, command in cluster.left().items() if pid == first.pid or first.session in command]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    # Six seconds of silence, and seven for evidence.
    values = [ended(result) for result in results]
    runs = [len(lines_of(path)) for path in files]
    for pid in family:
        os.kill(pid, signal.SIGCONT)
    open_gate(tmp_path / "gate")
    other.kill()
    # The node that was stopped serves again; and of what it had held, it starts nothing.
    served_by = ended(crashes.whoami.apply_async(queue=mailbox))
    assert served_by in [child.pid for child in cluster.children(first)]
    if rule == "early":
        assert {type(value) for value in values} == {WorkerLostError}
        assert runs == [1] + [0] * (len(files) - 1)
    else:
        assert all(isinstance(value, int) for value in values)
        assert runs == [2] + [1] * (len(files) - 1)
    assert [len(lines_of(path)) for path in files] == runs
    assert {crashes.app.AsyncResult(result.id).state for result in results} == {
        "FAILURE" if rule == "early" else "SUCCESS"
    }
    assert cluster.mailbox(mailbox).depth == 0


def test_d15_a_child_that_runs_when_its_parent_is_killed_dies_with_it(
    cluster: Cluster, start: StartWorker, mailbox: str, run: str, gate: Path
) -> None:
    worker = start("-c", "2")
    crashes.wait_early.apply_async((run, str(gate)), queue=mailbox)
    pid = next_run(run)["pid"]
    assert pid in cluster.left()
    worker.kill()
    wait_for(lambda: set(cluster.left()) == {cluster.broker_pid}, "only the broker should be left", GONE_SECONDS)


def test_a_killed_spawner_takes_its_children_along_and_the_pool_starts_anew(
    cluster: Cluster, start: StartWorker, mailbox: str, run: str, gate: Path
) -> None:
    worker = start()
    result = crashes.wait_reject.apply_async((run, str(gate)), queue=mailbox)
    pid = next_run(run)["pid"]
    spawner = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(spawner, signal.SIGKILL)
    again = next_run(run, 2)
    assert again["pid"] != pid
    assert again["redelivered"]
    open_gate(gate)
    assert ended(result) == again["pid"]
    assert worker.running


# ---- a node is stopped ----


def test_a_warm_stop_finishes_what_runs_and_hands_back_the_rest_without_blame(
    cluster: Cluster, start: StartWorker, mailbox: str, run: str, gate: Path, tmp_path: Path
) -> None:
    first = start()
    running = crashes.wait_late.apply_async((run, str(gate)), queue=mailbox)
    next_run(run)
    rest = crashes.wait_late.send_many([(str(tmp_path / f"rest{number}"),) for number in range(20)], queue=mailbox)
    first.send(signal.SIGTERM)
    wait_for(lambda: cluster.children(first)[0].window == 0, "the child should take nothing more")
    assert first.running
    open_gate(gate)
    assert first.wait() == 0
    assert ended(running) == lines_of(run)[0]["pid"]
    info = cluster.mailbox(mailbox)
    assert (info.ready, info.acquired, info.started, info.depth) == (20, 0, 0, 20)
    start()
    for result in rest:
        ended(result)
    assert [len(lines_of(tmp_path / f"rest{number}")) for number in range(20)] == [1] * 20
    assert len(lines_of(run)) == 2


@pytest.mark.parametrize("rule", ["early", "late"])
def test_a_cold_stop_hands_back_late_acks_without_blame_and_ends_early_ones(
    cluster: Cluster, start: StartWorker, mailbox: str, rule: str, run: str, gate: Path
) -> None:
    first = start()
    task = crashes.wait_early if rule == "early" else crashes.wait_late
    result = task.apply_async((run, str(gate)), queue=mailbox)
    next_run(run)
    first.send(signal.SIGQUIT)
    first.wait(10.0)
    second = start()
    if rule == "early":
        assert type(ended(result)) is WorkerLostError
        assert len(lines_of(run)) == 1
    else:
        line = next_run(run, 2)
        assert line["redelivered"]
        open_gate(gate)
        assert ended(result) == cluster.children(second)[0].pid
        starts = [line for line in lines_of(run) if "done" not in line]
        assert len(starts) == 2
    cluster.wait_until_empty(mailbox)


def test_a_second_interrupt_stops_cold(
    cluster: Cluster, start: StartWorker, mailbox: str, run: str, gate: Path
) -> None:
    worker = start()
    result = crashes.wait_late.apply_async((run, str(gate)), queue=mailbox)
    next_run(run)
    worker.send(signal.SIGINT)
    wait_for(lambda: cluster.children(worker)[0].window == 0, "the child should take nothing more")
    assert worker.running
    worker.send(signal.SIGINT)
    worker.wait(10.0)
    assert result.state == "PENDING"
    assert cluster.mailbox(mailbox).ready == 1


# ---- children are replaced ----


def test_a_hard_time_limit_of_the_workers_own_is_told_as_that(start: StartWorker, mailbox: str, run: str) -> None:
    start("-c", "1", "--time-limit", "0.3")
    result = crashes.ending["late"].apply_async((run, HOLD), queue=mailbox)
    error = result.get(timeout=RESULT_SECONDS, propagate=False)
    assert type(error) is TimeLimitExceeded
    assert error.args == ("killed at the hard time limit of its worker",)
    assert result.state == "FAILURE"
    # The task's own goes before it, and is told as the number that it is.
    result = crashes.ending["late"].apply_async((run, HOLD), queue=mailbox, time_limit=0.2)
    assert str(result.get(timeout=RESULT_SECONDS, propagate=False)) == "TimeLimitExceeded(0.2,)"


@pytest.mark.parametrize(
    ("arguments", "environment", "shape"),
    [
        ([], {}, ("threads", 3)),
        (["-c", "1"], {}, ("threads", 1)),
        (["-P", "prefork"], {}, ("prefork", 3)),
        (["-P", "solo"], {"SHAPED_POOL": "gevent"}, ("solo", 1)),
        ([], {"SHAPED_POOL": "processes", "SHAPED_THREAD": "1"}, ("prefork", 3)),
    ],
)
def test_the_applications_settings_shape_a_worker_where_its_command_line_does_not(
    cluster: Cluster, mailbox: str, arguments: list[str], environment: dict[str, str], shape: tuple[str, int]
) -> None:
    worker = cluster.start_worker("shaped_app", "-Q", mailbox, *arguments, environment=environment)
    try:
        banner = worker.banner()
        assert (banner["pool"], banner["concurrency"]) == shape
        assert sum(child.slots for child in cluster.children(worker)) == shape[1]
    finally:
        worker.kill()


def test_results_are_kept_as_long_as_the_workers_application_says(cluster: Cluster, mailbox: str) -> None:
    worker = cluster.start_worker("shaped_app", "-Q", mailbox)
    try:
        result = crashes.app.send_task("whoami", queue=mailbox)
        assert result.get(timeout=RESULT_SECONDS) == cluster.children(worker)[0].pid
        wait_for(lambda: not cluster.client.known([result.id]), "its result should be forgotten")
    finally:
        worker.kill()


def test_a_worker_bounds_its_mailboxes_as_its_application_says(cluster: Cluster, mailbox: str) -> None:
    cluster.start_worker("shaped_app", "-Q", mailbox).kill()
    # Of an application that says nothing.
    with pytest.raises(MailboxFull, match="its limit is 3"):
        crashes.whoami.send_many([()] * 4, queue=mailbox)
    crashes.whoami.send_many([()] * 3, queue=mailbox)


def test_a_pool_that_the_settings_name_and_that_is_not_there_is_told(cluster: Cluster, mailbox: str) -> None:
    environment = {"SHAPED_POOL": "gevent"}
    worker = cluster.start_worker("shaped_app", "-Q", mailbox, environment=environment, wait=False)
    assert worker.wait() == 3
    assert "the application's setting worker_pool is 'gevent'; there are the pools prefork" in worker.log.read_text()


def test_a_child_is_replaced_after_max_tasks(cluster: Cluster, start: StartWorker, mailbox: str) -> None:
    start("-c", "1", "--max-tasks-per-child", "3")
    results = crashes.whoami.send_many([()] * 10, queue=mailbox)
    pids = [ended(result) for result in results]
    assert sorted(pids.count(pid) for pid in set(pids)) == [1, 3, 3, 3]


def test_a_child_is_replaced_after_a_task_that_took_more_than_max_memory(
    cluster: Cluster, start: StartWorker, mailbox: str
) -> None:
    start("-c", "1", "--max-memory-per-child", str(200 * 1024))
    small = [ended(crashes.grow.apply_async((1024,), queue=mailbox)) for _ in range(3)]
    assert len(set(small)) == 1
    large = ended(crashes.grow.apply_async((256 * 1024,), queue=mailbox))
    assert large == small[0]
    assert ended(crashes.grow.apply_async((1024,), queue=mailbox)) != large


# ---- the broker is killed ----


@pytest.mark.parametrize("rule", ["early", "late"])
def test_d18_a_task_that_runs_while_its_broker_is_killed_is_not_started_again(
    cluster: Cluster, start: StartWorker, mailbox: str, rule: str, run: str, gate: Path, tmp_path: Path
) -> None:
    start()
    task = crashes.wait_early if rule == "early" else crashes.wait_late
    running = task.apply_async((run, str(gate)), queue=mailbox)
    next_run(run)
    waiting = task.send_many([(str(tmp_path / f"waiting{number}"),) for number in range(20)], queue=mailbox)
    assert cluster.broker is not None
    cluster.broker.kill()
    cluster.start_broker()
    wait_for(lambda: cluster.mailbox(mailbox).consumers == 1, "the child should come back", 5.0)
    open_gate(gate)
    assert ended(running) == lines_of(run)[0]["pid"]
    for result in waiting:
        ended(result)
    assert len([line for line in lines_of(run) if "done" not in line]) == 1
    assert [len(lines_of(tmp_path / f"waiting{number}")) for number in range(20)] == [1] * 20
    assert cluster.status().redelivered == 0


def test_d14_what_a_child_had_finished_while_the_broker_was_away_is_in_its_page(
    cluster: Cluster, start: StartWorker, mailbox: str, run: str, gate: Path
) -> None:
    worker = start()
    result = crashes.wait_reject.apply_async((run, str(gate)), queue=mailbox)
    pid = next_run(run)["pid"]
    assert cluster.broker is not None
    cluster.broker.send(signal.SIGSTOP)
    try:
        open_gate(gate)
        pages = cluster.runtime / "greenroom" / "nodes" / worker.session
        wait_for(lambda: has_outcome(pages), "the outcome should be in the page")
        worker.kill()
        wait_for(lambda: pid not in cluster.left(), "its child should be gone")
    finally:
        cluster.broker.send(signal.SIGCONT)
    assert ended(result) == pid
    cluster.wait_until_empty(mailbox)
    assert len(lines_of(run)) == 2


def has_outcome(pages: Path) -> bool:
    """Whether a page among these keeps an outcome that no broker has acknowledged."""
    contents = [read_page(str(path)) for path in pages.glob("*.page")]
    return any(isinstance(page, PageContents) and page.outbox for page in contents)


def test_a_second_broker_on_the_same_data_is_refused_with_the_pid_of_the_first(cluster: Cluster) -> None:
    assert cluster.broker is not None
    done = cluster.command(
        "broker", "--bind", f"ipc://{cluster.folder}/other", "--data", str(cluster.folder / "data"), "--json"
    )
    assert done.returncode == 2
    assert str(cluster.broker.pid) in done.stderr
    assert "--data" in done.stderr
    assert cluster.status().broker
