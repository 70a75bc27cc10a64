"""The storm: a cluster under load, and one SIGKILL after the other.

Owns the kills and the waiting for what must follow; `ledger` owns the promises. Each round kills a child that runs a
body, a worker node's parent, the broker, and the client that publishes, in random order and after a random number of
bodies. After each kill everything that was confirmed before it must be settled, within a bound, before the next one.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from greenroom.supervisor.harness.log_check import check_logs
from greenroom.transport.message import State

from . import stormy
from .cluster import GONE_SECONDS, Cluster, Process, Worker, wait_for
from .ledger import Item, Ledger, Violation

KINDS = ("child", "node", "broker", "client")
NODES = 2
CHILDREN = 2
#: A kill comes after so many bodies have begun.
STARTS_MAX = 60
#: Of so many children that are killed, what runs has an early ack.
EARLY_SHARE = 0.2
#: What begins again does so within these times: of 99 in 100 kills of a child, and of every node.
CHILD_SECONDS = 1.0
NODE_SECONDS = 7.0
#: Once a broker listens again, its peers are back within this time, as long as it was not away for longer than that.
BACK_SECONDS = 4.0
#: Everything that was confirmed before a kill is settled within this time.
SETTLED_SECONDS = 30.0
#: How often the broker is asked for what is not seen to be done.
ASK_SECONDS = 0.2

Tell = Callable[[dict[str, Any]], None]


class Storm:
    """One storm over one cluster, which it starts."""

    def __init__(self, cluster: Cluster, seed: int, tell: Tell) -> None:
        """`tell` is given a record for each kill."""
        work = cluster.folder / "work"
        cluster.environment[stormy.WORK_FILE] = str(work)
        self._cluster = cluster
        self._random = random.Random(seed)
        self._tell = tell
        self._published = cluster.folder / "published"
        self.ledger = Ledger(work, self._published)
        self._workers: list[Worker] = []
        self._clients = 0
        self._client: Process | None = None
        self._client_name = ""
        self._kills = 0
        #: Seconds in which there was no broker, after each kill of one.
        self._broker_away: list[float] = []
        #: Seconds until what a kill had interrupted began again, by what was killed.
        self.seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}

    def run(self, rounds: int) -> dict[str, Any]:
        """Storm for so many rounds; return the totals. Raises Violation, or AssertionError for what did not come."""
        self._cluster.start_broker()
        self._workers = [self._start_worker() for _ in range(NODES)]
        self._start_client()
        for number in range(1, rounds + 1):
            kinds = list(KINDS)
            self._random.shuffle(kinds)
            for kind in kinds:
                self._kill(number, kind)
        return self._end(rounds)

    # --- one kill

    def _kill(self, number: int, kind: str) -> None:
        ledger = self.ledger
        goal = ledger.starts + self._random.randrange(1, STARTS_MAX)
        self._wait(lambda: ledger.starts >= goal, f"{goal} bodies should have begun")
        twice = ledger.twice
        deed: Callable[[], tuple[int, list[int], float]] = getattr(self, f"_kill_{kind}")
        pid, gone, killed_at = deed()
        ledger.read()
        interrupted = ledger.interrupted(gone)
        seconds = self._until_again(kind, interrupted, killed_at)
        self._until_settled([*ledger.open.values()], f"the kill of {kind} {pid}")
        letters = self._cluster.dead_letters()
        if letters:
            raise Violation(f"there are dead letters: {letters}")
        self._kills += 1
        self._tell(
            {
                "round": number,
                "kill": kind,
                "pid": pid,
                "confirmed": ledger.confirmed,
                "done": ledger.done,
                "failed": len(ledger.failed),
                "interrupted": len(interrupted),
                "twice": ledger.twice - twice,
                "lost": 0,
                "seconds": seconds,
                **({"away": round(self._broker_away[-1], 3)} if kind == "broker" else {}),
            }
        )

    def _running(self, *, early: bool) -> dict[int, Item]:
        """Wait until a child runs a body of this kind for the first time; return all such children.

        Two kills of one message say nothing more, and might set it aside.
        """

        def found() -> dict[int, Item]:
            return {
                item.starts[-1][0]: item
                for item in self.ledger.running()
                if len(item.starts) == 1 and item.is_early == early
            }

        children: dict[int, Item] = self._wait(found, "a child should run something")
        return children

    def _kill_child(self) -> tuple[int, list[int], float]:
        # Mostly one that runs a late ack, which begins again.
        running = self._running(early=self._random.random() < EARLY_SHARE)
        pid = self._random.choice(sorted(running))
        os.kill(pid, signal.SIGKILL)
        killed_at = time.time()
        self.ledger.killed[pid] = killed_at
        wait_for(lambda: not _runs(pid), f"child {pid} should be gone", GONE_SECONDS)
        return pid, [pid], killed_at

    def _kill_node(self) -> tuple[int, list[int], float]:
        pid = self._random.choice(sorted(self._running(early=False)))
        families = [self._family(worker) for worker in self._workers]
        index = next((index for index, family in enumerate(families) if pid in family), 0)
        worker, family = self._workers[index], families[index]
        worker.kill()
        killed_at = time.time()
        for pid in family:
            self.ledger.killed[pid] = killed_at
        try:
            wait_for(lambda: not self._family(worker), "nothing of a killed node may be left", GONE_SECONDS)
        except AssertionError as error:
            raise Violation(f"{error}: {self._family(worker)}") from None
        self._workers[index] = self._start_worker(wait=False)
        return worker.pid, family, killed_at

    def _kill_broker(self) -> tuple[int, list[int], float]:
        broker = self._cluster.broker
        assert broker is not None, "the broker was started"
        self._running(early=False)
        broker.kill()
        killed_at = time.time()
        self._cluster.start_broker()
        self._broker_away.append(time.time() - killed_at)
        return broker.pid, [], killed_at

    def _kill_client(self) -> tuple[int, list[int], float]:
        client = self._client
        assert client is not None, "a client was started"
        client.kill()
        killed_at = time.time()
        self.ledger.read()
        self.ledger.client_killed(self._client_name)
        self._start_client()
        return client.pid, [], killed_at

    # --- what follows

    def _until_again(self, kind: str, interrupted: Sequence[Item], killed_at: float) -> float | None:
        """Wait until what was interrupted has begun again; return after how many seconds the last of it had."""
        ledger = self.ledger
        if kind == "broker":
            # Nothing begins again; that something begins at all is what its clients wait for.
            starts = ledger.starts
            self._wait(lambda: ledger.starts > starts, "work should go on", SETTLED_SECONDS)
            again = time.time()
            late_by = again - killed_at - self._broker_away[-1]
            if late_by > BACK_SECONDS:
                raise Violation(f"work went on only {late_by:.1f} s after the broker listened again")
        else:
            late = {item: len(item.starts) for item in interrupted if not item.is_early}
            if not late:
                return None
            within = NODE_SECONDS if kind == "node" else SETTLED_SECONDS
            self._wait(
                lambda: all(len(item.starts) > count for item, count in late.items()),
                f"{[item.name for item in late]}, interrupted by the kill of a {kind}, should begin again",
                within,
            )
            again = max(item.starts[count][1] for item, count in late.items())
        self.seconds[kind].append(again - killed_at)
        return round(again - killed_at, 3)

    def _until_settled(self, items: Sequence[Item], after: str) -> None:
        """Wait until these are done, or are failures that are told."""
        ledger = self.ledger
        asked = 0.0

        def settled() -> bool:
            nonlocal asked
            left = [item for item in items if item.name in ledger.open]
            if left and time.monotonic() - asked > ASK_SECONDS:
                asked = time.monotonic()
                ledger.settle(left, self._failures)
            return not any(item.name in ledger.open for item in items)

        try:
            self._wait(settled, "everything that was confirmed should be settled", SETTLED_SECONDS)
        except Violation:
            raise
        except AssertionError:
            lost = [f"{item.name} ({item.id}, began {item.starts})" for item in items if item.name in ledger.open]
            raise Violation(
                f"{len(lost)} confirmed items are not settled {SETTLED_SECONDS:g} s after {after}: {lost[:10]}"
            ) from None

    def _failures(self, ids: list[str]) -> set[str]:
        """Which of these have failed, as the broker says."""
        return {known.id for known in self._cluster.client.known(ids) if known.state == State.FAILURE}

    def _wait(self, what: Callable[[], Any], description: str, within: float = SETTLED_SECONDS) -> Any:
        """Wait for something while the book is kept."""

        def look() -> Any:
            self.ledger.read()
            return what()

        return wait_for(look, description, within)

    # --- begin and end

    def _start_worker(self, *, wait: bool = True) -> Worker:
        return self._cluster.start_worker("stormy", "-c", str(CHILDREN), "-l", "WARNING", wait=wait)

    def _start_client(self) -> None:
        self._clients += 1
        self._client_name = f"client{self._clients}"
        self._client = self._cluster.start_program(
            "stormy", self._cluster.address, str(self._published), self._client_name
        )

    def _family(self, worker: Worker) -> list[int]:
        """The processes of a node that run: its parent, the spawner and the children."""
        if not worker.session:
            worker.ready()
        return [pid for pid, command in self._cluster.left().items() if pid == worker.pid or worker.session in command]

    def _end(self, rounds: int) -> dict[str, Any]:
        """Stop the client, let everything be done, and look at the whole once more."""
        ledger = self.ledger
        assert self._client is not None, "a client was started"
        self._client.kill()
        ledger.read()
        ledger.client_killed(self._client_name)
        self._until_settled([*ledger.open.values()], "the end")
        self._cluster.wait_until_empty(within=SETTLED_SECONDS)
        ledger.read()
        ledger.check_unconfirmed()
        total: dict[str, Any] = {
            "rounds": rounds,
            "kills": self._kills,
            "confirmed": ledger.confirmed,
            "done": ledger.done,
            "failed": len(ledger.failed),
            "twice": ledger.twice,
            "lost": len(ledger.open),
            "unconfirmed_batches": len(ledger.unconfirmed),
        }
        for kind, seconds in self.seconds.items():
            if seconds:
                total[f"{kind}_seconds"] = {"median": _rank(seconds, 0.5), "p99": _rank(seconds, 0.99)}
        if self._broker_away:
            total["broker_away_seconds"] = {
                "median": _rank(self._broker_away, 0.5),
                "p99": _rank(self._broker_away, 0.99),
            }
        if self.seconds["child"] and _rank(self.seconds["child"], 0.99) >= CHILD_SECONDS:
            raise Violation(f"after the kill of a child its work began again too late: {json.dumps(total)}")
        return total


def check_log(cluster: Cluster) -> dict[str, Any]:
    """Judge the log of a cluster that has stopped; return how often each promise could have been broken.

    Raises Violation.
    """
    assert cluster.event_log is not None, "the cluster has written a log"
    verdict = check_logs([cluster.event_log])
    if verdict.violation is not None:
        raise Violation(verdict.violation.text())
    if verdict.bad_lines:
        raise Violation(f"the event log is damaged: {verdict.notes}")
    return {
        "log_events": verdict.events,
        "premises": {judged.name: judged.premises for judged in verdict.invariants},
        "notes": verdict.notes,
    }


def _rank(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of all do not exceed."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 3)


def _runs(pid: int) -> bool:
    """Whether a process can still run code; a zombie can't."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False
