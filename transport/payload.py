"""Bodies: what a message carries for its handler, as bytes and back.

Owns `Body`, `encode` and `decode`, and the registry of serializers:

    msgpack      the default; keeps datetimes, decimals, UUIDs, tuples, sets, bytes, large integers and
                 registered classes as they are
    json         for other languages, in the form that Celery's clients write
    pickle       any Python object that can be imported where it is read
    cloudpickle  any Python object, with its code

The last two run code when they are read. They are made and read only with a key, they are always signed,
and a body that is unsigned or wrongly signed is never loaded; the others are never signed. Brokers carry
bodies and never call this file. Limits: a body is `BODY_BYTES_MAX` long at most when it is decoded, also
after decompression, and nests as deeply as its serializer allows (`payload_msgpack.py`; in JSON, as
Python's recursion limit).
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, NamedTuple

from . import payload_json, payload_msgpack
from .compression import compress, decompress
from .errors import ContentDisallowed, DecodeError, EncodeError, SecurityError
from .payload_types import register_type
from .signing import seal, unseal
from .unencodable import explain, find_culprit

__all__ = [
    "BODY_BYTES_MAX",
    "MEDIA_TYPES",
    "Body",
    "canonical_content_type",
    "decode",
    "encode",
    "register_serializer",
    "register_type",
    "serializer_names",
]

#: What `decode` takes unless it is told otherwise, decompressed: four times the largest frame.
BODY_BYTES_MAX = 64 * 1024 * 1024


class Body(NamedTuple):
    """Bytes, and what they are.

    `content_type` is the serializer's short name, `encoding` the compression's or empty.
    """

    content_type: str
    encoding: str
    data: bytes

    @property
    def content(self) -> str:
        """Both names in one, as an envelope holds them: "msgpack", or "msgpack+gzip"."""
        return f"{self.content_type}+{self.encoding}" if self.encoding else self.content_type

    @classmethod
    def of(cls, content: str, data: bytes) -> Body:
        """Return the body for an envelope's two fields."""
        content_type, _, encoding = content.partition("+")
        return cls(content_type, encoding, data)


class _Serializer(NamedTuple):
    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]
    signed: bool


def encode(
    value: object,
    serializer: str = "msgpack",
    *,
    compression: str | None = None,
    key: bytes | None = None,
    context: bytes = b"",
) -> Body:
    """Return a value as a body.

    `key` signs what must be signed, pickle and cloudpickle; `context` is what their signature binds the
    body to, and `decode` needs the same. Raises EncodeError, which names the part that cannot be encoded,
    and SecurityError for a pickle without a key.
    """
    found = _SERIALIZERS.get(serializer)
    if found is None:
        serializer = canonical_content_type(serializer)
        found = _SERIALIZERS.get(serializer)
        if found is None:
            offered = ", ".join(serializer_names())
            raise EncodeError(f"no serializer is named {serializer!r}; there are {offered}")
    if found.signed and not key:
        raise SecurityError(
            f"a {serializer} body must be signed and there is no key; set GREENROOM_SIGNING_KEY on both ends"
        )
    try:
        data = found.dumps(value)
    except Exception as error:
        # The caller learns of it, with the place; values with methods of their own may raise anything.
        raise _encode_error(value, serializer, found, error) from error
    encoding = ""
    if compression:
        encoding, data = compress(data, compression)
    if found.signed and key:
        # Signed last, so that nothing is even decompressed before the signature has been verified.
        data = seal(data, key=key, context=context, content_type=serializer, encoding=encoding)
    return Body(serializer, encoding, data)


