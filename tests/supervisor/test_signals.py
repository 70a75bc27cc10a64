"""What the signals to a worker mean."""

from __future__ import annotations

import signal

import pytest

from greenroom.supervisor.cluster.signals import TAKEN, Signals
from greenroom.supervisor.pool.events import PoolEvent, ReloadAsked, ResizeAsked, Stop, StopAsked


def stops(number: int, count: int, *, term_is_quit: bool = False) -> list[PoolEvent | None]:
    signals = Signals(term_is_quit=term_is_quit)
    return [signals.means(number) for _ in range(count)]


def test_term_is_warm_however_often_it_comes() -> None:
    assert stops(signal.SIGTERM, 3) == [StopAsked(Stop.WARM)] * 3


def test_int_escalates_from_warm_over_cold_to_hard() -> None:
    assert stops(signal.SIGINT, 4) == [StopAsked(how) for how in (Stop.WARM, Stop.COLD, Stop.HARD, Stop.HARD)]


def test_quit_is_cold_then_hard() -> None:
    assert stops(signal.SIGQUIT, 3) == [StopAsked(how) for how in (Stop.COLD, Stop.HARD, Stop.HARD)]


def test_term_is_quit_where_the_environment_says_so() -> None:
    assert stops(signal.SIGTERM, 2, term_is_quit=True) == [StopAsked(Stop.COLD), StopAsked(Stop.HARD)]


@pytest.mark.parametrize(
    ("number", "event"),
    [
        (signal.SIGHUP, ReloadAsked()),
        (signal.SIGTTIN, ResizeAsked(1)),
        (signal.SIGTTOU, ResizeAsked(-1)),
        (signal.SIGWINCH, None),
    ],
)
def test_the_others(number: int, event: PoolEvent | None) -> None:
    assert Signals().means(number) == event


def test_every_signal_that_is_taken_means_something() -> None:
    assert all(Signals().means(number) is not None for number in TAKEN)
