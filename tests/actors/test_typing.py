"""Programs are typed: by their functions' parameters, by what these return, by actors' methods."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("typed_program.py")


def errors_in(program: Path) -> list[str]:
    """Return what mypy has against this file alone, whatever it finds elsewhere."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", str(program)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if program.name in line and ": error: " in line]


def test_mypy_finds_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    assert errors_in(PROGRAM) == []
    # Each ignored line is an error indeed: without the ignores they are all found.
    bare, ignores = re.subn(r"  # type: ignore.*", "", PROGRAM.read_text("utf-8"))
    assert ignores >= 12
    bared = tmp_path / PROGRAM.name
    bared.write_text(bare, "utf-8")
    lines = {re.sub(r"^.*?:(\d+): .*$", r"\1", line) for line in errors_in(bared)}
    assert len(lines) == ignores
