"""Event logs: what is judged of them, what cannot be read, and what is told of that.

The good log is of one early and one safe task, a poisonous one, and two deaths; each test damages a copy of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from greenroom.actors.app import App
from greenroom.supervisor.cli.check_log import check_log
from greenroom.supervisor.harness.invariants import ALL
from greenroom.supervisor.harness.invariants.runs import BY_EVENTS
from greenroom.supervisor.harness.log_check import Verdict, check_logs
from greenroom.supervisor.harness.log_reader import Unreadable
from greenroom.supervisor.harness.sim import simulated
from greenroom.transport.event_log import Event, Facts, Kind, line_of
from greenroom.transport.message import Flag

EARLY, SAFE = 0, int(Flag.ACKS_LATE | Flag.REJECT_ON_WORKER_LOST)
BROKER, CLIENT, NODE, ONE, TWO = "broker", "client-1", "worker-1", "worker-1/1", "worker-1/2"
Happened = tuple[Kind, str, Facts]


def log(lane: str, **facts: Any) -> Happened:
    return Kind.LOG, lane, {"format": 1, "boot": "b1", "wall": 1_000, **facts}


def closed(lane: str = BROKER, **facts: Any) -> Happened:
    return Kind.LOG, lane, {"closed": "it is over", **facts}


def up(epoch: int) -> Happened:
    return Kind.BROKER_UP, BROKER, {"name": "b", "epoch": epoch}


def publish(id: str, flags: int, bound: int = 0) -> Happened:
    facts: Facts = {"mailbox": "celery", "ids": [id], "tasks": [f"shop.{id}"], "flags": [flags], "bounds": [bound]}
    return Kind.PUBLISH, CLIENT, facts


def confirm(id: str, durability: str = "DISK") -> Happened:
    return Kind.CONFIRM, CLIENT, {"ids": [id], "durability": durability}


def deliver(id: str, position: int, to: str = ONE) -> Happened:
    return Kind.DELIVER, BROKER, {"to": to, "id": id, "task": f"shop.{id}", "position": position, "lease": position}


def started(id: str, position: int, flags: int, lane: str = ONE) -> Happened:
    facts: Facts = {"id": id, "task": f"shop.{id}", "position": position, "delivery": 1, "flags": flags, "of": "TASK"}
    return Kind.STARTED, lane, facts


def ran(id: str, position: int, lane: str = ONE) -> Happened:
    return Kind.RAN, lane, {"id": id, "task": f"shop.{id}", "position": position, "state": "SUCCESS"}


def settle(position: int, lane: str = ONE) -> Happened:
    return Kind.SETTLE, lane, {"number": position, "positions": [position], "states": ["SUCCESS"]}


def stored(id: str, state: str = "SUCCESS") -> Happened:
    return Kind.STORED, BROKER, {"id": id, "state": state}


def death(position: int, lane: str = ONE) -> Happened:
    return Kind.DEATH, lane, {"how": "signal 9", "positions": [position]}


def report(position: int, lane: str = ONE) -> Happened:
    return Kind.REPORT, NODE, {"session": lane, "how": "signal 9", "positions": [position], "node_lost": False}


def dead(id: str, position: int) -> Happened:
    return Kind.DEAD, BROKER, {"id": id, "mailbox": "celery", "position": position, "reason": "it kills"}


def run(id: str, position: int, flags: int) -> list[Happened]:
    return [
        publish(id, flags),
        deliver(id, position),
        confirm(id),
        started(id, position, flags),
        ran(id, position),
        settle(position),
        stored(id),
        (Kind.RESULT, CLIENT, {"id": id, "state": "SUCCESS"}),
    ]


BEGINNING = [log(BROKER), up(1), log(NODE), log(ONE), log(TWO)]
TRIALS = [
    happened
    for lane in (ONE, TWO)
    for happened in (deliver("p", 3, lane), started("p", 3, SAFE, lane), death(3, lane), report(3, lane))
]
POISON = [publish("p", SAFE, 2), confirm("p"), *TRIALS, dead("p", 3), stored("p", "FAILURE")]
GOOD: list[Happened] = [
    *BEGINNING,
    *run("e", 1, EARLY),
    *run("s", 2, SAFE),
    *POISON,
    closed(NODE),
    closed(unsettled=0),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.ndjson"


def write(path: Path, events: Iterable[Happened], *, at: int = 1_000, every: int = 10) -> Path:
    """Write them as a log, one event after the other."""
    lines = [line_of(Event(at + every * number, *happened)) for number, happened in enumerate(events)]
    path.write_bytes(b"".join(lines))
    return path


def judged(path: Path, *events: Happened) -> Verdict:
    return check_logs([write(path, events)])


def before_end(*events: Happened) -> list[Happened]:
    """The good log with something more in it, before everybody stops."""
    return [*GOOD[:-2], *events, *GOOD[-2:]]


# --- what is judged ----------------------------------------------------------------------------------------------


def test_a_good_log_breaks_no_promise_and_each_has_had_occasion(path: Path) -> None:
    verdict = judged(path, *GOOD)
    assert (verdict.violation, verdict.notes, verdict.vacuous, verdict.bad_lines) == (None, [], [], 0)
    assert verdict.events == len(GOOD)
    assert {judged.name: judged.premises for judged in verdict.invariants} == {
        "AMO": 1,
        "ALO": 2,
        "SPUR": 4,
        "LIMIT": 1,
        "POISON": 1,
        "RESULT": 4,
    }


def test_all_invariants_that_events_suffice_for_are_judged() -> None:
    assert [invariant for invariant in ALL if invariant.by_events] == sorted(BY_EVENTS, key=ALL.index)


@pytest.mark.parametrize(
    ("name", "events", "line", "detail"),
    [
        ("AMO", before_end(started("e", 1, EARLY, TWO)), 34, "shop.e e starts a second time, on worker-1/2"),
        ("ALO", [h for h in GOOD if h != ran("s", 2)], 0, "shop.s s was confirmed, never ran to its end"),
        ("SPUR", [*BEGINNING, *run("s", 2, SAFE), deliver("s", 2, TWO)], 14, "s is delivered again, to worker-1/2"),
        ("LIMIT", [*GOOD[: 21 + 10], started("p", 3, SAFE), *GOOD[31:]], 32, "shop.p p starts on worker-1/1 after 2"),
        ("POISON", before_end(dead("p", 3)), 34, "p became a dead letter a second time"),
        ("RESULT", before_end(stored("s", "FAILURE")), 34, "s was SUCCESS and is stored as FAILURE"),
    ],
)
def test_each_promise_is_seen_to_be_broken_by_its_name_and_line(
    path: Path, name: str, events: list[Happened], line: int, detail: str
) -> None:
    violation = judged(path, *events).violation
    assert violation is not None
    assert (violation.name, violation.line) == (name, line)
    assert detail in violation.detail
    text = violation.text()
    assert text.startswith(f"{name} violated: {violation.detail}\n{violation.sentence}\n")
    assert len(violation.timeline) <= 12
    assert all(message.endswith("]") for message in [line.text for line in violation.timeline])
    assert (f"[{line}]" in text) == bool(line)
    assert (f"{path}:{line}" if line else "the end of the log") in text


def test_a_dead_letter_that_is_redriven_may_run_again_also_with_an_early_ack(path: Path) -> None:
    refused: Happened = Kind.RAN, ONE, {**ran("e", 1)[2], "state": "REFUSED"}
    first = [publish("e", EARLY), deliver("e", 1), started("e", 1, EARLY), refused, settle(1), dead("e", 1)]
    again = [deliver("e", 2), started("e", 2, EARLY), ran("e", 2)]
    assert judged(path, *BEGINNING, *first, *again).violation is None
    assert judged(path, *BEGINNING, *first[:-1], *again).violation is not None


def test_of_a_batch_only_what_is_about_the_message_is_shown(path: Path) -> None:
    ids = ["a", "e", "z"]
    facts: Facts = {"mailbox": "celery", "tasks": ["shop.mail"] * 3, "flags": [0] * 3, "bounds": [0] * 3, "ids": ids}
    batch: list[Happened] = [(Kind.PUBLISH, CLIENT, facts), (Kind.CONFIRM, CLIENT, {"ids": ids})]
    settled: Happened = Kind.SETTLE, ONE, {"number": 1, "positions": [8, 1], "states": ["SUCCESS", "SUCCESS"]}
    events = [*BEGINNING, *batch, deliver("e", 1), deliver("z", 8), started("e", 1, EARLY), settled]
    violation = judged(path, *events, started("e", 1, EARLY)).violation
    assert violation is not None
    assert [line.text for line in violation.timeline] == [
        "sends mail 1 [6]",
        "mail 1 confirmed [7]",
        "gives mail 1 to worker-1/1 [8]",
        "starts mail 1 in child 1 [10]",
        "settles mail 1 [11]",
        "starts mail 1 in child 1 [12]",
    ]


def test_a_death_counts_for_what_ran_and_not_if_greenroom_has_killed(path: Path) -> None:
    kind, lane, facts = death(3)
    asked: Happened = kind, lane, {**facts, "by": "its parent"}
    events = [*BEGINNING, publish("p", SAFE, 1), deliver("p", 3), started("p", 3, SAFE), report(3), deliver("p", 3)]
    assert judged(path, *events[:8], asked, *events[8:], started("p", 3, SAFE)).violation is None
    violation = judged(path, *events[:8], death(3), *events[8:], started("p", 3, SAFE)).violation
    assert violation is not None
    assert violation.name == "LIMIT"


# --- the end of a log --------------------------------------------------------------------------------------------


UNDERWAY = [*BEGINNING, publish("s", SAFE), confirm("s"), deliver("s", 2), started("s", 2, SAFE)]


def notes_of(path: Path, *events: Happened) -> str:
    verdict = judged(path, *events)
    assert verdict.violation is None
    return "\n".join(verdict.notes)


def test_what_had_no_end_is_not_judged_where_the_log_does_not_end_at_rest(path: Path) -> None:
    told = "ALO is not judged for 1 confirmed tasks that had no end: "
    assert f"{told}the log does not end at rest: the broker has not stopped" in notes_of(path, *UNDERWAY)
    assert f"{told}the log does not end at rest, the broker has left 1" in notes_of(
        path, *UNDERWAY, closed(unsettled=1)
    )
    cut = closed(ONE, early=True)
    assert f"{told}worker-1/1 has written no more" in notes_of(path, *UNDERWAY, cut, closed(unsettled=0))
    without = [happened for happened in UNDERWAY if happened != log(ONE) and happened[0] is not Kind.STARTED]
    assert f"{told}there is no log of worker-1/1" in notes_of(path, *without, closed(unsettled=0))


def test_a_log_that_was_closed_at_its_limit_says_so_also_where_nothing_is_left_open(path: Path) -> None:
    assert notes_of(path, *GOOD, closed(ONE, early=True)) == "worker-1/1 has written no more: it is over"


def test_more_without_an_end_than_the_broker_has_left_unsettled_are_lost(path: Path) -> None:
    other = [publish("t", SAFE), confirm("t"), deliver("t", 5)]
    violation = judged(path, *UNDERWAY, *other, closed(unsettled=1)).violation
    assert violation is not None
    assert (violation.name, violation.line, violation.about) == ("ALO", 0, "s")
    assert "(and 1 others)" in violation.detail


def test_what_a_purge_has_dropped_was_not_promised_any_more(path: Path) -> None:
    assert not notes_of(path, *UNDERWAY, (Kind.PURGED, BROKER, {"mailbox": "celery"}), closed(unsettled=0))


def test_a_dead_letter_of_a_broker_that_was_killed_at_it_is_in_doubt_and_not_lost(path: Path) -> None:
    write_: Happened = Kind.WRITE, BROKER, {"number": 7, "dead": ["s"]}
    assert not notes_of(path, *UNDERWAY, write_, up(2), closed(unsettled=0))
    committed: Happened = Kind.COMMIT, BROKER, {"number": 7}
    violation = judged(path, *UNDERWAY, write_, committed, up(2), closed(unsettled=0)).violation
    assert violation is not None
    assert violation.name == "ALO"


def test_messages_in_memory_are_lost_with_their_broker_and_messages_of_the_process_with_the_machine(path: Path) -> None:
    def lost(durability: str, *between: Happened) -> bool:
        events = [*BEGINNING, publish("s", SAFE), confirm("s", durability), *between, up(2), closed(unsettled=0)]
        return judged(path, *events).violation is not None

    rebooted = log(BROKER, boot="b2")
    assert not lost("MEMORY")
    assert lost("PROCESS")
    assert not lost("PROCESS", rebooted)
    assert lost("DISK", rebooted)


def test_another_store_begins_anew_with_its_positions_and_ids(path: Path) -> None:
    verdict = judged(path, *GOOD, *GOOD)
    assert verdict.violation is None
    assert [judged.premises for judged in verdict.invariants] == [2, 4, 8, 2, 2, 8]


# --- memory ------------------------------------------------------------------------------------------------------


def test_what_has_ended_is_forgotten_first_and_then_what_is_oldest_and_that_is_told(path: Path) -> None:
    ended = [happened for number in range(20) for happened in run(f"s{number}", 10 + number, SAFE)]
    again = deliver("s0", 10, TWO)
    write(path, [*UNDERWAY, *ended, again, ran("s", 2), closed(unsettled=0)])
    violation = check_logs([path]).violation
    assert violation is not None
    assert violation.name == "SPUR"
    verdict = check_logs([path], messages_max=4)
    assert (verdict.violation, verdict.notes) == (None, [])
    assert next(judged.premises for judged in verdict.invariants if judged.name == "ALO") == 21
    early = [happened for number in range(20) for happened in run(f"e{number}", 10 + number, EARLY)]
    write(path, [*BEGINNING, *early, started("e0", 10, EARLY)])
    assert check_logs([path]).violation is not None
    assert check_logs([path], messages_max=4).violation is None
    waiting = [happened for number in range(9) for happened in (publish(f"w{number}", SAFE), confirm(f"w{number}"))]
    write(path, [*BEGINNING, *waiting, closed(unsettled=9)])
    assert "5 tasks were forgotten before they ended" in "\n".join(check_logs([path], messages_max=4).notes)


# --- several files -----------------------------------------------------------------------------------------------


def test_logs_of_several_files_are_put_in_order_by_their_times(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", GOOD).read_bytes().splitlines(keepends=True)
    of_broker = [line for line in whole if b'"lane":"worker' not in line]
    of_workers = [line for line in whole if b'"lane":"worker' in line]
    paths = [tmp_path / "b", tmp_path / "a"]
    for path, lines in zip(paths, (of_broker, of_workers), strict=True):
        path.write_bytes(b"".join(lines))
    verdict = check_logs(paths)
    assert (verdict.violation, verdict.notes, verdict.vacuous) == (None, [], [])
    late = line_of(Event(10_000, *started("e", 1, EARLY, TWO)))
    paths[1].write_bytes(b"".join([*of_workers, late]))
    violation = check_logs(paths).violation
    assert violation is not None
    assert (violation.name, violation.file, violation.line) == ("AMO", str(paths[1]), len(of_workers) + 1)
    assert f"[2:{len(of_workers) + 1}]" in violation.text()


def test_boots_of_the_machine_come_one_after_the_other_whatever_their_clocks_say(tmp_path: Path) -> None:
    first = write(tmp_path / "1", [log(BROKER), up(1), *run("e", 1, EARLY)], at=9_000_000)
    second = write(tmp_path / "2", [log(BROKER, boot="b2", wall=2_000), up(2), started("e", 1, EARLY)], at=10)
    violation = check_logs([second, first]).violation
    assert violation is not None
    assert (violation.name, violation.file, violation.line) == ("AMO", str(second), 3)


# --- what cannot be read -----------------------------------------------------------------------------------------


def test_a_file_without_events_is_not_judged(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(Unreadable, match=r"events\.ndjson is empty"):
        check_logs([path])
    path.write_bytes(b"hello\nworld\n")
    with pytest.raises(Unreadable, match="no line of it is one; line 1: "):
        check_logs([path])
    with pytest.raises(Unreadable, match="cannot be read"):
        check_logs([path.parent])


def damaged(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> Verdict:
    lines = write(path, GOOD).read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))
    return check_logs([path])


def test_lines_in_which_somebody_was_killed_are_told_and_do_no_harm(path: Path) -> None:
    last = damaged(path, lambda lines: [*lines, lines[5][:40]])
    assert (last.violation, last.bad_lines) == (None, 0)
    assert last.notes == [f"{path}: somebody was killed while he wrote line {len(GOOD) + 1}; that is no harm"]
    joined = damaged(path, lambda lines: [*lines[:8], lines[5][:40] + lines[8], *lines[9:]])
    assert (joined.violation, joined.bad_lines, joined.events) == (None, 0, len(GOOD))
    assert "wrote line 9;" in joined.notes[0]
    before_a_beginning = damaged(path, lambda lines: [*lines[:3], lines[5][:40] + b"\n", *lines[3:]])
    assert (before_a_beginning.violation, before_a_beginning.bad_lines) == (None, 0)
    assert "wrote line 4;" in before_a_beginning.notes[0]


def test_lines_that_are_no_events_are_told_with_their_numbers(path: Path) -> None:
    verdict = damaged(path, lambda lines: [*lines[:8], b'{"at":1,"kind":"ran"}\n', *lines[8:]])
    assert (verdict.violation, verdict.bad_lines, verdict.events) == (None, 1, len(GOOD))
    assert verdict.notes[0].startswith(f"{path}:9 is no event: ")
    many = damaged(path, lambda lines: [*lines[:8], *[b"?\n"] * 9, *lines[8:]])
    assert many.bad_lines == 9
    assert many.notes[-1] == f"{path}: 4 further lines are no events"


def test_what_had_no_end_is_not_judged_where_lines_cannot_be_read(path: Path) -> None:
    write(path, [*UNDERWAY, closed(unsettled=0)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:6], b"?\n", *lines[6:]]))
    verdict = check_logs([path])
    assert verdict.violation is None
    assert "had no end: lines of the log cannot be read" in verdict.notes[0]


def test_empty_lines_are_nothing(path: Path) -> None:
    verdict = damaged(path, lambda lines: [*lines[:8], b"\n", *lines[8:]])
    assert (verdict.bad_lines, verdict.notes) == (0, [])


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_tells_what_was_judged_and_exits_as_it_went(path: Path) -> None:
    def said(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(check_log, [*arguments, str(path)])
        return done.exit_code, done.output

    write(path, GOOD)
    code, text = said()
    assert code == 0
    assert f"{len(GOOD)} events" in text
    assert "No promise is broken." in text
    write(path, [*BEGINNING, *run("e", 1, EARLY)])
    assert "Nothing is said of ALO, LIMIT, POISON: there was no occasion" in said()[1]
    write(path, before_end(dead("p", 3)))
    code, text = said()
    assert code == 1
    assert "POISON violated: p became a dead letter a second time" in text
    code, text = said("--json")
    assert code == 1
    assert json.loads(text)["violation"]["name"] == "POISON"
    path.write_bytes(b"".join([path.read_bytes(), b"?\n", path.read_bytes()]))
    assert said()[0] == 1
    path.write_bytes(b"".join(write(path, GOOD).read_bytes().splitlines(keepends=True)[:9]) + b"?\n{}\n")
    assert said()[0] == 2
    path.write_bytes(b"")
    assert said()[0] == 2


PROGRAM = """
import sys
for name in ("apsw", "greenlet", "hypothesis", "pytest"):
    sys.modules[name] = None
from greenroom.supervisor.cli.main import run
sys.exit(run(["check-log", sys.argv[1]]))
"""


def test_logs_are_judged_without_the_libraries_of_the_extra_testing(path: Path) -> None:
    write(path, GOOD)
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "No promise is broken." in done.stdout


# --- the simulator's logs ----------------------------------------------------------------------------------------


def test_the_trace_of_a_simulated_world_is_a_log_as_well(path: Path) -> None:
    app = App("shop", set_as_current=False)

    @app.task(acks_late=True, reject_on_worker_lost=True)
    def safe() -> None:
        pass

    with simulated(app) as sim:
        sim.at("STARTED").kill()
        for _ in range(3):
            sim.send(safe)
        sim.settle()
        sim.trace.write(path, at_rest=True)
        events = len(sim.trace.events)
    verdict = check_logs([path])
    assert (verdict.violation, verdict.notes, verdict.events) == (None, [], events + 2)
    premises = {judged.name: judged.premises for judged in verdict.invariants}
    assert premises["ALO"] == 3
    assert premises["LIMIT"] == 1
