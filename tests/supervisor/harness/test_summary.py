"""What a run of tests has covered: counted by world, summed over processes, told as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from greenroom.supervisor.harness.drawing import ANCHORS, anchors_of
from greenroom.supervisor.harness.faults import Anchor, Fault, What, every
from greenroom.supervisor.harness.summary import cells, empty_cells, summary, written
from greenroom.supervisor.harness.tally import Tally, fingerprints
from greenroom.supervisor.harness.trace import Event, Kind

pytest_plugins = ["pytester"]

KILL = Fault(What.KILL_CHILD, Anchor(Kind.STARTED))
EVENTS = [
    Event(1, Kind.DELIVER, "broker", {}),
    Event(2, Kind.STARTED, "w1/1", {}),
    Event(2, Kind.FAULT, "w1/1", {"what": What.KILL_CHILD}),
    Event(3, Kind.STARTED, "w2/1", {}),
    Event(4, Kind.STARTED, "w1/3", {}),
]


def test_a_fingerprint_is_a_step_of_a_party_and_the_latest_fault() -> None:
    assert fingerprints(EVENTS) == [
        "broker  > deliver | ",
        "child  > started | ",
        "child  > started | kill -9 child",
    ]


def test_tallies_of_several_processes_are_summed_and_what_was_seen_once_is_known() -> None:
    one, other = Tally(), Tally()
    one.add([KILL], {"LOSS": 2}, EVENTS)
    one.add([KILL, KILL], {"LOSS": 1}, EVENTS[:1])
    other.add([KILL], {"LOSS": 1, "AMO": 1}, EVENTS[:2])
    assert (one.novel, one.singles, one.residual) == ([3], 2, 1.0)
    one.merge(other)
    assert one.examples == 3
    assert one.hits == {"kill -9 child": {"started": 4}}
    assert one.premises == {"LOSS": 4, "AMO": 1}
    assert one.singles == 1
    assert one.residual == pytest.approx(1 / 3)


def test_the_table_has_each_kind_and_moment_that_is_drawn_and_names_what_is_empty(tmp_path: Path) -> None:
    tally = Tally()
    tally.add([KILL], {"LOSS": 2}, EVENTS)
    text = summary(tally, 10_000)
    rows = {line[: line.index("  ")]: line.split() for line in text.splitlines() if "  " in line}
    assert rows.keys() >= set(every())
    kill = rows["kill -9 child"][3:]
    assert kill[ANCHORS.index(Kind.STARTED)] == "1"
    assert kill[ANCHORS.index(Kind.RAN)] == "0"
    assert kill[ANCHORS.index(Kind.WRITE)] == "-"
    count = sum(len(kinds) for kinds in cells().values())
    assert f"cells: {count}, of which {count - 1} are empty: " in text
    assert "kill -9 child at started" not in empty_cells(tally)
    assert max(map(len, summary(tally, 80).splitlines()[:20])) <= 80
    kept = json.loads(written(tally, tmp_path / "made" / "counts.json").read_text())
    assert kept["hits"]["kill -9 child"] == {kind: int(kind is Kind.STARTED) for kind in anchors_of(What.KILL_CHILD)}
    assert kept["premises"] == {"LOSS": 2}
    assert "PostgreSQL" in kept["not there yet"]


EXAMPLE = """
    import time
    from greenroom import App
    from greenroom.testing import simulate, sometimes

    app = App("counted", set_as_current=False)
    tries = []

    @app.task(name="work", acks_late=True, reject_on_worker_lost=True)
    def work():
        sometimes("it works")

    @simulate(app, examples=5, database=None, derandomize=True)
    def test_orders(sim):
        tries.append(1)
        sim.send(work)
        sim.settle()

    def test_end():
        print("tries", len(tries))
"""
QUIETLY = ("-p", "no:cacheprovider", "-s")


def test_a_run_tells_what_it_has_covered_if_it_is_asked(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_shop=EXAMPLE)
    plain = pytester.runpytest_inprocess(*QUIETLY, "-p", "no:xdist")
    assert "simulated clusters" not in plain.stdout.str()
    told = pytester.runpytest_inprocess(*QUIETLY, "-p", "no:xdist", "--gr-coverage=counts.json")
    told.assert_outcomes(passed=2)
    assert "5 simulated clusters" in told.stdout.str()
    assert "it works" in told.stdout.str()
    assert json.loads((pytester.path / "counts.json").read_text())["examples"] == 5


def test_workers_of_xdist_hand_over_what_they_have_counted(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_shop=EXAMPLE, test_other=EXAMPLE)
    told = pytester.runpytest_subprocess(*QUIETLY, "-n", "2", "--gr-coverage")
    told.assert_outcomes(passed=4)
    assert "10 simulated clusters" in told.stdout.str()


def test_with_a_time_examples_are_tried_again_until_it_is_used(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_shop=EXAMPLE)
    told = pytester.runpytest_inprocess(*QUIETLY, "-p", "no:xdist", "--gr-minutes=0.03")
    told.assert_outcomes(passed=2)
    assert int(told.stdout.str().partition("tries ")[2].split()[0]) > 20
