"""A short storm, as part of the tests; `make storm N=100` is a long one."""

from __future__ import annotations

from typing import Any

import pytest

from .cluster import Cluster
from .storming import KINDS, Storm

pytestmark = [pytest.mark.live, pytest.mark.slow]

ROUNDS = 3
SEED = 1


@pytest.mark.timeout(300)
def test_nothing_is_lost_and_nothing_runs_twice_without_cause_in_a_storm_of_kills() -> None:
    records: list[dict[str, Any]] = []
    with Cluster() as cluster:
        total = Storm(cluster, SEED, records.append).run(ROUNDS)
    assert len(records) == ROUNDS * len(KINDS)
    assert total["lost"] == 0
    assert total["done"] + total["failed"] == total["confirmed"]
