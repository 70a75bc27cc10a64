"""Frames: verbs to bytes and back, with every limit checked, and errors as values.

This file owns the outer form of what a link carries: one frame of MessagePack verbs, then ZeroMQ parts with the
bodies over `PART_BYTES_MIN` in the order in which the frame names them (spec D10). `decode_to_broker` and
`decode_from_broker` return either the verbs or a `BadFrame`: a frame from outside never raises.

Limits: a frame of verbs `FRAME_BYTES_MAX`, a body `BODY_BYTES_MAX`, a frame's verbs and any list in it
`ITEMS_MAX`. Depth is bounded by the types: nothing untyped is decoded here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from .errors import FrameTooLarge
from .message import Delivery, Envelope
from .verbs import ITEMS_MAX, Deliver, FromBroker, Group, Publish, ToBroker

#: A frame of verbs, without the parts behind it.
FRAME_BYTES_MAX = 1 << 20
#: A frame is closed when it has grown to this; one verb may still take it up to FRAME_BYTES_MAX.
FRAME_BYTES_GOAL = 256 << 10
#: A body from here on travels as a part of its own, neither decoded nor copied by brokers.
PART_BYTES_MIN = 16 << 10
#: The largest body; also what the sockets accept (MAXMSGSIZE).
BODY_BYTES_MAX = 16 << 20

_encoder = msgspec.msgpack.Encoder()
_to_broker = msgspec.msgpack.Decoder(list[ToBroker])
_from_broker = msgspec.msgpack.Decoder(list[FromBroker])
_envelopes = msgspec.msgpack.Decoder(list[Envelope])

T = TypeVar("T")

#: One ZeroMQ message without its routing id: the frame, then the parts.
Parts = list[bytes]


class BadFrame(msgspec.Struct, frozen=True):
    """What came was not a frame: the reason, in words. The peer is dropped and nothing has changed."""

    reason: str


def encode(verbs: Sequence[ToBroker | FromBroker]) -> Parts:
    """Return one ZeroMQ message for these verbs.

    `Publish` groups must hold their parts already cut (see `cut_group`): `publish_parts` hands those bytes in.
    Raises FrameTooLarge if the frame would pass FRAME_BYTES_MAX.
    """
    parts: Parts = []
    out: list[ToBroker | FromBroker] = []
    for verb in verbs:
        out.append(_cut_deliver(verb, parts) if type(verb) is Deliver else verb)
    frame = _encoder.encode(out)
    if len(frame) > FRAME_BYTES_MAX:
        raise FrameTooLarge(
            f"a frame of {len(frame)} bytes was made, the limit is {FRAME_BYTES_MAX}; send fewer verbs a frame"
        )
    return [frame, *parts]


def encode_publish(publish: Publish, parts: Sequence[bytes]) -> Parts:
    """Return one ZeroMQ message for a publish whose groups were cut by `cut_group` into `parts`."""
    return [_encoder.encode([publish]), *parts]


def cut_group(mailbox: str, envelopes: Sequence[Envelope], parts: Parts) -> Group:
    """Encode a group's messages; bodies of PART_BYTES_MIN and more are appended to `parts` instead."""
    cut = 0
    out: list[Envelope] = []
    for envelope in envelopes:
        if len(envelope.body) >= PART_BYTES_MIN:
            cut += 1
            parts.append(envelope.body)
            envelope = _without_body(envelope, cut)
        out.append(envelope)
    return Group(mailbox, len(out), msgspec.Raw(_encoder.encode(out)), cut)


def envelopes_of(group: Group, parts: Sequence[bytes]) -> list[Envelope]:
    """Decode a group's messages and put their bodies back. Raises msgspec.DecodeError or ValueError if they lie."""
    envelopes = _envelopes.decode(group.messages)
    if len(envelopes) != group.count:
        raise ValueError(f"a group said {group.count} messages and had {len(envelopes)}")
    if group.parts:
        for envelope in envelopes:
            if envelope.part:
                if not 0 < envelope.part <= len(parts):
                    raise ValueError(f"message {envelope.id} names part {envelope.part} of {len(parts)}")
                envelope.body = parts[envelope.part - 1]
                envelope.part = 0
    return envelopes


