"""Kill everything, many times, and lose nothing.

    python tests/live/storm.py --n 100        (or: make storm N=100)

Runs `storming.Storm` for N rounds of four kills each: a child, a worker node's parent, the broker, a client. Writes one
line of JSON a kill and one for the totals. In the end the cluster's event log is judged as well. The exit code is 0 if
every promise was kept; at the first that was not, the storm ends with 1, says what it was, and leaves the logs in
place. Ctrl-C ends it, and everything that it had started.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXIT_VIOLATION = 1
EXIT_INTERRUPTED = 130


def main(arguments: list[str]) -> int:
    """Run a storm; return the exit code."""
    parser = argparse.ArgumentParser(description="Kill children, nodes, brokers and clients under load.")
    parser.add_argument("--n", type=int, default=100, help="rounds of four kills each")
    parser.add_argument("--seed", type=int, default=None, help="what decides the order and the moments of the kills")
    parser.add_argument("--keep", action="store_true", help="leave the folder with the logs in any case")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # As a program this file belongs to no package, and what it needs does.
    sys.path.insert(0, str(ROOT))
    live: Any = importlib.import_module("tests.live.cluster")
    storming: Any = importlib.import_module("tests.live.storming")
    cluster = live.Cluster()
    cluster.keep = options.keep
    cluster.event_log = cluster.folder / "events.ndjson"
    tell({"storm": options.n, "seed": seed, "folder": str(cluster.folder)})
    began = time.monotonic()
    try:
        with cluster:
            try:
                total = storming.Storm(cluster, seed, tell).run(options.n)
                cluster.close()
                total |= storming.check_log(cluster)
            except AssertionError:
                cluster.keep = True
                (cluster.folder / "state.txt").write_text(cluster.state())
                raise
        tell({**total, "minutes": round((time.monotonic() - began) / 60, 1), "seed": seed})
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except AssertionError as error:
        tell({"violation": str(error), "seed": seed, "folder": str(cluster.folder)})
        return EXIT_VIOLATION
    return 0


def tell(record: dict[str, Any]) -> None:
    """Write a line of JSON."""
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
