"""From kill -9 of the worker process that runs a task until the task has been started again."""

from __future__ import annotations

import os
import signal
import time
import uuid

from contract import Client, Metric, NotOfferedError, Plan, Row

START_SECONDS = 20.0


def _measure(client: Client, plan: Plan) -> dict[str, float]:
    token = uuid.uuid4().hex
    client.hold(token)
    ((pid, _),) = plan.marks.wait_starts(token, 1, START_SECONDS)
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    try:
        starts = plan.marks.wait_starts(token, 2, plan.seconds)
    except TimeoutError:
        raise NotOfferedError(f"not started again within {plan.seconds:g} s") from None
    return {"seconds": starts[1][1] - killed}


ROW = Row(
    name="recovery",
    title="kill -9 of the worker process in a late-ack task, until the task is started again",
    metrics=(Metric("seconds", "recovery of a killed task", "s", "less"),),
    measure=_measure,
    kills=True,
    seconds=(15.0, 40.0),
    patience=(70.0, 120.0),
)
