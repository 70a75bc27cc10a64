"""The names of states and their order."""

from __future__ import annotations

import itertools

from greenroom.actors.results import states
from greenroom.actors.results.states import state
from greenroom.transport.message import State


def test_states_compare_by_precedence() -> None:
    names = ["PENDING", "RETRY", "REJECTED", "RECEIVED", "STARTED", "REVOKED", "CUSTOM", "FAILURE", "SUCCESS"]
    for lower, higher in itertools.combinations(names, 2):
        assert state(lower) < state(higher)
        assert state(higher) > state(lower)
        assert state(lower) <= state(higher)
        assert not state(lower) >= state(higher)
    assert state("PROGRESS") >= state("CUSTOM")
    assert state("SUCCESS") == "SUCCESS"


def test_the_groups_of_states_are_celerys() -> None:
    assert {"SUCCESS", "FAILURE", "REVOKED"} == states.READY_STATES
    assert {"PENDING", "RECEIVED", "STARTED", "REJECTED", "RETRY"} == states.UNREADY_STATES
    assert {"RETRY", "FAILURE", "REVOKED"} == states.EXCEPTION_STATES
    assert {"FAILURE", "REVOKED"} == states.PROPAGATE_STATES


def test_every_state_of_a_message_has_a_name_but_the_tasks_own() -> None:
    assert set(states.NAMES) == set(State) - {State.CUSTOM}
