"""The pytest plugin: options for simulated tests, and the fixtures of a simulated cluster and of a real one.

Owns what pytest calls (loaded by its entry point `greenroom`); what the options mean stands in `options`. The harness
itself is imported when a test asks for it, so that the plugin costs nothing to those who simulate nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from .options import Options, options, use_options

if TYPE_CHECKING:
    from ...actors.app import App
    from .processes import RealCluster
    from .sim import Sim
    from .tally import Tally  # noqa: F401 - in the type of a key

_BEFORE = pytest.StashKey[Options]()
_TALLY_BEFORE = pytest.StashKey["Tally"]()
_COUNTS = "greenroom_counts"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Called by pytest for the options that there are."""
    group = parser.getgroup("greenroom", "simulated clusters (greenroom.testing)")
    group.addoption("--gr-seed", type=int, metavar="N", help="where the search for examples begins")
    group.addoption("--gr-replay", default="", metavar="BLOB", help="run the one example that a report names")
    group.addoption("--gr-examples", type=int, default=0, metavar="N", help="how many examples each test tries")
    group.addoption("--gr-check-determinism", action="store_true", help="run each example twice, and compare")
    group.addoption("--gr-timeline", metavar="FOLDER", help="write a page of each failure into this folder")
    group.addoption("--gr-profile", choices=("pr", "nightly"), default="", help="nightly tries many more examples")
    group.addoption("--gr-minutes", type=float, default=0.0, metavar="N", help="try examples for so long, all tests")
    group.addoption(
        "--gr-coverage",
        nargs="?",
        const="-",
        metavar="FILE",
        help="tell in the end what the run has covered, and write it to this file (JSON)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest before tests are collected."""

    def said(name: str) -> Any:
        return config.getoption(name)

    folder = said("--gr-timeline")
    config.stash[_BEFORE] = options()
    use_options(
        Options(
            seed=said("--gr-seed"),
            replay=said("--gr-replay"),
            examples=said("--gr-examples"),
            check_determinism=said("--gr-check-determinism"),
            timeline=Path(folder) if folder else None,
            profile=said("--gr-profile"),
            coverage=said("--gr-coverage") is not None or said("--gr-profile") == "nightly",
        )
    )
    if options().coverage:
        from .tally import Tally, use_tally

        config.stash[_TALLY_BEFORE] = use_tally(Tally())


def pytest_collection_finish(session: pytest.Session) -> None:
    """Called by pytest when it knows which tests it will run: each simulated one gets its shares of the time."""
    minutes: Any = session.config.getoption("--gr-minutes")
    shares = [_shares(item) for item in session.items]
    if minutes and any(shares):
        # Each worker of pytest-xdist knows all tests, and runs its part of them; no test is in two of these.
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        seconds = 60 * minutes * min(1 / max(shares), workers / sum(shares))
        use_options(msgspec.structs.replace(options(), seconds=seconds))


def _shares(item: pytest.Item) -> int:
    """Return how many shares of the time a test gets: 1, unless it says otherwise; 0 if it simulates nothing."""
    places = getattr(item, "obj", None), getattr(item, "cls", None)
    return next((getattr(place, "shares", 1) for place in places if getattr(place, "is_simulated", False)), 0)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Called by pytest after the last test: a worker of pytest-xdist hands over what it has counted."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None and options().coverage:
        from .tally import tally

        output[_COUNTS] = msgspec.json.encode(tally()).decode()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Called by pytest-xdist when a worker has ended: its counts are summed."""
    counts: str | None = getattr(node, "workeroutput", {}).get(_COUNTS)
    if counts is not None:
        from .tally import Tally, tally

        tally().merge(msgspec.json.decode(counts, type=Tally))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Called by pytest at the end: tell what the run has covered."""
    if not options().coverage:
        return
    from .summary import summary, written
    from .tally import tally

    terminalreporter.section("what simulated clusters have covered")
    terminalreporter.write_line(summary(tally(), shutil.get_terminal_size().columns))
    file = config.getoption("--gr-coverage")
    if file not in (None, "-"):
        terminalreporter.write_line(f"written to {written(tally(), Path(file))}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Called by pytest at its end, which is not always its process's."""
    use_options(config.stash[_BEFORE])
    if _TALLY_BEFORE in config.stash:
        from .tally import use_tally

        use_tally(config.stash[_TALLY_BEFORE])


@pytest.fixture
def greenroom_sim() -> Iterator[Callable[..., Sim]]:
    """Return a function that makes a simulated cluster around an app, closed after the test.

    Its options are `workers`, `children` and `clients`, and those of `Sim`.
    """
    from .drawing import Plan
    from .sim import simulated

    with ExitStack() as stack:

        def make(app: App, *, workers: int = 1, children: int = 1, clients: int = 1, **options: Any) -> Sim:
            return stack.enter_context(simulated(app, Plan(workers, children, clients), **options))

        yield make


@pytest.fixture
def greenroom_cluster(tmp_path: Path) -> Iterator[Callable[..., RealCluster]]:
    """Return a function that starts a cluster of real processes around an app, stopped and judged after the test.

    Its options are `workers`, `children` and those of `RealCluster`. The event logs stay in `tmp_path`.
    """
    from .processes import RealCluster

    count = 0
    with ExitStack() as stack:

        def make(app: App, *, workers: int = 1, children: int = 1, **options: Any) -> RealCluster:
            nonlocal count
            count += 1
            options.setdefault("event_log", tmp_path / f"events{count}.ndjson")
            return stack.enter_context(RealCluster(app, workers=workers, children=children, **options))

        yield make
