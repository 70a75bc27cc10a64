"""Links: who may speak, as whom, and what is settled when they come back (spec D1, D9, D15, D18, D19).

A session is known by its id for as long as it has leases or numbers to remember; a link belongs to one session, and
the newest link of a session is the one that counts. A child is given nothing on a new link before its Attach, which
lists what it holds: what it no longer has goes back to the front without blame, what it should no longer have is
recalled before `Attached`.
"""

from __future__ import annotations

import msgspec

from ..codec import BadFrame
from ..store.records import Policy, SessionsGone
from ..verbs import (
    ALLOWED,
    PROTOCOL_VERSION,
    Attach,
    Attached,
    Bounds,
    ChildKind,
    Credit,
    Goodbye,
    Hello,
    Recall,
    Reset,
    Return,
    Role,
    TaskPolicy,
    ToBroker,
    Welcome,
)
from .deaths import Deaths
from .desk import Desk
from .events import CloseLink
from .held import Message, Stage
from .hosting import Hosting
from .mailbox import ACTOR_PREFIX
from .places import Places
from .results import Watching
from .sessions import Session

#: Task types that workers may register, and actor classes that one child may name.
POLICIES_MAX = 100_000
CLASSES_MAX = 10_000

_policy_encoder = msgspec.msgpack.Encoder()


