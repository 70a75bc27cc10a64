"""What a failure of a test with real processes shows: their logs, what runs, and what the broker says."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator

import pytest

from .cluster import Cluster


@pytest.fixture(autouse=True, scope="session")
def interrupts_are_heard() -> Iterator[None]:
    """Let the processes of tests hear Ctrl-C, also where a shell has started the tests behind its back.

    Such a shell lets what it starts ignore SIGINT, and so would everything that is started from here.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failure what the clusters that run now can tell of it."""
    report = yield
    if report.failed:
        for cluster in Cluster.running:
            report.sections.append((f"cluster in {cluster.folder}", cluster.state()))
            report.sections.extend(cluster.logs())
    return report
