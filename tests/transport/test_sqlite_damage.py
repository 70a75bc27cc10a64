"""What the store in SQLite says to files that are not what it left: flipped, cut short, or somebody else's."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from greenroom.transport.errors import StoreCorrupt, StoreError, StoreFailed
from greenroom.transport.store.apsw_connection import connect_apsw
from greenroom.transport.store.connection import Connect, connect_sqlite3
from greenroom.transport.store.records import (
    ActorState,
    Append,
    Dead,
    Drop,
    Gone,
    Lease,
    MailboxRow,
    Past,
    Policy,
    ResultRow,
    Revoked,
    Row,
    Session,
    Synchronous,
)
from greenroom.transport.store.sqlite import SqliteStore

FULL, NORMAL = Synchronous.FULL, Synchronous.NORMAL
MIB = 1 << 20


def append(base: int, blob: bytes = b"body", count: int = 1, mailbox: str = "work") -> Append:
    return Append(base, count, mailbox, 0, 0, "client", blob)


def filled(folder: Path, rows: int = 50) -> tuple[SqliteStore, list[int]]:
    """A store with something in every table."""
    store = SqliteStore(folder, ballast_bytes=MIB)
    base = store.open().next_position
    bases = list(range(base, base + 10 * rows, 10))
    store.commit([append(at, b"body-%d-" % at * 20, 10) for at in bases], FULL)
    store.commit([Gone(at, 5) for at in bases[::3]], FULL)
    store.commit([Lease(n, f"child-{n}", [at, at + 3]) for n, at in enumerate(bases, 1)], FULL)
    store.commit([ResultRow(f"result-{at}", 3, b"value-%d" % at, 0) for at in bases], FULL)
    store.commit(
        [
            *(Past(at, b"past-%d" % at) for at in bases),
            *(Dead(at, f"id-{at}", "work", "task", "reason", 5, b"envelope" * 9, b"story" * 9) for at in bases),
            *(Session(f"session-{at}", at, b"outcomes" * 5, 5) for at in bases),
            *(Revoked(f"revoked-{at}", at) for at in bases),
            Policy("task", b"policy" * 10),
            MailboxRow("work", b"settings" * 10),
            *(ActorState(f"actor:bank.Account:{at}", 1, b"state-%d-" % at * 20) for at in bases),
        ],
        FULL,
    )
    return store, bases


def everything(folder: Path) -> list[Any]:
    """All that can be read of a store, in a copy of its folder."""
    copy = folder.parent / "read"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    store = SqliteStore(copy, connect=connect_apsw(), ballast_bytes=0)
    try:
        recovered = store.open()
        ids = [f"result-{past.position}" for past in recovered.pasts]
        return [
            recovered,
            store.read_ready("work", 0, 0, 1 << 40),
            store.read_due((0, 0), 1 << 40),
            store.read_results(ids, 0),
            store.read_dead(limit=1 << 40),
            store.read_states([f"actor:bank.Account:{past.position}" for past in recovered.pasts]),
        ]
    finally:
        store.close()


def test_every_flipped_byte_of_a_page_is_found_or_does_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    store, _ = filled(folder)
    store.close()
    intact = everything(folder)
    database = folder / "store.db"
    whole = database.read_bytes()
    found = harmless = 0
    for at in range(37, len(whole), 509):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        database.write_bytes(flipped)
        try:
            assert everything(folder) == intact, f"byte {at} was changed and nobody said so"
            harmless += 1
        except (StoreError, StoreCorrupt):
            found += 1
    # Much of a page is free space.
    assert found > 50
    assert harmless > 50


@pytest.mark.parametrize("connect", [connect_sqlite3, connect_apsw()], ids=["sqlite3", "apsw"])
def test_a_flipped_byte_in_a_body_is_told_with_its_row_and_mailbox(tmp_path: Path, connect: Connect) -> None:
    store, bases = filled(tmp_path)
    store.close()
    whole = (tmp_path / "store.db").read_bytes()
    (tmp_path / "store.db").write_bytes(whole.replace(b"body-%d-" % bases[7], b"bodY-%d-" % bases[7]))
    store = SqliteStore(tmp_path, connect=connect, ballast_bytes=0)
    store.open()
    with pytest.raises(StoreCorrupt, match=f"row {bases[7]} of mailbox 'work' is damaged"):
        store.read_ready("work", 0, bases[6], 1)
    # The others are not held back.
    assert [row.base for row in store.read_ready("work", 0, bases[7], 11)] == bases[8:10]
    store.commit([Drop([bases[7]])], FULL)
    store.close()


def test_a_row_that_an_index_hides_is_missed_at_open(tmp_path: Path) -> None:
    # No read would meet it: the index simply has no such row in that mailbox any more.
    store, _ = filled(tmp_path)
    store.close()
    database = tmp_path / "store.db"
    whole = bytearray(database.read_bytes())
    index_leaf = 10
    for page in range(0, len(whole), 4096):
        at = whole.find(b"work", page, page + 4096)
        if whole[page] == index_leaf and at > 0:
            whole[at : at + 4] = b"walk"
            break
    else:
        raise AssertionError("no index has the mailbox")
    database.write_bytes(whole)
    with pytest.raises(StoreCorrupt, match=r"the store is damaged: .*index ready"):
        SqliteStore(tmp_path, connect=connect_apsw(), ballast_bytes=0).open()


def test_a_text_that_is_no_text_any_more_is_told(tmp_path: Path) -> None:
    store, bases = filled(tmp_path)
    store.close()
    database = sqlite3.connect(tmp_path / "store.db")
    database.execute("UPDATE rows SET session = CAST(x'ff41' AS TEXT) WHERE base = ?", (bases[0],))
    database.commit()
    database.close()
    for connect in (connect_apsw(), connect_sqlite3):
        store = SqliteStore(tmp_path, connect=connect, ballast_bytes=0)
        store.open()
        with pytest.raises(StoreCorrupt):
            store.read_rows([bases[0]])
        store.close()


@pytest.mark.parametrize("kept", [0, 100, 512, 4096, 5000, 4096 * 3, -4096])
def test_a_database_that_was_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    store, _ = filled(tmp_path)
    store.close()
    whole = (tmp_path / "store.db").read_bytes()
    (tmp_path / "store.db").write_bytes(whole[:kept])
    with pytest.raises(StoreCorrupt, match=r"damaged|cut short|not a Greenroom store"):
        SqliteStore(tmp_path, connect=connect_apsw(), ballast_bytes=0).open()


def crashed(store: SqliteStore, folder: Path, to: Path) -> Path:
    """What a killed process leaves of a folder."""
    shutil.copytree(folder, to)
    store.close()
    return to


@pytest.mark.parametrize("damage", ["cut", "flipped", "removed"])
def test_d7_a_log_that_lost_a_confirmed_commit_is_refused(tmp_path: Path, damage: str) -> None:
    store = SqliteStore(tmp_path / "data", ballast_bytes=0)
    base = store.open().next_position
    for at in range(base, base + 20):
        store.commit([append(at)], FULL)
    left = crashed(store, tmp_path / "data", tmp_path / "left")
    log = left / "store.db-wal"
    whole = log.read_bytes()
    if damage == "cut":
        log.write_bytes(whole[:-100])
    elif damage == "flipped":
        log.write_bytes(whole[: len(whole) // 2] + b"!!" + whole[len(whole) // 2 + 2 :])
    else:
        log.unlink()
    with pytest.raises(StoreCorrupt, match="21 were confirmed"):
        SqliteStore(left, connect=connect_apsw(), ballast_bytes=0).open()
    # The way out that the text names.
    (left / "confirmed").unlink()
    if damage != "removed":
        store = SqliteStore(left, connect=connect_apsw(), ballast_bytes=0)
        store.open()
        rows: list[Row] = store.read_ready("work", 0, 0, 99)
        assert [row.base for row in rows] == list(range(base, base + len(rows)))
        assert len(rows) < 20
        store.close()


def test_a_torn_end_of_the_log_that_was_not_confirmed_is_dropped(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "data", ballast_bytes=0)
    base = store.open().next_position
    store.commit([append(base)], FULL)
    store.commit([append(base + 1)], NORMAL)
    left = crashed(store, tmp_path / "data", tmp_path / "left")
    log = left / "store.db-wal"
    log.write_bytes(log.read_bytes()[:-100])
    store = SqliteStore(left, connect=connect_apsw(), ballast_bytes=0)
    store.open()
    assert [row.base for row in store.read_ready("work", 0, 0, 99)] == [base]
    store.close()


@pytest.mark.parametrize(("version", "age"), [(3, "newer"), (-1, "older")])
def test_a_store_of_another_release_is_refused_in_words(tmp_path: Path, version: int, age: str) -> None:
    store, _ = filled(tmp_path)
    store.close()
    database = sqlite3.connect(tmp_path / "store.db")
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    with pytest.raises(StoreError, match=f"an? {age} release") as refused:
        SqliteStore(tmp_path, connect=connect_apsw(), ballast_bytes=0).open()
    assert not isinstance(refused.value, StoreCorrupt | StoreFailed)


def test_a_store_of_the_first_version_is_given_the_table_of_states(tmp_path: Path) -> None:
    store, _ = filled(tmp_path)
    rows = store.read_ready("work", 0, 0, 99)
    store.close()
    database = sqlite3.connect(tmp_path / "store.db")
    database.execute("DROP TABLE actor_states")
    database.execute("PRAGMA user_version = 1")
    database.close()
    for _ in range(2):
        store = SqliteStore(tmp_path, connect=connect_apsw(), ballast_bytes=0)
        store.open()
        assert store.read_ready("work", 0, 0, 99) == rows
        store.commit([ActorState("actor:bank.Account:mia", 1, b"balance")], FULL)
        assert len(store.read_states(["actor:bank.Account:mia"])) == 1
        store.close()


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "store.db")
    database.execute("CREATE TABLE theirs (x)")
    database.close()
    with pytest.raises(StoreCorrupt, match="not a Greenroom store"):
        SqliteStore(tmp_path, connect=connect_apsw(), ballast_bytes=0).open()
    (tmp_path / "store.db").write_bytes(b"These are my notes.\n" * 500)
    with pytest.raises(StoreCorrupt):
        SqliteStore(tmp_path, connect=connect_apsw(), ballast_bytes=0).open()
