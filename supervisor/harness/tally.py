"""What a run of tests has covered: which fault struck at which moment, what was judged, what was seen.

Owns the counts over all worlds of a process, and how those of several processes are summed. Nothing is counted unless
it was asked for (`--gr-coverage`, or the nightly profile): the counts cost a few per cent.

A fingerprint is one step of one party: what it did, what it had done before, and the latest fault by then. How many of
these were seen in one world only says how likely the next world is to show a new one (Good and Turing's estimate).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from .effects import Seen, seen_sometimes
from .faults import Fault
from .trace import Event, Kind

#: Novel fingerprints are told of each so many examples.
STRETCH: Final = 1_000


class Tally(msgspec.Struct):
    """Counts of a run, or of a part of it."""

    examples: int = 0
    #: How often each kind of fault struck, by the kind of event at which it did.
    hits: dict[str, dict[str, int]] = msgspec.field(default_factory=dict[str, dict[str, int]])
    #: How often each invariant had occasion to be broken.
    premises: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    #: What user code's `sometimes` have counted.
    sometimes: dict[str, Seen] = msgspec.field(default_factory=dict[str, Seen])
    #: In how many examples each fingerprint was seen.
    fingerprints: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    #: How many were new, in each stretch of examples.
    novel: list[int] = msgspec.field(default_factory=list[int])

    def add(self, faults: Sequence[Fault], premises: Mapping[str, int], events: Sequence[Event]) -> None:
        """Count one world: the faults that happened in it, what was judged, and all that happened."""
        for fault in faults:
            row = self.hits.setdefault(fault.what, {})
            row[fault.at.kind] = row.get(fault.at.kind, 0) + 1
        _sum(self.premises, premises)
        stretch = self.examples // STRETCH
        while len(self.novel) <= stretch:
            self.novel.append(0)
        self.examples += 1
        for fingerprint in fingerprints(events):
            seen = self.fingerprints.get(fingerprint, 0)
            self.novel[stretch] += not seen
            self.fingerprints[fingerprint] = seen + 1

    def merge(self, other: Tally) -> None:
        """Count what another process has counted. What was new in each of the two may be told twice in `novel`."""
        self.examples += other.examples
        for what, row in other.hits.items():
            _sum(self.hits.setdefault(what, {}), row)
        _sum(self.premises, other.premises)
        _sum(self.fingerprints, other.fingerprints)
        for name, theirs in other.sometimes.items():
            seen = self.sometimes.setdefault(name, Seen())
            seen.reached += theirs.reached
            seen.held += theirs.held
        for stretch, count in enumerate(other.novel):
            if stretch == len(self.novel):
                self.novel.append(0)
            self.novel[stretch] += count

    @property
    def singles(self) -> int:
        """How many fingerprints were seen in one example only."""
        return sum(count == 1 for count in self.fingerprints.values())

    @property
    def residual(self) -> float:
        """How many new fingerprints the next example is expected to show."""
        return self.singles / self.examples if self.examples else 0.0


def fingerprints(events: Sequence[Event]) -> list[str]:
    """Return the different steps of a world, in the order in which they were first seen."""
    found: dict[str, None] = {}
    before: dict[str, Kind] = {}
    fault = ""
    for event in events:
        if event.kind is Kind.FAULT:
            fault = str(event.facts["what"])
            continue
        lane = event.lane
        found[f"{_role(lane)} {before.get(lane, '')} > {event.kind} | {fault}"] = None
        before[lane] = event.kind
    return list(found)


def _role(lane: str) -> str:
    return "child" if "/" in lane else lane.rstrip("0123456789")


def _sum(mine: dict[str, int], theirs: Mapping[str, int]) -> None:
    for name, count in theirs.items():
        mine[name] = mine.get(name, 0) + count


_tally = Tally()


def tally() -> Tally:
    """Return the counts of this process so far."""
    _tally.sometimes = seen_sometimes()
    return _tally


def use_tally(chosen: Tally) -> Tally:
    """Count into this one from now on; return the one before."""
    global _tally
    before, _tally = _tally, chosen
    return before
