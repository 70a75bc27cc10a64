"""The tables of the SQLite store, and what is asked of a database before it is used.

Owns the tables, their version, the connection's settings and the checks at open. What is written to the
tables is in `writer.py`, what is read from them in `reader.py`.

- `rows` holds the messages, under the position of each row's first. A mask of gone messages is in `gone`,
  because a changed row is written again with all of its bodies.
- `ready` and `waiting` are indexes that answer the tallies after a restart without a page of bodies; `due`
  stands in `ready` only so that SQLite sees that it need not look into the row.
- `results` and other tables that are found by a text have no rowid: it would cost a second tree.
- `state` is one row that each commit changes: the commit's number, the epoch, and marks below which no
  position or lease number will be given again. Marks are raised in steps, by a commit that is synced.
- `actor_states` came with the second version: a store of the first one is given it when it is opened.
- `seal` is a checksum of the columns before it (`seal.py`).
"""

from __future__ import annotations

from ..errors import StoreCorrupt, StoreError, StoreFailed
from .connection import Connection

SCHEMA_VERSION = 2
SQLITE_MIN = (3, 35, 0)
#: "Gree": tells `file` and us that this database is ours.
APPLICATION_ID = 0x47726565

#: Pages that SQLite keeps in memory, whatever the size of the database; in KiB.
CACHE_KIB = 64 << 10
#: A database up to this size is checked whole at open, indexes against tables: half a second at most.
CHECK_INDEXES_BYTES_MAX = 64 << 20
#: A database up to this size has the form of every page checked at open: two seconds at most. Beyond it (and
#: in any case for the contents of rows) damage is found by the read that meets it.
CHECK_PAGES_BYTES_MAX = 1 << 30

#: What the first version did not have.
SINCE_2 = (
    "CREATE TABLE actor_states (mailbox TEXT PRIMARY KEY, number INTEGER, blob BLOB, seal INTEGER) WITHOUT ROWID",
)
TABLES = (
    """CREATE TABLE state (
        one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER, commits INTEGER,
        position_mark INTEGER, lease_mark INTEGER, seal INTEGER)""",
    """CREATE TABLE rows (
        base INTEGER PRIMARY KEY, count INTEGER, mailbox TEXT, priority INTEGER, due INTEGER,
        session TEXT, seal INTEGER, blob BLOB)""",
    "CREATE INDEX ready ON rows (mailbox, priority, base, count, due) WHERE due = 0",
    "CREATE INDEX waiting ON rows (due, base, mailbox, priority, count) WHERE due > 0",
    "CREATE TABLE gone (base INTEGER PRIMARY KEY, mask BLOB, seal INTEGER)",
    "CREATE TABLE uniques (id TEXT PRIMARY KEY, until INTEGER) WITHOUT ROWID",
    "CREATE INDEX uniques_until ON uniques (until)",
    "CREATE TABLE leases (lease INTEGER PRIMARY KEY, session TEXT, positions BLOB, seal INTEGER)",
    "CREATE TABLE pasts (position INTEGER PRIMARY KEY, blob BLOB, seal INTEGER)",
    """CREATE TABLE sessions (
        session TEXT PRIMARY KEY, number INTEGER, outcomes BLOB, seen_at INTEGER, seal INTEGER
    ) WITHOUT ROWID""",
    """CREATE TABLE results (
        id TEXT PRIMARY KEY, state INTEGER, blob BLOB, expires_at INTEGER, seal INTEGER
    ) WITHOUT ROWID""",
    "CREATE INDEX results_expiry ON results (expires_at) WHERE expires_at > 0",
    """CREATE TABLE dead (
        position INTEGER PRIMARY KEY, id TEXT, mailbox TEXT, name TEXT, reason TEXT, died_at INTEGER,
        blob BLOB, story BLOB, seal INTEGER)""",
    "CREATE INDEX dead_mailbox ON dead (mailbox)",
    "CREATE INDEX dead_id ON dead (id)",
    "CREATE TABLE revoked (id TEXT PRIMARY KEY, until INTEGER, seal INTEGER) WITHOUT ROWID",
    "CREATE INDEX revoked_until ON revoked (until)",
    "CREATE TABLE policies (name TEXT PRIMARY KEY, blob BLOB, seal INTEGER) WITHOUT ROWID",
    "CREATE TABLE mailboxes (name TEXT PRIMARY KEY, blob BLOB, seal INTEGER) WITHOUT ROWID",
    *SINCE_2,
)


