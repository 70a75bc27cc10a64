"""A mailbox that only fills: what it costs the broker in memory, and whether the last calls are as fast as the first.

Calls are made in the system's fastest way until there are enough or the time is over; what was reached is in the
JSON.
"""

from __future__ import annotations

import time
from pathlib import Path

from contract import Client, Metric, Plan, Row
from figures import rate_at

COUNT = 300_000
COUNT_FULL = 10_000_000
#: The first and the last calls that are compared: these many, or a tenth of what was reached.
WINDOW_MAX = 100_000
#: Calls between two looks at the clock: about as many as take this long.
STEP_SECONDS = 0.05
STEP_MIN, STEP_MAX = 50, 20_000
#: Calls that are made before, so that connections are there and caches are warm.
WARM = 200


def _measure(client: Client, plan: Plan) -> dict[str, float]:
    goal = plan.count or (COUNT_FULL if plan.full else COUNT)
    client.send_many("late", WARM)
    empty = peak_mib(plan.servers)
    step, sent = STEP_MIN, 0
    points = [(0.0, 0)]
    start = time.monotonic()
    # A count that was demanded is worth waiting for.
    seconds = plan.seconds if plan.count is None else plan.patience / 2
    while sent < goal and points[-1][0] < seconds:
        step = min(step, goal - sent)
        client.send_many("late", step)
        sent += step
        now = time.monotonic() - start
        took = now - points[-1][0]
        points.append((now, sent))
        step = round(max(STEP_MIN, min(STEP_MAX, 2 * step, step * STEP_SECONDS / max(took, 1e-6))))
    full = peak_mib(plan.servers)
    client.purge()
    window = min(WINDOW_MAX, sent // 10)
    first, last = rate_at(points, 0, window), rate_at(points, sent - window, sent)
    return {
        "memory": full,
        "first": first,
        "last": last,
        "kept": 100 * last / first,
        "memory_empty": empty,
        "count": sent,
        "seconds": points[-1][0],
    }


def peak_mib(pids: tuple[int, ...]) -> float:
    """Return the most memory that these processes ever had resident, in MiB."""
    kibibytes = 0
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
        kibibytes += next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    return kibibytes / 2**10


ROW = Row(
    name="backlog",
    title="calls that only wait: what the broker needs, and the rate of the last against the first",
    metrics=(
        Metric("count", "backlog reached", "messages", None),
        Metric("memory", "peak memory of the broker", "MiB", None),
        Metric("last", "enqueue, last of the backlog", "calls/s", "more"),
        Metric("kept", "last against first", "%", None),
    ),
    measure=_measure,
    workers=False,
    once_in_full=True,
    seconds=(3.0, 180.0),
    patience=(80.0, 400.0),
)
