"""Queues and exchanges: Celery's way to name the mailbox that a message goes to.

Owns `Queue` and `Exchange` (kombu's, with the same attributes, are taken as well) and `Queues`, which finds the
mailbox for a queue's name or for an exchange and a routing key. A queue is a mailbox of the same name; exchanges
exist only here, on the sender's side. A routing key that fits several queues goes to the first of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, cast

from ..errors import QueueNotFound


class Exchange:
    """Where routing keys are looked up. `type`: direct, topic or fanout."""

    def __init__(self, name: str = "", type: str = "direct", **_arguments: Any) -> None:
        self.name = name
        self.type = type

    def __repr__(self) -> str:
        return f"Exchange({self.name!r}, type={self.type!r})"


class Queue:
    """A mailbox, and the routing key by which its exchange finds it."""

    def __init__(
        self,
        name: str = "",
        exchange: Exchange | str | None = None,
        routing_key: str = "",
        **arguments: Any,
    ) -> None:
        self.name = name
        self.exchange = Exchange(exchange or "") if not isinstance(exchange, Exchange) else exchange
        self.routing_key = routing_key
        #: What a broker of another kind would be told; nothing here depends on it.
        self.arguments = arguments

    def __repr__(self) -> str:
        return f"Queue({self.name!r}, {self.exchange!r}, {self.routing_key!r})"


class Queues:
    """The queues that an application declared, by name."""

    def __init__(
        self,
        declared: Any,
        *,
        default_exchange: str,
        default_exchange_type: str,
        default_routing_key: str,
        create_missing: bool,
    ) -> None:
        self.create_missing = create_missing
        self._default_exchange = default_exchange
        self._queues: Final[dict[str, tuple[str, str, str]]] = {}
        for name, queue in _declarations(declared):
            exchange: Any = getattr(queue, "exchange", None)
            exchange_name = exchange if isinstance(exchange, str) else getattr(exchange, "name", "")
            exchange_type = getattr(exchange, "type", None) or default_exchange_type
            key = getattr(queue, "routing_key", None) or default_routing_key
            self._queues[name] = (exchange_name or default_exchange, exchange_type, key)

    @property
    def names(self) -> list[str]:
        """The declared queues, in order."""
        return list(self._queues)

    def mailbox(self, options: Mapping[str, Any], default: Any) -> str:
        """Return the mailbox that these options of a call mean; `default` where they mean none.

        Raises QueueNotFound for a queue that was not declared, if missing ones are not to be created, and for a
        routing key that leads nowhere.
        """
        queue = options.get("queue")
        if queue is not None:
            return self._checked(queue_name(queue))
        exchange: Any = options.get("exchange")
        exchange_name = exchange if isinstance(exchange, str | None) else str(getattr(exchange, "name", ""))
        key = options.get("routing_key")
        if key is None and not exchange_name:
            return queue_name(default)
        for name, (queue_exchange, queue_type, queue_key) in self._queues.items():
            if queue_exchange == (exchange_name or self._default_exchange) and _fits(queue_type, queue_key, key):
                return name
        if not exchange_name and key:
            # AMQP's default exchange knows every queue by its name.
            return self._checked(key)
        declared = ", ".join(self._queues) or "none"
        raise QueueNotFound(
            f"no queue is bound to exchange {exchange_name!r} with routing key {key!r}; declared in task_queues: "
            f"{declared}. Name a queue with queue=, or declare one"
        )

    def _checked(self, name: str) -> str:
        if not self.create_missing and name not in self._queues:
            raise QueueNotFound(
                f"queue {name!r} is not in task_queues ({', '.join(self._queues) or 'empty'}), and "
                "task_create_missing_queues is off; declare it, or allow missing queues to be created"
            )
        return name


def queue_name(queue: Any) -> str:
    """Return the name of a queue that is given by its name or as an object."""
    return queue if type(queue) is str else str(getattr(queue, "name", queue))


def _declarations(declared: Any) -> Iterable[tuple[str, Any]]:
    if not declared:
        return
    if isinstance(declared, Mapping):
        for name, options in cast("Mapping[str, Any]", declared).items():
            if isinstance(options, Mapping):
                yield name, _from_options(name, cast("Mapping[str, Any]", options))
            else:
                yield name, options
        return
    for queue in cast("Iterable[Any]", declared):
        yield queue_name(queue), queue


def _from_options(name: str, options: Mapping[str, Any]) -> Queue:
    exchange = options.get("exchange") or ""
    if not isinstance(exchange, Exchange):
        exchange = Exchange(exchange, options.get("exchange_type") or "direct")
    return Queue(name, exchange, options.get("routing_key") or options.get("binding_key") or "")


def _fits(kind: str, binding: str, key: str | None) -> bool:
    if kind == "fanout":
        return True
    if kind == "topic":
        return key is not None and _topic(binding).fullmatch(key) is not None
    return binding == key


@lru_cache(maxsize=1024)
def _topic(binding: str) -> re.Pattern[str]:
    """Return a pattern for a topic binding: `*` is one word, `#` any number of words."""
    pattern = ""
    for index, word in enumerate(binding.split(".")):
        dot = r"\." if index else ""
        if word == "#":
            pattern += rf"(?:{dot}[^.]+(?:\.[^.]+)*)?" if index else r"(?:[^.]+(?:\.[^.]+)*)?"
        else:
            pattern += dot + (r"[^.]+" if word == "*" else re.escape(word))
    return re.compile(pattern)
