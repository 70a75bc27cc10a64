"""No-op tasks from the first call to the last one finished: late acks, results ignored."""

from __future__ import annotations

import time

from contract import Client, Metric, Plan, Row, TaskName
from rows.amount import amount


def through(client: Client, plan: Plan, task: TaskName) -> dict[str, float]:
    """Send calls in the system's fastest way while its workers run them; return the rate at which all got done."""
    sending = 0.0

    def run(count: int) -> float:
        nonlocal sending
        total = plan.marks.total()
        start = time.monotonic()
        client.send_many(task, count)
        sending = time.monotonic() - start
        plan.marks.wait_total(total + count, plan.patience)
        return time.monotonic() - start

    count = amount(plan, run)
    seconds = run(count)
    return {"rate": count / seconds, "count": count, "seconds": seconds, "seconds_sending": sending}


def _measure(client: Client, plan: Plan) -> dict[str, float]:
    return through(client, plan, "late")


ROW = Row(
    name="throughput",
    title="no-op tasks end to end, results ignored, late acks",
    metrics=(Metric("rate", "throughput", "tasks/s", "more"),),
    measure=_measure,
)
