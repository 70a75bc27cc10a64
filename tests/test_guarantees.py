"""Every promise of docs/guarantees.md is held up by what it names: invariants, sabotages that they see, real processes.

A promise that is given needs at least one invariant that is judged, two sabotages that one of its invariants catches,
one test with real processes, and a sentence of what is not promised.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
import pytest

from greenroom.supervisor.harness.invariants.table import ALL, NOT_YET
from greenroom.supervisor.harness.selftest.table import SABOTAGES

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "guarantees.md"
#: G1 to G24 of the specification, and what came after them.
PROMISES = [f"G{number}" for number in range(1, 26)]
FIELDS = ("State", "Judged by", "Sabotages", "Real processes", "Not promised")
JUDGED = {invariant.name for invariant in ALL}


class Promise(msgspec.Struct, frozen=True):
    """One promise of the page."""

    name: str
    words: str
    fields: dict[str, str]

    @property
    def is_given(self) -> bool:
        return not self.fields.get("State", "").startswith("not given yet")

    def names(self, field: str) -> list[str]:
        """The names in a field, which stand between commas or semicolons."""
        return [name for part in re.split(r"[,;]\s+", self.fields.get(field, "")) if (name := part.strip())]


def promises_of(text: str) -> list[Promise]:
    """Read a page."""
    found: list[Promise] = []
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        section = re.split(r"^## ", section, flags=re.MULTILINE)[0]
        title, _, rest = section.partition("\n")
        fields = dict(re.findall(r"^- \*\*(.+?):\*\* (.+)$", rest, flags=re.MULTILINE))
        words = rest.partition("- **")[0].strip()
        found.append(Promise(title.partition(":")[0], words, fields))
    return found


@cache
def functions_of(path: Path) -> frozenset[str]:
    """The names of the test functions in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def missing(promise: Promise) -> Iterator[str]:
    """Say what does not hold a promise up."""
    fields = promise.fields
    for field in fields:
        if field not in FIELDS:
            yield f"there is no field {field!r}"
    for field in ("State", "Judged by", "Not promised"):
        if not fields.get(field):
            yield f"{field} is missing"
    invariants = promise.names("Judged by")
    for name in invariants:
        if name not in JUDGED and name not in NOT_YET:
            yield f"there is no invariant {name}"
    if not promise.is_given:
        if not re.match(r"not given yet( for [^;:]+[;:]|:) .+", fields["State"]):
            yield "a promise that is not given yet needs its reason"
        return
    if not promise.words:
        yield "it says nothing"
    if not JUDGED & set(invariants):
        yield "no invariant that is judged"
    switches = {switch.name: switch for switch in SABOTAGES}
    sabotages = promise.names("Sabotages")
    for name in sabotages:
        if name not in switches:
            yield f"there is no sabotage {name!r}"
        elif not set(switches[name].caught_by) & set(invariants):
            yield f"none of {invariants} catches {name!r}, which is caught by {switches[name].caught_by}"
    if len(set(sabotages)) < 2:
        yield "fewer than two sabotages"
    tests = promise.names("Real processes")
    if not tests:
        yield "no test with real processes"
    for test in tests:
        path, _, name = test.partition("::")
        if not path.startswith("tests/live/") or not (ROOT / path).is_file() or name not in functions_of(ROOT / path):
            yield f"there is no test {test}"


def test_every_promise_of_the_specification_is_there_once_and_in_order() -> None:
    assert [promise.name for promise in promises_of(PAGE.read_text(encoding="utf-8"))] == PROMISES


@pytest.mark.parametrize("promise", promises_of(PAGE.read_text(encoding="utf-8")), ids=lambda promise: promise.name)
def test_what_holds_a_promise_up_is_there(promise: Promise) -> None:
    assert list(missing(promise)) == []


def test_every_invariant_belongs_to_a_promise() -> None:
    named = {name for promise in promises_of(PAGE.read_text(encoding="utf-8")) for name in promise.names("Judged by")}
    # AUTH is the part of G23 that is not there yet.
    assert (JUDGED | set(NOT_YET)) - named <= {"AUTH"}


GOOD = """### G1: A title

Words.

- **State:** given
- **Judged by:** LOSS, D7
- **Sabotages:** confirm before the commit; commits are not synced
- **Real processes:** tests/live/test_poison.py::test_p6_one_poison_among_many_messages_harms_nobody
- **Not promised:** The moon.
"""


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("LOSS, D7", "LUSS", "there is no invariant LUSS"),
        ("LOSS, D7", "CANVAS", "no invariant that is judged"),
        ("LOSS, D7", "ORDER", "none of ['ORDER'] catches 'confirm before the commit'"),
        ("commits are not synced", "nothing", "there is no sabotage 'nothing'"),
        ("; commits are not synced", "", "fewer than two sabotages"),
        ("test_poison.py::test_p6", "test_poison.py::test_p7", "there is no test"),
        ("tests/live/test_poison.py", "tests/test_docs.py", "there is no test"),
        ("- **Not promised:** The moon.\n", "", "Not promised is missing"),
        ("- **Real processes:**", "- **Real process:**", "no test with real processes"),
        ("given", "not given yet", "needs its reason"),
        ("\nWords.\n", "", "it says nothing"),
    ],
)
def test_a_missing_link_is_noticed(before: str, after: str, told: str) -> None:
    (good,) = promises_of(GOOD)
    assert list(missing(good)) == []
    (bad,) = promises_of(GOOD.replace(before, after))
    assert any(told in words for words in missing(bad)), list(missing(bad))
