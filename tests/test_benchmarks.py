"""The benchmark's figures are what they are called, and each row and system is there without any peer installed.

Nothing is timed here: `make bench` measures.
"""

from __future__ import annotations

import ast
import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
#: What the peers bring: none of it is in the project's own environment.
PEERS = {"celery", "kombu", "dramatiq", "pika", "huey", "redis"}

speeds = st.floats(min_value=1e-3, max_value=1e9)


@pytest.fixture(scope="module", autouse=True)
def folder_on_the_path() -> Iterator[None]:
    """Import as benchmarks/run.py does, which finds its modules beside itself."""
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(FOLDER):
            del sys.modules[name]


def load(name: str) -> Any:
    return importlib.import_module(name)


@given(st.lists(speeds, min_size=1, max_size=9))
def test_the_median_lies_between_the_lowest_and_the_highest_and_the_spread_says_how_far_they_are_apart(
    values: list[float],
) -> None:
    summary = load("figures").summarize(values)
    assert summary.low <= summary.median <= summary.high
    assert sum(value < summary.median for value in values) <= len(values) / 2
    assert sum(value > summary.median for value in values) <= len(values) / 2
    assert summary.spread * summary.median == pytest.approx(summary.high - summary.low)


def test_an_even_number_of_rounds_has_its_median_in_the_middle_of_two() -> None:
    summary = load("figures").summarize([40.0, 10.0, 30.0, 20.0])
    assert (summary.median, summary.low, summary.high, summary.spread) == (25.0, 10.0, 40.0, 1.2)


def test_no_rounds_have_no_median() -> None:
    with pytest.raises(ValueError, match="one round or more"):
        load("figures").summarize([])


def test_a_ratio_above_one_means_that_ours_is_better_whichever_way_is_good() -> None:
    ratio = load("figures").ratio
    assert ratio(3000.0, 1000.0, "more") == 3.0
    assert ratio(0.5, 2.0, "less") == 4.0
    assert ratio(2.0, 0.5, "less") == 0.25
    assert ratio(1.0, 0.0, "more") == math.inf


@given(speeds, speeds, st.sampled_from(["more", "less"]))
def test_ratios_of_two_systems_to_each_other_are_inverse(one: float, other: float, better: str) -> None:
    ratio = load("figures").ratio
    assert ratio(one, other, better) * ratio(other, one, better) == pytest.approx(1.0)


@given(st.lists(speeds, min_size=1, max_size=200), st.floats(min_value=0.01, max_value=1.0))
def test_a_percentile_is_a_value_that_the_share_does_not_exceed(values: list[float], share: float) -> None:
    found = load("figures").percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


def test_the_rate_between_two_counts_is_taken_from_the_moments_at_which_they_were_reached() -> None:
    points = [(0.0, 0), (1.0, 100), (3.0, 200), (4.0, 400)]
    rate_at = load("figures").rate_at
    assert rate_at(points, 0, 100) == 100.0
    assert rate_at(points, 100, 200) == 50.0
    assert rate_at(points, 150, 300) == pytest.approx(150 / 1.5)
    with pytest.raises(ValueError, match="400"):
        rate_at(points, 100, 401)


def test_a_figure_is_shown_with_the_digits_that_mean_something() -> None:
    shown = load("figures").shown
    assert [shown(value) for value in (1234567.8, 999.96, 12.3456, 0.0123456)] == [
        "1,234,568",
        "1000",
        "12.35",
        "0.01235",
    ]


def test_tries_grow_until_they_can_be_believed_and_give_the_calls_that_fill_the_time() -> None:
    contract, amount = load("contract"), load("rows.amount")
    plan = contract.Plan(count=None, seconds=2.0, patience=1.0, marks=None, servers=())
    tries: list[int] = []

    def run(count: int) -> float:
        tries.append(count)
        return count / 10_000

    assert amount.amount(plan, run) == 20_000
    assert tries == [100, 400, 1600, 6400]


def test_a_demanded_count_is_taken_after_the_same_tries() -> None:
    contract, amount = load("contract"), load("rows.amount")
    plan = contract.Plan(count=77, seconds=2.0, patience=1.0, marks=None, servers=())

    def run(count: int) -> float:
        return count / 1000

    assert amount.amount(plan, run) == 77


