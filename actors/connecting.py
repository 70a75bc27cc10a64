"""How an app gets its link to the brokers, unless a test hands one in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..transport.peer.contract import Client
from .identity import origin

if TYPE_CHECKING:
    from .app import App


def addresses_of(url: Any) -> list[str]:
    """Return the brokers' addresses of a setting: one, several with `;` between them, or a list."""
    parts: Sequence[str] = url.split(";") if isinstance(url, str) else url
    return [part.strip() for part in parts if part.strip()]


def connect(app: App) -> Client:
    """Return a client of the app's brokers; it connects at its first call."""
    # ZeroMQ is imported here, so that a program which never calls anything does without.
    from ..transport.wire.client import Client as WireClient

    conf = app.conf
    return WireClient(addresses_of(conf.broker_url), origin=origin(), connect_timeout=conf.broker_connection_timeout)
