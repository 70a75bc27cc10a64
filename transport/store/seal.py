"""How rows are made fit for columns, and how damage to them is found.

Owns the seal (a CRC-32 over all of a row's columns, stored beside them and checked at every read) and the
packing of two lists of numbers: the mask of a row's gone messages and the positions of a lease. The same
input always makes the same bytes. SQLite itself checks its log but not its database file; the seal is what
finds a byte there that changed by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import sub
from zlib import crc32

import msgspec

_encode = msgspec.msgpack.Encoder().encode


def seal_of(*columns: object) -> int:
    """Return the seal of these columns."""
    return crc32(_encode(columns))


def pack_mask(mask: int) -> bytes:
    """Return a mask as bytes, the lowest bit first."""
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def unpack_mask(packed: bytes) -> int:
    """Return the mask that `pack_mask` made these bytes of."""
    return int.from_bytes(packed, "little")


def pack_positions(positions: Sequence[int]) -> bytes:
    """Return positions as bytes, in their order: `[first, length]` of one unbroken run, else first and steps.

    A whole row is leased most of the time, so that the run is the common case. A step takes a byte or two.
    """
    length = len(positions)
    if length and positions[-1] - positions[0] == length - 1:
        first = positions[0]
        if list(positions) == list(range(first, first + length)):
            return _encode((True, first, length))
    return _encode((False, *positions[:1], *map(sub, positions[1:], positions)))


def unpack_positions(packed: bytes) -> list[int]:
    """Return the positions that `pack_positions` made these bytes of."""
    kind, *numbers = msgspec.msgpack.decode(packed)
    if kind:
        return list(range(numbers[0], numbers[0] + numbers[1]))
    return list(accumulate(numbers))
