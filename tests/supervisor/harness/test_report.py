"""What a broken run is told by: a screen of text, a page, and where two runs part."""

from __future__ import annotations

from pathlib import Path

from greenroom.supervisor.harness.report import first_divergence, page_of, report, write_page
from greenroom.supervisor.harness.timeline import drawn, timeline
from greenroom.supervisor.harness.trace import Kind, Trace


class Told:
    """A trace of two charges, one of which is made twice."""

    def __init__(self) -> None:
        self.now = 1_000
        self.trace = Trace(0, lambda: self.now)
        note = self.trace.note
        note(Kind.ATTACHED, "w1")
        for number in (1, 2):
            note(Kind.PUBLISH, "client0", mailbox="celery", tasks=["shop.charge"], ids=[f"id{number}"])
            note(Kind.COMMIT, "broker", number=number)
            note(Kind.CONFIRM, "client0", ids=[f"id{number}"])
        self.deliver(1, "w1/1")
        note(Kind.STARTED, "w1/1", id="id1", task="shop.charge", position=1)
        note(Kind.EFFECT, "w1/1", name="charge", args="('o1',)", id="id1")
        note(Kind.FAULT, "w1/1", fault="kill child", at="ran 1")
        note(Kind.DEATH, "w1/1", how="signal 9")
        self.deliver(2, "w1/2")
        note(Kind.STARTED, "w1/2", id="id2", task="shop.charge", position=2)
        note(Kind.SETTLE, "w1/2", number=1, positions=[2])
        note(Kind.APPLIED, "broker", to="w1/2", number=1)
        note(Kind.RESULT, "client0", id="id2", state="SUCCESS")
        self.now = 900_000
        self.deliver(1, "w1/3")
        note(Kind.STARTED, "w1/3", id="id1", task="shop.charge", position=1)
        note(Kind.EFFECT, "w1/3", name="charge", args="('o1',)", id="id1")

    def deliver(self, number: int, to: str) -> None:
        self.trace.note(
            Kind.DELIVER, "broker", to=to, id=f"id{number}", task="shop.charge", position=number, lease=number
        )


def test_a_timeline_tells_of_the_messages_in_question_and_of_faults_and_fits() -> None:
    lines = timeline(Told().trace.events, about=["id1"])
    assert [line.text for line in lines] == [
        "sends charge 1",
        "charge 1 confirmed",
        "gives charge 1 to w1/1",
        "starts charge 1 in child 1",
        "charge('o1') in child 1",
        "FAULT kill child, ran 1",
        "dies in child 1 (signal 9)",
        "gives charge 1 to w1/3",
        "starts charge 1 in child 3",
        "charge('o1') in child 3",
    ]
    assert [line.is_fault for line in lines].count(True) == 1


def test_what_does_not_fit_goes_from_the_least_telling_on_and_never_faults_deaths_starts_and_effects() -> None:
    lines = timeline(Told().trace.events, lines_max=3)
    assert [line.text.split()[0] for line in lines] == [
        "starts",
        "charge('o1')",
        "FAULT",
        "dies",
        "starts",
        "starts",
        "charge('o1')",
    ]


def test_a_drawn_timeline_has_a_column_a_party_clients_first() -> None:
    rows = drawn(timeline(Told().trace.events, about=["id1"])).splitlines()
    assert rows[0].split() == ["seconds", "client0", "broker", "w1"]
    column = rows[0].index("w1")
    assert rows[6][column:].startswith("* FAULT kill child")
    assert rows[1].startswith("    0.0010  sends charge 1")
    assert max(map(len, rows)) <= 120


def test_a_report_is_one_screen_and_says_how_to_see_it_again() -> None:
    told = Told()
    text = report(
        "AMO",
        "charge 1 was charged twice",
        told.trace,
        about=["id1"],
        deviations=["kill child at the 1st ran"],
        replay="pytest test_shop.py --gr-replay=AAE",
    ).text()
    lines = text.splitlines()
    assert lines[0] == "AMO: charge 1 was charged twice"
    assert "  kill child at the 1st ran" in lines
    assert "replay: pytest test_shop.py --gr-replay=AAE" in lines
    assert told.trace.digest() in lines[-1]
    assert len(lines) <= 24


def test_a_page_needs_nothing_but_itself_and_escapes_what_users_wrote(tmp_path: Path) -> None:
    told = Told()
    told.trace.note(Kind.EFFECT, "w1/3", name="<script>alert(1)</script>")
    made = report("AMO", "twice & more", told.trace, about=["id1"])
    path = write_page(made, told.trace.events, tmp_path / "timelines")
    text = path.read_text(encoding="utf-8")
    assert path.name == f"{told.trace.digest()}.html"
    assert text == page_of(made, told.trace.events)
    assert "<script>" not in text
    assert "twice &amp; more" in text
    assert "http" not in text
    # Everything is there; what the report leaves out is shown when asked for.
    assert text.count("<tr class=") == len(timeline(told.trace.events, lines_max=1_000))
    assert 'class="quiet"' in text


def test_two_runs_part_at_their_first_difference() -> None:
    one, other = Told(), Told()
    assert first_divergence(one.trace.events, other.trace.events) is None
    other.trace.note(Kind.MARK, "w1", name="more")
    assert first_divergence(one.trace.events, other.trace.events) == (
        len(one.trace.events),
        None,
        other.trace.events[-1],
    )
    other.trace.events[3] = one.trace.events[4]
    parted = first_divergence(one.trace.events, other.trace.events)
    assert parted is not None
    assert parted[0] == 3


def test_the_event_by_which_a_promise_was_seen_to_be_broken_has_its_line_and_says_why() -> None:
    told = Told()
    told.trace.note(Kind.COMMIT, "broker", number=3)
    broken_at = told.trace.events[-1]
    text = report(
        "AMO violated",
        "id1 starts a second time",
        told.trace,
        about=["id1"],
        broken_at=broken_at,
        promise="A body starts at most once.",
        found="greenroom 1.0, after 214 examples",
    ).text()
    lines = text.splitlines()
    assert lines[:3] == [
        "AMO violated: charge 1 starts a second time",
        "A body starts at most once.",
        "(greenroom 1.0, after 214 examples)",
    ]
    place = next(index for index, line in enumerate(lines) if "commit number 3" in line)
    assert lines[place].endswith("<== charge 1 starts a second time")
    assert len(lines) <= 24


def test_a_report_has_twelve_lines_of_timeline_at_the_most_and_all_faults_among_them() -> None:
    told = Told()
    for _ in range(30):
        told.trace.note(Kind.STARTED, "w1/3", id="id1", task="shop.charge", position=1)
    made = report("AMO", "id1 starts", told.trace, about=["id1"], broken_at=told.trace.events[-1])
    assert len(made.lines) == 12
    assert [line.is_fault for line in made.lines].count(True) == 1
    assert made.lines[-1].mark == "charge 1 starts"
