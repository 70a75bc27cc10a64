"""The page of one child: what a killed process leaves behind as evidence (spec D13, D14, D16, D19).

Owns the layout of a small memory-mapped file in the node's runtime folder, the child's marks in it (`Page`),
the parent's stamp (`HeardStamp`) and the reading of what a dead child left (`read_page`, `read_pages`). It
does not judge: that is the broker's, from the `Report` that `PageContents.report` makes. Whoever has reported
a page removes it.

What is in it, in native 64-bit words:

- a header: who the child is (session, node, incarnation, and pid with the start time of the process and the
  boot of the machine, so that another process with the same pid is not taken for it), a flag, and `heard`;
- for each runner (a thread or a coroutine that runs one body at a time) a ring of (position, lease), and
  three counts: settled <= finished <= started. Entries from `settled` on are the evidence: started, and
  perhaps finished, with an outcome that is not in the outbox;
- an outbox: the bytes of `Settle` verbs that the broker has not acknowledged.

What is visible after SIGKILL: every store that the process made before it, in the order in which it made
them, because the pages belong to the kernel and whoever reads them has waited for the process to end. So each
change ends with one store of a count that makes it count: position and lease, then `started`; a frame's
bytes, then the outbox's tail, then `settled`. A child that dies between two of these has, at worst, not yet
said the later thing:

- before `started`: the body has not begun; the message goes back without blame;
- after `started`, before `finished`: the body is a suspect, although it may not have reached its first line;
- after `finished`, before the outbox's tail: finished without an outcome; nobody is blamed;
- after the tail, before `settled`: the outcome is in the outbox *and* its entry is still in the ring.
  `report` leaves such entries out, so that what is in the outbox is never in the ring.

Limits: `entries` per runner, `OUTBOX_BYTES` for all frames. `put_settle` says False for a frame that finds no
room; the child then starts nothing until the broker has acknowledged it, so that its entries are not
overwritten (the consumer keeps this rule). The file's blocks are allocated at its making: a full disk is an
OSError there, and not a SIGBUS later.
"""

from __future__ import annotations

import mmap
import os
import urllib.parse
from collections import deque
from collections.abc import Collection
from pathlib import Path

import msgspec

from .processes import ProcessName, process_name, still_runs
from .verbs import Report, RingEntry, Settle

MAGIC = 0x47524E5250414745
VERSION = 1

#: Room for settles under way: half a second's worth at full speed, and for a result of almost a frame's size.
OUTBOX_BYTES = 1 << 20
#: Ring entries of all runners together; a single runner gets `RING_ENTRIES_MAX` of them at most.
RING_ENTRIES_TOTAL = 1 << 16
RING_ENTRIES_MAX = 1024
RING_ENTRIES_MIN = 32
RUNNERS_MAX = 4096

_HEADER_BYTES = 4096
_HEADER_WORDS = _HEADER_BYTES // 8
_TEXT_BYTES_MAX = 1024
_SESSION_AT = 1024
_NODE_AT = 2048

# Words of the header.
_MAGIC, _VERSION, _PID, _STARTED_AT, _BOOT, _INCARNATION, _FLAGS, _HEARD = range(8)
_RUNNERS, _ENTRIES, _OUTBOX_BYTES, _OUTBOX_HEAD, _OUTBOX_TAIL, _SESSION_BYTES, _NODE_BYTES = range(8, 15)

_FLAG_ORDERLY = 1

# Words before each runner's ring.
_STARTED, _FINISHED, _SETTLED, _RING = 0, 1, 2, 4

#: In place of a frame's number: nothing here, the next frame is at the start of the outbox.
_SKIP = (1 << 64) - 1
_FRAME_HEADER_BYTES = 16

_settle_decoder = msgspec.msgpack.Decoder(Settle)


class RunnerMarks:
    """One runner's ring. Its own thread marks started and finished; `settled` belongs to who puts settles."""

    __slots__ = ("_base", "_finished", "_mask", "_ring", "_settled", "_started", "_words")

    def __init__(self, words: memoryview[int], base: int, entries: int) -> None:
        self._words = words
        self._base = base
        self._ring = base + _RING
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
        self._finished = self._words[self._base + _FINISHED] = self._finished + 1

    def settled(self, count: int = 1) -> None:
        """The outcomes of the `count` oldest entries are in the outbox, or acknowledged by the broker."""
        self._settled = self._words[self._base + _SETTLED] = self._settled + count


