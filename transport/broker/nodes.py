"""Nodes: asked for children that are needed and not there (spec D25).

A node is asked with `Spawn`, which says how many children of a kind it should have; it decides. The same node is not
asked again for SPAWN_PATIENCE unless a child of that kind came meanwhile, and not at all once it said Goodbye.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..verbs import ChildKind, Spawn
from .desk import Desk
from .mailbox import ACTOR_PREFIX, Mailbox
from .sessions import Session

#: A node is asked again for a child of one kind after this long, if none came (microseconds).
SPAWN_PATIENCE = 5_000_000
#: Those who wait for a child look for one to ask this often.
ASK_EVERY = 1_000_000


def service_of(mailbox: Mailbox) -> str:
    """What a child must serve to be given suspects of this mailbox: the mailbox, or its actor's class."""
    return ACTOR_PREFIX + mailbox.actor_class if mailbox.is_actor else mailbox.name


class Nodes:
    """Finds nodes and asks them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def serving(self, service: str) -> list[str]:
        """Session ids of nodes with children that serve this, each once."""
        desk = self._desk
        children: Iterable[Session]
        if service.startswith(ACTOR_PREFIX):
            children = desk.hosts.get(service[len(ACTOR_PREFIX) :], {}).values()
        else:
            mailbox = desk.mailboxes.get(service)
            children = mailbox.consumers if mailbox is not None else ()
        return list(dict.fromkeys(child.parent for child in children if child.link))

    def ask(self, node: str, kind: ChildKind, count: int) -> bool:
        """Ask a node for children of this kind; False if it can't be asked, or was a moment ago."""
        desk = self._desk
        session = desk.sessions.get(node)
        if session is None or not session.link or session.goodbye:
            return False
        asked = session.spawn_asked.get(kind, 0)
        if asked and desk.now.boot - asked < SPAWN_PATIENCE:
            return False
        session.spawn_asked[kind] = desk.now.boot
        desk.send(session, Spawn(kind, count))
        return True
