"""What the verbs print around their tables: times, fields, JSON."""

from __future__ import annotations

import json

import pytest

from greenroom.supervisor.cli import output
from greenroom.supervisor.cli.output import duration, print_fields, print_json, print_table, seconds_ago


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (172_800, "2 d")],
)
def test_durations_are_told_in_the_unit_that_keeps_them_short(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_time_that_never_was_has_no_age() -> None:
    assert seconds_ago(0.0, 100.0) == "-"
    assert seconds_ago(40.0, 100.0) == "60 s"


def test_json_is_valid_whatever_the_value(capsys: pytest.CaptureFixture[str]) -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd"

    print_json({"nan": float("nan"), "list": [float("inf"), 1.5], "odd": Odd(), 1: {"set": {2}}, "é": b"x"})
    read = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert read == {"nan": "nan", "list": ["inf", 1.5], "odd": "odd", "1": {"set": [2]}, "é": "eA=="}


def test_json_of_one_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1, 2], "b": "two\nlines"}, one_line=True)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_fields_stand_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields([("broker", "here"), ("tasks", ["a", "b"]), ("x", [])])
    assert capsys.readouterr().out == "  broker  here\n  tasks   a\n          b\n  x       none\n"


def test_fields_are_wrapped_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(output, "terminal_width", lambda: 30)
    print_fields([("reason", "one two three four five")])
    assert capsys.readouterr().out == "  reason  one two three four\n          five\n"


def test_notes_stand_behind_rows_for_programs_and_below_them_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print_table(["id"], [["x1"]], notes=["it died"], empty="")
    assert capsys.readouterr().out == "id  note\nx1  it died\n"
    monkeypatch.setattr(output, "terminal_width", lambda: 30)
    print_table(["id"], [["x1"]], notes=["it died"], empty="")
    assert capsys.readouterr().out == "id\nx1\n    it died\n"


def test_a_table_without_rows_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["id"], [], empty="No dead letters.")
    assert capsys.readouterr().out == "No dead letters.\n"
