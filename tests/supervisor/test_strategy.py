"""The tables of rules S4, S5 and S9, row by row."""

from __future__ import annotations

from typing import get_args

import pytest

from greenroom.supervisor.reasons import (
    KILLED,
    NORMAL,
    SHUTDOWN,
    ExitReason,
    crashed,
    failed_to_start,
    intensity_exceeded,
)
from greenroom.supervisor.spec import AutoShutdown, RestartType, Strategy
from greenroom.supervisor.strategy import (
    COMES_BACK,
    RESTARTED_WITH,
    STOPS,
    comes_back,
    group,
    stops_the_supervisor,
)

NORMAL_ENDS = [NORMAL, SHUTDOWN, ExitReason("shutdown", "no more work")]
ABNORMAL_ENDS = [
    KILLED,
    crashed("boom"),
    crashed(signal=9, oom=True),
    failed_to_start("no port"),
    intensity_exceeded("too often"),
]


@pytest.mark.parametrize("reason", NORMAL_ENDS + ABNORMAL_ENDS, ids=str)
def test_s4_a_permanent_child_always_comes_back_and_a_temporary_one_never(reason: ExitReason) -> None:
    assert comes_back("permanent", reason)
    assert not comes_back("temporary", reason)


@pytest.mark.parametrize("reason", NORMAL_ENDS, ids=str)
def test_s4_a_transient_child_that_finished_stays_down(reason: ExitReason) -> None:
    assert not comes_back("transient", reason)


@pytest.mark.parametrize("reason", ABNORMAL_ENDS, ids=str)
def test_s4_a_transient_child_that_ended_abnormally_comes_back(reason: ExitReason) -> None:
    assert comes_back("transient", reason)


@pytest.mark.parametrize(
    ("strategy", "ended", "restarted"),
    [
        ("one_for_one", "a", "a"),
        ("one_for_one", "b", "b"),
        ("one_for_one", "c", "c"),
        ("one_for_all", "a", "abc"),
        ("one_for_all", "b", "abc"),
        ("one_for_all", "c", "abc"),
        ("rest_for_one", "a", "abc"),
        ("rest_for_one", "b", "bc"),
        ("rest_for_one", "c", "c"),
    ],
)
def test_s5_who_is_restarted_with_whom(strategy: Strategy, ended: str, restarted: str) -> None:
    assert group(strategy, ["a", "b", "c"], ended) == list(restarted)


@pytest.mark.parametrize(
    ("auto_shutdown", "others_left", "stops"),
    [
        ("never", True, False),
        ("never", False, False),
        ("any_significant", True, True),
        ("any_significant", False, True),
        ("all_significant", True, False),
        ("all_significant", False, True),
    ],
)
def test_s9_when_the_end_of_a_significant_child_ends_its_supervisor(
    auto_shutdown: AutoShutdown, others_left: bool, stops: bool
) -> None:
    assert stops_the_supervisor(auto_shutdown, others_left) is stops


def test_the_tables_have_a_row_for_everything() -> None:
    assert set(COMES_BACK) == {(restart, end) for restart in get_args(RestartType) for end in (False, True)}
    assert set(RESTARTED_WITH) == set(get_args(Strategy))
    assert set(STOPS) == {(auto, left) for auto in get_args(AutoShutdown) for left in (False, True)}
