"""The self-test: switches turn safeguards off, and the generic scenario catches them."""

from __future__ import annotations

import pytest

from greenroom.supervisor.harness.invariants import ALL, NOT_YET
from greenroom.supervisor.harness.selftest.hunt import Catch
from greenroom.supervisor.harness.selftest.replay import Example, drawn, equal, in_fresh_processes
from greenroom.supervisor.harness.selftest.switch import Switch
from greenroom.supervisor.harness.selftest.table import BENIGN, HEADER, SABOTAGES, SWITCHES, main, markdown, run


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
    assert any(f" {name} " in lines[2] for name in chosen[1].caught_by)
    assert " nobody " in lines[3]
    assert lines[4] == "2 of 2 sabotages caught, 0 harmless changes flagged"


def test_a_sabotage_that_nobody_catches_fails_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--only", "unlimited redelivery", "--seconds", "0"]) == 1
    assert "MISSED" in capsys.readouterr().out


def test_examples_go_the_same_way_in_fresh_processes_whatever_their_hashes() -> None:
    sabotage = switch_of("unlimited redelivery")
    caught = run([sabotage], shrink_seconds=0.5, tell=lambda _: None)[0]
    assert caught.smallest is not None
    examples = [Example(sabotage.name, caught.smallest), *(Example("", work) for work in drawn(6, seed=1))]
    found = in_fresh_processes(examples, 3)
    assert found[0][0].split()[1:] == ["Violated", caught.invariant]
    assert len({line.split()[0] for line in found[0]}) == len(examples)
    assert equal(found) == [3] * len(examples)


def test_an_example_that_goes_two_ways_is_counted() -> None:
    assert equal([["a at rest", "b at rest"], ["a at rest", "c at rest"], ["a at rest", "b at rest"]]) == [3, 2]


def test_the_page_of_the_self_test_names_who_caught_what() -> None:
    catch = Catch(switch_of("unlimited redelivery"), invariant="LIMIT", seconds=1.25, examples=7, faults=1, tasks=2)
    page = markdown([catch, Catch(BENIGN[0], seconds=1)], 5)
    assert "seed 5: 1 of 1 sabotages caught" in page
    assert "| LIMIT | 1.2 | 7 | 1 | 2 |" in page
    assert f"| {BENIGN[0].name} | nobody | 1.0 | 0 |" in page
