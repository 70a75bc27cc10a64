"""How fast single calls are accepted, each confirmed before it returns, while nobody runs them.

Confirmed means what the system can confirm: RabbitMQ's publisher confirms are switched on for this row, Redis has
answered.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from contract import Client, Metric, Plan, Row
from rows.amount import amount

THREADS = 32


def _measure(client: Client, plan: Plan) -> dict[str, float]:
    def send(count: int) -> None:
        for _ in range(count):
            client.send("late")

    def alone(count: int) -> float:
        start = time.monotonic()
        send(count)
        return time.monotonic() - start

    count = amount(plan, alone)
    rate = count / alone(count)
    with ThreadPoolExecutor(THREADS) as pool:

        def together(count: int) -> float:
            each = max(1, count // THREADS)
            start = time.monotonic()
            list(pool.map(send, [each] * THREADS))
            return (time.monotonic() - start) * count / (each * THREADS)

        shared = amount(plan, together)
        rate_together = shared / together(shared)
    client.purge()
    return {"rate": rate, "rate_threads": rate_together, "count": count, "count_threads": shared}


ROW = Row(
    name="enqueue",
    title="single calls, each confirmed before it returns, no workers",
    metrics=(
        Metric("rate", "enqueue, 1 thread", "calls/s", "more"),
        Metric("rate_threads", f"enqueue, {THREADS} threads", "calls/s", "more"),
    ),
    measure=_measure,
    workers=False,
    confirm=True,
    seconds=(0.8, 5.0),
)