class Page:
    """A child's own page, open for its marks."""

    def __init__(self, path: str, memory: mmap.mmap, runners: int, entries: int, outbox_bytes: int) -> None:
        """Use `Page.create`."""
        self.path = path
        self.entries = entries
        self._memory = memory
        self._bytes = memoryview(memory)
        self._words: memoryview[int] = self._bytes.cast("Q")
        stride = _RING + 2 * entries
        self.runners = [RunnerMarks(self._words, _HEADER_WORDS + n * stride, entries) for n in range(runners)]
        self._outbox_at = _HEADER_BYTES + runners * stride * 8
        self._outbox_bytes = outbox_bytes
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
        if not 1 <= runners <= RUNNERS_MAX:
            raise ValueError(f"a page holds 1 to {RUNNERS_MAX} runners, {runners} were asked for")
        if outbox_bytes % 8 or outbox_bytes < 4096:
            raise ValueError(f"an outbox is a multiple of 8 bytes and at least 4096, not {outbox_bytes}")
        entries = ring_entries(runners)
        texts = (_text("session", session), _text("node", node))
        size = _HEADER_BYTES + runners * (_RING + 2 * entries) * 8 + outbox_bytes
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

    def _write_header(self, texts: tuple[bytes, bytes], process: ProcessName, incarnation: int, heard: int) -> None:
        words = self._words
        words[_VERSION] = VERSION
        words[_PID] = process.pid
        words[_STARTED_AT] = process.started_at
        words[_BOOT] = process.boot
        words[_INCARNATION] = incarnation
        words[_HEARD] = heard
        words[_RUNNERS] = len(self.runners)
        words[_ENTRIES] = self.entries
        words[_OUTBOX_BYTES] = self._outbox_bytes
        for text, at, length in zip(texts, (_SESSION_AT, _NODE_AT), (_SESSION_BYTES, _NODE_BYTES), strict=True):
            self._bytes[at : at + len(text)] = text
            words[length] = len(text)
        words[_MAGIC] = MAGIC

    def heard(self) -> int:
        """When the node last heard its broker, in boot microseconds, as its parent stamped it."""
        return self._words[_HEARD]

    def mark_started(self, runner: int, position: int, lease: int) -> None:
        """`runners[runner].started(position, lease)`; a hot loop keeps the runner's marks instead."""
        self.runners[runner].started(position, lease)

    def mark_finished(self, runner: int) -> None:
        """`runners[runner].finished()`."""
        self.runners[runner].finished()

    def mark_orderly(self) -> None:
        """From now on nothing that runs is to blame for the end of this process: it was asked to stop."""
        self._words[_FLAGS] |= _FLAG_ORDERLY

    def put_settle(self, number: int, frame: bytes) -> bool:
        """Keep an encoded `Settle` until `drop_settles`; its number is above all before it.

        False, and nothing is changed, when the outbox has no room for it.
        """
        size = self._outbox_bytes
        need = _FRAME_HEADER_BYTES + ((len(frame) + 7) & ~7)
        at = self._tail % size
        skipped = size - at if need > size - at else 0
        if self._tail + skipped + need - self._head > size:
            return False
        if skipped:
            self._words[(self._outbox_at + at) >> 3] = _SKIP
            at = 0
        start = self._outbox_at + at
        words = self._words
        words[start >> 3] = number
        words[(start >> 3) + 1] = len(frame)
        start += _FRAME_HEADER_BYTES
        self._bytes[start : start + len(frame)] = frame
        self._tail += skipped + need
        # The last store: a frame that is cut off by the process's end is not there.
        words[_OUTBOX_TAIL] = self._tail
        self._frames.append((number, self._tail))
        return True

    def drop_settles(self, up_to: int) -> None:
        """The broker has acknowledged every settle up to this number."""
        frames = self._frames
        if not frames or frames[0][0] > up_to:
            return
        while frames and frames[0][0] <= up_to:
            self._head = frames.popleft()[1]
        self._words[_OUTBOX_HEAD] = self._head

    def close(self) -> None:
        """Let go of the memory; the file stays until it was reported."""
        self._words.release()
        self._bytes.release()
        self._memory.close()


class HeardStamp:
    """A parent's hand in its child's page: one word, written when the broker was heard (spec D19)."""

    def __init__(self, path: str) -> None:
        """Open a page that its child has made. Raises OSError if there is none, ValueError if it is none."""
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._memory = mmap.mmap(file, _HEADER_BYTES)
        finally:
            os.close(file)
        self._words: memoryview[int] = memoryview(self._memory).cast("Q")
        if self._words[_MAGIC] != MAGIC:
            self.close()
            raise ValueError(f"{path} is not the page of a child")

    def stamp(self, boot: int) -> None:
        """The broker was heard at this boot time (microseconds)."""
        self._words[_HEARD] = boot

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


