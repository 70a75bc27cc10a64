"""How fast calls are accepted in the fastest way that a system offers, while nobody runs them."""

from __future__ import annotations

import time

from contract import Client, Metric, Plan, Row
from rows.amount import amount


def _measure(client: Client, plan: Plan) -> dict[str, float]:
    def run(count: int) -> float:
        start = time.monotonic()
        client.send_many("late", count)
        return time.monotonic() - start

    count = amount(plan, run)
    seconds = run(count)
    client.purge()
    return {"rate": count / seconds, "count": count, "seconds": seconds}


ROW = Row(
    name="send_many",
    title="calls in the system's fastest way (Greenroom: send_many, all confirmed), no workers",
    metrics=(Metric("rate", "enqueue, many a call", "calls/s", "more"),),
    measure=_measure,
    workers=False,
    seconds=(1.0, 5.0),
)
