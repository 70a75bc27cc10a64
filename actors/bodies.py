"""What an envelope carries for the code that runs: calls, values, and what is nested beside them.

Owns the form of bodies. A call's body is the two-item list `[args, kwargs]` (lists of plain values need no help
from Python on either side; the callee gets them with a star anyway); a result's body is the value itself;
`More.opaque` is a MessagePack dict, the *embed*, with the keys of `EMBED_KEYS`. A content is a serializer's short
name, with "+" and the compression behind it if there is one.

A signed body (pickle, cloudpickle) is bound to the message's id, so that it cannot be moved to another message.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Final, NamedTuple, cast

from ..transport import payload, payload_msgpack
from ..transport.errors import DecodeError
from ..transport.message import Envelope

#: What an embed may hold; each only if it is there. Links are lists of signatures, as dicts.
EMBED_KEYS: Final = (
    "callbacks",
    "errbacks",
    "chain",
    "chord",
    "group",
    "group_index",
    "stamps",
    "stamped_headers",
    "replaced_task_nesting",
    "argsrepr",
    "kwargsrepr",
    #: Custom headers that are no scalars.
    "headers",
)


class Content(NamedTuple):
    """How bodies are written: by which serializer and compression, signed with which key."""

    serializer: str = "msgpack"
    compression: str | None = None
    key: bytes | None = None


PLAIN: Final = Content()


def pack_call(args: Any, kwargs: Mapping[str, Any], content: Content, id: str) -> tuple[str, bytes]:
    """Return the content and the body of a call. Raises EncodeError, naming the argument, or SecurityError."""
    call = [[*args], kwargs]
    if content == PLAIN:
        try:
            return "msgpack", payload_msgpack.dumps(call)
        except Exception:
            # Encoded once more below, by what can tell the caller which argument it was.
            return _named(payload.encode(call))
    return _pack(call, content, id)


def unpack_call(
    envelope: Envelope, *, accept: Container[str], key: bytes | None = None
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a call.

    Raises ContentDisallowed, SecurityError (a signature), or DecodeError, also for what is not a call.
    """
    value: object = unpack_value(envelope.content, envelope.body, envelope.id, accept=accept, key=key)
    kind = type(value).__name__
    items = cast("list[object]", value) if isinstance(value, list | tuple) else []
    # Celery's clients send a third item, the embed, or null in its place.
    if len(items) in (2, 3) and isinstance(items[0], list | tuple) and isinstance(items[1], dict):
        return [*cast("list[object]", items[0])], cast("dict[str, Any]", items[1])
    raise DecodeError(
        f"message {envelope.id} for {envelope.name} has a body that is no call: expected [args, kwargs], got {kind}"
    )


def pack_value(value: object, content: Content, id: str) -> tuple[str, bytes]:
    """Return the content and the body of a value. Raises EncodeError or SecurityError."""
    return _pack(value, content, id)


def unpack_value(content: str, body: bytes, id: str, *, accept: Container[str], key: bytes | None = None) -> Any:
    """Return the value of a body. Raises ContentDisallowed, SecurityError or DecodeError."""
    serializer, _, encoding = content.partition("+")
    return payload.decode(payload.Body(serializer, encoding, body), accept=accept, key=key, context=_context(id))


def pack_embed(embed: Mapping[str, Any]) -> bytes:
    """Return what `More.opaque` holds of an embed: nothing where nothing is in it."""
    if not embed:
        return b""
    return payload.encode(dict(embed)).data


def unpack_embed(opaque: bytes) -> dict[str, Any]:
    """Return an embed. Raises DecodeError for what is none."""
    if not opaque:
        return {}
    value = payload.decode(payload.Body("msgpack", "", opaque), accept=("msgpack",))
    if not isinstance(value, dict):
        raise DecodeError(f"the nested part of a message must be a map, got {type(value).__name__}")
    return cast("dict[str, Any]", value)


def _pack(value: object, content: Content, id: str) -> tuple[str, bytes]:
    serializer, compression, key = content
    return _named(payload.encode(value, serializer, compression=compression, key=key, context=_context(id)))


def _named(body: payload.Body) -> tuple[str, bytes]:
    if body.encoding:
        return f"{body.content_type}+{body.encoding}", body.data
    return body.content_type, body.data


def _context(id: str) -> bytes:
    return id.encode()
