"""The table of the self-test: each switch, who caught it, how soon, and how little it took.

Owns the list of all switches, and what the command `python -m greenroom.testing selftest` prints and returns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Final

from . import benign, switches_blame, switches_commits, switches_handing, switches_intake, switches_worker
from .hunt import BENIGN_SECONDS, SECONDS, SHRINK_SECONDS, Catch, hunt
from .shop import Shop
from .switch import Switch

SABOTAGES: Final[tuple[Switch, ...]] = (
    *switches_blame.SWITCHES,
    *switches_commits.SWITCHES,
    *switches_handing.SWITCHES,
    *switches_intake.SWITCHES,
    *switches_worker.SWITCHES,
)
BENIGN: Final[tuple[Switch, ...]] = benign.SWITCHES
SWITCHES: Final = SABOTAGES + BENIGN

_NAME: Final = max(len(switch.name) for switch in SWITCHES)
HEADER: Final = f"{'switch':{_NAME}}  {'caught by':10} {'seconds':>8} {'examples':>9} {'faults':>7} {'tasks':>6}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def row(catch: Catch) -> str:
    """Return one line of the table."""
    switch = catch.switch
    if switch.is_benign:
        by = f"{catch.invariant}!" if catch.invariant else "nobody"
    else:
        by = catch.invariant if catch.is_named else f"{catch.invariant}?" if catch.invariant else "MISSED"
    line = f"{switch.name:{_NAME}}  {by:10} {catch.seconds:8.1f} {catch.examples:9}"
    return f"{line} {catch.faults:7} {catch.tasks:6}" if catch.invariant else line


def run(
    switches: Sequence[Switch],
    *,
    seconds: float = SECONDS,
    shrink_seconds: float = SHRINK_SECONDS,
    benign_seconds: float = BENIGN_SECONDS,
    seed: int = 0,
    tell: Callable[[str], object] = _say,
) -> list[Catch]:
    """Hunt for each of these, tell the table line by line, and return what came of each."""
    shop = Shop()
    tell(HEADER)
    catches: list[Catch] = []
    for switch in switches:
        limit = benign_seconds if switch.is_benign else seconds
        catches.append(hunt(switch, shop, seconds=limit, shrink_seconds=shrink_seconds, seed=seed))
        tell(row(catches[-1]))
    sabotages = [catch for catch in catches if not catch.switch.is_benign]
    caught = sum(catch.is_good for catch in sabotages)
    flagged = [catch.switch.name for catch in catches if catch.switch.is_benign and not catch.is_good]
    tell(f"{caught} of {len(sabotages)} sabotages caught, {len(flagged)} harmless changes flagged")
    for catch in catches:
        if not catch.is_good:
            wrong = "flagged" if catch.switch.is_benign else "missed"
            tell(f"{wrong}: {catch.switch.name}. {catch.switch.safeguard}".rstrip())
    return catches


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 if every sabotage was caught and no harmless change flagged, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m greenroom.testing",
        description="Turn off Greenroom's safeguards one by one, and see that the invariants notice.",
    )
    parser.add_argument("command", choices=["selftest"])
    parser.add_argument("--only", default="", metavar="WORDS", help="switches with these words in their names")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="to catch one (default: %(default)g)")
    parser.add_argument("--shrink", type=float, default=SHRINK_SECONDS, help="seconds to shrink one (%(default)g)")
    parser.add_argument("--benign", type=float, default=BENIGN_SECONDS, help="for each harmless one (%(default)g)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="name the switches and what each turns off")
    chosen = parser.parse_args(arguments)
    switches = [switch for switch in SWITCHES if chosen.only in switch.name]
    if chosen.list:
        for switch in switches:
            patched = ", ".join(patch.words() for patch in switch.patches)
            _say(f"{switch.name:{_NAME}}  {patched:40}  {switch.safeguard or 'harmless'}")
        return 0
    catches = run(
        switches,
        seconds=chosen.seconds,
        shrink_seconds=chosen.shrink,
        benign_seconds=chosen.benign,
        seed=chosen.seed,
    )
    return 0 if all(catch.is_good for catch in catches) else 1
