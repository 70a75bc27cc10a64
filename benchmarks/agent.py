"""One measurement of one system, in a process under that system's interpreter: `agent.py ORDER ANSWER`.

ORDER is JSON: the row, the module with the tasks, the plan. What came of it goes as JSON into the file ANSWER: the
figures, or what the system has not got. Anything else is a failure, which the benchmark sees by the exit code.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from contract import Client, NotOfferedError, Plan
from marks import Marks
from rows import ROWS

#: How long workers may take until they have run their first task.
READY_SECONDS = 30.0


def main() -> None:
    """Measure, answer, and leave without waiting for a library's threads."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    answer = Path(sys.argv[2])
    row = ROWS[order["row"]]
    plan = Plan(
        count=order["count"],
        seconds=order["seconds"],
        patience=order["patience"],
        marks=Marks(Path(os.environ["BENCH_MARKS"])),
        servers=tuple(order["servers"]),
        full=order["full"],
    )
    client: Client = importlib.import_module(order["work"]).connect()
    try:
        if row.workers:
            _wait_for_workers(client, plan.marks)
        told: dict[str, Any] = {"figures": row.measure(client, plan)}
    except NotOfferedError as reason:
        told = {"absent": str(reason)}
    answer.write_text(json.dumps(told), "utf-8")
    client.close()
    sys.stdout.flush()
    os._exit(0)


def _wait_for_workers(client: Client, marks: Marks) -> None:
    total = marks.total()
    client.send("late")
    marks.wait_total(total + 1, READY_SECONDS)


if __name__ == "__main__":
    main()
