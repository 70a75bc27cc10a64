"""The folders of nodes, living and dead."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from greenroom.supervisor.cluster.folder import KEPT_SECONDS, NodeFolder, abandoned_folders, broker_key
from greenroom.supervisor.cluster.folders import node_folder, nodes_folder

BROKER = ["tcp://127.0.0.1:5670"]


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def dead_folder(session: str, brokers: list[str] | None = None, *, pages: int = 1) -> NodeFolder:
    """Leave a folder as a dead node does: nobody holds its lock."""
    folder = NodeFolder.create(session, "n@h", brokers or BROKER)
    for number in range(pages):
        Path(folder.page("n@h", 1, number)).write_bytes(b"evidence")
    os.close(folder.lock)
    return folder


def found(brokers: list[str] | None = None) -> list[str]:
    folders = abandoned_folders(brokers or BROKER)
    for folder in folders:
        os.close(folder.lock)
    return [folder.path.name for folder in folders]


def test_a_folder_is_for_its_user_only() -> None:
    folder = NodeFolder.create("s1", "n@h", BROKER)
    assert folder.path == node_folder("s1")
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    folder.close()


def test_a_folder_without_pages_goes_with_its_node_and_one_with_pages_stays() -> None:
    first, second = NodeFolder.create("s1", "n@h", BROKER), NodeFolder.create("s2", "n@h", BROKER)
    Path(second.page("n@h", 1, 1)).write_bytes(b"evidence")
    first.close()
    second.close()
    assert [path.name for path in nodes_folder().iterdir()] == ["s2"]


def test_d16_the_folder_of_a_dead_node_is_found_and_that_of_a_living_one_is_not() -> None:
    dead_folder("dead")
    living = NodeFolder.create("living", "n@h", BROKER)
    Path(living.page("n@h", 1, 1)).write_bytes(b"evidence")
    assert found() == ["dead"]
    living.close()


def test_a_folder_lives_as_long_as_anybody_has_its_lock() -> None:
    folder = NodeFolder.create("s1", "n@h", BROKER)
    Path(folder.page("n@h", 1, 1)).write_bytes(b"evidence")
    childs = os.dup(folder.lock)
    folder.close()
    assert found() == []
    os.close(childs)
    assert found() == ["s1"]


def test_two_nodes_do_not_report_the_same_folder() -> None:
    dead_folder("dead")
    (mine,) = abandoned_folders(BROKER)
    assert abandoned_folders(BROKER) == []
    os.close(mine.lock)


def test_a_folder_is_left_to_the_nodes_of_its_own_broker() -> None:
    dead_folder("dead", ["tcp://127.0.0.1:5671"])
    assert found() == []
    assert found(["tcp://localhost:5671"]) == ["dead"]


def test_what_nobody_needs_is_removed() -> None:
    dead_folder("empty", pages=0)
    (dead_folder("spoilt").path / "about").write_bytes(b"{")
    old = dead_folder("old", ["tcp://127.0.0.1:1"])
    long_ago = time.time() - KEPT_SECONDS - 10
    os.utime(old.path, (long_ago, long_ago))
    recent = dead_folder("recent", ["tcp://127.0.0.1:1"])
    almost = time.time() - KEPT_SECONDS + 1000
    os.utime(recent.path, (almost, almost))
    assert found() == []
    assert [path.name for path in nodes_folder().iterdir()] == ["recent"]


def test_brokers_on_this_machine_are_known_by_their_port() -> None:
    assert broker_key(["tcp://127.0.0.1:5670"]) == broker_key(["greenroom://localhost"])
    assert broker_key(["tcp://127.0.0.1:5670"]) != broker_key(["tcp://127.0.0.1:5671"])
    assert broker_key(["tcp://192.0.2.1:1", "ipc:///a"]) == broker_key(["ipc:///a", "tcp://192.0.2.1:1"])
