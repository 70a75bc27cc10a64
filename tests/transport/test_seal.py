"""Packing that loses nothing, and seals that miss nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from greenroom.transport.store.seal import (
    pack_mask,
    pack_positions,
    seal_of,
    unpack_mask,
    unpack_positions,
)

POSITIONS = st.integers(0, (1 << 63) - 1)


@given(st.one_of(st.lists(POSITIONS), st.lists(st.integers(1, 9))))
def test_positions_come_back_in_their_order(positions: list[int]) -> None:
    assert unpack_positions(pack_positions(positions)) == positions


@given(st.integers(0, 1 << 60), st.integers(1, 4096))
def test_a_run_of_positions_takes_no_more_room_than_one(first: int, length: int) -> None:
    run = list(range(first, first + length))
    assert unpack_positions(pack_positions(run)) == run
    assert len(pack_positions(run)) <= 14


def test_a_list_that_only_looks_like_a_run_is_not_taken_for_one() -> None:
    for positions in ([5, 9, 7], [5, 5, 7], [5, 5, 6, 8]):
        assert unpack_positions(pack_positions(positions)) == positions


@given(st.integers(0, (1 << 4096) - 1))
def test_a_mask_comes_back(mask: int) -> None:
    assert unpack_mask(pack_mask(mask)) == mask


def test_a_seal_tells_columns_and_their_borders_apart() -> None:
    columns: list[tuple[object, ...]] = [
        (1, "ab", b"c"),
        (1, "a", b"bc"),
        (1, "abc", b""),
        (1, b"ab", b"c"),
        (2, "ab", b"c"),
    ]
    assert len({seal_of(*row) for row in columns}) == len(columns)
    assert seal_of(*columns[0]) == seal_of(1, "ab", b"c")
