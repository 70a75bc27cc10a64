"""What the command line of pytest says about simulated tests, for whoever asks while tests are made and run.

Owns the options of the moment: without pytest's plugin they say nothing, and each test keeps its own settings. The
plugin is loaded with every pytest of an environment, so nothing of the extra `testing` is imported here.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

#: A nightly run tries so many times the examples that a test asks for.
NIGHTLY_FACTOR = 40


class Options(msgspec.Struct, frozen=True):
    """What was asked for."""

    #: Where Hypothesis begins; None: where it likes.
    seed: int | None = None
    #: The one example to try, as a report names it; empty: look for examples.
    replay: str = ""
    #: How many examples to try; 0: as each test says.
    examples: int = 0
    #: Run each example twice and compare their traces.
    check_determinism: bool = False
    #: Where a page of each failure is written; None: nowhere.
    timeline: Path | None = None
    #: "pr" or "nightly"; empty: neither.
    profile: str = ""
    #: How long a test tries examples for each of its shares, in seconds of real time; 0: until it has tried all that it
    #: asks for.
    seconds: float = 0.0
    #: Count what the examples cover.
    coverage: bool = False

    def examples_of(self, wanted: int) -> int:
        """Return how many examples a test tries that wants so many."""
        nightly = self.profile == "nightly" and not self.seconds
        return self.examples or wanted * (NIGHTLY_FACTOR if nightly else 1)


_options = Options()


def options() -> Options:
    """Return the options of the moment."""
    return _options


def use_options(chosen: Options) -> None:
    """Let these be the options from now on."""
    global _options
    _options = chosen
