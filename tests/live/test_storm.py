"""A short storm, as part of the tests; `make storm N=100` is a long one."""

from __future__ import annotations

from typing import Any

import pytest

from .cluster import Cluster
from .storming import KINDS, Storm, check_log

pytestmark = [pytest.mark.live, pytest.mark.slow]

ROUNDS = 3
SEED = 1


@pytest.mark.timeout(300)
def test_nothing_is_lost_and_nothing_runs_twice_without_cause_in_a_storm_of_kills() -> None:
    records: list[dict[str, Any]] = []
    with Cluster() as cluster:
        cluster.event_log = cluster.folder / "events.ndjson"
        total = Storm(cluster, SEED, records.append).run(ROUNDS)
        cluster.close()
        told = check_log(cluster)
    assert [name for name in ("AMO", "ALO", "SPUR", "LIMIT", "RESULT") if not told["premises"][name]] == []
    assert not [note for note in told["notes"] if "not judged" in note], told
    assert len(records) == ROUNDS * len(KINDS)
    assert total["lost"] == 0
    assert total["done"] + total["failed"] == total["confirmed"]
