"""The hunt for one switch: the generic scenario is tried until an invariant raises an alarm, and the example shrunk.

Owns the time that each may take, and what is told of it (`Catch`). Hypothesis draws and shrinks; the smallest example
seen so far is kept here, since its shrinking is cut off when its time is over.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import Final

import hypothesis
import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Flaky

from .scenario import Work, attempt, works
from .shop import Shop
from .switch import Switch

#: How long it may take to catch one.
SECONDS: Final = 60.0
#: How long a caught one is shrunk.
SHRINK_SECONDS: Final = 10.0
#: How long one looks for false alarms.
BENIGN_SECONDS: Final = 10.0
#: Examples of one round. Beyond its first ten Hypothesis makes most examples of parts of those that it had, which finds
#: bugs in values; here it tries the same world again and again.
_ROUND: Final = 10
_SEEDS_APART: Final = 1_000_003


class Catch(msgspec.Struct):
    """What came of one hunt."""

    switch: Switch
    #: Which invariant saw it first; empty: none did. An error's name, if something broke that none had named.
    invariant: str = ""
    #: Until the first alarm, or all the time there was.
    seconds: float = 0.0
    examples: int = 0
    #: The smallest example: faults that happened in it, tasks that were sent, deviations of the schedule.
    faults: int = 0
    tasks: int = 0
    turns: int = 0
    smallest: Work | None = None

    @property
    def is_good(self) -> bool:
        """Whether a sabotage was caught, or a harmless change left in peace."""
        return self.switch.is_benign != bool(self.invariant)

    @property
    def is_named(self) -> bool:
        """Whether it was caught by an invariant that the switch names."""
        return self.invariant in self.switch.caught_by


class _Over(BaseException):
    """The time is over."""


class _Alarm(Exception):
    """An invariant raised an alarm."""


def hunt(
    switch: Switch,
    shop: Shop,
    *,
    seconds: float = SECONDS,
    shrink_seconds: float = SHRINK_SECONDS,
    seed: int = 0,
) -> Catch:
    """Turn a switch on, and look for an alarm for so long at the most."""
    catch = Catch(switch)
    began = time.monotonic()
    until = began + seconds
    smallest: tuple[int, ...] = ()

    def trial(work: Work) -> None:
        nonlocal until, smallest
        now = time.monotonic()
        if now >= until:
            raise _Over
        invariant, happened = attempt(shop, work)
        if not catch.invariant:
            catch.examples += 1
            catch.seconds = time.monotonic() - began
        if not invariant:
            return
        if not catch.invariant:
            catch.invariant = invariant
            until = time.monotonic() + shrink_seconds
        if invariant != catch.invariant:
            return
        size = (len(happened), *work.size())
        if not smallest or size < smallest:
            smallest = size
            catch.faults, catch.tasks, catch.turns = len(happened), size[2], size[3]
            catch.smallest = work
        raise _Alarm

    tried = settings(
        max_examples=_ROUND,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )(given(works())(trial))
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with switch.on():
            for round in itertools.count():
                hypothesis.seed(seed + round * _SEEDS_APART)(tried)()
    except (_Over, _Alarm, Flaky):
        pass
    finally:
        logging.disable(disabled)
    return catch
