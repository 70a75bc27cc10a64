"""An audit of a broker: its tables against each other, and against what its store holds.

`audit` may be called after any pass: every message is in one place, every count is the number of what it counts, and
nobody waits who could be served. `audit_store` may be called when nothing waits for the store: every unsettled
message of the store is counted, and leases and pasts stand there as they stand in memory. `leftovers` names what is
still there when everything is settled and everybody has gone.

All raise AssertionError with the place in words. They look inside of the core, as nothing else outside of it may.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..broker.core import Broker
from ..broker.held import Message, Stage
from ..broker.mailbox import Mailbox
from ..broker.nodes import service_of
from ..broker.past import encode_past
from ..store.memory import MemoryDisk
from ..store.records import Gone, Lease, Past
from ..verbs import ChildKind, Role


def messages_of(broker: Broker) -> dict[int, Message]:
    """Every message in memory by position. Raises AssertionError if one is in two places."""
    found: dict[int, tuple[Message, str]] = {}

    def add(message: Message, place: str) -> None:
        position = message.position
        assert position not in found, f"message {position} is {place} and {found[position][1]}"
        found[position] = (message, place)

    for mailbox in broker.desk.mailboxes.values():
        for lane in mailbox.lanes:
            for message in (*lane.head, *lane.returned):
                add(message, f"ready in {mailbox.name}")
                assert message.stage == Stage.READY, f"{message.position} is in a lane in stage {message.stage}"
                assert message.lease is None, f"{message.position} is ready and leased"
                assert message.row.mailbox is mailbox
            assert lane.bytes == sum(len(m.envelope.body) for m in (*lane.head, *lane.returned))
            assert lane.unjudged == sum(m.row.unjudged for m in (*lane.head, *lane.returned))
            assert lane.tail >= 0, f"{mailbox.name} has a tail of {lane.tail}"
    for session in broker.desk.sessions.values():
        for position, message in session.held.items():
            add(message, f"held by {session.id}")
            assert message.position == position
            assert message.stage in (Stage.ACQUIRED, Stage.STARTED)
            assert message.lease is not None, f"{position} is held without a lease"
            assert message.lease.session is session
    for message in broker.schedule.waiting():
        add(message, "scheduled")
    for message in broker.suspects.waiting():
        add(message, "a waiting suspect")
    for batch in broker.desk.journal.batches():
        for accepted in batch.accepted:
            for unique in accepted.unique:
                waiting = unique.message if unique.row.due and unique.row.unjudged else None
                if waiting is not None and waiting.stage == Stage.SCHEDULED:
                    add(waiting, "not judged")
    return {position: message for position, (message, _) in found.items()}


def audit(broker: Broker) -> None:
    """Check the tables of a broker against each other."""
    desk = broker.desk
    messages = messages_of(broker)
    counts = {name: Counter[int]() for name in desk.mailboxes}
    suspects = Counter[str]()
    leases = Counter[int]()
    for message in messages.values():
        mailbox = message.row.mailbox
        assert desk.mailboxes.get(mailbox.name) is mailbox, f"{mailbox.name} was forgotten and has a message"
        counts[mailbox.name][message.stage] += 1
        assert not message.row.gone >> (message.position - message.row.base) & 1, f"{message.position} is gone"
        suspects[mailbox.name] += message.past is not None and message.past.suspect
        if message.lease is not None:
            leases[message.lease.id] += 1
            assert mailbox.strongest >= message.row.durability
    scheduled_tail = 0
    for name, mailbox in desk.mailboxes.items():
        count = counts[name]
        tail = sum(lane.tail for lane in mailbox.lanes)
        rest = mailbox.scheduled - count[Stage.SCHEDULED]
        assert rest >= 0, f"{name} counts {mailbox.scheduled} scheduled, {count[Stage.SCHEDULED]} are"
        scheduled_tail += rest
        assert mailbox.acquired == count[Stage.ACQUIRED], f"{name}: acquired"
        assert mailbox.started == count[Stage.STARTED], f"{name}: started"
        assert mailbox.depth == sum(count.values()) + tail + rest, f"{name}: depth {mailbox.depth}, {count}, {tail}"
        assert mailbox.suspects == suspects[name], f"{name}: {mailbox.suspects} suspects, {suspects[name]} are"
    assert scheduled_tail == broker.schedule.tail, f"{scheduled_tail} scheduled in the store, {broker.schedule.tail}"
    for message in messages.values():
        if message.lease is not None:
            assert message.lease.left == leases[message.lease.id], f"lease {message.lease.id}"
    for base, row in desk.known.items():
        assert row.base == base
        assert row.left > 0 or desk.journal.waiting, f"row {base} is known and has nothing left"
    for position, message in desk.loose.items():
        assert messages.get(position) is message, f"{position} is loose and nowhere"
    _audit_sessions(broker)
    if not desk.draining:
        for mailbox in desk.mailboxes.values():
            _audit_service(broker, mailbox)
        _audit_quarantine(broker)


def _audit_sessions(broker: Broker) -> None:
    desk = broker.desk
    for link, session in desk.links.items():
        assert session.link == link
        assert desk.sessions.get(session.id) is session
    for session in desk.sessions.values():
        assert not session.link or desk.links.get(session.link) is session
        if session.role is Role.CHILD:
            assert desk.children[session.parent][session.id] is session
            assert session.link or session.judge_at, f"{session.id} has no link and is not waited for"
        full = session.stalled_at or session.unread_bytes >= desk.settings.unacknowledged_bytes_max
        assert session.open == (session.attached and bool(session.link) and not full), session.id
        assert session.unread_bytes >= 0, f"{session.id} has {session.unread_bytes} bytes unread"
        for name, mailbox in session.owned.items():
            assert mailbox.owner is session
            assert mailbox.name == name
    for mailbox in desk.mailboxes.values():
        assert mailbox.owner is None or mailbox.owner.owned.get(mailbox.name) is mailbox
        for consumer in mailbox.consumers:
            assert desk.sessions.get(consumer.id) is consumer, f"{consumer.id} is gone and consumes"
    watchers = Counter(id for session in desk.sessions.values() for id in session.watched)
    assert watchers == Counter(broker.watching.watched()), "watches"


def _audit_service(broker: Broker, mailbox: Mailbox) -> None:
    """Nothing that could go out stays: a pass ends only when there is nobody for what is left."""
    desk = broker.desk
    lane = mailbox.first_lane()
    if mailbox.is_actor:
        owners = {
            session.id
            for session in desk.sessions.values()
            if any(message.row.mailbox is mailbox for message in session.held.values())
        }
        assert len(owners) <= 1, f"{mailbox.name} is out with {sorted(owners)}"
        if lane is None or mailbox.suspects or lane.head[0].row.unjudged:
            return
        past = lane.head[0].past
        if past is not None and past.due > desk.now.wall:
            return
        owner = mailbox.owner
        hosts = desk.hosts.get(mailbox.actor_class, {}).values()
        if owner is None:
            assert not any(h.open and h.window > 0 and h.kind == ChildKind.ACTORS for h in hosts), mailbox.name
        elif not mailbox.acquired and not mailbox.started and owner.kind == ChildKind.ACTORS:
            assert owner.room <= 0 or owner.free_slots <= 0, f"{mailbox.name}: its owner has room"
        return
    takers = [consumer for consumer in mailbox.consumers if consumer.room > 0]
    if lane is not None and not lane.head[0].row.unjudged:
        idle = [consumer.id for consumer in takers if consumer.free_slots > 0]
        assert not idle, f"{mailbox.name} has ready messages and {idle} have free slots"
    if lane is None and takers:
        tail = next((other for other in mailbox.lanes if other.tail), None)
        assert tail is None or tail.reading, f"{mailbox.name} has a tail that nobody reads"


def _audit_quarantine(broker: Broker) -> None:
    for message in broker.suspects.waiting():
        mailbox = message.row.mailbox
        if any(message is entry[2] for entries in broker.suspects.due.values() for entry in entries):
            if mailbox.is_actor and (mailbox.acquired or mailbox.started):
                continue
            for session in broker.desk.quarantine.values():
                free = session.open and not session.held and min(session.slots, session.window) > 0
                assert not (free and service_of(mailbox) in session.serves), f"{session.id} is free for a suspect"
    for session in broker.desk.quarantine.values():
        assert len(session.held) <= 1, f"{session.id} has {len(session.held)} suspects"


def check_credit(broker: Broker, given: Sequence[Lease], short_task: int) -> None:
    """CREDIT: check what was given in the pass that ends now. `short_task`: what may be claimed ahead, at most."""
    desk = broker.desk
    positions_of: dict[str, list[int]] = {}
    for lease in given:
        positions_of.setdefault(lease.session, []).extend(lease.positions)
    for id, positions in positions_of.items():
        session = desk.sessions[id]
        if not all(message.row.durability for message in session.held.values()):
            continue  # what it got in this pass of those is in no record
        before = len(session.held) - len(positions)
        names = [session.held[position].envelope.name for position in positions]
        speeds = [desk.speeds.get(name) for name in names]
        long = sum(speed is None or speed.average > short_task for speed in speeds)
        assert len(session.held) <= session.window, f"CREDIT: {id} holds {len(session.held)} of {session.window}"
        assert long <= max(0, session.slots - before), f"CREDIT: {id} got {names} beyond its slots"


def unsettled(disk: MemoryDisk) -> dict[int, str]:
    """The mailbox of each unsettled message that the store holds, by position."""
    gone = disk.tables[Gone]
    found: dict[int, str] = {}
    for base, row in disk.rows.items():
        mask = gone.get(base, 0)
        found.update({base + i: row.mailbox for i in range(row.count) if not mask >> i & 1})
    return found


def audit_store(broker: Broker, disk: MemoryDisk) -> None:
    """Check a broker against its store, when nothing waits to be written or read."""
    desk = broker.desk
    messages = messages_of(broker)
    stored = unsettled(disk)
    durable = {position: m for position, m in messages.items() if m.row.durability}
    for position, message in durable.items():
        assert stored.get(position) == message.row.mailbox.name, f"{position} is in memory and not in the store"
    in_memory_only = Counter(m.row.mailbox.name for m in messages.values() if not m.row.durability)
    in_store = Counter(stored.values())
    for name, mailbox in desk.mailboxes.items():
        assert mailbox.depth == in_store[name] + in_memory_only[name], (
            f"{name}: depth {mailbox.depth}, {in_store[name]} in the store, {in_memory_only[name]} in memory only"
        )
    assert set(in_store) <= set(desk.mailboxes), "a mailbox with messages is not known"
    records: dict[int, Lease] = disk.tables[Lease]
    for message in durable.values():
        if message.lease is not None:
            record = records.get(message.lease.id)
            assert record is not None, f"{message.position} is leased and the store does not know"
            assert record.session == message.lease.session.id
            assert message.position in record.positions
    live = {message.lease.id for message in messages.values() if message.lease is not None}
    for lease, record in records.items():
        assert lease in live, f"lease {lease} of {record.session} is over and stands in the store"
        for position in record.positions:
            if position in stored:
                holder = messages[position].lease
                assert holder is not None, f"{position} is in lease {lease} of the store and in nobody's hands"
                assert holder.id == lease
    pasts = {position: record.blob for position, record in disk.tables[Past].items()}
    in_memory = {position: encode_past(m.past) for position, m in durable.items() if m.past is not None}
    assert pasts == in_memory, f"pasts of {sorted(pasts)} in the store, of {sorted(in_memory)} in memory"


def leftovers(broker: Broker) -> list[str]:
    """Name the tables that are not empty although everything is settled and everybody has gone."""
    desk = broker.desk
    tables: dict[str, object] = {
        "sessions": desk.sessions,
        "links": desk.links,
        "children": desk.children,
        "quarantine": desk.quarantine,
        "hosts": desk.hosts,
        "busy": desk.busy,
        "loose": desk.loose,
        "known": desk.known,
        "stalled": desk.outflow.stalled,
        "watchers": broker.watching.watched(),
        "waiting commits": desk.journal.waiting,
        "unwritten records": desk.journal.open.records,
        "scheduled": broker.schedule.waiting(),
        "suspects": broker.suspects.waiting(),
        "due suspects": broker.suspects.due,
        "depth": [name for name, mailbox in desk.mailboxes.items() if mailbox.depth],
        "consumers": [name for name, mailbox in desk.mailboxes.items() if mailbox.consumers or mailbox.owner],
    }
    return [name for name, table in tables.items() if table]