def decode(
    body: Body,
    *,
    accept: Container[str] = ("msgpack", "json"),
    key: bytes | None = None,
    context: bytes = b"",
    bytes_max: int = BODY_BYTES_MAX,
) -> object:
    """Return the value of a body.

    `accept` holds the content types that may be decoded, by short or media type name. Raises
    ContentDisallowed for any other, SecurityError for a pickle whose signature is missing or wrong, and
    DecodeError for bytes that are not what they should be or are more than `bytes_max`.
    """
    content_type, encoding, data = body
    found = _SERIALIZERS.get(content_type)
    if found is None or content_type not in accept:
        content_type, found = _accepted(content_type, accept)
    if len(data) > bytes_max:
        raise DecodeError(f"a {content_type} body is {len(data)} bytes long; the limit is {bytes_max}")
    if type(data) is not bytes:
        data = bytes(data)
    if found.signed:
        if not key:
            raise SecurityError(
                f"a {content_type} body came and was not loaded: there is no key to verify it with; "
                "set GREENROOM_SIGNING_KEY on both ends"
            )
        data = unseal(data, key=key, context=context, content_type=content_type, encoding=encoding)
    if encoding:
        data = decompress(data, encoding, bytes_max=bytes_max)
    try:
        return found.loads(data)
    except DecodeError:
        raise
    except Exception as error:
        # The caller learns of it; a damaged body and a class's own method may raise anything.
        reason = f"{type(error).__name__}: {error}"
        raise DecodeError(f"a body of {len(data)} bytes is not good {content_type}: {reason}") from error


# ---- the registry ----

#: The media types of the short names, for gateways and bridges.
MEDIA_TYPES = {
    "json": "application/json",
    "msgpack": "application/x-msgpack",
    "pickle": "application/x-python-serialize",
    "cloudpickle": "application/x-python-cloudpickle",
}
_SHORT_NAMES = {media_type: name for name, media_type in MEDIA_TYPES.items()}
_SHORT_NAMES["application/msgpack"] = "msgpack"


def register_serializer(
    name: str, dumps: Callable[[Any], bytes], loads: Callable[[bytes], Any], *, media_type: str | None = None
) -> None:
    """Add a serializer, for both directions; what is encoded with it must be accepted by name.

    `dumps` and `loads` may raise anything: it becomes EncodeError and DecodeError. Raises ValueError for
    a name that exists.
    """
    if name in _SERIALIZERS:
        raise ValueError(f"there is a serializer named {name!r} already; choose another name")
    _SERIALIZERS[name] = _Serializer(dumps, loads, signed=False)
    if media_type is not None:
        MEDIA_TYPES[name] = media_type
        _SHORT_NAMES[media_type] = name


def serializer_names() -> list[str]:
    """Return the short names of all serializers, in alphabetical order."""
    return sorted(_SERIALIZERS)


def canonical_content_type(name: str) -> str:
    """Return the short name for a short name or a media type; an unknown name comes back as it is."""
    return _SHORT_NAMES.get(name.partition(";")[0].strip().lower(), name)


def _accepted(content_type: str, accept: Container[str]) -> tuple[str, _Serializer]:
    """Return the short name and the serializer of a content type, if it is accepted by any of its names."""
    name = canonical_content_type(content_type)
    found = _SERIALIZERS.get(name)
    if found is not None and (name in accept or MEDIA_TYPES.get(name, name) in accept):
        return name, found
    known = "" if found is not None else ", which no serializer here knows"
    raise ContentDisallowed(
        f"a body came with content type {content_type!r:.80}{known}; this end accepts {accept!r}. "
        "Send another type, or add it to accept_content here"
    )


def _encode_error(value: object, serializer: str, found: _Serializer, error: Exception) -> Exception:
    """Return the error to raise for a value that did not encode."""

    def attempt(part: object) -> Exception | None:
        try:
            found.dumps(part)
        except Exception as failure:
            # This failure is the answer.
            return failure
        return None

    culprit = find_culprit(value, attempt, attributes=found.signed)
    # Nothing fails any more: then it was not the value, but something that came in between, such as the
    # exception of a time limit.
    return error if culprit is None else explain(culprit, serializer)


# Imported at the first use, so that a process that deals in plain data never has these loaded.


def _dumps_pickle(value: object) -> bytes:
    from .pickling import dumps_pickle

    return dumps_pickle(value)


def _dumps_cloudpickle(value: object) -> bytes:
    from .pickling import dumps_cloudpickle

    return dumps_cloudpickle(value)


def _loads_pickle(data: bytes) -> object:
    from .pickling import loads

    return loads(data)


_SERIALIZERS: dict[str, _Serializer] = {
    "msgpack": _Serializer(payload_msgpack.dumps, payload_msgpack.loads, signed=False),
    "json": _Serializer(payload_json.dumps, payload_json.loads, signed=False),
    "pickle": _Serializer(_dumps_pickle, _loads_pickle, signed=True),
    "cloudpickle": _Serializer(_dumps_cloudpickle, _loads_pickle, signed=True),
}
