"""The window of a child: what it may hold (spec D11)."""

from __future__ import annotations

from greenroom.actors.worker.window import BODY_WEIGHT, LONG_BODY, Window


def test_d11_a_body_that_was_held_up_once_does_not_close_the_window_for_short_ones() -> None:
    window = Window(slots=1)
    window.settle_sent(1, 0)
    window.applied(1, 1_000)
    window.body = 20.0
    assert window.change(2048) == 550
    window.body_is_long()
    assert window.told == 1
    assert window.wanted() == 1
    # It ends after 8 ms: the machine was busy with something else.
    window.stuck = False
    window.body += (8_000 - window.body) * BODY_WEIGHT
    told = window.change(2048)
    assert told is not None
    assert told > 10


def test_d11_bodies_that_are_long_leave_nothing_beyond_the_slots() -> None:
    window = Window(slots=4)
    window.settle_sent(1, 0)
    window.applied(1, 1_000)
    window.body = float(LONG_BODY)
    assert window.wanted() == 4
