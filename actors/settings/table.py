"""Settings as people see them, with the secrets taken out.

A value is masked when its name says that it is secret, and a password inside an address always.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pprint import pformat
from typing import Any, Final, cast

MASK: Final = "********"

_SECRET_NAME: Final = re.compile(
    r"API|TOKEN|KEY|SECRET|PASS|PROFANITIES_LIST|PROFANITY|SIGNATURE|DATABASE", re.IGNORECASE
)
#: Names with such a part that hold no secret.
_HARMLESS: Final = frozenset({"task_default_routing_key", "database_engine_options"})
_ADDRESS: Final = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)(?P<user>[^:/@\s]*):(?P<password>[^@\s]*)@")


def masked(name: str, value: Any) -> Any:
    """Return what may be shown of a setting's value."""
    if isinstance(value, Mapping):
        items = cast("Mapping[object, Any]", value)
        return {key: masked(str(key), item) for key, item in items.items()}
    if _SECRET_NAME.search(name) and name not in _HARMLESS and value:
        return MASK
    if isinstance(value, str):
        return without_password(value)
    if isinstance(value, list | tuple):
        parts = cast("list[object]", value)
        shown = [masked("", part) for part in parts]
        return shown if isinstance(value, list) else tuple(shown)
    return value


def without_password(address: str) -> str:
    """Return an address, or several in one text, with `**` in place of each password."""
    return _ADDRESS.sub(lambda match: f"{match['scheme']}{match['user']}:**@", address)


def humanize(settings: Mapping[str, Any]) -> str:
    """Return settings as text, a line each, by name."""
    return "\n".join(f"{name}: {pformat(settings[name], width=50)}" for name in sorted(settings))
