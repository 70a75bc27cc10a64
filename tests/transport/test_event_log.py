"""The event log: its lines, its file, and what happens at its limits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from greenroom.transport.clock import Now
from greenroom.transport.event_log import FACTS, Event, EventLog, Kind, event_of, lane_of, line_of

STORED = {"id": "a", "state": "SUCCESS"}


def clock() -> Now:
    return Now(7, 9)


def lines_of(path: Path) -> list[Event]:
    return [event_of(line) for line in path.read_bytes().splitlines()]


def open_log(path: Path, told: list[str] | None = None, bytes_max: int = 1 << 20, lane: str = "broker") -> EventLog:
    unheard: list[str] = []
    on_closed = (unheard if told is None else told).append
    return EventLog(str(path), lane, clock, bytes_max=bytes_max, on_closed=on_closed)


def test_an_event_is_a_line_of_json_and_is_read_as_what_it_was() -> None:
    event = Event(3, Kind.STORED, "broker", STORED)
    line = line_of(event)
    assert line == b'{"at":3,"kind":"result stored","lane":"broker","facts":{"id":"a","state":"SUCCESS"}}\n'
    assert event_of(line) == event


def test_facts_for_which_json_has_no_word_are_written_as_text() -> None:
    assert event_of(line_of(Event(0, Kind.MARK, "x", {"name": "m", "path": Path("/a")}))).facts["path"] == "/a"


def test_every_kind_says_which_facts_it_has() -> None:
    assert list(FACTS) == list(Kind)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"hello", "malformed"),
        (b'{"at":1,"kind":"nothing","lane":"x","facts":{}}', "nothing"),
        (b'{"at":1,"kind":"ready","lane":"x"}', "facts"),
        (
            b'{"at":1,"kind":"result","lane":"x","facts":{"id":"a"}}',
            "a result tells 'state', str, and this one has None",
        ),
        (
            b'{"at":1,"kind":"return","lane":"x","facts":{"positions":[1,"b"]}}',
            "a return tells 'positions', a list of int",
        ),
        (
            b'{"at":1,"kind":"settle","lane":"x","facts":{"number":1,"positions":[1],"states":[]}}',
            "lists of one length",
        ),
    ],
)
def test_a_line_that_is_no_event_is_refused_with_the_reason(line: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        event_of(line)


def test_a_log_begins_with_whose_it_is_and_ends_with_why(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = open_log(path)
    log.note(Kind.STORED, "broker", **STORED)
    assert len(lines_of(path)) == 1
    log.flush()
    log.close("it is over", unsettled=0)
    first, stored, last = lines_of(path)
    assert (first.kind, first.lane, first.at, first.facts["wall"], first.facts["pid"]) == (
        Kind.LOG,
        "broker",
        7,
        9,
        os.getpid(),
    )
    assert stored == Event(7, Kind.STORED, "broker", STORED)
    assert last.facts == {"closed": "it is over", "unsettled": 0}
    assert path.stat().st_mode & 0o777 == 0o600


def test_several_write_whole_lines_into_one_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    logs = [open_log(path, lane=f"worker/{number}") for number in range(3)]
    for _ in range(50):
        for log in logs:
            log.note(Kind.STORED, "broker", **STORED)
            log.flush()
    assert len(lines_of(path)) == 3 * 51


def test_whoever_goes_on_behind_a_torn_line_begins_a_line_of_his_own(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"at":1,"ki')
    open_log(path)
    torn, first = path.read_bytes().splitlines()
    assert torn == b'{"at":1,"ki'
    assert event_of(first).kind is Kind.LOG


def test_at_its_limit_a_log_is_closed_with_a_last_line_and_its_writer_is_told_once(tmp_path: Path) -> None:
    path, told = tmp_path / "log", list[str]()
    log = open_log(path, told, bytes_max=1_000)
    for _ in range(100):
        log.note(Kind.STORED, "broker", **STORED)
        log.flush()
    assert told == ["it has reached its limit of 1,000 bytes"]
    assert not log.is_open
    assert lines_of(path)[-1].facts == {"closed": told[0], "early": True}
    assert 1_000 <= path.stat().st_size < 1_300
    log.close("it is over")
    assert open_log(path, told, bytes_max=1_000).is_open is False
    assert "its limit is 1,000" in told[1]
    assert path.stat().st_size < 1_300


def test_below_its_limit_a_log_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = open_log(path)
    size = path.stat().st_size
    log = open_log(path, bytes_max=2 * size + 1)
    assert log.is_open


def test_a_log_that_cannot_be_written_is_closed_and_nothing_is_raised() -> None:
    told = list[str]()
    log = EventLog("/dev/full", "broker", clock, on_closed=told.append)
    assert told == ["it cannot be written: [Errno 28] No space left on device"]
    log.note(Kind.STORED, "broker", **STORED)
    log.flush()
    log.close("it is over")
    assert len(told) == 1


def test_a_log_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the event log cannot be opened: No such file"):
        open_log(tmp_path / "nowhere" / "log")


def test_lanes_are_short_names_of_sessions() -> None:
    node = "01a20a87-9cb7-7338-9a0a-f7db4d163fac"
    assert lane_of(node) == "worker-4d163fac"
    assert lane_of(f"{node}/3") == "worker-4d163fac/3"
    assert lane_of(node, "client") == "client-4d163fac"
