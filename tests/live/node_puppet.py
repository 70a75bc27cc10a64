"""A child of a node, for tests: it makes a page, says that it is ready, and does what it is told on a socket.

`settings["commands"]` is the path of a Unix socket where the test listens; the child's number is its first answer. It
ends as a real child does when its parent says StopChild, or is gone; `settings["stubborn"]` keeps it from that.
"""

from __future__ import annotations

import importlib
import os
import select
import socket
import threading
from typing import Any

from greenroom.actors.worker.control import (
    BodyEnded,
    BodyStarted,
    ChildConfig,
    FromChild,
    Leaving,
    Ready,
    StopChild,
    Unusable,
)
from greenroom.actors.worker.pipe import Pipe
from greenroom.transport.clock import system_now
from greenroom.transport.page_marks import Page

#: Beside the tests of the spawner; `NodeConfig.path` has it.
puppet: Any = importlib.import_module("puppet")


class Child:
    """The state of a child in a test."""

    def __init__(self, config: ChildConfig, descriptor: int) -> None:
        self.config = config
        self.pipe = Pipe(descriptor)
        self.page = Page.create(
            config.page,
            session=f"{config.node_session}/{config.number}",
            node=config.node,
            incarnation=config.incarnation,
            runners=1,
            heard=0,
        )
        self.commands = socket.socket(socket.AF_UNIX)

    def run(self) -> int:
        """Obey until the parent says stop."""
        self.commands.connect(str(self.config.settings["commands"]))
        puppet.send(self.commands, self.config.number)
        while True:
            ready, _, _ = select.select([self.pipe.fileno(), self.commands.fileno()], [], [])
            if self.pipe.fileno() in ready:
                for word in self.pipe.receive():
                    if isinstance(word, StopChild) and not self.config.settings.get("stubborn"):
                        return self.leave("asked to stop")
                if self.pipe.closed:
                    return 9
            if self.commands.fileno() in ready:
                word = puppet.receive(self.commands)
                if word is None:
                    # The test is over; the parent will say so as well.
                    self.commands = socket.socketpair()[0]
                    continue
                if word[0] == "exit":
                    return int(word[1])
                if word[0] == "leave":
                    return self.leave("told to")
                puppet.send(self.commands, self.obey(word))

    def leave(self, reason: str) -> int:
        self.say(Leaving(reason))
        return 0

    def obey(self, word: list[Any]) -> Any:
        match word:
            case ["ready"]:
                self.say(Ready(["tasks.add"]))
            case ["started", position, lease]:
                self.page.mark_started(0, position, lease)
            case ["finished"]:
                self.page.mark_finished(0)
            case ["limited", position, lease, limit]:
                self.say(BodyStarted(position, lease, system_now().boot, limit))
            case ["ended", position]:
                self.say(BodyEnded(position))
            case ["unusable", reason]:
                self.say(Unusable(reason, "a traceback"))
            case ["heard"]:
                return self.page.heard()
            case ["thread", "fill_stderr"]:
                threading.Thread(target=puppet.fill_stderr, daemon=True).start()
            case _:
                return puppet.obey(self.config, word)
        return None

    def say(self, word: FromChild) -> None:
        self.pipe.send(word)


def child(config: ChildConfig, descriptor: int) -> int:
    """Be told when to be ready."""
    return Child(config, descriptor).run()


def ready_child(config: ChildConfig, descriptor: int) -> int:
    """Be ready at once."""
    body = Child(config, descriptor)
    body.say(Ready(["tasks.add"]))
    return body.run()


def broken_child(config: ChildConfig, descriptor: int) -> int:
    """Tell that the application cannot be imported."""
    Pipe(descriptor).send(Unusable("No module named 'shop'", "Traceback: shop"))
    return 1


def crashing_child(config: ChildConfig, descriptor: int) -> int:
    """End before anything."""
    os._exit(12)
