"""The idle round trip: call, run, result in the caller's hands, one at a time."""

from __future__ import annotations

import time

from contract import Client, Metric, Plan, Row
from figures import percentile

WARM = 50
COUNT = 500
COUNT_FULL = 5_000
MILLISECONDS = 1_000


def _measure(client: Client, plan: Plan) -> dict[str, float]:
    def trip() -> float:
        start = time.perf_counter()
        (value,) = client.fetch(client.send_many("echo", 1), plan.patience)
        seconds = time.perf_counter() - start
        if value != 0:
            raise AssertionError(f"expected the result 0, got {value!r}")
        return seconds

    for _ in range(WARM):
        trip()
    count = plan.count or (COUNT_FULL if plan.full else COUNT)
    deadline = time.monotonic() + plan.patience / 2
    trips = [trip()]
    while len(trips) < count and time.monotonic() < deadline:
        trips.append(trip())
    return {
        "median": percentile(trips, 0.5) * MILLISECONDS,
        "p99": percentile(trips, 0.99) * MILLISECONDS,
        "count": len(trips),
    }


ROW = Row(
    name="latency",
    title="idle round trip: call, run, fetch the result, one at a time",
    metrics=(
        Metric("median", "round trip, median", "ms", "less"),
        Metric("p99", "round trip, p99", "ms", "less"),
    ),
    measure=_measure,
)
