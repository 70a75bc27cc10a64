"""Links: who may speak, as whom, and what is settled when they come back (spec D1, D15, D18, D19).

A session is known by its id for as long as it has leases or numbers to remember; a link belongs to one session, and
the newest link of a session is the one that counts. A child that re-attaches lists what it holds: what it no longer
has goes back to the front without blame, what it should no longer have is recalled before `Attached`.
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
    ChildKind,
    Goodbye,
    Hello,
    Ping,
    Recall,
    Reset,
    Role,
    TaskPolicy,
    ToBroker,
    Welcome,
)
from .deaths import Deaths
from .desk import Desk
from .events import CloseLink
from .held import Message, Stage
from .mailbox import ACTOR_PREFIX
from .results import Watching
from .sessions import Session

_policy_encoder = msgspec.msgpack.Encoder()


class Links:
    """Keeps sessions and links together."""

    def __init__(self, desk: Desk, watching: Watching, deaths: Deaths) -> None:
        self._desk = desk
        self._watching = watching
        self._deaths = deaths
        #: Frames that were none, by link.
        self._bad: dict[int, int] = {}
        self._ping_at = 0
        self._pings = 0

    def speaker(self, link: int, verb: ToBroker) -> Session | None:
        """The session that says this on this link, if it may; else the link has been told what is wrong."""
        desk = self._desk
        session = desk.links.get(link)
        if session is None:
            if type(verb) is Hello:
                self._hello(link, verb)
            else:
                desk.send(link, Reset("say Hello first: this link has no session"))
            return None
        if not isinstance(verb, ALLOWED[session.role]):
            name = type(verb).__name__
            self.drop(link, f"a {session.role.name.lower()} may not say {name}")
            return None
        return session

    def bad_frame(self, link: int, bad: BadFrame) -> None:
        """A frame that was none: nothing has changed; the peer is dropped when it goes on like this."""
        desk = self._desk
        count = self._bad.get(link, 0) + 1
        self._bad[link] = count
        if count >= desk.settings.bad_frames_max or link not in desk.links:
            desk.notice("bad_frame", link=link, reason=bad.reason)
            self.drop(link, f"not a frame of this protocol: {bad.reason}")

    def drop(self, link: int, reason: str) -> None:
        """Tell the peer why, and cut its connection."""
        desk = self._desk
        desk.send(link, Reset(reason, final=True))
        desk.effects.append(CloseLink(link, reason))
        self.closed(link)

    def closed(self, link: int) -> None:
        """The connection is gone, and everything that it had sent was read."""
        desk = self._desk
        self._bad.pop(link, None)
        session = desk.links.pop(link, None)
        if session is None or session.link != link:
            return
        session.link = 0
        session.closed_at = desk.now.boot
        session.withheld = []
        if session.role == Role.CLIENT:
            self._watching.forget_session(session)
            session.unconfirmed_bytes = 0
            del desk.sessions[session.id]
        else:
            self._deaths.link_closed(session)
            if session.role == Role.NODE and not any(True for _ in desk.children_of(session.id)):
                desk.sessions.pop(session.id, None)

    # --- hello ---------------------------------------------------------------------------------------------------

    def _hello(self, link: int, hello: Hello) -> None:
        desk = self._desk
        if hello.version != PROTOCOL_VERSION:
            self._refuse(link, f"this broker speaks version {PROTOCOL_VERSION} of the protocol, you {hello.version}")
            return
        if hello.role not in (Role.CLIENT, Role.NODE, Role.CHILD):
            self._refuse(link, f"{hello.role} is no role")
            return
        if len(desk.links) >= desk.settings.links_max:
            self._refuse(link, f"this broker has {len(desk.links)} links, its limit")
            return
        role = Role(hello.role)
        session = desk.sessions.get(hello.session)
        if session is not None:
            if session.role != role:
                self._refuse(link, f"session {hello.session} belongs to a {session.role.name.lower()}")
                return
            if session.link:
                if hello.link <= session.link_number:
                    self._refuse(link, f"session {hello.session} has a newer link")
                    return
                old = session.link
                desk.links.pop(old, None)
                desk.effects.append(CloseLink(old, "the session has a newer link"))
            # Until its Attach: what went out before it would be missing from the list of what it holds.
            session.slots = session.window = 0
        else:
            session = Session(hello.session, role, hello.node)
            desk.sessions[hello.session] = session
        session.node = hello.node
        session.host = hello.host
        session.pid = hello.pid
        session.incarnation = hello.incarnation
        session.link = link
        session.link_number = hello.link
        session.closed_at = 0
        desk.links[link] = session
        self._deaths.reattached(session)
        publishing = desk.publishing.get(hello.session)
        desk.send(
            link,
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

    def _refuse(self, link: int, reason: str) -> None:
        desk = self._desk
        desk.send(link, Reset(reason, final=True))
        desk.effects.append(CloseLink(link, reason))

    def goodbye(self, session: Session, verb: Goodbye) -> None:
        """The session ends in order."""
        desk = self._desk
        session.goodbye = True
        if session.role == Role.CLIENT:
            if desk.publishing.pop(session.id, None) is not None:
                desk.journal.write(SessionsGone([session.id]))
        else:
            session.slots = session.window = 0

    # --- attach --------------------------------------------------------------------------------------------------

    def attach(self, session: Session, verb: Attach) -> None:
        """A child consumes from now on, and says what it holds."""
        desk = self._desk
        session.kind = ChildKind(verb.kind) if verb.kind in (0, 1, 2) else ChildKind.POOL
        session.slots = max(0, verb.slots)
        session.window = min(max(verb.window, verb.slots), desk.settings.window_max)
        session.mailboxes = list(dict.fromkeys(verb.mailboxes))
        session.actors = list(dict.fromkeys(verb.actors))
        for policy in verb.policies:
            self._policy(policy)
        if session.kind == ChildKind.POOL:
            for name in session.mailboxes:
                mailbox = desk.mailbox(name)
                if session not in mailbox.consumers:
                    mailbox.consumers.append(session)
                desk.busy[name] = mailbox
        if session.actors:
            for name, mailbox in desk.mailboxes.items():
                if mailbox.is_actor and mailbox.depth:
                    desk.busy[name] = mailbox
        lost = self._reconcile(session, verb)
        if lost:
            desk.journal.say(session, Recall(lost), session.link)
        desk.journal.say(session, Attached(desk.epoch), session.link)
        parent = desk.sessions.get(session.parent)
        if parent is not None:
            parent.spawn_asked.pop(session.kind, None)

    def _policy(self, policy: TaskPolicy) -> None:
        desk = self._desk
        if desk.policies.get(policy.name) != policy:
            desk.policies[policy.name] = policy
            desk.journal.write(Policy(policy.name, _policy_encoder.encode(policy)))
            if policy.max_deliveries < 0:
                desk.notice("unbounded_redelivery", task=policy.name)

    def _reconcile(self, session: Session, verb: Attach) -> list[int]:
        """Compare what the child holds with what was leased to it; return what it must give up."""
        listed = {holding.position: holding for holding in verb.held}
        gone: list[Message] = []
        for position in sorted(session.held, reverse=True):
            message = session.held[position]
            holding = listed.pop(position, None)
            if holding is None or message.lease is None or holding.lease != message.lease.id:
                gone.append(message)
                continue
            message.lease.link = session.link
            if holding.started and message.stage == Stage.ACQUIRED:
                message.stage = Stage.STARTED
                message.row.mailbox.acquired -= 1
                message.row.mailbox.started += 1
                session.started.add(position)
            if message.row.mailbox.name.startswith(ACTOR_PREFIX):
                message.row.mailbox.owner = session
        for message in gone:
            self._deaths.not_held(message)
        return [position for position, holding in listed.items() if not holding.started]

    # --- heartbeats ----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Say something to every node each heartbeat, so that it can vouch for the broker (D19)."""
        desk = self._desk
        if desk.now.boot < self._ping_at:
            return
        self._ping_at = desk.now.boot + desk.settings.heartbeat
        self._pings += 1
        for link, session in desk.links.items():
            if session.role == Role.NODE:
                desk.send(link, Ping(self._pings))
