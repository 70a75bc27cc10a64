"""The event log of a real cluster whose processes are killed, and what check-log says of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import crashes
from .cluster import Cluster, wait_for

pytestmark = pytest.mark.live

#: Every invariant that events suffice for.
BY_EVENTS = {"AMO", "ALO", "SPUR", "LIMIT", "POISON", "RESULT"}
SECONDS = 0.02
COUNT = 120


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(crashes.app) as cluster:
        cluster.event_log = cluster.folder / "events.ndjson"
        yield cluster


def checked(cluster: Cluster, *arguments: str) -> tuple[int, dict[str, Any]]:
    """What check-log says of the cluster's log, and its exit code."""
    done = cluster.command("check-log", "--json", *(arguments or (str(cluster.event_log),)))
    return done.returncode, json.loads(done.stdout)


def work(run: Path) -> list[Any]:
    """Send work of all kinds: early and late acks, and one message that kills whoever runs it."""
    late = crashes.one_of_many.send_many([(str(run), number, False, SECONDS) for number in range(COUNT)])
    early = crashes.count.send_many([(str(run),) for _ in range(COUNT)])
    poison = crashes.one_of_many.apply_async((str(run), -1, True), max_deliveries=2)
    return [*late, *early, poison]


@pytest.mark.timeout(180)
def test_a_cluster_whose_children_nodes_and_broker_are_killed_has_kept_every_promise(
    cluster: Cluster, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def begun() -> int:
        return len(crashes.lines_of(run))

    def more(count: int) -> None:
        goal = begun() + count
        wait_for(lambda: begun() >= goal, f"{count} more bodies should begin")

    broker = cluster.start_broker()
    workers = [cluster.start_worker("crashes", "-c", "2", "-l", "WARNING") for _ in range(2)]
    sent = work(run)
    more(10)
    os.kill(crashes.lines_of(run)[-1]["pid"], signal.SIGKILL)
    more(20)
    workers[0].kill()
    workers.append(cluster.start_worker("crashes", "-c", "2", "-l", "WARNING", wait=False))
    more(20)
    broker.kill()
    cluster.start_broker()
    sent += work(run)
    for result in sent:
        result.get(timeout=60, propagate=False)
    cluster.wait_until_empty()
    # Aftermaths may be underway in a child: they are messages too.
    cluster.close()
    code, verdict = checked(cluster)
    assert (code, verdict["violation"], verdict["bad_lines"], verdict["vacuous"]) == (0, None, 0, []), verdict
    assert {judged["name"] for judged in verdict["invariants"]} == BY_EVENTS
    assert not [note for note in verdict["notes"] if "not judged" in note], verdict["notes"]
    premises = {judged["name"]: judged["premises"] for judged in verdict["invariants"]}
    assert premises["ALO"] == 2 * COUNT + 2
    assert premises["POISON"] == 2
