"""The self-test: switches turn safeguards off, and the generic scenario catches them."""

from __future__ import annotations

import pytest

from greenroom.supervisor.harness.invariants import ALL, NOT_YET
from greenroom.supervisor.harness.selftest.switch import Switch
from greenroom.supervisor.harness.selftest.table import BENIGN, HEADER, SABOTAGES, SWITCHES, main, run


def switch_of(name: str) -> Switch:
    return next(switch for switch in SWITCHES if switch.name == name)


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.name)
def test_a_switch_changes_something_that_is_there_and_brings_it_back(switch: Switch) -> None:
    before = [patch.table[patch.name] for patch in switch.patches]
    with switch.on():
        during = [patch.table[patch.name] for patch in switch.patches]
    assert all(one is not other for one, other in zip(before, during, strict=True))
    assert [patch.table[patch.name] for patch in switch.patches] == before


def test_there_are_enough_switches_and_each_names_its_safeguard_and_invariants_that_are() -> None:
    known = {invariant.name for invariant in ALL} | set(NOT_YET)
    assert len(SABOTAGES) >= 40
    assert len(BENIGN) >= 5
    assert len({switch.name for switch in SWITCHES}) == len(SWITCHES)
    for switch in SABOTAGES:
        assert switch.safeguard.endswith("."), switch.name
        assert known.issuperset(switch.caught_by), switch.name


def test_the_table_tells_who_caught_what_and_that_a_harmless_change_was_left_in_peace() -> None:
    lines: list[str] = []
    chosen = [switch_of("deliver before the lease is committed"), switch_of("unlimited redelivery"), BENIGN[0]]
    catches = run(chosen, seconds=60, shrink_seconds=0.5, benign_seconds=1, tell=lines.append)
    assert [catch.is_good for catch in catches] == [True, True, True]
    assert [catch.is_named for catch in catches[:2]] == [True, True]
    assert lines[0] == HEADER
    assert lines[1].startswith("deliver before the lease is committed")
    assert " D7 " in lines[1]
    assert " LIMIT " in lines[2]
    assert " nobody " in lines[3]
    assert lines[4] == "2 of 2 sabotages caught, 0 harmless changes flagged"


def test_a_sabotage_that_nobody_catches_fails_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--only", "unlimited redelivery", "--seconds", "0"]) == 1
    assert "MISSED" in capsys.readouterr().out
