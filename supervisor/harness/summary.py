"""The summary of a run of tests: the table of faults and the moments at which they struck, and what else was covered.

Owns its words, as text for a terminal and as JSON. Kinds of fault and moments are those that are drawn (`drawing`,
`faults`); a cell in which nothing is drawn is `-`, and what does not exist yet is named below.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from . import faults
from .drawing import ANCHORS, anchors_of
from .faults import OUTSIDE, What
from .inv import not_yet
from .tally import STRETCH, Tally
from .trace import Kind

_CELL: Final = 7
#: Stretches of examples of which novel fingerprints are told: the first ones, and the last.
_STRETCHES: Final = 8
_SHORT: Final = {Kind.STORED: "stored", Kind.BROKER_UP: "up", Kind.ATTACHED: "attach", Kind.DETACHED: "detach"}


def cells() -> dict[What, tuple[Kind, ...]]:
    """Return where each fault within the promises may strike."""
    return {what: anchors_of(what) for what in faults.every()}


def empty_cells(tally: Tally) -> list[str]:
    """Return the cells of the table in which nothing has struck, in words."""
    return [
        f"{what} at {kind}"
        for what, kinds in cells().items()
        for kind in kinds
        if not tally.hits.get(what, {}).get(kind)
    ]


def summary(tally: Tally, width: int = 100) -> str:
    """Return what a run has covered, for a terminal of this width."""
    lines = [f"{tally.examples} simulated clusters", "", *_table(tally, width), ""]
    lines += [f"{name} {sentence}" for name, sentence in _below(tally)]
    return "\n".join(lines)


def written(tally: Tally, path: Path) -> Path:
    """Write the summary as JSON; return its path. Raises OSError."""
    everything: dict[str, Any] = {
        "examples": tally.examples,
        "hits": {what: {kind: tally.hits.get(what, {}).get(kind, 0) for kind in at} for what, at in cells().items()},
        "outside": {what: tally.hits[what] for what in OUTSIDE if what in tally.hits},
        "empty": empty_cells(tally),
        "not there yet": {**faults.NOT_THERE_YET, **not_yet()},
        "premises": tally.premises,
        "sometimes": tally.sometimes,
        "fingerprints": len(tally.fingerprints),
        "seen once": tally.singles,
        f"novel per {STRETCH} examples": tally.novel,
        "new ones expected of the next example": tally.residual,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(everything)) + b"\n")
    return path


def _table(tally: Tally, width: int) -> list[str]:
    rows = cells()
    first = max(len(what) for what in rows) + 2
    each = max(1, (width - first) // _CELL)
    lines: list[str] = []
    for start in range(0, len(ANCHORS), each):
        some = ANCHORS[start : start + each]
        head = "fault at" if not start else "and at"
        lines += [""] * bool(start)
        lines.append(f"{head:<{first}}" + "".join(f"{_SHORT.get(kind, str(kind)):>{_CELL}}" for kind in some))
        for what, kinds in rows.items():
            hits = tally.hits.get(what, {})
            shown = [str(hits.get(kind, 0)) if kind in kinds else "-" for kind in some]
            lines.append(f"{what:<{first}}" + "".join(f"{cell:>{_CELL}}" for cell in shown))
    return lines


def _below(tally: Tally) -> list[tuple[str, str]]:
    rows = cells()
    count = sum(len(kinds) for kinds in rows.values())
    empty = empty_cells(tally)
    least = min((tally.hits.get(what, {}).get(kind, 0), f"{what} at {kind}") for what in rows for kind in rows[what])
    told = f"{count}, of which {len(empty)} are empty" + (f": {_some(empty)}" if empty else "")
    seen = [f"{name} {seen.held} of {seen.reached}" for name, seen in tally.sometimes.items()]
    below = [
        ("cells:", told if empty else f"{told}; the fewest hits: {least[0]}, {least[1]}"),
        ("outside of the promises:", ", ".join(OUTSIDE)),
        ("not there yet:", "; ".join([*faults.NOT_THERE_YET, *not_yet()])),
        ("judged:", ", ".join(f"{name} {times}" for name, times in tally.premises.items())),
        ("sometimes:", ", ".join(seen) or "(no test says it)"),
        ("fingerprints:", f"{len(tally.fingerprints)}; novel per {STRETCH} examples: {_stretches(tally.novel)}"),
    ]
    if tally.fingerprints:
        share = 100 * tally.singles / len(tally.fingerprints)
        below.append(
            (
                "residual:",
                f"{tally.singles} of them ({share:.1f} %) in one only; the next may show {tally.residual:.4f} new ones",
            )
        )
    return below


def _some(words: Sequence[str], most: int = 12) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def _stretches(novel: Sequence[int]) -> str:
    if len(novel) <= _STRETCHES:
        return ", ".join(map(str, novel)) or "none"
    return ", ".join(map(str, novel[: _STRETCHES - 1])) + f" ... {novel[-1]}"
