"""A child's hand in its own page: the marks that it makes, and when each of them counts (see `page_layout.py`)."""

from __future__ import annotations

import mmap
import os
from collections import deque

from .page_layout import (
    FLAG_ORDERLY,
    FRAME_HEADER_BYTES,
    HEADER_BYTES,
    HEADER_WORDS,
    MAGIC,
    NODE_AT,
    OUTBOX_BYTES,
    PENDING_BYTES,
    RING_ENTRIES_AT,
    RING_FINISHED,
    RING_SETTLED,
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
    ring_entries,
)
from .processes import ProcessName, process_name


class RunnerMarks:
    """One runner's ring. Its own thread marks started and finished; `settled` belongs to who puts settles."""

    __slots__ = ("_base", "_finished", "_mask", "_ring", "_settled", "_started", "_words")

    def __init__(self, words: memoryview[int], base: int, entries: int) -> None:
        self._words = words
        self._base = base
        self._ring = base + RING_ENTRIES_AT
        self._mask = entries - 1
        self._started = 0
        self._finished = 0
        self._settled = 0

    def started(self, position: int, lease: int) -> None:
        """Mark a delivery as started. Its body must not have begun."""
        words = self._words
        count = self._started
        at = self._ring + ((count & self._mask) << 1)
        words[at] = position
        words[at + 1] = lease
        # The last store: from here on the body is a suspect if the process dies.
        self._started = words[self._base] = count + 1

    def finished(self) -> None:
        """Mark the delivery that was started last as finished."""
        self._finished = self._words[self._base + RING_FINISHED] = self._finished + 1

    def settled(self, count: int = 1) -> None:
        """The outcomes of the `count` oldest entries are in the outbox, or acknowledged by the broker."""
        self._settled = self._words[self._base + RING_SETTLED] = self._settled + count


