"""Clusters of real processes for users' tests: who is killed, stopped or parted, and that nothing is left of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from greenroom import App
from greenroom.supervisor.harness.log_check import check_logs
from greenroom.supervisor.harness.processes import NotInTime, RealCluster, raise_if_broken
from greenroom.transport.event_log import Event, Kind, line_of

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]

MakeCluster = Callable[..., RealCluster]
app = App("shop", set_as_current=False)


@app.task(acks_late=True, reject_on_worker_lost=True, max_deliveries=5)
def charge(order: str, gate: str = "") -> str:
    """Wait until there is a file of this name, if one is named."""
    while gate and not os.path.exists(gate):
        time.sleep(0.01)
    return f"{order} is charged"


@app.task
def mail(order: str, gate: str = "") -> str:
    """The same with an early ack."""
    return charge(order, gate)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def test_a_task_whose_child_worker_and_broker_are_killed_is_done(greenroom_cluster: MakeCluster, gate: Path) -> None:
    cluster = greenroom_cluster(app, workers=2)
    safe, early = cluster.send(charge, "tea", str(gate)), cluster.send(mail, "milk", str(gate))
    cluster.until("STARTED", early)
    cluster.until("STARTED", safe)
    cluster.child_of(safe).kill()
    cluster.until("STARTED", safe, nth=2)
    cluster.broker.kill()
    assert not cluster.broker.is_alive
    cluster.broker.restart()
    cluster.child_of(early).kill()
    for number in range(2):
        cluster.worker(number).kill()
    gate.touch()
    cluster.settle()
    assert (safe.get(), safe.state, early.state) == ("tea is charged", "SUCCESS", "FAILURE")
    # Twice before the workers were killed; after the first of them perhaps on the second.
    assert safe.starts <= safe.deliveries
    assert safe.starts in (3, 4)
    assert early.starts == 1
    verdict = check_logs([cluster.event_log])
    assert verdict.violation is None
    assert {"AMO", "SPUR", "LIMIT", "RESULT"}.isdisjoint(verdict.vacuous)


def test_a_worker_that_is_parted_from_its_broker_goes_on_and_is_heard_when_it_is_back(
    greenroom_cluster: MakeCluster, gate: Path
) -> None:
    cluster = greenroom_cluster(app)
    sent = cluster.send(charge, "tea", str(gate))
    cluster.until("STARTED", sent)
    cluster.worker().partition(60)
    gate.touch()
    cluster.until("RAN", sent)
    assert sent.state != "SUCCESS"
    other = cluster.send(charge, "milk")
    with pytest.raises(NotInTime, match=r"should come to RAN no\. 1: not within 0\.3 s; celery: 2"):
        cluster.until("RAN", other, timeout=0.3)
    cluster.settle()
    assert (sent.get(), other.get()) == ("tea is charged", "milk is charged")
    assert sent.starts == 1


def test_processes_that_are_stopped_and_links_that_break_hold_nothing_up_for_ever(
    greenroom_cluster: MakeCluster, gate: Path
) -> None:
    cluster = greenroom_cluster(app)
    sent = cluster.send(charge, "tea", str(gate))
    cluster.until("STARTED", sent)
    cluster.child_of(sent).pause(60)
    cluster.worker().pause(60)
    cluster.broker.pause(0.2)
    gate.touch()
    cluster.settle()
    cluster.worker().cut()
    assert cluster.send(charge, "milk").get() == "milk is charged"
    assert sent.get() == "tea is charged"


def test_nothing_is_left_of_a_cluster_and_its_app_is_what_it_was(tmp_path: Path) -> None:
    before = app.conf.broker_url
    with RealCluster(app, workers=2, event_log=tmp_path / "log") as cluster:
        cluster.send(charge, "tea")
        cluster.worker(0).kill()
        assert len(cluster.left()) >= 4
        with pytest.raises(ValueError, match="there is no moment 'NEVER'"):
            cluster.until("NEVER", cluster.send(charge, "milk"))
    assert cluster.left() == []
    assert app.conf.broker_url == before
    assert check_logs([tmp_path / "log"]).events


def test_a_cluster_whose_log_breaks_a_promise_says_so_when_it_is_closed(tmp_path: Path) -> None:
    def close() -> None:
        with RealCluster(app, event_log=tmp_path / "log") as cluster:
            sent = cluster.send(mail, "tea")
            sent.get()
            event = cluster.until("STARTED", sent)
            with cluster.event_log.open("ab") as file:
                file.write(line_of(event))

    with pytest.raises(AssertionError, match=r"AMO violated: \S*mail .* starts a second time"):
        close()


def test_a_log_that_is_damaged_is_no_good_one(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(line_of(Event(1, Kind.READY, "worker-1", {})) + b"?\n")
    verdict = check_logs([tmp_path / "log"])
    with pytest.raises(AssertionError, match="the event log is damaged"):
        raise_if_broken(verdict)
