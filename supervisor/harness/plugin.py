"""The pytest plugin: options for simulated tests, and the fixtures of a simulated cluster and of a real one.

Owns what pytest calls (loaded by its entry point `greenroom`); what the options mean stands in `options`. The harness
itself is imported when a test asks for it, so that the plugin costs nothing to those who simulate nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .options import Options, options, use_options

if TYPE_CHECKING:
    from ...actors.app import App
    from .processes import RealCluster
    from .sim import Sim

_BEFORE = pytest.StashKey[Options]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Called by pytest for the options that there are."""
    group = parser.getgroup("greenroom", "simulated clusters (greenroom.testing)")
    group.addoption("--gr-seed", type=int, metavar="N", help="where the search for examples begins")
    group.addoption("--gr-replay", default="", metavar="BLOB", help="run the one example that a report names")
    group.addoption("--gr-examples", type=int, default=0, metavar="N", help="how many examples each test tries")
    group.addoption("--gr-check-determinism", action="store_true", help="run each example twice, and compare")
    group.addoption("--gr-timeline", metavar="FOLDER", help="write a page of each failure into this folder")
    group.addoption("--gr-profile", choices=("pr", "nightly"), default="", help="nightly tries many more examples")


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
        )
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    """Called by pytest at its end, which is not always its process's."""
    use_options(config.stash[_BEFORE])


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
            log = tmp_path / f"events{count}.ndjson"
            return stack.enter_context(
                RealCluster(app, workers=workers, children=children, **{"event_log": log, **options})
            )

        yield make
