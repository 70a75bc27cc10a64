"""Tasks whose results are stored and fetched by the caller, from the first call to the last result."""

from __future__ import annotations

import time

from contract import Client, Metric, Plan, Row
from rows.amount import amount


def _measure(client: Client, plan: Plan) -> dict[str, float]:
    def run(count: int) -> float:
        start = time.monotonic()
        values = client.fetch(client.send_many("echo", count), plan.patience)
        seconds = time.monotonic() - start
        if values != list(range(count)):
            raise AssertionError(f"expected the results 0 to {count - 1} in order, got others")
        return seconds

    count = amount(plan, run)
    seconds = run(count)
    return {"rate": count / seconds, "count": count, "seconds": seconds}


ROW = Row(
    name="fetched",
    title="tasks end to end, results stored and fetched by the caller, late acks",
    metrics=(Metric("rate", "throughput, results fetched", "tasks/s", "more"),),
    measure=_measure,
)
