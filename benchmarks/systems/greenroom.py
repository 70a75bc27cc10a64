"""Greenroom: one broker process with its store on disk, one worker node."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from importlib.metadata import version

from contract import FOLDER, WORKERS, Place
from processes import StartError

BROKER_SECONDS = 20.0
#: Above what the longest row leaves waiting.
MESSAGES_MAX = 12_000_000


class Greenroom:
    """The package of this tree, as installed in the interpreter that runs the benchmark."""

    work = "work.greenroom_work"
    python = sys.executable

    def __init__(self, durability: str) -> None:
        self._durability = durability
        usual = durability == "disk"
        self.name = "greenroom" if usual else f"greenroom-{durability}"
        self.title = "Greenroom" if usual else f"Greenroom ({durability})"
        survives = "fsync before each confirm" if usual else "no fsync: survives the broker's crash"
        self.durability = f"SQLite, {survives}; results too"

    def missing(self) -> str | None:
        """Nothing: it runs where this runs."""
        return None

    def versions(self) -> Mapping[str, str]:
        """Return its version and those of what it stands on."""
        return {name: version(name) for name in ("greenroom", "pyzmq", "msgspec")}

    def start_servers(self, place: Place) -> None:
        """Start the broker; it tells its address when it listens."""
        command = [self.python, "-m", "greenroom", "broker", "--bind", "tcp://127.0.0.1:0", "--json"]
        command += ["--data", str(place.folder / "data"), "--durability", self._durability]
        command += ["--max-messages", str(MESSAGES_MAX), "-l", "WARNING"]
        child = place.children.start(command, "broker", read=True)
        assert child.stdout is not None
        # A broker that hangs before it says anything would hold us too: after its time it is killed, and the pipe ends.
        alarm = threading.Timer(BROKER_SECONDS, child.kill)
        alarm.start()
        try:
            line = child.stdout.readline()
        finally:
            alarm.cancel()
        if not line.startswith(b"{"):
            raise StartError(f"the broker did not tell its address: {place.children.last_words('broker')}")
        place.servers.append(child.pid)
        place.environment["BENCH_BROKER"] = json.loads(line)["address"]
        place.environment["BENCH_RESULTS"] = ""

    def start_workers(self, place: Place) -> None:
        """Start a worker node."""
        command = [self.python, "-m", "greenroom", "worker", "-A", f"{self.work}:app", "-c", str(WORKERS)]
        command += ["-b", place.environment["BENCH_BROKER"], "-l", "WARNING"]
        place.children.start(command, "workers", place.environment, FOLDER)
