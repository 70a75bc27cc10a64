"""What the settings say of the bound of the mailboxes that an application uses.

A client declares it before the first message to a mailbox, a worker when it consumes from one. It is the mailbox's own
from then on, whoever sends to it; the broker's own defaults count for all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...transport.verbs import Bounds
from ..errors import ImproperlyConfigured

if TYPE_CHECKING:
    from .conf import Settings

_POLICIES = ("reject", "block")


def bounds_of(conf: Settings) -> Bounds | None:
    """Return what was given of `mailbox_max_messages` and `mailbox_on_full`; None where neither was.

    Raises ImproperlyConfigured for what cannot be.
    """
    most: Any = conf.mailbox_max_messages if conf.value_set_for("mailbox_max_messages") else None
    on_full: Any = conf.mailbox_on_full if conf.value_set_for("mailbox_on_full") else None
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise ImproperlyConfigured(f"the setting mailbox_max_messages is {most!r}; expected a number from 1")
    if on_full is not None and on_full not in _POLICIES:
        raise ImproperlyConfigured(f"the setting mailbox_on_full is {on_full!r}; expected 'reject' or 'block'")
    if most is None and on_full is None:
        return None
    return Bounds(most or 0, on_full or "")
