"""What a client knows of results: who is asked about, what is expected by itself, and what came lately.

The broker pushes the results of what this session published with Flag.WATCHED, while its link lasts, and of what it
was asked to watch. So an id that was published on the present link needs no Watch; every other id that somebody
asks for does, with a snapshot, and so do all that are asked for when a link was lost: what was pushed meanwhile is
gone.

Terminal results that came are kept for a while, since a result usually comes before it is asked for. That of a dead
letter is not: after a redrive it would be a lie that nobody takes back, so the broker is asked each time.

Limits: KEPT_MAX results or KEPT_BYTES_MAX, the oldest leave; EXPECTED_MAX ids that are expected without a Watch,
the oldest leave and are watched when they are asked for; ASKED_MAX ids that are asked for, then `ask` raises.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ..errors import LocalProtocolError
from ..message import TERMINAL, Result, State
from ..verbs import Known

#: As many as a `send_many` of a hundred thousand brings before the first of them is asked for.
KEPT_MAX: Final = 100_000
KEPT_BYTES_MAX: Final = 64 << 20
EXPECTED_MAX: Final = 200_000
ASKED_MAX: Final = 1_000_000
#: Plain integers: what comes from the wire is compared with them once a result.
_TERMINAL: Final = frozenset(int(state) for state in TERMINAL)
_FAILURE: Final = int(State.FAILURE)
_decode: Final = msgspec.msgpack.Decoder(Result).decode


def is_terminal(known: Known) -> bool:
    """Tell whether it has ended. Nothing changes about that any more, unless a dead letter is redriven."""
    return known.state in _TERMINAL


def is_dead(known: Known) -> bool:
    """Tell whether it ended as a dead letter, which may be redriven."""
    if known.state != _FAILURE or not known.result:
        return False
    try:
        return _decode(known.result).dead
    except msgspec.DecodeError:
        # Whoever asked for it is told what is wrong with it.
        return False


class ResultBook:
    """Sans-IO; used by one thread."""

    def __init__(self) -> None:
        #: Asked for and not terminal yet -> whether the broker was told to watch it on this link.
        self._asked: dict[str, bool] = {}
        # Ordered dicts: a plain one takes the longer to find its oldest entry, the more have left before it.
        self._expected: OrderedDict[str, None] = OrderedDict()
        self._kept: OrderedDict[str, Known] = OrderedDict()
        self._kept_bytes = 0
        self._linked = False

    def expect(self, ids: Iterable[str]) -> None:
        """These are published on the present link, to be pushed without a Watch."""
        expected = self._expected
        for id in ids:
            expected[id] = None
        while len(expected) > EXPECTED_MAX:
            expected.popitem(last=False)

    def ask(self, ids: Sequence[str]) -> tuple[list[Known], list[str]]:
        """Somebody wants to know: return what is known as terminal, and which ids the broker must be told to watch.

        Without a link there is nobody to tell; `attached` returns those ids later.

        Raises LocalProtocolError at ASKED_MAX.
        """
        if len(self._asked) + len(ids) > ASKED_MAX:
            raise LocalProtocolError(
                f"{len(self._asked)} results are waited for, the limit is {ASKED_MAX}; wait for fewer at a time"
            )
        known: list[Known] = []
        watch: list[str] = []
        for id in ids:
            kept = self._kept.get(id)
            if kept is not None:
                known.append(kept)
            elif id not in self._asked:
                told = self._linked and id not in self._expected
                self._asked[id] = told
                if told:
                    watch.append(id)
        return known, watch

    def forget(self, ids: Iterable[str]) -> list[str]:
        """Nobody wants to know of these any more; return those that the broker should be told not to watch."""
        return [id for id in ids if self._asked.pop(id, False)]

    def learn(self, results: Iterable[Known]) -> list[Known]:
        """The broker told these; return those that were asked for. Terminal ones are asked for no longer."""
        wanted: list[Known] = []
        asked = self._asked
        for known in results:
            id = known.id
            if id in asked:
                wanted.append(known)
            if known.state in _TERMINAL:
                asked.pop(id, None)
                self._expected.pop(id, None)
                if not is_dead(known):
                    self._keep(known)
        return wanted

    def detached(self) -> None:
        """The link is gone, and with it every watch and everything that was about to be pushed."""
        self._linked = False
        self._expected.clear()
        for id in self._asked:
            self._asked[id] = False

    def attached(self) -> list[str]:
        """There is a new link: return the ids that must be watched on it."""
        self._linked = True
        watch = [id for id, watched in self._asked.items() if not watched and id not in self._expected]
        for id in watch:
            self._asked[id] = True
        return watch

    def kept(self, id: str) -> Known | None:
        """Return the terminal result of an id if it came lately and is final. Any thread may call this one."""
        return self._kept.get(id)

    @property
    def asked(self) -> list[str]:
        """The ids that are asked for and not terminal yet."""
        return list(self._asked)

    def _keep(self, known: Known) -> None:
        kept = self._kept
        old = kept.pop(known.id, None)
        if old is not None:
            self._kept_bytes -= len(old.result)
        kept[known.id] = known
        self._kept_bytes += len(known.result)
        while len(kept) > KEPT_MAX or self._kept_bytes > KEPT_BYTES_MAX:
            _, oldest = kept.popitem(last=False)
            self._kept_bytes -= len(oldest.result)
