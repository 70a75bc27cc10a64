"""Promises about runs of bodies: how often they start, that they end, and what is known of them afterwards.

All of these are judged by events alone, so that they hold for a log of a real cluster as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from ....transport.message import MAX_DELIVERIES_DEFAULT, Flag
from ..trace import Event, Kind
from .base import Invariant

#: What a body can say that makes it run once more.
AGAIN = ("RETRY", "REQUEUED")
TERMINAL = ("SUCCESS", "FAILURE", "REVOKED", "REJECTED", "IGNORED")
_SAFE = Flag.ACKS_LATE | Flag.REJECT_ON_WORKER_LOST


class AtMostOnce(Invariant):
    """AMO."""

    name = "AMO"
    sentence = "The body of a task that is acked early starts at most once, whatever fails."

    def __init__(self) -> None:
        super().__init__()
        #: How the latest run of each ended; empty: not at all.
        self._runs: dict[str, str] = {}

    def on_event(self, event: Event) -> None:
        """Every start of such a body is the first, or the body itself asked for it."""
        facts = event.facts
        if event.kind is Kind.STARTED and facts["of"] == "TASK" and not facts["flags"] & Flag.ACKS_LATE:
            self.premises += 1
            id = facts["id"]
            if id in self._runs and self._runs[id] not in AGAIN and id not in self.excused:
                self.violated(f"{facts['task']} {id} starts a second time, on {event.lane}", event)
            self._runs[id] = ""
        elif event.kind is Kind.RAN and facts["id"] in self._runs:
            self._runs[facts["id"]] = facts["state"]
        elif event.kind is Kind.DEAD:
            # Whoever redrives it wants it to run; and one whose body nobody would load has not run.
            self._runs.pop(facts["id"], None)

    def forget(self, id: str, positions: Sequence[int]) -> None:
        """As `Invariant.forget`."""
        self._runs.pop(id, None)


class AtLeastOnce(Invariant):
    """ALO."""

    name = "ALO"
    sentence = (
        "The body of a confirmed task with acks_late and reject_on_worker_lost runs to its end at least once, or the "
        "task is a dead letter with a reason."
    )

    def __init__(self) -> None:
        super().__init__()
        #: Task and mailbox, by id.
        self._asked: dict[str, tuple[str, str]] = {}
        self._confirmed: dict[str, str] = {}
        self._ended: dict[str, None] = {}

    def on_event(self, event: Event) -> None:
        """Take down who was promised, and who has had it."""
        facts = event.facts
        match event.kind:
            case Kind.PUBLISH:
                for id, task, flags in zip(facts["ids"], facts["tasks"], facts["flags"], strict=True):
                    if flags & _SAFE == _SAFE and not flags & Flag.IGNORE_RESULT:
                        self._asked[id] = task, facts["mailbox"]
            case Kind.CONFIRM if "error" not in facts:
                for id in facts["ids"]:
                    if id in self._asked:
                        self._confirmed[id] = self._asked[id][0]
            case Kind.RAN if facts["state"] not in AGAIN:
                self._ended[facts["id"]] = None
            case Kind.DEAD if facts["reason"]:
                self._ended[facts["id"]] = None
            case Kind.STORED if facts["state"] == "REVOKED" or facts.get("failure") == "TimeLimitExceeded":
                # Somebody has asked for that end.
                self._ended[facts["id"]] = None
            case Kind.PURGED:
                # So it was for what waited there. What was out is let off with it: nobody says which is which.
                mailbox = facts["mailbox"]
                self._ended.update({id: None for id, (_, home) in self._asked.items() if home == mailbox})
            case _:
                pass

    def at_end(self) -> None:
        """Everybody who was promised has had it."""
        self.judge(0)

    def unfinished(self) -> list[str]:
        """Return the ids of those who were promised and have not had it yet."""
        return [id for id in self._confirmed if id not in self._ended and id not in self.excused]

    def judge(self, waiting: int) -> None:
        """Of those who were promised, no more than `waiting` have not had it. Raises Violated."""
        unfinished = self.unfinished()
        self.premises += len(self._confirmed) - (len(unfinished) if waiting else 0)
        if len(unfinished) > waiting:
            id = unfinished[0]
            where = f", and the broker knew of {waiting} messages that were not settled" if waiting else ""
            others = f" (and {len(unfinished) - 1} others)" if len(unfinished) > 1 else ""
            self.violated(
                f"{self._confirmed[id]} {id}{others} was confirmed, never ran to its end, and is no dead letter{where}",
                about=id,
            )

    def forget(self, id: str, positions: Sequence[int]) -> None:
        """As `Invariant.forget`."""
        if self._confirmed.pop(id, None) is not None and id in self._ended:
            self.premises += 1
        self._asked.pop(id, None)
        self._ended.pop(id, None)


class Limit(Invariant):
    """LIMIT."""

    name = "LIMIT"
    sentence = (
        "A message starts at most max_deliveries times when every start ends in the death of its process; only after "
        "a death together with others one trial alone may follow."
    )

    def __init__(self) -> None:
        super().__init__()
        self._bounds: dict[str, int] = {}
        self._deaths = Counter[str]()
        self._joint: dict[str, bool] = {}
        self._holders: dict[str, str] = {}
        #: What ran in a child that died, by its lane; and by node and number of report, whose death that tells.
        self._unreported: dict[str, Sequence[str]] = {}
        self._told: dict[str, list[tuple[int, str]]] = {}

    def on_event(self, event: Event) -> None:
        """Count deaths of processes with each body running, as soon as the broker knows, and judge each start."""
        facts = event.facts
        match event.kind:
            case Kind.PUBLISH:
                for id, bound in zip(facts["ids"], facts["bounds"], strict=True):
                    self._bounds[id] = bound or MAX_DELIVERIES_DEFAULT
            case Kind.DELIVER:
                self._holders[facts["id"]] = facts["to"]
            case Kind.DEATH if "by" not in facts:
                running = facts.get("running", ())
                # Who was given to somebody else meanwhile is charged with the loss of this one, not with a death.
                if any(self._holders.get(id) == event.lane for id in running):
                    self._unreported[event.lane] = running
            case Kind.REPORT if not facts.get("node_lost"):
                child = f"{event.lane}/{facts['session'].rpartition('/')[2]}"
                if "number" in facts:
                    self._told.setdefault(event.lane, []).append((facts["number"], child))
                else:
                    self._count(child)
            case Kind.APPLIED:
                # Of a node that is gone before this, nobody knows how its children died.
                for number, child in self._told.get(facts["to"], ()):
                    if number <= facts["number"]:
                        self._count(child)
            case Kind.DEAD:
                # A redrive begins to count anew. The death that made it one is answered after this.
                self._deaths.pop(facts["id"], None)
                for child, running in self._unreported.items():
                    self._unreported[child] = [id for id in running if id != facts["id"]]
            case Kind.STARTED if self._deaths[facts["id"]] and facts["flags"] & Flag.ACKS_LATE:
                self.premises += 1
                id = facts["id"]
                deaths, bound = self._deaths[id], self._bounds.get(id, MAX_DELIVERIES_DEFAULT)
                if 0 < bound <= deaths and not self._joint[id] and id not in self.excused:
                    self.violated(
                        f"{facts['task']} {id} starts on {event.lane} after {deaths} deaths of its process, with "
                        f"max_deliveries {bound}",
                        event,
                    )
            case _:
                pass

    def _count(self, child: str) -> None:
        running = self._unreported.pop(child, ())
        for id in running:
            if self._holders.get(id) == child:
                self._deaths[id] += 1
                self._joint[id] = len(running) > 1

    def forget(self, id: str, positions: Sequence[int]) -> None:
        """As `Invariant.forget`."""
        for known in (self._bounds, self._deaths, self._joint, self._holders):
            known.pop(id, None)


class Poison(Invariant):
    """POISON."""

    name = "POISON"
    sentence = "A message whose bound is used up is a dead letter exactly once, with its reason and its history."

    def __init__(self) -> None:
        super().__init__()
        self._dead: dict[int, str] = {}

    def on_event(self, event: Event) -> None:
        """A dead letter is dead once, says why, and is not handed out."""
        facts = event.facts
        if event.kind is Kind.DEAD:
            self.premises += 1
            if facts["position"] in self._dead and facts["id"] not in self.excused:
                self.violated(f"{facts['id']} became a dead letter a second time", event)
            if not facts["reason"]:
                self.violated(f"{facts['id']} is a dead letter, and nobody says why", event)
            self._dead[facts["position"]] = facts["id"]
        elif event.kind is Kind.DELIVER and facts["position"] in self._dead and facts["id"] not in self.excused:
            self.violated(f"{facts['id']} is a dead letter, and {facts['to']} gets it", event)

    def forget(self, id: str, positions: Sequence[int]) -> None:
        """As `Invariant.forget`."""
        for position in positions:
            self._dead.pop(position, None)


class OneResult(Invariant):
    """RESULT."""

    name = "RESULT"
    sentence = "A result that is terminal never changes, and everybody who asks learns the same."

    def __init__(self) -> None:
        super().__init__()
        self._stored: dict[str, str] = {}
        self._told: dict[str, str] = {}
        #: Dead letters may be redriven, which makes another end of them.
        self._dead: dict[str, None] = {}

    def on_event(self, event: Event) -> None:
        """What is stored and what is told is what was stored and told before."""
        facts = event.facts
        if event.kind is Kind.DEAD:
            self._dead[facts["id"]] = None
        elif event.kind is Kind.STORED or (event.kind is Kind.RESULT and facts["state"] in TERMINAL):
            id, state = facts["id"], facts["state"]
            if id in self._dead or id in self.excused:
                return
            self.premises += 1
            known = self._stored.get(id) or self._told.get(id)
            if known is not None and known != state:
                doer = "is stored as" if event.kind is Kind.STORED else f"is told to {event.lane} as"
                self.violated(f"{id} was {known} and {doer} {state}", event)
            (self._stored if event.kind is Kind.STORED else self._told)[id] = state

    def forget(self, id: str, positions: Sequence[int]) -> None:
        """As `Invariant.forget`."""
        for known in (self._stored, self._told, self._dead):
            known.pop(id, None)


class Spurious(Invariant):
    """SPUR, as far as events tell; the ledger knows more."""

    name = "SPUR"
    sentence = "A message is delivered again only after a recorded cause; without faults exactly once."

    def __init__(self) -> None:
        super().__init__()
        self._delivered: dict[int, int] = {}
        self._causes: dict[int, None] = {}
        #: Troubles so far that may be a cause for anybody.
        self._troubles = 0

    def on_event(self, event: Event) -> None:
        """A second delivery of a position follows on some trouble, or on a word about it."""
        facts = event.facts
        match event.kind:
            case Kind.DELIVER:
                self.premises += 1
                position = facts["position"]
                again = self._delivered.get(position) == self._troubles and position not in self._causes
                if again and facts["id"] not in self.excused:
                    self.violated(
                        f"{facts['id']} is delivered again, to {facts['to']}, and nothing had happened", event
                    )
                self._delivered[position] = self._troubles
                self._causes.pop(position, None)
            case Kind.RETURN:
                self._causes.update(dict.fromkeys(facts["positions"]))
            case Kind.SETTLE:
                states = zip(facts["positions"], facts["states"], strict=True)
                self._causes.update({position: None for position, state in states if state in AGAIN})
            case Kind.DEATH | Kind.REPORT | Kind.BROKER_UP | Kind.DETACHED | Kind.FAULT:
                self._troubles += 1
            case _:
                pass

    def forget(self, id: str, positions: Sequence[int]) -> None:
        """As `Invariant.forget`."""
        for position in positions:
            self._delivered.pop(position, None)
            self._causes.pop(position, None)


#: Every invariant that events suffice for, in the order of the table.
BY_EVENTS: Final[tuple[type[Invariant], ...]] = (AtMostOnce, AtLeastOnce, Spurious, Limit, Poison, OneResult)
