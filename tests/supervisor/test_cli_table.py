"""Tables: aligned, as wide as the terminal, and whole."""

from __future__ import annotations

import textwrap

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from greenroom.supervisor.cli.table import printable, table_lines

HEAD = ["mailbox", "ready", "who"]


def shown(rows: list[list[object]], width: int) -> str:
    """A table as text."""
    return "\n".join(line for lines in table_lines(HEAD, rows, width) for line in lines)


def expected(text: str) -> str:
    return textwrap.dedent(text).strip("\n")


def test_names_stand_to_the_left_and_numbers_to_the_right() -> None:
    assert shown([["celery", 5, "a"], ["orders", 1_000_000, "b"]], 0) == expected("""
        mailbox      ready  who
        celery           5  a
        orders   1,000,000  b
    """)


def test_nothing_known_is_a_dash_and_fractions_have_one_digit() -> None:
    assert shown([["celery", None, "a"], ["orders", 1.25, "b"]], 0) == expected("""
        mailbox  ready  who
        celery       -  a
        orders     1.2  b
    """)


def test_without_a_terminal_each_row_is_one_line_however_long() -> None:
    text = shown([["m" * 100, 5, "w " * 100]], 0)
    assert len(text.splitlines()) == 2


def test_a_first_cell_that_leaves_no_room_has_a_line_for_itself() -> None:
    assert shown([["celery", 5, "a"], ["actor:shop.Index:stdlib", 7, "b"]], 24) == expected("""
        mailbox       ready  who
        celery            5  a
        actor:shop.Index:stdlib
                          7  b
    """)


def test_the_last_column_is_wrapped_below_itself() -> None:
    assert shown([["celery", 5, "one two three four five six"]], 36) == expected("""
        mailbox  ready  who
        celery       5  one two three four
                        five six
    """)


def test_wide_letters_are_counted_as_wide() -> None:
    lines = shown([["注文", 5, "a"], ["celery", 6, "b"]], 0).splitlines()
    assert [cell_len(line) for line in lines[1:]] == [cell_len(lines[0]) - 2] * 2


def test_names_cannot_move_the_cursor() -> None:
    assert printable("a\x1b[2Jb\nc\td é") == "a\\x1b[2Jb\\nc\\td é"
    assert "\x1b" not in shown([["\x1b[31mred", 5, "\r"]], 80)


WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=8), min_size=1, max_size=8).map(" ".join)


@given(
    st.lists(st.tuples(st.text("abc:.", min_size=1, max_size=30), st.integers(0, 10**7), WORDS), max_size=5),
    st.integers(45, 120),
)
def test_every_table_fits_the_terminal_and_nothing_is_cut_off(rows: list[tuple[str, int, str]], width: int) -> None:
    text = shown([list(row) for row in rows], width)
    assert all(cell_len(line) <= width for line in text.splitlines())
    words = text.replace(",", "").split()
    for name, number, who in rows:
        assert name in words
        assert str(number) in words
        assert set(who.split()) <= set(words)
