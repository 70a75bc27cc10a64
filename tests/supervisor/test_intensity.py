"""The window of restarts (rule S1), against counting by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from greenroom.supervisor.intensity import RestartWindow


def test_s1_the_second_restart_within_the_period_is_one_too_many() -> None:
    window = RestartWindow(1, 5)
    assert window.attempt(100)
    assert not window.attempt(104)


def test_s1_an_attempt_exactly_one_period_back_still_counts() -> None:
    window = RestartWindow(1, 5)
    assert window.attempt(100)
    assert not window.attempt(105)


def test_s1_an_attempt_more_than_one_period_back_is_forgotten() -> None:
    window = RestartWindow(1, 5)
    assert window.attempt(100)
    assert window.attempt(106)
    assert window.count(106) == 1


def test_s1_an_intensity_of_zero_allows_no_restart() -> None:
    assert not RestartWindow(0, 5).attempt(100)


@given(st.integers(0, 5), st.integers(1, 20), st.lists(st.integers(0, 12), max_size=40), st.integers(0, 10**15))
def test_s1_the_window_agrees_with_counting_all_attempts(
    intensity: int, period: int, steps: list[int], start: int
) -> None:
    window, attempts, now = RestartWindow(intensity, period), list[int](), start
    for step in steps:
        now += step
        attempts.append(now)
        recent = [attempt for attempt in attempts if attempt >= now - period]
        assert window.attempt(now) == (len(recent) <= intensity)
        assert window.count(now) == len(recent)
        if len(recent) > intensity:
            break
