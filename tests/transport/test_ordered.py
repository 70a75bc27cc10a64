"""The lazy sorted collection against a sorted list."""

from __future__ import annotations

from bisect import bisect_right
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from greenroom.transport.store import ordered
from greenroom.transport.store.ordered import Ordered

KEYS = st.integers(0, 40)


@given(st.lists(st.tuples(st.booleans(), KEYS), max_size=200), KEYS)
def test_it_holds_what_a_sorted_list_would(steps: list[tuple[bool, int]], key: int) -> None:
    kept: Ordered[int] = Ordered()
    model: set[int] = set()
    with patch.object(ordered, "REBUILD_MIN", 4):
        for is_added, step in steps:
            if is_added and step not in model:
                kept.add(step)
                model.add(step)
            elif not is_added and step in model:
                kept.discard(step)
                model.discard(step)
            whole = sorted(model)
            assert list(kept.above(-1)) == whole
            assert list(kept.above(key)) == whole[bisect_right(whole, key) :]
            below = whole[: bisect_right(whole, key)]
            assert kept.floor(key) == (below[-1] if below else None)


def test_what_left_takes_no_room_for_long() -> None:
    kept: Ordered[int] = Ordered()
    for key in range(100_000):
        kept.add(key)
        if key >= 10:
            kept.discard(key - 10)
    assert len(kept._keys) < 10_000  # pyright: ignore[reportPrivateUsage]
    for key in range(99_990, 99_999, 2):
        kept.discard(key)
    assert list(kept.above(0)) == [99_991, 99_993, 99_995, 99_997, 99_999]
