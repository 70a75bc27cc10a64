"""The delay before a restart (rule S8)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.supervisor.backoff import Failures
from greenroom.supervisor.spec import Backoff

SECOND = 1_000_000


def test_s8_the_delay_doubles_up_to_the_maximum() -> None:
    failures, backoff = Failures(), Backoff(1, 10, jitter=0)
    assert [failures.failed(backoff, 0, 0.5) / SECOND for _ in range(6)] == [1, 2, 4, 8, 10, 10]


def test_s8_without_a_backoff_there_is_no_delay() -> None:
    assert Failures().failed(None, 0, 1.0) == 0


def test_s8_jitter_lengthens_the_delay_even_at_the_maximum() -> None:
    failures, backoff = Failures(), Backoff(10, 10, jitter=0.2)
    assert failures.failed(backoff, 0, 1.0) == 12 * SECOND
    assert failures.failed(backoff, 0, 0.5) == 11 * SECOND
    assert failures.failed(backoff, 0, 0.0) == 10 * SECOND


@pytest.mark.parametrize(("up_for", "delay"), [(3 * SECOND - 1, 2), (3 * SECOND, 1)])
def test_s8_failures_are_forgotten_after_half_of_minimum_and_maximum(up_for: int, delay: int) -> None:
    failures, backoff = Failures(), Backoff(1, 5, jitter=0)
    failures.failed(backoff, 0, 0)
    failures.starts_again()
    failures.came_up(100)
    assert failures.failed(backoff, 100 + up_for, 0) == delay * SECOND


def test_s8_the_time_to_forget_can_be_chosen() -> None:
    failures, backoff = Failures(), Backoff(1, 5, jitter=0, reset_after_seconds=0.001)
    failures.failed(backoff, 0, 0)
    failures.came_up(0)
    assert failures.failed(backoff, 1_000, 0) == SECOND


def test_s8_failed_starts_count_and_the_wait_for_them_forgives_nothing() -> None:
    failures, backoff = Failures(), Backoff(1, 60, jitter=0)
    delays: list[float] = []
    now = 0
    for _ in range(8):
        failures.starts_again()
        delay = failures.failed(backoff, now, 0)
        delays.append(delay / SECOND)
        now += delay
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]


def test_s8_a_start_after_a_stop_does_not_inherit_the_time_it_was_up() -> None:
    failures, backoff = Failures(), Backoff(1, 5, jitter=0)
    failures.failed(backoff, 0, 0)
    failures.came_up(0)
    failures.starts_again()  # stopped with its group meanwhile
    assert failures.failed(backoff, 100 * SECOND, 0) == 2 * SECOND


@given(st.integers(0, 200), st.floats(0, 1), st.floats(0, 1))
def test_s8_the_formula(count: int, jitter: float, draw: float) -> None:
    failures, backoff = Failures(), Backoff(0.5, 30, jitter=jitter)
    for _ in range(count):
        failures.failed(backoff, 0, draw)
    expected = min(30, 0.5 * 2**count) * (1 + draw * jitter)
    assert failures.failed(backoff, 0, draw) == pytest.approx(expected * SECOND, abs=1)
