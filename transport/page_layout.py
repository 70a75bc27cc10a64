"""The page of one child: what a killed process leaves behind as evidence (spec D13, D14, D16, D19).

Owns the layout of a small memory-mapped file in the node's runtime folder, and the theory of what it proves. The
child's marks in it are `page_marks.Page`; the parent's stamp and the reading of what a dead child left are in
`page.py`. Nobody judges here: that is the broker's, from the `Report` that `PageContents.report` makes. Whoever has
reported a page removes it.

What is in it, in native 64-bit words:

- a header: who the child is (session, node, incarnation, and pid with the start time of the process and the
  boot of the machine, so that another process with the same pid is not taken for it), a flag, and `heard`;
- for each runner (a thread or a coroutine that runs one body at a time) a ring of (position, lease), and
  three counts: settled <= finished <= started. Entries from `settled` on are the evidence: started, and
  perhaps finished, with an outcome that is not in the outbox;
- pending: the outcomes that are to go into the next `Settle`, so that a body that kills its process takes no
  outcome of an earlier one with it;
- an outbox: the bytes of `Settle` verbs that the broker has not acknowledged.

What is visible after SIGKILL: every store that the process made before it, in the order in which it made
them, because the pages belong to the kernel and whoever reads them has waited for the process to end. So each
change ends with one store of a count that makes it count: position and lease, then `started`; a frame's
bytes, then the outbox's tail, then `settled`. A child that dies between two of these has, at worst, not yet
said the later thing:

- before `started`: the body has not begun; the message goes back without blame;
- after `started`, before `finished`: the body is a suspect, although it may not have reached its first line;
- after its outcome is pending, before `finished`: the outcome counts. Whatever is pending or in the outbox is
  left out of the ring by whoever reads it, and pending is emptied only after its Settle is in the outbox, so that
  the order of these stores does not matter to the broker;
- after `finished` without an outcome (it was too large, or another thread was to write it): nobody is blamed.

Limits: `entries` per runner, `OUTBOX_BYTES` for all frames, `PENDING_BYTES`. `put_settle` says False for a frame that
finds no room; the child then starts nothing until the broker has acknowledged it, so that its entries are not
overwritten (the consumer keeps this rule). The file's blocks are allocated at its making: a full disk is an OSError
there, and not a SIGBUS later.
"""

from __future__ import annotations

import os
import urllib.parse

MAGIC = 0x47524E5250414745
VERSION = 1

#: Room for settles under way: several times what a full window needs.
OUTBOX_BYTES = 512 << 10
#: Room for the outcomes of one Settle: a frame is closed when it has grown to this.
PENDING_BYTES = 256 << 10
#: The number of the Settle that pending outcomes are reported in: above every number of a session.
PENDING_NUMBER = 1 << 62
#: Ring entries of all runners together; a single runner gets `RING_ENTRIES_MAX` of them at most.
RING_ENTRIES_TOTAL = 1 << 16
RING_ENTRIES_MAX = 1024
RING_ENTRIES_MIN = 32
RUNNERS_MAX = 4096

HEADER_BYTES = 4096
HEADER_WORDS = HEADER_BYTES // 8
TEXT_BYTES_MAX = 1024
SESSION_AT = 1024
NODE_AT = 2048

# Words of the header.
WORD_MAGIC, WORD_VERSION, WORD_PID, WORD_STARTED_AT, WORD_BOOT, WORD_INCARNATION, WORD_FLAGS, WORD_HEARD = range(8)
(
    WORD_RUNNERS,
    WORD_ENTRIES,
    WORD_OUTBOX_BYTES,
    WORD_OUTBOX_HEAD,
    WORD_OUTBOX_TAIL,
    WORD_SESSION_BYTES,
    WORD_NODE_BYTES,
    WORD_PENDING_COUNT,
) = range(8, 16)

FLAG_ORDERLY = 1

# Words before each runner's ring.
RING_STARTED, RING_FINISHED, RING_SETTLED, RING_ENTRIES_AT = 0, 1, 2, 4

#: In place of a frame's number: nothing here, the next frame is at the start of the outbox.
SKIP = (1 << 64) - 1
FRAME_HEADER_BYTES = 16


def ring_entries(runners: int) -> int:
    """Entries of each runner's ring, a power of two."""
    entries = RING_ENTRIES_MAX
    while entries > RING_ENTRIES_MIN and entries * runners > RING_ENTRIES_TOTAL:
        entries //= 2
    return entries


def page_path(folder: str | os.PathLike[str], node: str, incarnation: int, number: int) -> str:
    """Where a child's page is: in the node's runtime folder, named by node, incarnation and child number."""
    return os.path.join(folder, f"{urllib.parse.quote(node, safe='@')}.{incarnation}.{number}.page")
