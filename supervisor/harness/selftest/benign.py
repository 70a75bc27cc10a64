"""Harmless changes: another order or another pace, as allowed as the one there is. Nobody may raise an alarm."""

from __future__ import annotations

import random
from typing import Any, Final

from ....transport.broker import deaths, dispatch
from ....transport.broker.accept import Accepting
from ....transport.broker.core import Broker
from ....transport.broker.journal import Journal
from ....transport.broker.links import Links
from ....transport.broker.suspects import Suspects
from ....transport.peer.attachment import Attachment
from ....transport.store.records import Synchronous
from ....transport.verbs import Recall
from .. import broker_process, node_process
from .switch import Patch, Switch


def _doubled(original: Any) -> Any:
    return original * 2


def _commit_slower(original: Any) -> Any:
    def init(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        self.commit_time *= 2

    return init


def _most_loaded_first(original: Any) -> Any:
    def load(session: Any) -> Any:
        return tuple(-part for part in original(session))

    return load


def _recalled_twice(original: Any) -> Any:
    def reconcile(self: Any, session: Any, verb: Any) -> Any:
        lost = original(self, session, verb)
        if lost:
            self._desk.journal.say(session, Recall(lost), session.link)
        return lost

    return reconcile


def _with_an_empty_frame(original: Any) -> Any:
    def flush(self: Any) -> Any:
        messages = original(self)
        return [*messages, [b"\x90"]] if messages else messages

    return flush


def _later(original: Any) -> Any:
    def delay(past: Any, id: str) -> int:
        before: int = original(past, id)
        return before + 300_000

    return delay


def _youngest_first(original: Any) -> Any:
    def put(self: Any, service: str, entry: Any) -> None:
        original(self, service, (-entry[0], *entry[1:]))

    return put


def _applied_twice(original: Any) -> Any:
    def is_new(self: Any, session: Any, number: int) -> bool:
        new: bool = original(self, session, number)
        original(self, session, number)
        return new

    return is_new


def _always_synced(original: Any) -> Any:
    def cut(self: Any) -> Any:
        self.open.synchronous = Synchronous.FULL
        return original(self)

    return cut


def _confirmed_twice(original: Any) -> Any:
    def committed(self: Any, link: int, publishing: Any, accepted: Any) -> None:
        original(self, link, publishing, accepted)
        session = self._desk.sessions.get(accepted.session)
        if session is not None and session.link:
            self._desk.send(session, self._outcome(publishing, accepted.number))

    return committed


def _random_load(_: Any) -> Any:
    chance = random.Random(1)

    def load(session: Any) -> Any:
        return (0 if session.free_slots > 0 else 1, chance.random())

    return load


SWITCHES: Final = (
    Switch("commits take twice as long", "", (), Patch(broker_process.BrokerProcess, "__init__", _commit_slower)),
    Switch("forks take twice as long", "", (), Patch(node_process, "FORK_TIME", _doubled)),
    Switch("who holds most is served first", "", (), Patch(dispatch, "_load", _most_loaded_first)),
    Switch("ready messages are shared by chance", "", (), Patch(dispatch, "_load", _random_load)),
    Switch("recalls are sent twice", "", (), Patch(Links, "_reconcile", _recalled_twice)),
    Switch("empty frames are sent", "", (), Patch(Attachment, "flush", _with_an_empty_frame)),
    Switch("what died waits longer", "", (), Patch(deaths, "delay_before", _later)),
    Switch("settles are answered twice", "", (), Patch(Broker, "_is_new", _applied_twice)),
    Switch("confirms are sent twice", "", (), Patch(Accepting, "_committed", _confirmed_twice)),
    Switch("every commit is synced", "", (), Patch(Journal, "cut", _always_synced)),
    Switch("the youngest suspect goes first", "", (), Patch(Suspects, "put", _youngest_first)),
)
