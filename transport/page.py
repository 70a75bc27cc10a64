"""What others do with a child's page: stamp it, read it, report what it says, remove it (see `page_layout.py`)."""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection
from pathlib import Path

import msgspec

from .message import Outcome
from .page_layout import (
    FLAG_ORDERLY,
    FRAME_HEADER_BYTES,
    HEADER_BYTES,
    HEADER_WORDS,
    MAGIC,
    NODE_AT,
    PENDING_BYTES,
    PENDING_NUMBER,
    RING_ENTRIES_AT,
    RING_FINISHED,
    RING_SETTLED,
    RING_STARTED,
    RUNNERS_MAX,
    SESSION_AT,
    SKIP,
    TEXT_BYTES_MAX,
    VERSION,
    WORD_BOOT,
    WORD_ENTRIES,
    WORD_FLAGS,
    WORD_HEARD,
    WORD_INCARNATION,
    WORD_MAGIC,
    WORD_NODE_BYTES,
    WORD_OUTBOX_BYTES,
    WORD_OUTBOX_HEAD,
    WORD_OUTBOX_TAIL,
    WORD_PENDING_COUNT,
    WORD_PID,
    WORD_RUNNERS,
    WORD_SESSION_BYTES,
    WORD_STARTED_AT,
    WORD_VERSION,
    page_path,
    ring_entries,
)
from .processes import ProcessName, still_runs
from .verbs import Report, RingEntry, Settle

__all__ = [
    "DamagedPage",
    "HeardStamp",
    "PageContents",
    "contents_of",
    "page_path",
    "read_page",
    "read_pages",
    "remove_page",
]

_settle_decoder = msgspec.msgpack.Decoder(Settle)
_outcome_decoder = msgspec.msgpack.Decoder(Outcome)


class HeardStamp:
    """A parent's hand in its child's page: one word, written when the broker was heard (spec D19)."""

    def __init__(self, path: str) -> None:
        """Open a page that its child has made. Raises OSError if there is none, ValueError if it is none."""
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._memory = mmap.mmap(file, HEADER_BYTES)
        finally:
            os.close(file)
        self._words: memoryview[int] = memoryview(self._memory).cast("Q")
        if self._words[WORD_MAGIC] != MAGIC:
            self.close()
            raise ValueError(f"{path} is not the page of a child")

    def stamp(self, boot: int) -> None:
        """The broker was heard at this boot time (microseconds)."""
        self._words[WORD_HEARD] = boot

    def close(self) -> None:
        """Let go of the memory."""
        self._words.release()
        self._memory.close()


class DamagedPage(msgspec.Struct, frozen=True):
    """What stood at `path` was no page: it was never finished (`missing`), or is damaged. No evidence."""

    path: str
    reason: str
    missing: bool = False


class PageContents(msgspec.Struct, frozen=True):
    """What a page says, at the time it was read."""

    path: str
    session: str
    node: str
    incarnation: int
    process: ProcessName
    orderly: bool
    heard: int
    #: Bodies that were ever started, and finished.
    started: int
    finished: int
    #: What was pending is the last of them, with the number `PENDING_NUMBER`.
    outbox: list[Settle]
    ring: list[RingEntry]

    def alive(self) -> bool:
        """Whether the process that made the page still runs: then it is its own witness, not the page."""
        return still_runs(self.process)

    def report(
        self,
        number: int,
        *,
        exit_code: int | None = None,
        signal: int = 0,
        oom: bool = False,
        max_rss_kib: int = 0,
        timed_out: Collection[int] = (),
        terminated: Collection[int] = (),
        node_lost: bool = False,
    ) -> Report:
        """The report of this child's end. `number` is the reporter's own; the rest is what wait4 told."""
        return Report(
            number=number,
            session=self.session,
            exit_code=exit_code,
            signal=signal,
            oom=oom,
            max_rss_kib=max_rss_kib,
            pid=self.process.pid,
            outbox=self.outbox,
            ring=self.ring,
            timed_out=list(timed_out),
            terminated=list(terminated),
            orderly=self.orderly,
            node_lost=node_lost,
        )


def read_page(path: str) -> PageContents | DamagedPage:
    """Read a page. Meant for one whose process has ended; of a live one it is a glimpse that may be torn."""
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        return DamagedPage(path, "there is no page: the child ended before it made one", missing=True)
    except OSError as error:
        return DamagedPage(path, f"it cannot be read: {error}")
    try:
        return contents_of(raw, path)
    except (ValueError, IndexError, msgspec.MsgspecError) as error:
        return DamagedPage(path, str(error))


def read_pages(
    folder: str | os.PathLike[str], *, node: str | None = None, sessions: Collection[str] | None = None
) -> list[PageContents]:
    """The pages in a folder whose process has ended, by path; of this node and these sessions where given.

    Damaged files are passed over: they are no evidence.
    """
    try:
        paths = sorted(Path(folder).glob("*.page"))
    except OSError:
        return []
    found: list[PageContents] = []
    for path in paths:
        contents = read_page(str(path))
        if isinstance(contents, DamagedPage):
            continue
        if node is not None and contents.node != node:
            continue
        if sessions is not None and contents.session not in sessions:
            continue
        if not contents.alive():
            # Read again: its last marks may have come between the first reading and its end.
            again = read_page(str(path))
            if isinstance(again, PageContents):
                found.append(again)
    return found


