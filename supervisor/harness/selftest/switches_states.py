"""Switches at the states of durable actors: when they are written, by whom, and what an owner knows of them."""

from __future__ import annotations

from typing import Any, Final

from ....actors.worker.hosting import Hosting
from ....transport.broker.settling import Settling
from ....transport.broker.states import States
from ....transport.store.memory import MemoryStore
from ....transport.store.records import ActorState
from .switch import Patch, Switch


def _never(_: Any) -> Any:
    def keep(self: Any, message: Any, outcome: Any) -> None:
        return None

    return keep


def _apart(original: Any) -> Any:
    def keep(self: Any, message: Any, outcome: Any) -> None:
        self._desk.journal.open.then.append(lambda: original(self, message, outcome))

    return keep


def _of_who_was_too_late(original: Any) -> Any:
    def late(self: Any, outcome: Any) -> None:
        message = self._desk.loose.get(outcome.position)
        if message is not None:
            self._states.keep(message, outcome)
        original(self, outcome)

    return late


def _goes_on(original: Any) -> Any:
    def run(self: Any, held: Any) -> Any:
        living = self._instances.get(held.delivery.mailbox)
        if living is not None:
            living.since = held.since
        return original(self, held)

    return run


def _lost(original: Any) -> Any:
    def open_store(self: Any) -> Any:
        self.disk.tables[ActorState].clear()
        return original(self)

    return open_store


def _untold(original: Any) -> Any:
    def read(self: Any, event: Any) -> None:
        event.states.clear()
        original(self, event)

    return read


SWITCHES: Final = (
    Switch(
        "an actor's state is not written",
        "What an actor keeps is on the disk when the message that changed it is over.",
        ("STATE",),
        Patch(States, "keep", _never),
    ),
    Switch(
        "state is written apart from the ack",
        "An actor's state and the end of the message that changed it are one commit.",
        ("STATE",),
        Patch(States, "keep", _apart),
    ),
    Switch(
        "a settle that lost its lease writes state",
        "Who has lost an actor's message changes nothing of its state.",
        ("STATE",),
        Patch(Settling, "late", _of_who_was_too_late),
    ),
    Switch(
        "an owner goes on with what it knew",
        "Who gets an actor again asks what became of its state meanwhile.",
        ("STATE",),
        Patch(Hosting, "run", _goes_on),
    ),
    Switch(
        "who gets an actor is told of no state",
        "Who gets an actor is told its state.",
        ("STATE",),
        Patch(States, "read", _untold),
    ),
    Switch(
        "states lost at restart",
        "The store keeps the states of actors.",
        ("STATE",),
        Patch(MemoryStore, "open", _lost),
    ),
)
