"""What an event log costs: the same tasks with it and without it, in turns.

    python benchmarks/event_log.py [ROUNDS]

Prints tasks a second of each round, the medians, and the bytes of a task in the log.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from greenroom import App

TASKS = 20_000
WARM_UP = 2_000
ROUNDS = 6
PATIENCE_SECONDS = 60.0

app = App("event_log", set_as_current=False)


@app.task(name="add")
def add(x: int, y: int) -> int:
    """Do next to nothing."""
    return x + y


def measure(log: Path | None) -> float:
    """Run all tasks in an embedded cluster with two workers; return how many a second."""
    with app.run(workers=2, event_log=log):
        for result in add.send_many([(number, 1) for number in range(WARM_UP)]):
            result.get(timeout=PATIENCE_SECONDS)
        began = time.perf_counter()
        for result in add.send_many([(number, 1) for number in range(TASKS)]):
            result.get(timeout=PATIENCE_SECONDS)
        return TASKS / (time.perf_counter() - began)


def main(rounds: int) -> None:
    """Measure in turns, and print."""
    without: list[float] = []
    having: list[float] = []
    size = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            path = Path(folder) / f"{number}.ndjson"
            without.append(measure(None))
            having.append(measure(path))
            size = path.stat().st_size
    for name, speeds in (("without", without), ("with", having)):
        print(f"{name:8}{statistics.median(speeds):10,.0f} tasks/s   {[round(speed) for speed in speeds]}")
    print(f"{size / (TASKS + WARM_UP):.0f} bytes a task")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