def remove_page(path: str) -> None:
    """Remove a page that was reported, and what an unfinished one left; no error if somebody else did."""
    Path(path).unlink(missing_ok=True)
    Path(f"{path}.new").unlink(missing_ok=True)


def contents_of(raw: bytes | memoryview[int], path: str = "") -> PageContents:
    """Read a page's bytes, or the page itself where nobody writes meanwhile.

    Raises ValueError, IndexError or MsgspecError where they are none.
    """
    if len(raw) < HEADER_BYTES or len(raw) % 8:
        raise ValueError(f"a file of {len(raw)} bytes is no page")
    words: memoryview[int] = memoryview(raw).cast("Q")
    if words[WORD_MAGIC] != MAGIC:
        raise ValueError("it does not begin like a page")
    if words[WORD_VERSION] != VERSION:
        raise ValueError(f"a page of version {words[WORD_VERSION]}; this release reads version {VERSION}")
    runners, entries, outbox_bytes = words[WORD_RUNNERS], words[WORD_ENTRIES], words[WORD_OUTBOX_BYTES]
    stride = RING_ENTRIES_AT + 2 * entries
    outbox_at = HEADER_BYTES + runners * stride * 8
    if (
        not 1 <= runners <= RUNNERS_MAX
        or entries != ring_entries(runners)
        or outbox_at + outbox_bytes + PENDING_BYTES != len(raw)
    ):
        raise ValueError(f"{runners} rings of {entries} entries and {outbox_bytes} bytes of outbox do not fit it")
    outbox = _read_outbox(words, raw, outbox_at, outbox_bytes)
    pending = _read_pending(words, raw, outbox_at + outbox_bytes)
    if pending:
        outbox.append(Settle(PENDING_NUMBER, pending))
    settled = {(outcome.position, outcome.lease) for settle in outbox for outcome in settle.outcomes}
    ring = [
        entry
        for n in range(runners)
        for entry in _read_ring(words, HEADER_WORDS + n * stride, entries)
        if (entry.position, entry.lease) not in settled
    ]
    return PageContents(
        path=path,
        session=_read_text(raw, SESSION_AT, words[WORD_SESSION_BYTES]),
        node=_read_text(raw, NODE_AT, words[WORD_NODE_BYTES]),
        incarnation=words[WORD_INCARNATION],
        process=ProcessName(words[WORD_PID], words[WORD_STARTED_AT], words[WORD_BOOT]),
        orderly=bool(words[WORD_FLAGS] & FLAG_ORDERLY),
        heard=words[WORD_HEARD],
        started=sum(words[HEADER_WORDS + n * stride + RING_STARTED] for n in range(runners)),
        finished=sum(words[HEADER_WORDS + n * stride + RING_FINISHED] for n in range(runners)),
        outbox=outbox,
        ring=ring,
    )


def _read_text(raw: bytes | memoryview[int], at: int, length: int) -> str:
    if length > TEXT_BYTES_MAX:
        raise ValueError(f"a name of {length} bytes in its header")
    return str(raw[at : at + length], "utf-8")


def _read_ring(words: memoryview[int], base: int, entries: int) -> list[RingEntry]:
    started, finished, settled = words[base + RING_STARTED], words[base + RING_FINISHED], words[base + RING_SETTLED]
    if not settled <= finished <= started:
        raise ValueError(f"a ring that has {started} started, {finished} finished and {settled} settled")
    ring = base + RING_ENTRIES_AT
    return [
        RingEntry(
            position=words[ring + ((count & (entries - 1)) << 1)],
            lease=words[ring + ((count & (entries - 1)) << 1) + 1],
            finished=count < finished,
        )
        for count in range(max(settled, started - entries), started)
    ]


def _read_pending(words: memoryview[int], raw: bytes | memoryview[int], at: int) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for _ in range(words[WORD_PENDING_COUNT]):
        if at + 8 > len(raw) or words[at >> 3] > len(raw) - at - 8:
            raise ValueError(f"{words[WORD_PENDING_COUNT]} pending outcomes that pass the end")
        end = at + 8 + words[at >> 3]
        outcomes.append(_outcome_decoder.decode(raw[at + 8 : end]))
        at = (end + 7) & ~7
    return outcomes


def _read_outbox(
    words: memoryview[int], raw: bytes | memoryview[int], outbox_at: int, outbox_bytes: int
) -> list[Settle]:
    head, tail = words[WORD_OUTBOX_HEAD], words[WORD_OUTBOX_TAIL]
    if not head <= tail <= head + outbox_bytes or outbox_bytes % 8:
        raise ValueError(f"an outbox from {head} to {tail} in {outbox_bytes} bytes")
    settles: list[Settle] = []
    while head < tail:
        at = head % outbox_bytes
        word = (outbox_at + at) >> 3
        if words[word] == SKIP:
            head += outbox_bytes - at
            continue
        length = words[word + 1]
        if length > outbox_bytes - at - FRAME_HEADER_BYTES:
            raise ValueError(f"a settle of {length} bytes at {at} in an outbox of {outbox_bytes}")
        start = outbox_at + at + FRAME_HEADER_BYTES
        settle = _settle_decoder.decode(raw[start : start + length])
        if settle.number != words[word]:
            raise ValueError(f"settle {settle.number} stands where {words[word]} was written")
        settles.append(settle)
        head += FRAME_HEADER_BYTES + ((length + 7) & ~7)
    return settles