class Page:
    """A child's own page, open for its marks."""

    def __init__(self, path: str, memory: mmap.mmap, runners: int, entries: int, outbox_bytes: int) -> None:
        """Use `Page.create`."""
        self.path = path
        self.entries = entries
        self._memory = memory
        self._bytes = memoryview(memory)
        self._words: memoryview[int] = self._bytes.cast("Q")
        stride = RING_ENTRIES_AT + 2 * entries
        self.runners = [RunnerMarks(self._words, HEADER_WORDS + n * stride, entries) for n in range(runners)]
        self._outbox_at = HEADER_BYTES + runners * stride * 8
        self._outbox_bytes = outbox_bytes
        self._pending_at = self._outbox_at + outbox_bytes
        self._pending_end = self._pending_at + PENDING_BYTES
        self._pending_next = self._pending_at
        self._pending_count = 0
        self._head = 0
        self._tail = 0
        #: (number, end of its frame) of each frame in the outbox.
        self._frames: deque[tuple[int, int]] = deque()

    @classmethod
    def create(
        cls,
        path: str,
        *,
        session: str,
        node: str,
        incarnation: int,
        runners: int,
        heard: int,
        outbox_bytes: int = OUTBOX_BYTES,
    ) -> Page:
        """Make the page of this process. `heard`: boot microseconds, until the parent stamps it.

        It appears under its name only once its header is whole. Raises OSError (a page of this name exists,
        the disk is full) and ValueError (a name is too long, too many runners).
        """
        texts = (_text("session", session), _text("node", node))
        entries, size = _sizes(runners, outbox_bytes)
        unfinished = f"{path}.new"
        file = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _allocate(file, size)
            memory = mmap.mmap(file, size)
            page = cls(path, memory, runners, entries, outbox_bytes)
            page._write_header(texts, process_name(os.getpid()), incarnation, heard)
            # Not replace: a page that stands under this name is somebody's evidence.
            os.link(unfinished, path)
        finally:
            os.close(file)
            os.unlink(unfinished)
        return page

    @classmethod
    def in_memory(
        cls,
        *,
        session: str,
        node: str,
        incarnation: int,
        runners: int,
        heard: int,
        process: ProcessName,
        outbox_bytes: int = OUTBOX_BYTES,
    ) -> Page:
        """Make a page without a file, for a simulated process; `page.contents_of(page.raw)` reads it."""
        texts = (_text("session", session), _text("node", node))
        entries, size = _sizes(runners, outbox_bytes)
        page = cls("", mmap.mmap(-1, size), runners, entries, outbox_bytes)
        page._write_header(texts, process, incarnation, heard)
        return page

    @property
    def raw(self) -> memoryview[int]:
        """What another process would read now. Not copied: a simulated cluster looks at thousands of them."""
        return self._bytes

    def stamp(self, boot: int) -> None:
        """Do what the parent's `HeardStamp` does, where both are one process."""
        self._words[WORD_HEARD] = boot

    def _write_header(self, texts: tuple[bytes, bytes], process: ProcessName, incarnation: int, heard: int) -> None:
        words = self._words
        words[WORD_VERSION] = VERSION
        words[WORD_PID] = process.pid
        words[WORD_STARTED_AT] = process.started_at
        words[WORD_BOOT] = process.boot
        words[WORD_INCARNATION] = incarnation
        words[WORD_HEARD] = heard
        words[WORD_RUNNERS] = len(self.runners)
        words[WORD_ENTRIES] = self.entries
        words[WORD_OUTBOX_BYTES] = self._outbox_bytes
        for text, at, length in zip(texts, (SESSION_AT, NODE_AT), (WORD_SESSION_BYTES, WORD_NODE_BYTES), strict=True):
            self._bytes[at : at + len(text)] = text
            words[length] = len(text)
        words[WORD_MAGIC] = MAGIC

    def heard(self) -> int:
        """When the node last heard its broker, in boot microseconds, as its parent stamped it."""
        return self._words[WORD_HEARD]

    def mark_started(self, runner: int, position: int, lease: int) -> None:
        """`runners[runner].started(position, lease)`; a hot loop keeps the runner's marks instead."""
        self.runners[runner].started(position, lease)

    def mark_finished(self, runner: int) -> None:
        """`runners[runner].finished()`."""
        self.runners[runner].finished()

    def mark_orderly(self) -> None:
        """From now on nothing that runs is to blame for the end of this process: it was asked to stop."""
        self._words[WORD_FLAGS] |= FLAG_ORDERLY

    def pend(self, outcome: bytes) -> bool:
        """Keep an encoded `Outcome` until `put_settle`. False, and nothing is changed, if there is no room."""
        at = self._pending_next
        start = at + 8
        end = start + len(outcome)
        if end > self._pending_end:
            return False
        self._words[at >> 3] = len(outcome)
        self._bytes[start:end] = outcome
        self._pending_next = (end + 7) & ~7
        self._pending_count = self._words[WORD_PENDING_COUNT] = self._pending_count + 1
        return True

    def clear_pending(self) -> None:
        """What was pending is in a Settle that was put, or has been sent without a place."""
        self._pending_next = self._pending_at
        self._pending_count = self._words[WORD_PENDING_COUNT] = 0

    def put_settle(self, number: int, frame: bytes) -> bool:
        """Keep an encoded `Settle` until `drop_settles`; its number is above all before it.

        False, and nothing is changed, when the outbox has no room for it.
        """
        size = self._outbox_bytes
        need = FRAME_HEADER_BYTES + ((len(frame) + 7) & ~7)
        at = self._tail % size
        skipped = size - at if need > size - at else 0
        if self._tail + skipped + need - self._head > size:
            return False
        if skipped:
            self._words[(self._outbox_at + at) >> 3] = SKIP
            at = 0
        start = self._outbox_at + at
        words = self._words
        words[start >> 3] = number
        words[(start >> 3) + 1] = len(frame)
        start += FRAME_HEADER_BYTES
        self._bytes[start : start + len(frame)] = frame
        self._tail += skipped + need
        # The last store: a frame that is cut off by the process's end is not there.
        words[WORD_OUTBOX_TAIL] = self._tail
        self._frames.append((number, self._tail))
        return True

    def drop_settles(self, up_to: int) -> None:
        """The broker has acknowledged every settle up to this number."""
        frames = self._frames
        if not frames or frames[0][0] > up_to:
            return
        while frames and frames[0][0] <= up_to:
            self._head = frames.popleft()[1]
        self._words[WORD_OUTBOX_HEAD] = self._head

    def close(self) -> None:
        """Let go of the memory; the file stays until it was reported."""
        self._words.release()
        self._bytes.release()
        self._memory.close()


def _sizes(runners: int, outbox_bytes: int) -> tuple[int, int]:
    """The entries of a ring, and the bytes of a page. Raises ValueError for a page that cannot be."""
    if not 1 <= runners <= RUNNERS_MAX:
        raise ValueError(f"a page holds 1 to {RUNNERS_MAX} runners, {runners} were asked for")
    if outbox_bytes % 8 or outbox_bytes < 4096:
        raise ValueError(f"an outbox is a multiple of 8 bytes and at least 4096, not {outbox_bytes}")
    entries = ring_entries(runners)
    return entries, HEADER_BYTES + runners * (RING_ENTRIES_AT + 2 * entries) * 8 + outbox_bytes + PENDING_BYTES


def _text(what: str, text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > TEXT_BYTES_MAX:
        raise ValueError(f"the {what} of a page is at most {TEXT_BYTES_MAX} bytes, this one has {len(encoded)}")
    return encoded


def _allocate(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        # No such call on macOS: written zeros take the blocks as well.
        os.write(file, bytes(size))
