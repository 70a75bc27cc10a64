"""A referee for a simulated broker: it sees every commit and every verb that leaves, and knows what the world did.

The world tells it facts (who said what of which delivery, which sessions broke, what an operator asked for); the
broker's records and verbs are judged by them. Its judgements, by the names that `docs/guarantees.md` has for them:

- LOSS: a message leaves its row for a reason: its child or an operator said so, its time was over, its holder was lost.
- SPUR: a message is leased a second time only after its holder broke, gave it back, or asked for it again.
- LIMIT: nothing is leased beyond its bound, a dead letter has reached it, and no end of a broker makes a count smaller.
- D25: a suspect is leased to nobody but a quarantine child.
- INNOCENT: nobody is blamed for more deaths than he was in.
- ORDER: first deliveries of one sender, mailbox and priority go out in the order in which they were accepted.
- RESULT: what is terminal stays as it is.
- D7: no Deliver leaves before its lease, no Confirm before its number, is in the store; no position and no lease has
  the number of an older one; whose number is in the store is never unknown.
- POISON: a dead letter is one once, with its story, and stays in the store.
- STATE: an actor's state is written with the end of the message that left it (`states.py`).
- TIME: nothing goes out before it is due or after it has expired.

All raise AssertionError. A power cut is announced by `lost_power`: what was promised less than that may be lost in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from ..broker.past import Past, decode_past
from ..broker.redelivery import NODE_LOSSES_MAX
from ..codec import decode_envelopes
from ..message import MAX_DELIVERIES_DEFAULT, TERMINAL, Envelope, Kind, Result, State
from ..store.memory import MemoryDisk
from ..store.records import (
    ActorState,
    Append,
    Dead,
    DeadGone,
    Drop,
    Gone,
    Lease,
    PastGone,
    Purge,
    Record,
    ResultRow,
    ResultsGone,
    Session,
    SessionsGone,
)
from ..store.records import Past as PastRecord
from ..verbs import Confirm, Deliver, Durability, FromBroker, Refusal, Welcome
from .facts import Facts, Known, Remains
from .states import StateReferee

_result = msgspec.msgpack.Decoder(Result)


class Referee:
    """Judges commits and verbs."""

    def __init__(
        self,
        facts: Facts,
        durabilities: dict[str, Durability],
        requeues_max: int,
        durability: Durability = Durability.DISK,
    ) -> None:
        """`durability` is that of mailboxes that `durabilities` does not name."""
        self.facts = facts
        self.states = StateReferee(facts)
        #: How often each judgement had something to judge.
        self.judged = Counter[str]()
        self.durabilities = durabilities
        self._durability = durability
        self.requeues_max = requeues_max
        #: The latest wall time so far: what was due at any moment may go out, though the clock was set back since.
        self.latest = 0
        self.known: dict[int, Known] = {}
        self.first: dict[str, int] = {}
        self.rows: dict[int, int] = {}
        self.gone: dict[int, int] = {}
        #: What the commit that is judged has ended.
        self._ended: dict[int, Known] = {}
        self.terminal: dict[str, ResultRow] = {}
        self.ends: dict[str, str] = {}
        self.dead: dict[int, Dead] = {}
        self.deaths = Counter[str]()
        self.pasts: dict[int, Past] = {}
        self.leases: dict[int, dict[int, None]] = {}
        self.holders: dict[int, str] = {}
        #: Every lease that ever was in the store, also of what did not survive: its session and positions.
        self.used: dict[int, tuple[str, dict[int, None]]] = {}
        #: The disk has lost what it was synced for: numbers may come again.
        self.forgetful = False
        #: Lease -> how often its session had broken when it was made.
        self.made: dict[int, int] = {}
        self.numbers: dict[str, int] = {}
        self.last_first: dict[tuple[str, str, int], int] = {}

    def durability(self, mailbox: str) -> Durability:
        """What the mailbox survives."""
        return self.durabilities.get(mailbox, self._durability)

    def unsettled(self) -> dict[int, Known]:
        """Every position that the store holds and that is not gone."""
        return {
            base + index: self.known[base + index]
            for base, count in self.rows.items()
            for index in range(count)
            if not self.gone.get(base, 0) >> index & 1
        }

    def making(self, records: Sequence[Record], wall: int) -> None:
        """These records were made at this wall time; they are not on the disk yet."""
        for record in records:
            if isinstance(record, Lease) and record.lease not in self.made:
                self.made[record.lease] = self.facts.breaks[record.session]
                for position in record.positions:
                    self._not_expired(position, records, wall)

    def _not_expired(self, position: int, records: Sequence[Record], wall: int) -> None:
        """TIME: what is leased now has not expired. It may have come in the same pass."""
        known = self.known.get(position)
        if known is not None:
            envelope = known.envelope
        else:
            rows = [r for r in records if isinstance(r, Append) and 0 <= position - r.base < r.count]
            if not rows:
                return  # of a mailbox of durability "memory", or of a row that is on its way
            envelope = decode_envelopes(rows[0].blob)[position - rows[0].base]
        expires = envelope.more.expires if envelope.more is not None else 0
        self.judged["TIME"] += expires > 0
        assert not 0 < expires <= wall, f"TIME: {envelope.id} goes out {wall - expires} us after it has expired"

    # --- commits -------------------------------------------------------------------------------------------------

    def committed(self, records: Sequence[Record], duplicates: Sequence[int]) -> None:
        """Judge one commit that is on the disk now. `duplicates`: bases of rows whose id the store had already."""
        dead = {record.position: record for record in records if isinstance(record, Dead)}
        results = {record.id: record for record in records if isinstance(record, ResultRow)}
        purged = {record.mailbox for record in records if isinstance(record, Purge)}
        again = {record.base for record in records if isinstance(record, Append)}
        self._ended = {}
        for record in records:
            match record:
                case Append():
                    if record.base not in duplicates and self.durability(record.mailbox):
                        self._appended(record)
                case Lease():
                    self._leased(record)
                case Gone():
                    self._masked(record.base, record.mask, dead, results, purged, again)
                case Drop():
                    for base in record.bases:
                        self._masked(base, -1, dead, results, purged, again)
                case Purge():
                    for base in [base for base in self.rows if base not in record.keep]:
                        if self.known[base].mailbox == record.mailbox:
                            self._masked(base, -1, dead, results, purged, again)
                case ResultRow():
                    self._resulted(record)
                case ResultsGone():
                    for id in record.ids:
                        self.terminal.pop(id, None)
                case Dead():
                    self._died(record)
                case DeadGone():
                    self._letters_gone(record, again)
                case PastRecord():
                    self._blamed(record)
                case PastGone():
                    for position in record.positions:
                        self.pasts.pop(position, None)
                case Session():
                    self.numbers[record.session] = record.number
                case SessionsGone():
                    for session in record.sessions:
                        self.numbers.pop(session, None)
                case _:
                    pass
        self.states.committed(records, self._ended, max(self.used, default=0))
        self.judged["STATE"] = self.states.judged

    def _appended(self, record: Append) -> None:
        assert record.base not in self.rows, f"row {record.base} was there before"
        self.rows[record.base] = record.count
        self.gone[record.base] = 0
        for index, envelope in enumerate(decode_envelopes(record.blob)):
            position = record.base + index
            before = self.known.get(position)
            assert before is None or self.forgetful, (
                f"D7: {envelope.id} gets position {position}, which was that of {before.envelope.id}"
            )
            first = envelope.id not in self.first
            self.first.setdefault(envelope.id, position)
            self.known[position] = Known(
                position, envelope, record.mailbox, record.priority, record.due, record.session, first
            )

    def _leased(self, record: Lease) -> None:
        session = record.session
        holder, positions = self.used.setdefault(record.lease, (session, dict.fromkeys(record.positions)))
        assert holder == session or self.forgetful, f"D7: lease {record.lease} of {session} was one of {holder} before"
        assert self.forgetful or all(position in positions for position in record.positions), (
            f"D7: lease {record.lease} is of {record.positions} and was one of {list(positions)} before"
        )
        before = self.leases.setdefault(record.lease, {})
        if record.lease in self.holders:
            assert self.holders[record.lease] == session
            assert all(position in before for position in record.positions), "a lease that grew"
            return
        self.holders[record.lease] = session
        for position in record.positions:
            before[position] = None
            known = self.known.get(position)
            if known is None:
                continue  # of a mailbox of durability "memory"
            self._may_go_out(known, session)
            known.leased = (session, self.made[record.lease], record.lease)

    def _may_go_out(self, known: Known, to: str) -> None:
        """SPUR, LIMIT, D25, ORDER and TIME at a lease."""
        facts = self.facts
        id = known.envelope.id
        base = max(base for base in self.rows if base <= known.position) if self.rows else 0
        assert known.position < base + self.rows.get(base, 0), f"{known.position} is leased and not in the store"
        assert not self.gone[base] >> (known.position - base) & 1, f"{known.position} is leased and gone"
        if known.leased is not None and id not in facts.excused:
            session, breaks, lease = known.leased
            self.judged["SPUR"] += 1
            cause = facts.broke(session, breaks) or (known.position, lease) in facts.returned
            assert cause, f"SPUR: {id} at {known.position} goes out again, and {session} still has it"
        past = self.pasts.get(known.position)
        if past is not None:
            self.judged["LIMIT"] += 1
            assert within(past, bound_of(known.envelope)), f"LIMIT: {id} goes out with {past.counters()}"
            if is_blamed(past, bound_of(known.envelope)):
                self.judged["D25"] += 1
                assert to in facts.quarantine, f"D25: {id} goes out to {to} with {past.counters()}"
            assert past.due <= self.latest, f"TIME: {id} comes back {past.due - self.latest} us early"
        more = known.envelope.more
        due = max(known.due, more.due if more is not None else 0)
        self.judged["TIME"] += due > 0
        assert due <= self.latest, f"TIME: {id} goes out {due - self.latest} us early"
        if known.leased is None and known.first and not known.due and known.session:
            key = (known.session, known.mailbox, known.priority)
            self.judged["ORDER"] += key in self.last_first
            assert known.position > self.last_first.get(key, 0), f"ORDER: {id} of {key} goes out late"
            self.last_first[key] = known.position

    def _masked(
        self,
        base: int,
        mask: int,
        dead: dict[int, Dead],
        results: dict[str, ResultRow],
        purged: set[str],
        again: set[int],
    ) -> None:
        count = self.rows.get(base)
        if count is None:
            return
        full = (1 << count) - 1
        mask &= full
        old = self.gone[base]
        assert old & mask == old, f"row {base}: what was gone came back"
        for index in range(count):
            if (mask & ~old) >> index & 1:
                known = self._ended[base + index] = self.known[base + index]
                self.ends[known.envelope.id] = self._reason(known, dead, results, purged, again)
        self.gone[base] = mask
        if mask == full:
            del self.rows[base], self.gone[base]

    def _reason(
        self,
        known: Known,
        dead: dict[int, Dead],
        results: dict[str, ResultRow],
        purged: set[str],
        again: set[int],
    ) -> str:
        """LOSS: why this message is over."""
        self.judged["LOSS"] += 1
        facts = self.facts
        id = known.envelope.id
        position = known.position
        if position in facts.said:
            return "settled"
        if known.mailbox in purged or position <= facts.purged.get(known.mailbox, 0):
            return "purged"
        if position in dead:
            return "dead"
        if any(base in self.known and self.known[base].envelope.id == id for base in again if base != position):
            lost = known.leased is not None and facts.broke(*known.leased[:2])
            assert position in facts.renewed or lost, f"LOSS: {id} was renewed, and nobody asked for it"
            return "renewed"
        more = known.envelope.more
        row = results.get(id)
        if row is None and known.envelope.kind == Kind.AFTERMATH and (facts.timed_out[id] or id in facts.killed):
            return "killed"
        assert row is not None, f"LOSS: {id} at {position} of {known.mailbox} is gone"
        result = _result.decode(row.blob)
        failure = result.failure
        assert failure is not None, f"LOSS: {id} succeeded, and nobody said so"
        if row.state == State.REVOKED:
            if failure.text == "expired":
                assert more is not None, f"{id} never expires"
                assert 0 < more.expires <= self.latest, f"{id} expired early"
            else:
                assert id in facts.revoked or id in facts.killed, f"LOSS: {id} was revoked by nobody"
            return failure.text
        assert known.leased is not None, f"LOSS: {id} was lost and never leased"
        session, breaks, _ = known.leased
        assert facts.broke(session, breaks), f"LOSS: {id} was lost, and {session} did not break"
        return failure.exc_type

    def _resulted(self, record: ResultRow) -> None:
        before = self.terminal.get(record.id)
        if before is not None and record.id not in self.facts.redriven and record.id not in self.facts.excused:
            self.judged["RESULT"] += 1
            assert (before.state, before.blob) == (record.state, record.blob), (
                f"RESULT: {record.id} was {State(before.state).name} and is {State(record.state).name}"
            )
        if record.state in TERMINAL:
            self.terminal[record.id] = record

    def _died(self, record: Dead) -> None:
        """POISON: a dead letter once, with its story, and not before its bound."""
        story = decode_past(record.story)
        envelope = decode_envelopes(record.blob)[0]
        self.dead[record.position] = record
        self.deaths[record.id] += 1
        self.judged["POISON"] += 1
        assert story.attempts, f"POISON: {record.id} has no story"
        assert story.refused or story.requeues >= self.requeues_max or not within(story, bound_of(envelope)), (
            f"POISON: {record.id} is dead with {story.counters()}"
        )
        self._innocent(record.id, story)
        if record.id not in self.facts.redriven and record.id not in self.facts.excused:
            assert self.deaths[record.id] == 1, f"POISON: {record.id} is dead twice"

    def _letters_gone(self, record: DeadGone, again: set[int]) -> None:
        """Dead letters were redriven, which lets their ids go on, or purged."""
        ids = {self.known[base].envelope.id for base in again if base in self.known}
        for position in record.positions:
            letter = self.dead.pop(position, None)
            if letter is not None and (letter.id in ids or not self.durability(letter.mailbox)):
                self.facts.redriven[letter.id] = None

    def _blamed(self, record: PastRecord) -> None:
        past = self.pasts[record.position] = decode_past(record.blob)
        known = self.known.get(record.position)
        if known is not None:
            self._innocent(known.envelope.id, past)

    def _innocent(self, id: str, past: Past) -> None:
        facts = self.facts
        self.judged["INNOCENT"] += 1
        deaths = past.solo + past.joint
        assert deaths <= facts.died[id], f"INNOCENT: {id} is blamed for {deaths} deaths of {facts.died[id]}"
        assert past.timeouts <= facts.timed_out[id], f"INNOCENT: {id} timed out {facts.timed_out[id]} times"
        assert past.node_losses <= facts.held_at_loss[id], f"INNOCENT: {id}: {past.node_losses} node losses"

    # --- verbs ---------------------------------------------------------------------------------------------------

    def sent(self, session: str, verb: FromBroker) -> None:
        """D7 and TIME: judge a verb that leaves."""
        if isinstance(verb, Deliver):
            for delivery in verb.deliveries:
                more = delivery.envelope.more
                if self.durability(delivery.mailbox):
                    self.judged["D7"] += 1
                    assert self.holders.get(verb.lease) == session, f"D7: lease {verb.lease} is not in the store"
                    assert delivery.position in self.leases[verb.lease], f"D7: {delivery.position}"
                if more is not None and more.expires:
                    assert delivery.expires_in > 0
        elif isinstance(verb, Confirm) and not verb.refusal:
            self.judged["D7"] += 1
            assert self.numbers.get(session, 0) >= verb.number, f"D7: batch {verb.number} of {session}"
        elif isinstance(verb, Confirm) and verb.refusal == Refusal.UNKNOWN_SESSION:
            self._not_forgotten(session, verb.number - 2, f"batch {verb.number} is refused as a stranger's")
        elif isinstance(verb, Welcome):
            self._not_forgotten(session, verb.applied, f"it is told {verb.applied}")

    def _not_forgotten(self, session: str, said: int, how: str) -> None:
        number = self.numbers.get(session, 0)
        self.judged["D7"] += number > 0
        assert number <= said, f"D7: {session} was heard up to batch {number}, and {how}"

    # --- the world -----------------------------------------------------------------------------------------------

    def lost_power(self, disk: MemoryDisk) -> None:
        """What is on the disk now is all there is. What was promised to survive it has."""
        tables = disk.tables
        self.remains(
            Remains(
                {base: (row.count, tables[Gone].get(base, 0)) for base, row in disk.rows.items()},
                dict(tables[ResultRow]),
                {position: record.blob for position, record in tables[PastRecord].items()},
                dict(tables[Dead]),
                {session: record.number for session, record in tables[Session].items()},
                dict.fromkeys(tables[Lease]),
                dict(tables[ActorState]),
            ),
            Durability.PROCESS,
        )

    def remains(self, disk: Remains, lost: Durability | None) -> None:
        """Something ended, and this is what is left of it.

        `lost`: mailboxes of this durability and of weaker ones may have lost something; None: not even these.
        """
        self.forgetful = self.forgetful or lost is Durability.CLUSTER
        before = self.unsettled()
        self.rows = {base: count for base, (count, _) in disk.rows.items()}
        self.gone = {base: gone for base, (_, gone) in disk.rows.items()}
        after = self.unsettled()
        for position in {**before, **after}:
            known = self.known[position]
            if lost is None or self.durability(known.mailbox) > lost:
                self.judged["LOSS"] += 1
                assert position in before, f"LOSS: {known.envelope.id} was settled, and is back after the broker's end"
                assert position in after, f"LOSS: {known.envelope.id} did not survive the broker's end"
        self._counts_remain(disk, lost, after)
        self.states.remains(
            disk.states,
            {name: lost is None or self.durability(name) > lost for name in self.states.states},
        )
        if lost is not None:
            self.excuse(lost)
        self.terminal = {id: row for id, row in self.terminal.items() if disk.results.get(id) == row}
        self.pasts = {position: decode_past(blob) for position, blob in disk.pasts.items()}
        for position, letter in self.dead.items():
            if lost is None or lost < Durability.PROCESS or self.durability(letter.mailbox) > lost:
                self.judged["POISON"] += 1
                assert position in disk.dead, f"POISON: the dead letter of {letter.id} did not survive the broker's end"
        self.dead = dict(disk.dead)
        self.numbers = dict(disk.numbers)
        for lease in [lease for lease in self.holders if lease not in disk.leases]:
            if not any(self._is_disk(position) for position in self.leases[lease]):
                del self.holders[lease], self.leases[lease]

    def _counts_remain(self, disk: Remains, lost: Durability | None, left: dict[int, Known]) -> None:
        """LIMIT and D7: what is counted against the messages that are left, and up to where publishers were heard."""
        for position, past in self.pasts.items():
            known = left.get(position)
            if known is not None and (lost is None or self.durability(known.mailbox) > lost):
                self.judged["LIMIT"] += 1
                kept = decode_past(disk.pasts[position]).counters() if position in disk.pasts else {}
                assert kept == past.counters(), (
                    f"LIMIT: after the broker's end {known.envelope.id} has {kept}, and it had {past.counters()}"
                )
        if lost is not None and lost >= Durability.PROCESS:
            # Not every number is synced.
            return
        for session, number in self.numbers.items():
            self.judged["D7"] += 1
            kept_number = disk.numbers.get(session, 0)
            assert kept_number >= number, (
                f"D7: {session} was heard up to batch {number}, and after the broker's end up to {kept_number}"
            )

    def _is_disk(self, position: int) -> bool:
        known = self.known.get(position)
        return known is not None and self.durability(known.mailbox) >= Durability.DISK

    def excuse(self, up_to: Durability) -> None:
        """Messages of mailboxes that promise no more than this may be lost or doubled."""
        for known in self.known.values():
            if self.durability(known.mailbox) <= up_to:
                self.facts.excused[known.envelope.id] = None


def bound_of(envelope: Envelope) -> int:
    """How many deliveries of this message may end in the death of its process."""
    asked = envelope.more.max_deliveries if envelope.more is not None else 0
    return asked or MAX_DELIVERIES_DEFAULT


def is_blamed(past: Past, bound: int) -> bool:
    """Whether a message with this past must run in quarantine."""
    return bool(past.solo or past.joint or past.timeouts) or past.node_losses >= bound


def within(past: Past, bound: int) -> bool:
    """Whether a message with this past may be started once more (spec D24, written from its words)."""
    if past.timeouts >= bound:
        return False
    if past.solo == past.joint == 0:
        return past.node_losses < max(bound, NODE_LOSSES_MAX)
    if past.solo + past.joint + past.node_losses < bound:
        return True
    # The trial alone that follows a joint death; it is over when anything else has ended since.
    return bool(past.attempts) and past.attempts[-1].cause == "joint"
