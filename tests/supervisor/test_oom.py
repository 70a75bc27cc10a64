"""Kills by the OOM killer, told from others by the kernel's count."""

from __future__ import annotations

from pathlib import Path

import pytest

from greenroom.supervisor.pool.oom import OomKills

VERSION_1 = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
VERSION_2 = "low 0\nhigh 0\nmax 31\noom 1\noom_kill {}\noom_group_kill 0\n"


@pytest.mark.parametrize("form", [VERSION_1, VERSION_2])
def test_each_kill_is_claimed_once(tmp_path: Path, form: str) -> None:
    path = tmp_path / "memory.events"
    path.write_text(form.format(4))
    kills = OomKills((tmp_path / "missing", path))
    assert not kills.claim(), "what was before is not ours"
    path.write_text(form.format(6))
    assert [kills.claim(), kills.claim(), kills.claim()] == [True, True, False]


def test_without_a_count_nothing_is_claimed(tmp_path: Path) -> None:
    path = tmp_path / "memory.events"
    path.write_text("no such line\n")
    assert not OomKills((path, tmp_path / "missing")).claim()
    path.write_text(VERSION_2.format(0))
    kills = OomKills((path,))
    path.unlink()
    assert not kills.claim()


def test_the_count_of_this_process_is_looked_for_where_the_kernel_says() -> None:
    assert not OomKills().claim()