def test_what_tasks_leave_behind_is_counted_over_processes_and_starts_are_told_apart(tmp_path: Path) -> None:
    marks = load("marks")
    seen = marks.Marks(tmp_path)
    assert seen.total() == 0
    tally = marks.Tally(tmp_path)
    for _ in range(3):
        tally.add()
    (tmp_path / "count-1").write_bytes((39).to_bytes(8, "little"))
    assert seen.total() == 42
    (tmp_path / "starts").write_text("one 11 1.5\nother 12 1.6\none 13 2.5\n")
    assert seen.starts("one") == [(11, 1.5), (13, 2.5)]
    with pytest.raises(TimeoutError, match="expected 43 finished tasks"):
        seen.wait_total(43, 0.0)


def test_each_row_has_a_file_of_its_name_and_is_listed() -> None:
    rows = load("rows").ROWS
    assert set(rows) == {path.stem for path in (FOLDER / "rows").glob("*.py")} - {"__init__", "amount"}
    for name, row in rows.items():
        assert row.name == name
        names = [metric.name for metric in row.metrics]
        assert names
        assert len(names) == len(set(names))


def test_each_system_is_listed_says_its_durability_and_names_a_file_of_tasks() -> None:
    systems = load("systems")
    assert next(iter(systems.SYSTEMS)) == "greenroom", "the others are compared with the first"
    assert {"celery-redis", "celery-rabbitmq", "dramatiq", "huey"} < set(systems.USUAL) <= set(systems.SYSTEMS)
    for name, system in systems.SYSTEMS.items():
        assert system.name == name
        assert system.title
        assert system.durability
        assert (FOLDER / f"{system.work.replace('.', '/')}.py").is_file()


def test_each_client_offers_what_the_rows_call() -> None:
    wanted = {name for name in dir(load("contract").Client) if not name.startswith("_")}
    assert "send_many" in wanted
    for path in (FOLDER / "work").glob("*_work.py"):
        tree = ast.parse(path.read_text("utf-8"))
        offered = [
            {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
            for node in tree.body
            if isinstance(node, ast.ClassDef) and node.name.endswith("Client")
        ]
        assert len(offered) == 1, path
        assert wanted <= offered[0], path


def test_only_the_tasks_of_a_peer_import_the_peer() -> None:
    for path in FOLDER.rglob("*.py"):
        if ".venv" in path.parts or path.parent.name == "work":
            continue
        imported = {
            name.partition(".")[0]
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not imported & PEERS, path


def test_a_peer_that_is_not_there_is_named_with_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load("peers"), "installed", dict)
    for name, system in load("systems").SYSTEMS.items():
        reason = system.missing()
        assert (reason is None) == name.startswith("greenroom")
        assert reason is None or "not installed (benchmarks/peers.py install)" in reason


def test_the_json_holds_every_round_and_how_many_times_better_greenroom_is() -> None:
    runner, table = load("runner"), load("table")
    row = load("rows").ROWS["latency"]
    systems = load("systems").SYSTEMS
    chosen = [systems["greenroom"], systems["huey"], systems["dramatiq"]]
    choice = runner.Choice(rows=[row], systems=chosen, rounds=3, count=None, full=False, folder=FOLDER)
    outcome = runner.Outcome(missing={"huey": "away", "dramatiq": "away"})
    outcome.figures["latency"] = {
        "greenroom": [{"median": 1.0, "p99": 2.0}] * 3,
        "huey": [{"median": value, "p99": 8.0} for value in (2.0, 4.0, 3.0)],
    }
    outcome.absent["latency"] = {"dramatiq": "has none"}
    told = table.as_json(choice, outcome, {"cores": 2})["rows"]["latency"]
    assert told["metrics"]["median"]["systems"]["huey"]["values"] == [2.0, 4.0, 3.0]
    assert told["metrics"]["median"]["systems"]["huey"]["median"] == 3.0
    assert told["metrics"]["median"]["greenroom_times_better"] == {"huey": 3.0}
    assert told["metrics"]["p99"]["greenroom_times_better"] == {"huey": 4.0}
    assert told["absent"] == {"dramatiq": "has none"}