def prepare(connection: Connection) -> int:
    """Set the connection up and check what is there; return its version: 0 for a new one, which has no tables yet.

    Raises StoreCorrupt, StoreError for another version, StoreFailed, or SqlError.
    """
    # First of all, for any read takes locks. One broker owns the file: no lock and no shared memory per
    # commit, and a VFS need not offer any.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    [[library]] = connection.execute("SELECT sqlite_version()")
    if tuple(map(int, library.split("."))) < SQLITE_MIN:
        wanted = ".".join(map(str, SQLITE_MIN))
        raise StoreFailed(f"the store needs SQLite {wanted} or newer, this Python has {library}")
    # The store moves the log itself: SQLite would hide an fsync that failed meanwhile.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute("PRAGMA temp_store = MEMORY")
    # Zeros over what was deleted would be a sixth of the work of a commit. No mmap either: a read error would
    # come as a signal that kills the process, not as an error that can be told.
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute("PRAGMA mmap_size = 0")

    [[version]] = connection.execute("PRAGMA user_version")
    [[application]] = connection.execute("PRAGMA application_id")
    [[tables]] = connection.execute("SELECT count(*) FROM sqlite_schema")
    if not version and not application and not tables:
        # Free pages can be given back to a full file system. It must be said before the first table.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        # The first page is written behind a journal, the only one that there ever is. That it is gone must be on
        # disk before anything is confirmed: were it there again after a power cut, it would undo all that came since.
        connection.execute("PRAGMA synchronous = EXTRA")
        _log_ahead(connection)
        return 0
    if application != APPLICATION_ID:
        raise StoreCorrupt(
            "the file is a SQLite database, but not a Greenroom store; give the broker another folder with --data"
        )
    if not 1 <= version <= SCHEMA_VERSION:
        age = "a newer" if version > SCHEMA_VERSION else "an older"
        raise StoreError(
            f"the store was written by {age} release of Greenroom (its schema is {version}, this release reads "
            f"1 to {SCHEMA_VERSION}); run that release, or give the broker another folder with --data"
        )
    _log_ahead(connection)
    _check(connection)
    return int(version)


def create(connection: Connection, version: int) -> None:
    """Make the tables that a store of this version lacks, inside the caller's transaction. Raises SqlError."""
    for statement in SINCE_2 if version else TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _log_ahead(connection: Connection) -> None:
    [[journal_mode]] = connection.execute("PRAGMA journal_mode = WAL")
    if journal_mode != "wal":
        raise StoreFailed(f"SQLite offers journal mode {journal_mode!r} for the store, it needs 'wal'")


def _check(connection: Connection) -> None:
    [[pages]] = connection.execute("PRAGMA page_count")
    [[page_bytes]] = connection.execute("PRAGMA page_size")
    if pages * page_bytes <= CHECK_INDEXES_BYTES_MAX:
        findings = connection.execute("PRAGMA integrity_check(3)")
    elif pages * page_bytes <= CHECK_PAGES_BYTES_MAX:
        findings = connection.execute("PRAGMA quick_check(3)")
    else:
        return
    if findings != [("ok",)]:
        raise StoreCorrupt(
            "the store is damaged: " + "; ".join(str(finding) for (finding,) in findings) + ". "
            "Restore the folder from a backup, or read what can be read with `sqlite3 store.db .recover`"
        )
