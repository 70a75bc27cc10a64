"""Which engine a setting names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from greenroom.transport.errors import StoreError
from greenroom.transport.store.choose import choose_store
from greenroom.transport.store.memory import MemoryStore


def test_a_path_or_a_url_names_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    places: list[str | Path] = [
        "data",
        Path("data"),
        str(tmp_path / "data"),
        "sqlite:///data",
        f"sqlite:///{tmp_path}/data",
    ]
    for epoch, place in enumerate(places, 1):
        store = choose_store(place)
        assert store.open().epoch == epoch
        store.close()
    assert os.listdir(tmp_path) == ["data"]


def test_memory_is_a_new_store_each_time() -> None:
    first, second = choose_store("memory://"), choose_store("memory://")
    assert isinstance(first, MemoryStore)
    assert isinstance(second, MemoryStore)
    assert first.disk is not second.disk


@pytest.mark.parametrize(
    "place", ["redis://me:secret@host/1", "", "sqlite://", "sqlite:///", "sqlite://host/x", "memory://x"]
)
def test_what_names_no_store_is_told_with_what_would(place: str) -> None:
    with pytest.raises(StoreError, match="memory://") as refused:
        choose_store(place)
    assert "secret" not in str(refused.value)
