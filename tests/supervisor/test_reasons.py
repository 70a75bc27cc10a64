"""Reasons in words."""

from __future__ import annotations

import pytest

from greenroom.supervisor.reasons import NORMAL, ExitReason, crashed, failed_to_start, intensity_exceeded


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (NORMAL, "normal"),
        (ExitReason("shutdown", "no more work"), "shutdown (no more work)"),
        (crashed("ValueError: x"), "crashed (ValueError: x)"),
        (crashed(exit_code=3), "crashed (exit code 3)"),
        (crashed(signal=9, oom=True), "crashed (signal 9, out of memory)"),
        (failed_to_start("no port"), "failed to start (no port)"),
        (intensity_exceeded("4 in 5 s"), "intensity exceeded (4 in 5 s)"),
    ],
)
def test_a_reason_says_what_happened(reason: ExitReason, words: str) -> None:
    assert str(reason) == words
