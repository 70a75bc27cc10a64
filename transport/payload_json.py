"""Bodies in JSON, for other languages and for Celery's clients.

Owns the form of a `json` body, which is the one that Celery's own clients write: what JSON lacks is an
object with the two keys `__type__` and `__value__`, for datetime, date, time, decimal, uuid, base64 and
the labels of registered classes. As in any JSON, a tuple comes back as a list and a key as text; a set
is refused.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from .errors import DecodeError
from .payload_types import plain_form, registered_class, registered_label


def dumps(value: object) -> bytes:
    """Return a value as a body. Raises whatever the value's own methods or the library raise."""
    return _encoder.encode(value).encode()


def loads(data: bytes) -> object:
    """Return the value of a body.

    Raises DecodeError for what this form does not allow, and whatever the library or a registered class
    raises for the rest.
    """
    value: object = _decoder.decode(data.decode())
    return value


def _default(value: Any) -> Any:
    """Return what stands for a value that JSON lacks, as the library's hook for such values."""
    for base in type(value).__mro__:
        user_type = registered_class(base)
        if user_type is not None:
            plain = user_type.encode(value)
            return plain if user_type.label is None else {"__type__": user_type.label, "__value__": plain}
        writer = _WRITERS.get(base)
        if writer is not None:
            label, write = writer
            return {"__type__": label, "__value__": write(value)}
    return plain_form(value)


def _read_object(items: dict[str, Any]) -> Any:
    """Return what an object stands for, as the library's hook for objects."""
    if len(items) != 2 or "__type__" not in items or "__value__" not in items:
        return items
    label, plain = items["__type__"], items["__value__"]
    user_type = registered_label(label)
    if user_type is not None:
        return user_type.decode(plain)
    read = _READERS.get(label) if type(label) is str else None
    if read is None:
        raise DecodeError(f"no class is registered as {label!r:.80} on this end; call register_type here too")
    return read(plain)


def _read_uuid(plain: Any) -> UUID:
    if not isinstance(plain, dict):
        return UUID(plain)
    return UUID(cast("dict[str, str]", plain)["hex"])


def _write_bytes(value: bytes | bytearray) -> str:
    return b64encode(value).decode()


# A datetime is a date as well; the search goes by the value's own class first.
_WRITERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    datetime: ("datetime", datetime.isoformat),
    date: ("date", date.isoformat),
    time: ("time", time.isoformat),
    Decimal: ("decimal", str),
    UUID: ("uuid", lambda value: {"hex": value.hex}),
    bytes: ("base64", _write_bytes),
    bytearray: ("base64", _write_bytes),
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    # Celery's clients may send a date with its midnight.
    "date": lambda plain: datetime.fromisoformat(plain).date(),
    "time": time.fromisoformat,
    "decimal": Decimal,
    "uuid": _read_uuid,
    "base64": lambda plain: b64decode(plain, validate=True),
    "bytes": lambda plain: plain.encode(),
}

_encoder = json.JSONEncoder(default=_default, separators=(",", ":"))
_decoder = json.JSONDecoder(object_hook=_read_object)
