"""The ledger: what the world did to a broker, for the referee who judges its commits and verbs by it.

Owns the facts of a simulated world, as the referee (`transport.sim.referee`) needs them, and takes none of them from
the core: bodies that ran in a process are what the process knows, a session is lost when its link has been gone for
as long as it may come back, a child is gone when somebody has reported it. What the referee says is told as `Violated`
under the name of the promise.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from ....transport.broker.settings import BrokerSettings
from ....transport.message import Outcome, State
from ....transport.requests import SHAPES, FetchedState, FetchState, PurgeMailbox, Revoke
from ....transport.sim.audit import check_credit
from ....transport.sim.facts import Facts, Known, Remains
from ....transport.sim.referee import Referee
from ....transport.store.base import Store
from ....transport.store.records import Dead, Lease, MailboxRow, Past, Record, Recovered
from ....transport.verbs import (
    Attach,
    ChildKind,
    Durability,
    FromBroker,
    Goodbye,
    Hello,
    Op,
    Reply,
    Report,
    Request,
    Return,
    Role,
    Settle,
    ToBroker,
)
from ..observer import Observer
from ..trace import Event, Kind
from ..world import World

#: More dead letters than this are not looked at.
_LETTERS: Final = 100_000
#: What the referee's judgements are of, by the first word of what he says. What he does not name is LOSS.
JUDGED: Final = (
    "LOSS",
    "SPUR",
    "LIMIT",
    "POISON",
    "INNOCENT",
    "ORDER",
    "RESULT",
    "TIME",
    "D7",
    "D25",
    "CREDIT",
    "STATE",
)

Raise = Callable[[str, str], object]


class WorldFacts(Facts):
    """Facts of a world with clocks: a session is lost when it has not come back in time."""

    def __init__(self, boot: Callable[[], int], patience: int) -> None:
        super().__init__()
        #: Since when each session's latest link is gone.
        self.down: dict[str, int] = {}
        #: Sessions whose end was reported as that of their node.
        self.lost: dict[str, None] = {}
        self._boot = boot
        self._patience = patience

    def broke(self, session: str, since: int) -> bool:
        """Whether what the session has may go to others: it has ended, was away for long, or came back without it."""
        return session in self.gone or self.breaks[session] > since or self.is_away(session)

    def is_away(self, session: str) -> bool:
        """Whether the session has been without a link for as long as it may."""
        since = self.down.get(session)
        return since is not None and self._boot() - since >= self._patience


class Ledger(Observer):
    """Feeds the referee. `raise_` is called with the name of a promise and how it was broken."""

    def __init__(self, world: World, raise_: Raise) -> None:
        settings: BrokerSettings = world.settings
        self.facts = WorldFacts(lambda: world.broker.now.boot, settings.reattach_patience)
        self.referee = Referee(self.facts, {}, settings.acquired_max, settings.durability)
        self._world = world
        self._raise = raise_
        self._short_task = settings.short_task
        self._patience = settings.reattach_patience
        #: When the broker's latest commit was done.
        self._written = 0
        self._sessions: dict[str, None] = {}
        #: Sessions that came back when they were given up, and have not said what they hold.
        self._overdue: dict[str, None] = {}
        #: Whom each position was leased to last, committed or not: session and lease.
        self._holders: dict[int, tuple[str, int]] = {}
        #: Losses of a holder that have been taken down, by position and lease.
        self._losses: dict[tuple[int, int], None] = {}
        self._confirmed: dict[str, str] = {}
        self._mailboxes: dict[str, str] = {}
        #: Whoever asked for the state of an actor, and has no answer: (session, number of the request) -> its mailbox.
        self._asking: dict[tuple[str, int], str] = {}
        #: What each session knows of the state of an actor: (session, mailbox).
        self._states: dict[tuple[str, str], bytes] = {}
        self._chosen = 0
        self._opened = 0
        #: Leases that are no news.
        self._made = 0

    # --- the broker ----------------------------------------------------------------------------------------------

    def opened(self, recovered: Recovered, store: Store) -> None:
        """What is there now must be what was promised to survive, and everybody has lost his link."""
        self._opened += 1
        if self._opened == 1:
            return
        observed = self._world.observed
        lost = Durability.PROCESS if observed.power_lost else Durability.MEMORY
        if observed.disk_lied:
            lost = Durability.CLUSTER
        observed.power_lost = False
        referee = self.referee
        with self._judging():
            referee.remains(
                Remains(
                    {row.base: (row.count, row.gone) for row in store.read_rows(list(referee.known))},
                    {row.id: row for row in store.read_results(list(referee.terminal), 0)},
                    {past.position: past.blob for past in recovered.pasts},
                    {letter.position: letter for letter in store.read_dead(limit=_LETTERS)},
                    {session.session: session.number for session in recovered.sessions},
                    {lease.lease: None for lease in recovered.leases},
                    {state.mailbox: state for state in store.read_states(list(referee.states.states))},
                ),
                lost,
            )
        boot = self._world.broker.now.boot
        down = self.facts.down
        for session in self._sessions:
            # Who had been away for long enough when the broker last wrote anything may have been judged by then.
            if session not in down or self._written - down[session] < self._patience:
                down[session] = boot

    def heard(self, session: str, verb: ToBroker) -> None:
        """A peer said this."""
        facts = self.facts
        match verb:
            case Hello():
                if facts.is_away(verb.session):
                    facts.breaks[verb.session] += 1
                    self._overdue[verb.session] = None
                facts.down.pop(verb.session, None)
                if verb.role == Role.CHILD:
                    self._sessions[verb.session] = None
            case Attach(held=held):
                if verb.kind == ChildKind.QUARANTINE:
                    facts.quarantine[session] = None
                self._attached(session, [(holding.position, holding.lease) for holding in held])
            case Settle(outcomes=outcomes):
                self._said(session, outcomes)
            case Report():
                for settle in verb.outbox:
                    self._said(verb.session, settle.outcomes)
                for id in self._ids(verb.timed_out):
                    facts.timed_out[id] += 1
                facts.killed.update(dict.fromkeys(self._ids(verb.terminated)))
                facts.gone[verb.session] = None
                if verb.node_lost:
                    facts.lost[verb.session] = None
            case Return():
                for position, lease in zip(verb.positions, verb.leases, strict=False):
                    if self._holders.get(position) == (session, lease):
                        facts.returned[position, lease] = None
            case Goodbye():
                facts.gone[session] = None
            case Request():
                self._asked(session, verb)
            case _:
                pass

    def broke(self, session: str) -> None:
        """Its latest link is gone."""
        self.facts.down[session] = self._world.broker.now.boot

    def said(self, session: str, verb: FromBroker) -> None:
        """The broker says this."""
        if session:
            with self._judging():
                self.referee.sent(session, verb)
                if isinstance(verb, Reply):
                    self._told(session, verb)

    def making(self, records: Sequence[Record]) -> None:
        """Records were made."""
        referee = self.referee
        referee.latest = max(referee.latest, self._world.broker.now.wall)
        core = self._world.broker.core
        # As the core reads it: a fault may have set the clock within this turn.
        now = self._world.broker.now if core is None else core.now
        with self._judging():
            referee.making(records, now.wall)
        # First, since in the same pass it may have gone to somebody else.
        for record in records:
            if isinstance(record, (Past, Dead)):
                self._count_loss(record.position)
        new = [record for record in records if isinstance(record, Lease) and record.lease > self._made]
        for lease in new:
            self._made = lease.lease
            for position in lease.positions:
                self._holders[position] = lease.session, lease.lease
        if new and core is not None:
            referee.judged["CREDIT"] += len(new)
            with self._judging():
                check_credit(core.broker, new, self._short_task)

    def committed(self, records: Sequence[Record], duplicates: Sequence[int]) -> None:
        """A commit is on the disk."""
        core = self._world.broker.core
        self._written = self._world.broker.now.boot
        for record in records:
            if isinstance(record, MailboxRow) and core is not None:
                desk = core.broker.desk
                if record.name in desk.mailboxes:
                    self.referee.durabilities[record.name] = desk.durability(desk.mailboxes[record.name])
        with self._judging():
            self.referee.committed(records, duplicates)

    # --- the world -----------------------------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """Take down what only the world knows."""
        # Also what has made no record: something may have become due, and the clock is set back next.
        self.referee.latest = max(self.referee.latest, self._world.broker.now.wall)
        facts = event.facts
        if event.kind is Kind.DEATH and "by" not in facts:
            for id in facts.get("running", ()):
                self.facts.died[id] += 1
        elif event.kind is Kind.PUBLISH:
            self._mailboxes.update(dict.fromkeys(facts["ids"], facts["mailbox"]))
        elif event.kind is Kind.CONFIRM and "error" not in facts:
            self._confirmed.update(dict.fromkeys(facts["ids"], event.lane))

    def at_rest(self) -> None:
        """LOSS and QUIESCE: everything that was confirmed has come to an end, and nothing is left in the store."""
        referee = self.referee
        for id, lane in self._confirmed.items():
            if referee.durability(self._mailboxes[id]) == Durability.MEMORY or id in self.facts.excused:
                continue
            referee.judged["LOSS"] += 1
            if id not in referee.ends:
                where = "was never in the store" if id not in referee.first else "is in no end that is known"
                self._raise("LOSS", f"{id} was confirmed to {lane} and {where}")
        letters = {letter.position for letter in self._world.broker.store.read_dead(limit=_LETTERS)}
        for position, letter in referee.dead.items():
            referee.judged["POISON"] += 1
            if position not in letters:
                self._raise("POISON", f"{letter.id} is a dead letter, and its store has none")
        left = [known for known in referee.unsettled().values() if known.envelope.id not in self.facts.excused]
        if left:
            ids = ", ".join(known.envelope.id for known in left[:5])
            self._raise("QUIESCE", f"the broker is at rest, and its store still has {len(left)} messages: {ids}")

    def unsettled(self, mailbox: str) -> int:
        """Return how many messages of a mailbox the store holds that are not settled."""
        return sum(known.mailbox == mailbox for known in self.referee.unsettled().values())

    def latest_due(self) -> int:
        """Return the wall time at which the last message of the store that waits for one is due; 0: none waits."""
        referee = self.referee
        times = [0]
        for position, known in referee.unsettled().items():
            past, more = referee.pasts.get(position), known.envelope.more
            times += [known.due, past.due if past is not None else 0, more.due if more is not None else 0]
        return max(times)

    # --- facts ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _judging(self) -> Generator[None]:
        try:
            yield
        except AssertionError as error:
            name, colon, detail = str(error).partition(": ")
            if name in JUDGED and colon:
                self._raise(name, detail)
            else:
                self._raise("LOSS", str(error))

    def _attached(self, session: str, held: Sequence[tuple[int, int]]) -> None:
        """It has come back with these; what else it had is free."""
        breaks = self.facts.breaks
        breaks[session] += 1
        if session in self._overdue:
            # What it had may have been taken back, or have gone to somebody else.
            del self._overdue[session]
            return
        for position, lease in held:
            known = self.referee.known.get(position)
            if known is not None and known.leased is not None and known.leased[::2] == (session, lease):
                known.leased = session, breaks[session], lease

    def _said(self, session: str, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.snapshot is not None:
                self._changed(session, outcome.position, outcome.lease, outcome.snapshot)
            if outcome.state in (State.RETRY, State.REQUEUED):
                self.facts.returned[outcome.position, outcome.lease] = None
                self.facts.renewed[outcome.position] = None
            else:
                self.facts.said[outcome.position] = outcome.state

    def _changed(self, session: str, position: int, lease: int, snapshot: bytes) -> None:
        """A child says what its message has made of its actor's state; it may say it again."""
        known = self.referee.known.get(position)
        if known is None or (position, lease) in self.facts.snapshots:
            return
        self.facts.snapshots[position, lease] = snapshot
        if (session, known.mailbox) in self._states:
            self.facts.before[position, lease] = self._states[session, known.mailbox]
        self._states[session, known.mailbox] = snapshot

    def _told(self, session: str, reply: Reply) -> None:
        """Who asks for a state is told what is on the disk."""
        mailbox = self._asking.pop((session, reply.number), "")
        if not mailbox or reply.error:
            return
        told = msgspec.msgpack.decode(reply.value, type=FetchedState).snapshot
        states = self.referee.states
        states.judged += 1
        kept = states.states.get(mailbox)
        assert told == (b"" if kept is None else kept.blob), f"STATE: {session} is told {told!r} of {mailbox}"
        self._states[session, mailbox] = told

    def _asked(self, session: str, request: Request) -> None:
        op = Op(request.op)
        if op not in (Op.REVOKE, Op.PURGE, Op.STATE):
            return
        params = msgspec.msgpack.decode(request.params, type=SHAPES[op][0])
        core = self._world.broker.core
        if isinstance(params, FetchState):
            self._asking[session, request.number] = params.mailbox
        elif isinstance(params, Revoke):
            self.facts.revoked.update(dict.fromkeys(params.ids))
        elif isinstance(params, PurgeMailbox) and core is not None:
            self.facts.purged[params.mailbox] = core.broker.desk.next_position - 1

    def _ids(self, positions: Sequence[int]) -> list[str]:
        known = (self.referee.known.get(position) for position in positions)
        return [found.envelope.id for found in known if isinstance(found, Known)]

    def _count_loss(self, position: int) -> None:
        """A node loss may be counted once for each lease whose holder is lost."""
        known = self.referee.known.get(position)
        session, lease = self._holders.get(position, ("", 0))
        facts = self.facts
        lost = session in facts.lost or facts.is_away(session)
        if known is not None and lost and (position, lease) not in self._losses:
            self._losses[position, lease] = None
            facts.held_at_loss[known.envelope.id] += 1