class Links:
    """Keeps sessions and links together."""

    def __init__(self, desk: Desk, watching: Watching, deaths: Deaths, places: Places, hosting: Hosting) -> None:
        self._desk = desk
        self._watching = watching
        self._deaths = deaths
        self._places = places
        self._hosting = hosting
        self._ping_at = 0

    def speaker(self, link: int, verb: ToBroker) -> Session | None:
        """The session that says this on this link, if it may; else the link is told what is wrong, and cut."""
        session = self._desk.links.get(link)
        if session is None:
            self._refuse(link, "say Hello first: this link has no session", final=False)
            return None
        if not isinstance(verb, ALLOWED[session.role]):
            name = type(verb).__name__
            self.drop(link, f"a {session.role.name.lower()} may not say {name}")
            return None
        return session

    def bad_frame(self, link: int, bad: BadFrame) -> None:
        """A frame that was none: nothing has changed, and nobody knows what it was to say. The link is cut, and a
        peer of this protocol says it again on his next one."""
        desk = self._desk
        desk.notice("bad_frame", link=link, reason=bad.reason)
        self.drop(link, f"not a frame of this protocol: {bad.reason}", final=link not in desk.links)

    def drop(self, link: int, reason: str, *, final: bool = True) -> None:
        """Tell the peer why, and cut its connection. `final`: it need not try again."""
        self._refuse(link, reason, final=final)
        self.closed(link)

    def _refuse(self, link: int, reason: str, *, final: bool) -> None:
        desk = self._desk
        desk.send_link(link, Reset(reason, final))
        desk.effects.append(CloseLink(link, reason))

    def closed(self, link: int) -> None:
        """The connection is gone, and everything that it had sent was read."""
        desk = self._desk
        session = desk.links.pop(link, None)
        if session is None or session.link != link:
            return
        session.link = 0
        session.closed_at = desk.now.boot
        session.attached = session.open = False
        desk.outflow.forget(session)
        self._watching.forget_session(session)
        session.unconfirmed_bytes = 0
        publishing = desk.publishing.pop(session.id, None)
        if publishing is not None:
            # To the end: those that are away longest stand in front.
            desk.publishing[session.id] = publishing
        if session.role == Role.CLIENT:
            del desk.sessions[session.id]
        else:
            self._deaths.link_closed(session)
            if session.role == Role.NODE and session.id not in desk.children:
                desk.sessions.pop(session.id, None)

    # --- hello ---------------------------------------------------------------------------------------------------

    def hello(self, link: int, hello: Hello) -> None:
        """A link says whose it is."""
        desk = self._desk
        refusal = self._refusal(hello)
        if refusal:
            self._refuse(link, refusal, final=True)
            return
        if desk.draining:
            self._refuse(link, "this broker is shutting down", final=False)
            return
        session = desk.sessions.get(hello.session)
        if session is None:
            session = self._new_session(hello)
        elif session.link:
            desk.links.pop(session.link, None)
            desk.effects.append(CloseLink(session.link, "the session has a newer link"))
            session.attached = session.open = False
            desk.outflow.forget(session)
            self._watching.forget_session(session)
        session.node = hello.node
        session.host = hello.host
        session.pid = hello.pid
        session.incarnation = hello.incarnation
        session.link = link
        session.link_number = hello.link
        session.closed_at = 0
        session.goodbye = False
        session.trouble = ""
        desk.links[link] = session
        self._deaths.reattached(session)
        publishing = desk.publishing.get(hello.session)
        desk.send(
            session,
            Welcome(
                PROTOCOL_VERSION,
                desk.name,
                desk.epoch,
                publishing.committed if publishing is not None else 0,
                desk.settings.publish_bytes_max,
                known=publishing is not None or bool(session.held),
                name=hello.node,
            ),
        )

    def _refusal(self, hello: Hello) -> str:
        """Why this Hello opens nothing; empty if it does."""
        desk = self._desk
        if hello.version != PROTOCOL_VERSION:
            return f"this broker speaks version {PROTOCOL_VERSION} of the protocol, you {hello.version}"
        if hello.role not in (Role.CLIENT, Role.NODE, Role.CHILD):
            return f"{hello.role} is no role"
        if len(desk.links) >= desk.settings.links_max:
            return f"this broker has {len(desk.links)} links, its limit"
        session = desk.sessions.get(hello.session)
        if session is not None and session.role != hello.role:
            return f"session {hello.session} belongs to a {session.role.name.lower()}"
        if session is not None and session.link and hello.link <= session.link_number:
            return f"session {hello.session} has a newer link"
        return ""

    def _new_session(self, hello: Hello) -> Session:
        desk = self._desk
        session = Session(hello.session, Role(hello.role), hello.node)
        desk.sessions[session.id] = session
        if session.role == Role.CHILD:
            desk.children.setdefault(session.parent, {})[session.id] = session
        return session

    def goodbye(self, session: Session, verb: Goodbye) -> None:
        """The session ends in order: it is given nothing more, and its numbers are forgotten."""
        desk = self._desk
        session.goodbye = True
        session.slots = session.window = 0
        if desk.publishing.pop(session.id, None) is not None:
            desk.journal.write(SessionsGone([session.id]))

    # --- attach --------------------------------------------------------------------------------------------------

    def attach(self, session: Session, verb: Attach) -> None:
        """A child consumes from now on, and says what it holds (the first time on each link)."""
        desk = self._desk
        mailboxes = list(dict.fromkeys(verb.mailboxes))
        new = sum(1 for name in mailboxes if name not in desk.mailboxes)
        if len(desk.mailboxes) + new > desk.settings.mailboxes_max:
            self.drop(session.link, f"this broker has {len(desk.mailboxes)} mailboxes, its limit; {new} would be new")
            return
        first = not session.attached
        self._deaths.detach(session)
        session.kind = ChildKind(verb.kind) if verb.kind in (0, 1, 2) else ChildKind.POOL
        session.slots = max(0, verb.slots)
        session.window = min(max(0, verb.window), desk.settings.window_max)
        session.mailboxes = mailboxes
        session.actors = list(dict.fromkeys(verb.actors))[:CLASSES_MAX]
        session.serves = dict.fromkeys([*mailboxes, *(ACTOR_PREFIX + name for name in session.actors)])
        for policy in verb.policies:
            self._policy(policy)
        if verb.bounds is not None and session.kind == ChildKind.POOL:
            for name in mailboxes:
                self._bound(name, verb.bounds)
        if first:
            lost = self._reconcile(session, verb)
            if lost:
                desk.journal.say(session, Recall(lost), session.link)
        desk.journal.say(session, Attached(desk.epoch), session.link)
        session.attached = True
        desk.outflow.reopen(session)
        self._subscribe(session)
        parent = desk.sessions.get(session.parent)
        if parent is not None:
            parent.spawn_asked.pop(session.kind, None)

    def _subscribe(self, session: Session) -> None:
        """Let what the session serves know of it, and look at what waited for it."""
        desk = self._desk
        if session.kind == ChildKind.POOL:
            for name in session.mailboxes:
                mailbox = desk.mailbox(name)
                mailbox.consumers.append(session)
                desk.rouse(mailbox)
        elif session.kind == ChildKind.QUARANTINE:
            desk.quarantine[session.id] = session
        for actor_class in session.actors:
            desk.hosts.setdefault(actor_class, {})[session.id] = session
        self._hosting.attached(session)
        desk.wake(session)

    def _bound(self, name: str, bounds: Bounds) -> None:
        max_messages = bounds.max_messages if bounds.max_messages > 0 else None
        self._desk.declare(name, max_messages, bounds.on_full if bounds.on_full in ("reject", "block") else None)

    def _policy(self, policy: TaskPolicy) -> None:
        desk = self._desk
        if desk.policies.get(policy.name) == policy:
            return
        if policy.name not in desk.policies and len(desk.policies) >= POLICIES_MAX:
            desk.notice("policies_full", task=policy.name, limit=POLICIES_MAX)
            return
        desk.learn(policy)
        desk.journal.write(Policy(policy.name, _policy_encoder.encode(policy)))
        if policy.max_deliveries < 0:
            desk.notice("unbounded_redelivery", task=policy.name)

    def _reconcile(self, session: Session, verb: Attach) -> list[int]:
        """Compare what the child holds with what was leased to it; return what it must give up."""
        # It may run a message under an old lease and hold the same one under a new lease.
        listed = {(holding.position, holding.lease): holding for holding in verb.held}
        lost: list[Message] = []
        for position, message in session.held.items():
            holding = listed.pop((position, message.lease.id), None) if message.lease is not None else None
            if holding is None or message.lease is None:
                lost.append(message)
                continue
            message.lease.link = session.link
            if holding.started and message.stage == Stage.ACQUIRED:
                message.stage = Stage.STARTED
                message.row.mailbox.acquired -= 1
                message.row.mailbox.started += 1
            if message.row.mailbox.is_actor:
                self._desk.own(message.row.mailbox, session)
        for message in lost:
            self._places.back(message)
        # Also what it has under an older lease than the one that it never got.
        return [holding.position for holding in listed.values() if not holding.started]

    # --- credit --------------------------------------------------------------------------------------------------

    def credit(self, session: Session, verb: Credit | Return) -> None:
        """From now on the session may hold this much."""
        session.window = min(max(0, verb.window), self._desk.settings.window_max)
        self._has_room(session)

    def _has_room(self, session: Session) -> None:
        """The session may take again: look at what waits for it, or for a host like it."""
        if session.room > 0:
            if session.starving:
                self._desk.wake(session)
            if session.kind == ChildKind.ACTORS:
                self._hosting.attached(session)

    # --- heartbeats ----------------------------------------------------------------------------------------------

    def pong(self, session: Session, number: int) -> None:
        """Everything that was said before this number was read."""
        desk = self._desk
        if desk.outflow.pong(desk.effects, session, number, desk.now.boot):
            self._has_room(session)

    def tick(self) -> None:
        """Say something to every node each heartbeat (D19), and cut those that do not read (D9)."""
        desk = self._desk
        if desk.outflow.stalled:
            for session in desk.outflow.overdue(desk.now.boot):
                self.drop(session.link, "it does not read what it is sent", final=False)
        if desk.now.boot < self._ping_at:
            return
        self._ping_at = desk.now.boot + desk.settings.heartbeat
        ping = desk.outflow.ping()
        for link, session in desk.links.items():
            if session.role == Role.NODE:
                desk.send_link(link, ping)
