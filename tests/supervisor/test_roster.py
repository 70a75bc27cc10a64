"""Incarnations that are never used twice, and deadlines that count only while they are the latest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from greenroom.supervisor.roster import Roster
from greenroom.supervisor.spec import ChildSpec


def nothing() -> None:
    """Stand for what a child runs."""


def spec(name: str) -> ChildSpec:
    return ChildSpec(nothing, name=name)


def test_s10_a_name_taken_again_begins_above_every_incarnation_that_was_deleted() -> None:
    roster = Roster()
    roster.add(spec("a")).incarnation = 7
    roster.add(spec("b")).incarnation = 2
    roster.delete("a")
    roster.delete("b")
    assert roster.add(spec("a")).incarnation == 7


def test_s10_a_restart_of_the_supervisor_keeps_the_incarnations_of_all_names() -> None:
    roster = Roster()
    roster.add(spec("a")).incarnation = 3
    roster.add(spec("added")).incarnation = 5
    roster.reset((spec("a"), spec("b")))
    assert [child.incarnation for child in roster] == [3, 0]
    assert roster.add(spec("added")).incarnation == 5


def test_a_deadline_counts_while_it_is_the_latest_of_its_child() -> None:
    roster = Roster()
    a, b = roster.add(spec("a")), roster.add(spec("b"))
    roster.set_due(a, 5)
    roster.set_due(b, 7)
    roster.set_due(a, 9)
    assert roster.next_due() == 7
    roster.set_due(b, None)
    assert roster.next_due() == 9
    assert roster.take_due(8) is None
    assert roster.take_due(9) is a
    assert a.due is None
    assert roster.next_due() is None


def test_deadlines_that_were_met_do_not_pile_up() -> None:
    roster = Roster()
    for number in range(10_000):
        child = roster.add(spec(f"c{number}"))
        roster.set_due(child, 1_000_000 + number)
        roster.delete(f"c{number}")
    assert len(roster._deadlines) < 100  # pyright: ignore[reportPrivateUsage]


@given(st.lists(st.tuples(st.integers(0, 4), st.none() | st.integers(0, 50)), max_size=300))
def test_deadlines_come_in_order_and_each_once(settings: list[tuple[int, int | None]]) -> None:
    roster = Roster()
    children = [roster.add(spec(str(number))) for number in range(5)]
    for number, due in settings:
        roster.set_due(children[number], due)
    expected = sorted(child.due for child in children if child.due is not None)
    taken: list[int] = []
    for now in range(51):
        while roster.take_due(now) is not None:
            taken.append(now)
    assert taken == expected