def encode_envelopes(envelopes: Sequence[Envelope]) -> bytes:
    """The bytes that a store's row holds: an encoded list of envelopes with their bodies inside."""
    return _encoder.encode(envelopes)


def decode_envelopes(blob: bytes) -> list[Envelope]:
    """Read a store's row. Raises msgspec.DecodeError where the row is damaged."""
    return _envelopes.decode(blob)


def decode_to_broker(message: Sequence[bytes]) -> list[ToBroker] | BadFrame:
    """Read what a peer sent to a broker. Groups of publishes keep their parts behind the frame."""
    return _decode(message, _to_broker)


def decode_from_broker(message: Sequence[bytes]) -> list[FromBroker] | BadFrame:
    """Read what a broker sent. Bodies that travelled as parts are put back into their envelopes."""
    verbs = _decode(message, _from_broker)
    if isinstance(verbs, BadFrame) or len(message) == 1:
        return verbs
    parts = message[1:]
    for verb in verbs:
        if type(verb) is Deliver:
            for delivery in verb.deliveries:
                envelope = delivery.envelope
                if envelope.part:
                    if not 0 < envelope.part <= len(parts):
                        return BadFrame(f"a delivery names part {envelope.part} of {len(parts)}")
                    envelope.body = parts[envelope.part - 1]
                    envelope.part = 0
    return verbs


def _decode(message: Sequence[bytes], decoder: msgspec.msgpack.Decoder[list[T]]) -> list[T] | BadFrame:
    if not message:
        return BadFrame("an empty message")
    frame = message[0]
    if len(frame) > FRAME_BYTES_MAX:
        return BadFrame(f"a frame of {len(frame)} bytes; the limit is {FRAME_BYTES_MAX}")
    if len(message) - 1 > ITEMS_MAX:
        return BadFrame(f"{len(message) - 1} parts behind a frame; the limit is {ITEMS_MAX}")
    if _array_length(frame) > ITEMS_MAX:
        return BadFrame(f"a frame that claims {_array_length(frame)} verbs; the limit is {ITEMS_MAX}")
    try:
        return decoder.decode(frame)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        return BadFrame(str(error))


def _array_length(frame: bytes) -> int:
    """The length in a MessagePack array's header, before anything is decoded; 0 if it is no array."""
    if not frame:
        return 0
    first = frame[0]
    if 0x90 <= first <= 0x9F:
        return first & 0x0F
    if first == 0xDC:
        return int.from_bytes(frame[1:3], "big")
    if first == 0xDD:
        return int.from_bytes(frame[1:5], "big")
    return 0


def _cut_deliver(verb: Deliver, parts: Parts) -> Deliver:
    """Move large bodies of a Deliver into `parts`; the verb itself is returned when there is none."""
    for delivery in verb.deliveries:
        if len(delivery.envelope.body) >= PART_BYTES_MIN:
            break
    else:
        return verb
    deliveries: list[Delivery] = []
    for delivery in verb.deliveries:
        if len(delivery.envelope.body) >= PART_BYTES_MIN:
            parts.append(delivery.envelope.body)
            delivery = msgspec.structs.replace(delivery, envelope=_without_body(delivery.envelope, len(parts)))
        deliveries.append(delivery)
    return msgspec.structs.replace(verb, deliveries=deliveries)


def _without_body(envelope: Envelope, part: int) -> Envelope:
    return msgspec.structs.replace(envelope, body=b"", part=part)


def frame_bytes(verbs: Iterable[ToBroker | FromBroker]) -> int:
    """Bytes of these verbs on the wire, parts apart: for counting what a peer has not acknowledged."""
    return sum(len(_encoder.encode(verb)) for verb in verbs)
