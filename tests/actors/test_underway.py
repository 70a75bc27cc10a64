"""How many states of bodies may be underway."""

from __future__ import annotations

from greenroom.actors.worker.underway import STATES_BYTES_MAX, STATES_MAX, StatesUnderway


def test_as_many_states_as_the_limit_are_underway_and_each_answer_makes_room() -> None:
    states = StatesUnderway()
    for number in range(1, STATES_MAX + 1):
        assert states.fits(10)
        states.said(number, 10)
    assert not states.fits(10)
    states.applied(1)
    assert states.fits(10)


def test_states_are_bounded_in_bytes_but_one_alone_always_fits() -> None:
    states = StatesUnderway()
    assert states.fits(2 * STATES_BYTES_MAX)
    states.said(1, STATES_BYTES_MAX)
    assert not states.fits(1)
    states.applied(1)
    assert states.fits(1)
