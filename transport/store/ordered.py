"""A sorted collection of keys that forgets lazily.

Owns the index that the store in memory reads by. Keys arrive nearly in order and leave nearly in order, and
both are cheap then: at the end and at the start. A key that leaves from the middle is only marked; when half
of the list is marked it is built anew. So every operation costs a binary search, and now and then a share of
a rebuild.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", int, tuple[int, int])

#: Lists shorter than this are not worth building anew.
REBUILD_MIN = 1024


class Ordered(Generic[Key]):
    """Keys in order, each once."""

    __slots__ = ("_keys", "_left", "_start")

    def __init__(self) -> None:
        self._keys: list[Key] = []
        #: Keys before this place have left.
        self._start = 0
        #: Keys that have left, from there on.
        self._left: set[Key] = set()

    def add(self, key: Key) -> None:
        """Put a key in that is not there."""
        keys = self._keys
        if not keys or key > keys[-1]:
            keys.append(key)
        elif key in self._left:
            self._left.discard(key)
        else:
            keys.insert(bisect_left(keys, key, self._start), key)

    def discard(self, key: Key) -> None:
        """Take a key out that is there."""
        keys, left = self._keys, self._left
        left.add(key)
        while self._start < len(keys) and keys[self._start] in left:
            left.discard(keys[self._start])
            self._start += 1
        if len(keys) > REBUILD_MIN and 2 * (self._start + len(left)) > len(keys):
            self._keys = [key for key in keys[self._start :] if key not in left]
            self._start = 0
            left.clear()

    def above(self, key: Key) -> Iterator[Key]:
        """Iterate over the keys above this one, in order. Nothing may change meanwhile."""
        keys, left = self._keys, self._left
        for place in range(bisect_right(keys, key, self._start), len(keys)):
            if keys[place] not in left:
                yield keys[place]

    def floor(self, key: Key) -> Key | None:
        """Return the greatest key that is not above this one; None if there is none."""
        keys, left = self._keys, self._left
        for place in range(bisect_right(keys, key, self._start) - 1, self._start - 1, -1):
            if keys[place] not in left:
                return keys[place]
        return None
