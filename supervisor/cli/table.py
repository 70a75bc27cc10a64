"""Tables of plain text: aligned on a terminal and no wider than it, one line a row for whoever reads them by program.

Where a table is too wide for the terminal, a first cell that leaves no room has a line for itself, and the last
column is wrapped below itself. Nothing is cut off.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len

_GAP = "  "
#: The last column is wrapped only where so much of the line is left to it.
_LAST_MIN = 16


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int) -> list[list[str]]:
    """Return the lines of a table: those of its head, then those of each row. Numbers stand to the right.

    `width` is the terminal's; 0: there is none, and each row is one line.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    right = [bool(rows) and all(isinstance(row[at], int | float | None) for row in rows) for at in range(len(columns))]
    widths = [max(cell_len(row[at]) for row in (columns, *cells)) for at in range(len(columns))]
    middle = sum(widths[1:-1]) + len(_GAP) * (len(columns) - 1)
    last = widths[-1]
    if width:
        if widths[0] + middle + last > width and not right[-1]:
            last = min(last, max(width - widths[0] - middle, _LAST_MIN))
        widths[0] = min(widths[0], max(width - middle - last, cell_len(columns[0])))
    return [_row_lines(row, widths, right, last) for row in ([*columns], *cells)]


def _row_lines(row: list[str], widths: list[int], right: list[bool], last: int) -> list[str]:
    lines: list[str] = []
    first = row[0]
    if cell_len(first) > widths[0]:
        lines.append(first)
        first = ""
    texts = [first, *row[1:]]
    endings = [texts[-1]]
    if cell_len(texts[-1]) > last:
        endings = textwrap.wrap(texts[-1], last, break_long_words=False, break_on_hyphens=False) or [""]
    head = _GAP.join(_padded(text, widths[at], right[at]) for at, text in enumerate(texts[:-1]))
    ending = _padded(endings[0], widths[-1], right[-1])
    lines.append(f"{head}{_GAP if head else ''}{ending}".rstrip())
    indent = " " * (cell_len(head) + len(_GAP))
    lines.extend(indent + ending for ending in endings[1:])
    return lines


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, int):
        return f"{value:,}" if value >= 100_000 else str(value)
    return printable(str(value))


def printable(text: str) -> str:
    """Return a text that cannot move the cursor: names and errors come from users."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
