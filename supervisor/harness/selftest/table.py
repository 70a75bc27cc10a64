"""The table of the self-test: each switch, who caught it, how soon, and how little it took.

Owns the list of all switches, and what the command `python -m greenroom.testing selftest` prints and returns.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from . import (
    benign,
    switches_blame,
    switches_commits,
    switches_handing,
    switches_intake,
    switches_states,
    switches_worker,
)
from .hunt import BENIGN_SECONDS, SECONDS, SHRINK_SECONDS, Catch, hunt
from .replay import Example, drawn, equal, in_fresh_processes
from .shop import Shop
from .switch import Switch

SABOTAGES: Final[tuple[Switch, ...]] = (
    *switches_blame.SWITCHES,
    *switches_commits.SWITCHES,
    *switches_handing.SWITCHES,
    *switches_intake.SWITCHES,
    *switches_states.SWITCHES,
    *switches_worker.SWITCHES,
)
BENIGN: Final[tuple[Switch, ...]] = benign.SWITCHES
SWITCHES: Final = SABOTAGES + BENIGN

#: How many of the examples that were caught, and of others, are replayed.
REPLAYED_CAUGHT: Final = 6
REPLAYED_DRAWN: Final = 20

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


def markdown(catches: Sequence[Catch], seed: int, replayed: str = "", options: str = "") -> str:
    """Return the page of the documentation that tells what came of these hunts."""
    sabotages = [catch for catch in catches if not catch.switch.is_benign]
    benign = [catch for catch in catches if catch.switch.is_benign]
    caught = sum(catch.is_good and catch.is_named for catch in sabotages)
    flagged = sum(not catch.is_good for catch in benign)
    summary = (
        f"On one core of {_machine()}, seed {seed}: {caught} of {len(sabotages)} sabotages caught by an invariant that "
        f"the switch names, {flagged} of {len(benign)} harmless changes flagged."
    )
    lines = [
        "# The self-test",
        "",
        "Greenroom's own safeguards are turned off one by one, each by a switch that changes production code from",
        "outside, and the generic scenario of `greenroom.testing` runs until an invariant raises an alarm. Harmless",
        "changes, of order and pace, must raise none. `make selftest` runs all of it; this page is what",
        f"`python -m greenroom.testing selftest {options}`".replace(" `", "`") + " made.",
        "",
        summary,
        *(["", replayed] if replayed else []),
        "",
        "| sabotage | the safeguard that is off | caught by | seconds | examples | faults | tasks |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for catch in sabotages:
        switch = catch.switch
        size = f"{catch.faults} | {catch.tasks}" if catch.invariant else " | "
        by = catch.invariant or "nobody"
        lines.append(f"| {switch.name} | {switch.safeguard} | {by} | {catch.seconds:.1f} | {catch.examples} | {size} |")
    lines += [
        "",
        "Faults and tasks are those of the smallest example that was found within a few seconds of shrinking.",
        "",
        "| harmless change | flagged by | seconds | examples |",
        "| --- | --- | ---: | ---: |",
    ]
    for catch in benign:
        lines.append(
            f"| {catch.switch.name} | {catch.invariant or 'nobody'} | {catch.seconds:.1f} | {catch.examples} |"
        )
    return "\n".join([*lines, ""])


def _machine() -> str:
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return f"{processor}, Python {platform.python_version()}"


def replays(catches: Sequence[Catch], times: int, seed: int, tell: Callable[[str], object] = _say) -> str:
    """Replay a handful of what was caught, and calm examples, in so many fresh processes; tell how many went alike.

    Returns the sentence.
    """
    caught = [Example(catch.switch.name, catch.smallest) for catch in catches if catch.smallest is not None]
    chosen = caught[:: max(1, len(caught) // REPLAYED_CAUGHT)][:REPLAYED_CAUGHT]
    examples = [*chosen, *(Example("", work) for work in drawn(REPLAYED_DRAWN, seed))]
    same = equal(in_fresh_processes(examples, times))
    alike = sum(count == times for count in same)
    sentence = (
        f"{len(chosen)} of the examples that were caught and {len(examples) - len(chosen)} of the tree as it is went "
        f"the same way {min(same)} times out of {times} in fresh processes with other hashes each"
    )
    if alike < len(examples):
        sentence += f"; {len(examples) - alike} did not always"
    tell(f"{sentence}.")
    return f"{sentence}."


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
    parser.add_argument("--replays", type=int, default=0, metavar="N", help="replay examples in N fresh processes")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as a page of documentation")
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
    replayed = replays(catches, chosen.replays, chosen.seed) if chosen.replays else ""
    if chosen.markdown is not None:
        chosen.markdown.write_text(
            markdown(catches, chosen.seed, replayed, " ".join(sys.argv[2:] if arguments is None else arguments[1:]))
        )
    return 0 if all(catch.is_good for catch in catches) and "did not" not in replayed else 1
