"""What a spec accepts, what it fills in, and the words with which it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest

from greenroom.supervisor.spec import Backoff, ChildSpec, SpecError, Supervisor


def counter() -> None:
    """Stand for something that can run."""


def test_a_child_is_permanent_and_has_five_seconds_to_stop() -> None:
    spec = ChildSpec(counter, 5, name="c")
    assert (spec.target, spec.args, spec.kwargs, spec.name) == (counter, (5,), {}, "c")
    assert (spec.restart, spec.backoff, spec.significant) == ("permanent", None, False)
    assert spec.shutdown_microseconds == 5_000_000
    assert spec.start_timeout_microseconds == 60_000_000


def test_a_child_is_named_after_its_target() -> None:
    assert ChildSpec(counter).name == "counter"


def test_a_supervisor_as_a_child_has_all_the_time_it_wants() -> None:
    spec = ChildSpec(Supervisor(), name="sub")
    assert spec.shutdown_microseconds is None
    assert spec.start_timeout_microseconds is None


@pytest.mark.parametrize(
    ("shutdown", "microseconds"), [("infinity", None), ("brutal_kill", 0), (0, 0), (0.25, 250_000)]
)
def test_the_budget_of_a_stop(shutdown: Any, microseconds: int | None) -> None:
    assert ChildSpec(counter, shutdown=shutdown).shutdown_microseconds == microseconds


def test_a_supervisor_allows_one_restart_in_five_seconds() -> None:
    spec = Supervisor()
    assert (spec.strategy, spec.intensity, spec.period_microseconds) == ("one_for_one", 1, 5_000_000)
    assert (spec.auto_shutdown, spec.dynamic) == ("never", False)


def test_specs_are_values() -> None:
    one, other = Supervisor([ChildSpec(counter, 1)]), Supervisor([ChildSpec(counter, 1)])
    assert one == other
    assert one != Supervisor([ChildSpec(counter, 2)])
    with pytest.raises(AttributeError):
        setattr(one, "intensity", 2)  # noqa: B010


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"restart": "always"}, "restart must be one of 'permanent', 'transient', 'temporary', not 'always'"),
        ({"shutdown": "soon"}, "shutdown must be a number of seconds, 'infinity' or 'brutal_kill'"),
        ({"shutdown": -1}, "shutdown must be"),
        ({"shutdown": True}, "shutdown must be"),
        ({"shutdown": math.nan}, "shutdown must be"),
        ({"start_timeout": -1}, "start_timeout must be a number of seconds"),
        ({"backoff": 3}, "backoff must be a Backoff"),
        ({"name": ""}, "name of a child"),
        ({"name": "a/b"}, "without '/'"),
        ({"name": "x" * 256}, "1 to 255 characters"),
        ({"significant": True}, "permanent child always comes back"),
    ],
)
def test_a_child_that_cannot_be_is_refused_in_words(options: dict[str, Any], words: str) -> None:
    options.setdefault("name", "c")
    with pytest.raises(SpecError) as error:
        ChildSpec(counter, **options)
    assert words in str(error.value)


def test_a_target_without_a_name_needs_one() -> None:
    with pytest.raises(SpecError, match="needs a name"):
        ChildSpec(Supervisor())


def test_a_name_of_the_longest_length_is_allowed() -> None:
    assert ChildSpec(counter, name="x" * 255).name == "x" * 255


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strategy": "all"}, "strategy must be one of"),
        ({"auto_shutdown": "always"}, "auto_shutdown must be one of"),
        ({"intensity": -1}, "intensity must be a whole number from 0"),
        ({"intensity": 1.5}, "intensity must be a whole number"),
        ({"intensity": 1_000_001}, "to 1000000"),
        ({"period": 0}, "period must be more than 0"),
        ({"period": math.inf}, "period must be a number of seconds"),
        ({"children_max": 0}, "children_max must be a whole number from 1"),
        ({"dynamic": True, "strategy": "one_for_all"}, "dynamic children know no order"),
        ({"children": [ChildSpec(counter), ChildSpec(counter)]}, "two children are named 'counter'"),
        ({"children": [counter]}, "a child must be a ChildSpec(...), not"),
        ({"children": [ChildSpec(counter), ChildSpec(counter, name="d")], "children_max": 1}, "children_max is 1"),
        (
            {"children": [ChildSpec(counter, restart="temporary", significant=True)]},
            "supervisor has auto_shutdown='never'",
        ),
    ],
)
def test_a_supervisor_that_cannot_be_is_refused_in_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as error:
        Supervisor(**options)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "arguments",
    [(-1, 5), (5, 1), (1, math.inf), (1, 2, 1.5), (1, 2, -0.1), (1, 2, 0.2, -1), ("1", 2)],
)
def test_a_backoff_that_cannot_be_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(SpecError, match="backoff"):
        Backoff(*arguments)
