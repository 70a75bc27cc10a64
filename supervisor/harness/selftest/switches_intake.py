"""Switches at the door: frames that are none, words that somebody may not say, and what operators ask for."""

from __future__ import annotations

from typing import Any, Final

from ....transport.broker.admin import Admin
from ....transport.broker.links import Links
from ....transport.verbs import Op
from .switch import Patch, Switch


def _forgets_the_speaker(original: Any) -> Any:
    def bad_frame(self: Any, link: int, bad: Any) -> None:
        session = self._desk.links.get(link)
        if session is not None:
            self._desk.publishing.pop(session.id, None)
        original(self, link, bad)

    return bad_frame


def _anybody_is_somebody(original: Any) -> Any:
    def speaker(self: Any, link: int, verb: Any) -> Any:
        if link in self._desk.links:
            return original(self, link, verb)
        return next((session for session in self._desk.sessions.values() if session.held), None)

    return speaker


def _without_roles(original: Any) -> Any:
    def speaker(self: Any, link: int, verb: Any) -> Any:
        session = self._desk.links.get(link)
        return original(self, link, verb) if session is None else session

    return speaker


def _twice(original: Any) -> Any:
    def redrive(self: Any, letter: Any, mailbox: Any) -> None:
        original(self, letter, mailbox)
        original(self, letter, mailbox)

    return redrive


def _redrives_what_is_purged(original: Any) -> Any:
    def act(self: Any, waiting: Any, letters: Any) -> None:
        waiting.op = Op.DEAD_REDRIVE
        original(self, waiting, letters)

    return act


SWITCHES: Final = (
    Switch(
        "a bad frame makes its sender forgotten",
        "A frame that is none costs its link and changes nothing else.",
        ("WIRE", "D7", "AMO", "SPUR"),
        Patch(Links, "bad_frame", _forgets_the_speaker),
    ),
    Switch(
        "a stranger is heard",
        "On a link without a session nothing is heard but Hello.",
        ("WIRE", "LOSS", "QUIESCE"),
        Patch(Links, "speaker", _anybody_is_somebody),
    ),
    Switch(
        "everybody may say everything",
        "A client cannot settle what children run.",
        ("WIRE", "LOSS", "RESULT", "ALO", "QUIESCE"),
        Patch(Links, "speaker", _without_roles),
    ),
    Switch(
        "a dead letter is redriven twice",
        "What is redriven is there once.",
        ("DLQ", "AMO", "RESULT"),
        Patch(Admin, "_redrive", _twice),
    ),
    Switch(
        "what is purged runs again",
        "A dead letter that was purged is gone.",
        ("DLQ",),
        Patch(Admin, "_act_on_dead", _redrives_what_is_purged),
    ),
)