def ring_entries(runners: int) -> int:
    """Entries of each runner's ring, a power of two."""
    entries = RING_ENTRIES_MAX
    while entries > RING_ENTRIES_MIN and entries * runners > RING_ENTRIES_TOTAL:
        entries //= 2
    return entries


def page_path(folder: str | os.PathLike[str], node: str, incarnation: int, number: int) -> str:
    """Where a child's page is: in the node's runtime folder, named by node, incarnation and child number."""
    return os.path.join(folder, f"{urllib.parse.quote(node, safe='@')}.{incarnation}.{number}.page")


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
        return _contents(path, raw)
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


def _text(what: str, text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > _TEXT_BYTES_MAX:
        raise ValueError(f"the {what} of a page is at most {_TEXT_BYTES_MAX} bytes, this one has {len(encoded)}")
    return encoded


def _allocate(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        # No such call on macOS: written zeros take the blocks as well.
        os.write(file, bytes(size))


def _contents(path: str, raw: bytes) -> PageContents:
    if len(raw) < _HEADER_BYTES or len(raw) % 8:
        raise ValueError(f"a file of {len(raw)} bytes is no page")
    words: memoryview[int] = memoryview(raw).cast("Q")
    if words[_MAGIC] != MAGIC:
        raise ValueError("it does not begin like a page")
    if words[_VERSION] != VERSION:
        raise ValueError(f"a page of version {words[_VERSION]}; this release reads version {VERSION}")
    runners, entries, outbox_bytes = words[_RUNNERS], words[_ENTRIES], words[_OUTBOX_BYTES]
    stride = _RING + 2 * entries
    outbox_at = _HEADER_BYTES + runners * stride * 8
    if not 1 <= runners <= RUNNERS_MAX or entries != ring_entries(runners) or outbox_at + outbox_bytes != len(raw):
        raise ValueError(f"{runners} rings of {entries} entries and {outbox_bytes} bytes of outbox do not fit it")
    outbox = _read_outbox(words, raw, outbox_at, outbox_bytes)
    settled = {(outcome.position, outcome.lease) for settle in outbox for outcome in settle.outcomes}
    ring = [
        entry
        for n in range(runners)
        for entry in _read_ring(words, _HEADER_WORDS + n * stride, entries)
        if (entry.position, entry.lease) not in settled
    ]
    return PageContents(
        path=path,
        session=_read_text(raw, _SESSION_AT, words[_SESSION_BYTES]),
        node=_read_text(raw, _NODE_AT, words[_NODE_BYTES]),
        incarnation=words[_INCARNATION],
        process=ProcessName(words[_PID], words[_STARTED_AT], words[_BOOT]),
        orderly=bool(words[_FLAGS] & _FLAG_ORDERLY),
        heard=words[_HEARD],
        outbox=outbox,
        ring=ring,
    )


def _read_text(raw: bytes, at: int, length: int) -> str:
    if length > _TEXT_BYTES_MAX:
        raise ValueError(f"a name of {length} bytes in its header")
    return raw[at : at + length].decode()


def _read_ring(words: memoryview[int], base: int, entries: int) -> list[RingEntry]:
    started, finished, settled = words[base + _STARTED], words[base + _FINISHED], words[base + _SETTLED]
    if not settled <= finished <= started:
        raise ValueError(f"a ring that has {started} started, {finished} finished and {settled} settled")
    ring = base + _RING
    return [
        RingEntry(
            position=words[ring + ((count & (entries - 1)) << 1)],
            lease=words[ring + ((count & (entries - 1)) << 1) + 1],
            finished=count < finished,
        )
        for count in range(max(settled, started - entries), started)
    ]


def _read_outbox(words: memoryview[int], raw: bytes, outbox_at: int, outbox_bytes: int) -> list[Settle]:
    head, tail = words[_OUTBOX_HEAD], words[_OUTBOX_TAIL]
    if not head <= tail <= head + outbox_bytes or outbox_bytes % 8:
        raise ValueError(f"an outbox from {head} to {tail} in {outbox_bytes} bytes")
    settles: list[Settle] = []
    while head < tail:
        at = head % outbox_bytes
        word = (outbox_at + at) >> 3
        if words[word] == _SKIP:
            head += outbox_bytes - at
            continue
        length = words[word + 1]
        if length > outbox_bytes - at - _FRAME_HEADER_BYTES:
            raise ValueError(f"a settle of {length} bytes at {at} in an outbox of {outbox_bytes}")
        start = outbox_at + at + _FRAME_HEADER_BYTES
        settle = _settle_decoder.decode(raw[start : start + length])
        if settle.number != words[word]:
            raise ValueError(f"settle {settle.number} stands where {words[word]} was written")
        settles.append(settle)
        head += _FRAME_HEADER_BYTES + ((length + 7) & ~7)
    return settles
