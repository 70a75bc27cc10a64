"""From what was measured to what is shown: medians, spreads, ratios."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Summary:
    """The same thing measured several times."""

    values: tuple[float, ...]
    median: float
    low: float
    high: float
    #: How far the rounds lie apart, as a share of the median.
    spread: float


def summarize(values: Sequence[float]) -> Summary:
    """Return the median of the rounds and how far they lie apart. Raises ValueError when there are none."""
    if not values:
        raise ValueError("expected the figures of one round or more, got none")
    median = statistics.median(values)
    low, high = min(values), max(values)
    spread = (high - low) / abs(median) if median else 0.0
    return Summary(tuple(values), median, low, high, spread)


def ratio(ours: float, theirs: float, better: Literal["more", "less"]) -> float:
    """Return how many times better ours is: above 1 it is, whichever way is good for this figure."""
    if better == "less":
        ours, theirs = theirs, ours
    if theirs == 0:
        return math.inf if ours else 1.0
    return ours / theirs


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed (nearest rank)."""
    if not values:
        raise ValueError("expected one value or more, got none")
    if not 0 < share <= 1:
        raise ValueError(f"expected a share above 0 and up to 1, got {share}")
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]


def rate_at(points: Sequence[tuple[float, int]], first: int, last: int) -> float:
    """Return the rate between two counts of a run.

    `points` are (seconds, count so far), both growing, from (0.0, 0) on; between two of them the rate is taken as
    even.
    """
    if not 0 <= first < last <= points[-1][1]:
        raise ValueError(f"expected 0 <= first < last <= {points[-1][1]}, got {first} and {last}")
    return (last - first) / (_moment(points, last) - _moment(points, first))


def _moment(points: Sequence[tuple[float, int]], count: int) -> float:
    for (earlier, before), (later, after) in itertools.pairwise(points):
        if before <= count <= after:
            return earlier + (later - earlier) * (count - before) / (after - before)
    return points[-1][0]


def shown(value: float) -> str:
    """Write a figure with the four digits that mean something, or as a whole number."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
