"""The bank's accounts have all of their money, although the process that hosts them is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 120


@pytest.mark.live
def test_no_money_is_lost_or_made_where_the_accounts_are_killed(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "bank.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0].startswith("killed; mia's account answers again after ")
    assert lines[1] == "ActorFailed"
    assert lines[2].endswith("together 4000")
