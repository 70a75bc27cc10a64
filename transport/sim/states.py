"""STATE: what a referee knows of the states of durable actors, and how it judges them.

A state that is committed stands in the commit that ends the message that made it, and was said by the child that held
this message, under the lease that was its last. It follows upon the state that was there: nobody has worked from an
older one. Nothing is written under a lease that is over, nothing twice, and
what a message left that has ended in success is not left out. What is on a disk after a broker's end is what was there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..message import State
from ..store.records import ActorState, ActorStatesGone, Dead, Record, ResultRow
from .facts import Facts, Known


class StateReferee:
    """Judges states. All raise AssertionError."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        #: How often there was something to judge.
        self.judged = 0
        #: What is on the disk.
        self.states: dict[str, ActorState] = {}
        #: By mailbox the newest lease when its state was taken away: whoever had a message then knew the old state.
        self._taken: dict[str, int] = {}

    def committed(self, records: Sequence[Record], ended: Mapping[int, Known], newest_lease: int) -> None:
        """Judge one commit. `ended`: the messages whose rows lost them in it."""
        said = {
            (known.mailbox, known.leased[2], self.facts.snapshots[position, known.leased[2]]): position
            for position, known in ended.items()
            if known.leased is not None and (position, known.leased[2]) in self.facts.snapshots
        }
        written: dict[int, None] = {}
        for record in records:
            if isinstance(record, ActorState):
                self.judged += 1
                before = self.states.get(record.mailbox)
                assert before is None or before.number <= record.number, (
                    f"STATE: the state of {record.mailbox} under lease {before.number} is replaced by one of an older "
                    f"lease, {record.number}"
                )
                position = said.get((record.mailbox, record.number, record.blob))
                assert position is not None, (
                    f"STATE: a state of {record.mailbox} under lease {record.number} is written, and no message ends "
                    "with it of which its last holder said so"
                )
                assert position not in written, f"STATE: the state that {position} left is written twice"
                written[position] = None
                self._follows(record, position)
                self.states[record.mailbox] = record
            elif isinstance(record, ActorStatesGone):
                for mailbox in record.mailboxes:
                    self.states.pop(mailbox, None)
                    self._taken[mailbox] = newest_lease
        self._nothing_left_out(records, ended, said, written)

    def _follows(self, record: ActorState, position: int) -> None:
        known = self.facts.before.get((position, record.number))
        if known is None or record.number <= self._taken.get(record.mailbox, 0):
            return
        self.judged += 1
        state = self.states.get(record.mailbox)
        there = state.blob if state is not None else b""
        assert known == there, f"STATE: {position} changes {known!r} of {record.mailbox}, which has {there!r} by now"

    def _nothing_left_out(
        self,
        records: Sequence[Record],
        ended: Mapping[int, Known],
        said: Mapping[tuple[str, int, bytes], int],
        written: Mapping[int, None],
    ) -> None:
        dead = {record.position for record in records if isinstance(record, Dead)}
        good = {record.id for record in records if isinstance(record, ResultRow) and record.state == State.SUCCESS}
        for (mailbox, lease, _), position in said.items():
            if position not in dead and ended[position].envelope.id in good:
                self.judged += 1
                assert position in written, (
                    f"STATE: {mailbox} changed with {position} under {lease}, and it is not kept"
                )

    def remains(self, states: Mapping[str, ActorState], promised: Mapping[str, bool]) -> None:
        """A broker has ended, and these are left. `promised`: mailboxes whose states must have survived that."""
        for mailbox, state in self.states.items():
            if promised.get(mailbox, True):
                self.judged += 1
                assert states.get(mailbox) == state, f"STATE: the state of {mailbox} did not survive the broker's end"
        self.states = dict(states)
