"""Replays: the same example in fresh processes, each with hashes of its own, must go the same way.

Owns the examples that are replayed (`drawn`, and the smallest ones that hunts have found), the processes that do it,
and the comparison of what their traces hash to. Run as a program it replays what it reads, once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Final

import hypothesis
import msgspec
from hypothesis import HealthCheck, Phase, given, settings

from .scenario import Trial, Work, works
from .shop import Shop
from .switch import Switch

#: How long one process may take for all examples.
PROCESS_SECONDS: Final = 600.0


class Example(msgspec.Struct, frozen=True):
    """What is replayed: the name of the switch that is on, empty for none, and what happens."""

    switch: str
    work: Work


def drawn(count: int, seed: int) -> list[Work]:
    """Return so many examples of the generic scenario, as this seed draws them."""
    found: list[Work] = []

    def keep(work: Work) -> None:
        found.append(work)

    hypothesis.seed(seed)(
        settings(
            max_examples=count,
            database=None,
            phases=[Phase.generate],
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        )(given(works())(keep))
    )()
    return found[:count]


def digest(shop: Shop, example: Example, switches: Sequence[Switch]) -> str:
    """Run it once in this process; return its trace's hash and how it ended."""
    switch = next((switch for switch in switches if switch.name == example.switch), Switch("none", "", ()))
    trial = Trial(shop, example.work)
    ended = "at rest"
    with switch.on():
        try:
            trial.run()
        except Exception as error:
            ended = f"{type(error).__name__} {getattr(error, 'invariant', '')}".rstrip()
    return f"{trial.digest} {ended}"


def in_fresh_processes(examples: Sequence[Example], times: int) -> list[list[str]]:
    """Run these in so many fresh processes, each with another seed of hashes; return what each process found."""
    said = msgspec.json.encode(examples)
    found: list[list[str]] = []
    for number in range(times):
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=said,
            stdout=subprocess.PIPE,
            timeout=PROCESS_SECONDS,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": str(number + 1)},
        )
        found.append(done.stdout.decode().splitlines())
    return found


def equal(found: Sequence[Sequence[str]]) -> list[int]:
    """Return, for each example, in how many processes it went as in most."""
    return [Counter(digests).most_common(1)[0][1] for digests in zip(*found, strict=True)]


def main() -> None:
    """Replay what comes on the standard input, and print a line for each example."""
    import logging

    from .table import SWITCHES

    logging.disable(logging.CRITICAL)
    shop = Shop()
    for example in msgspec.json.decode(sys.stdin.buffer.read(), type=list[Example]):
        sys.stdout.write(f"{digest(shop, example, SWITCHES)}\n")


if __name__ == "__main__":
    main()
