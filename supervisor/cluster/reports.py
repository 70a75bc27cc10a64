"""The reports of dead children: said once, again after each re-attachment, and forgotten once the broker has them.

Owns which report belongs to which page, and removes the page when the report was applied and never before: until
then it is the only evidence, and the next node of this host would find it. Numbering and resending is the
attachment's.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import msgspec

from ...transport.errors import FrameTooLarge, LocalProtocolError
from ...transport.page import DamagedPage, PageContents, remove_page
from ...transport.peer.attachment import Attachment
from ...transport.verbs import Report
from ..pool.events import Bury
from .folder import NodeFolder

_log = logging.getLogger("greenroom.node")


class Reports:
    """The reports of one node, in the order of their numbers."""

    def __init__(
        self, attachment: Attachment, node_session: str, *, remove: Callable[[str], object] = remove_page
    ) -> None:
        """`remove` removes a page that was reported, by its path."""
        self._remove = remove
        self._attachment = attachment
        self._node_session = node_session
        #: (number, path of the page, folder to be let go of after it).
        self._open: deque[tuple[int, str, NodeFolder | None]] = deque()

    def __len__(self) -> int:
        return len(self._open)

    def of_child(self, end: Bury, evidence: PageContents | DamagedPage) -> None:
        """Report the end of a child of this node."""
        if isinstance(evidence, DamagedPage) and not evidence.missing:
            # To report it would say that nothing had started. Without a word the broker waits for evidence as long
            # as it waits for any, and judges without.
            _log.error("the page %s is damaged (%s); the broker judges child %d without it", *_of(evidence), end.number)
            self._remove(evidence.path)
            return
        ring = evidence.ring if isinstance(evidence, PageContents) else []
        outbox = evidence.outbox if isinstance(evidence, PageContents) else []
        report = Report(
            number=0,
            session=f"{self._node_session}/{end.number}",
            exit_code=end.exit_code,
            signal=end.signal,
            oom=end.oom,
            max_rss_kib=end.max_rss_kib,
            pid=end.pid,
            outbox=outbox,
            ring=ring,
            timed_out=end.timed_out,
            terminated=end.terminated,
            orderly=end.orderly,
        )
        self._add(report, evidence.path, None)

    def of_dead_node(self, folder: NodeFolder) -> int:
        """Report what a dead node's folder holds; return how many children that are."""
        pages = folder.pages()
        for n, contents in enumerate(pages):
            last = folder if n == len(pages) - 1 else None
            self._add(contents.report(0, node_lost=True), contents.path, last)
        if not pages:
            folder.close()
        return len(pages)

    def applied(self, number: int) -> None:
        """The broker has committed everything up to this number."""
        while self._open and self._open[0][0] <= number:
            _, page, folder = self._open.popleft()
            self._remove(page)
            if folder is not None:
                folder.close()

    def _add(self, report: Report, page: str, folder: NodeFolder | None) -> None:
        try:
            number = self._attachment.add(lambda number: msgspec.structs.replace(report, number=number))
        except (FrameTooLarge, LocalProtocolError) as error:
            # The page stays; the broker judges without it, or another node of this host reports it later.
            _log.error("the end of %s cannot be reported: %s", report.session, error)
            if folder is not None:
                folder.close()
            return
        self._open.append((number, page, folder))


def _of(page: DamagedPage) -> tuple[str, str]:
    return page.path, page.reason
