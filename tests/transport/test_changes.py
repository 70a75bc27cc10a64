"""The net effect of a commit: what comes and goes within it is never written."""

from __future__ import annotations

from typing import Any

import pytest

from greenroom.transport.store.changes import Changes
from greenroom.transport.store.records import Append, Drop, Gone, Lease, Past, PastGone, Purge, Unlease


def append(base: int, unique: str = "") -> Append:
    return Append(base, 4, "work", 0, 0, "client", b"", unique)


def changes(*records: Any) -> Changes:
    """Of a store with everything below 100, and the chosen id `known`."""
    gathered = Changes(100, 100, {"known"}.__contains__)
    for record in records:
        gathered.add(record)
    return gathered


def test_a_row_that_comes_and_goes_is_never_written() -> None:
    gathered = changes(append(100), Gone(100, 1), Lease(100, "child", [100]), Drop([100]), Unlease([100]))
    assert not gathered
    # But its numbers were used.
    assert (gathered.next_position, gathered.next_lease) == (104, 101)


def test_a_row_that_was_stored_before_is_deleted_whatever_is_said_of_it() -> None:
    gathered = changes(Gone(60, 1), Lease(60, "child", [60]), Drop([60]), Unlease([60]), Gone(60, 3))
    assert gathered.rows == {60: None}
    assert gathered.leases == {60: None}
    assert gathered.gone == {}
    assert (gathered.next_position, gathered.next_lease) == (100, 100)


def test_the_last_record_about_a_key_decides() -> None:
    gathered = changes(Past(7, b"a"), Past(7, b"b"), Past(8, b"c"), PastGone([8, 9]), Past(9, b"d"))
    assert gathered.pasts == {7: Past(7, b"b"), 8: None, 9: Past(9, b"d")}


def test_d6_a_duplicate_leaves_nothing_but_its_number() -> None:
    gathered = changes(append(100, "known"), append(104, "new"), append(108, "new"), Gone(100, 1), Gone(108, 1))
    assert gathered.duplicates == [100, 108]
    assert gathered.rows == {104: append(104, "new")}
    assert gathered.gone == {}
    assert gathered.uniques == {"new": 0}
    assert gathered.next_position == 112


@pytest.mark.parametrize("record", [Purge("work", []), object()])
def test_what_is_no_change_of_one_row_is_refused(record: Any) -> None:
    with pytest.raises(KeyError):
        changes(record)
