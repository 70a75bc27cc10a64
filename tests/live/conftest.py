"""What a failure of a test with real processes shows: their logs, what runs, and what the broker says."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from .cluster import Cluster


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
