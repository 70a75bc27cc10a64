"""No-op tasks end to end, acked before they run (the default of Celery's API), results ignored."""

from __future__ import annotations

from contract import Client, Metric, Plan, Row
from rows.throughput import through


def _measure(client: Client, plan: Plan) -> dict[str, float]:
    return through(client, plan, "early")


ROW = Row(
    name="early",
    title="no-op tasks end to end, results ignored, early acks",
    metrics=(Metric("rate", "throughput, early acks", "tasks/s", "more"),),
    measure=_measure,
)
