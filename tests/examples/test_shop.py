"""The shop's test finds its double charge, and tells of it on one screen; the mended shop holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: A machine with other work needs a multiple of what a quiet one does.
PATIENCE_SECONDS = 240


def run_shop(test: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", test]
    return subprocess.run(
        [*command, str(ROOT / "examples" / "shop.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_the_double_charge_is_found_and_told_in_twelve_lines_with_two_faults_at_most() -> None:
    run = run_shop("twice")
    assert run.returncode == 1, run.stdout
    told = [line.removeprefix("E").strip() for line in run.stdout.splitlines() if line.startswith("E ")]
    assert any("charge was done 2 times" in line for line in told), run.stdout
    start = next(n for n, line in enumerate(told) if line.startswith("seconds "))
    timeline = told[start + 1 : told.index("", start)]
    assert 0 < len(timeline) <= 12
    assert 1 <= sum("* FAULT" in line for line in timeline) <= 2
    assert any("--gr-replay=" in line for line in told)
    orders = next(line for line in told if line.startswith("orders="))
    assert orders.count("'") <= 6


def test_the_mended_shop_holds() -> None:
    run = run_shop("mended")
    assert run.returncode == 0, run.stdout
