"""Encoded verbs into frames, and encoded messages into lists, without encoding anything twice."""

from __future__ import annotations

from collections.abc import Sequence

from ..codec import FRAME_BYTES_GOAL, Parts
from ..verbs import ITEMS_MAX


def array_header(length: int) -> bytes:
    """Return the header of a MessagePack array of at most ITEMS_MAX items."""
    return bytes((0x90 | length,)) if length < 16 else b"\xdc" + length.to_bytes(2, "big")


def pack_verbs(encoded: Sequence[bytes]) -> list[Parts]:
    """Put encoded verbs, in order, into as few frames as FRAME_BYTES_GOAL and ITEMS_MAX allow.

    A verb that is bigger than the goal has a frame of its own.
    """
    messages: list[Parts] = []
    frame: list[bytes] = []
    size = 0
    for verb in encoded:
        if frame and (size + len(verb) > FRAME_BYTES_GOAL or len(frame) == ITEMS_MAX):
            messages.append([array_header(len(frame)) + b"".join(frame)])
            frame, size = [], 0
        frame.append(verb)
        size += len(verb)
    if frame:
        messages.append([array_header(len(frame)) + b"".join(frame)])
    return messages
