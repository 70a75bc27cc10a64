"""The pipe between a child and its parent, and the finding of applications."""

from __future__ import annotations

import os
import socket
import struct
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from greenroom.actors.app import App
from greenroom.actors.errors import ImproperlyConfigured
from greenroom.actors.worker.control import BodyEnded, LimitsChanged, Ready, StopChild, ToChild
from greenroom.actors.worker.leaving import exit_code_of
from greenroom.actors.worker.load import find_app
from greenroom.actors.worker.pipe import FRAME_BYTES_MAX, UNSENT_BYTES_MAX, Pipe


@pytest.fixture
def ends() -> Iterator[tuple[Pipe, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield Pipe(ours.fileno()), theirs
    ours.close()
    theirs.close()


def framed(word: ToChild) -> bytes:
    encoded = msgspec.msgpack.encode(word)
    return struct.pack(">I", len(encoded)) + encoded


def test_words_arrive_whole_however_they_are_cut(ends: tuple[Pipe, socket.socket]) -> None:
    pipe, parent = ends
    data = framed(StopChild(cold=True)) + framed(LimitsChanged(1, 2))
    heard: list[ToChild] = []
    for n in range(len(data)):
        parent.sendall(data[n : n + 1])
        heard += pipe.receive()
    assert heard == [StopChild(cold=True), LimitsChanged(1, 2)]
    assert not pipe.closed


def test_the_last_words_are_heard_before_the_end(ends: tuple[Pipe, socket.socket]) -> None:
    pipe, parent = ends
    parent.sendall(framed(StopChild()))
    parent.close()
    assert pipe.receive() == [StopChild()]
    assert pipe.closed


@pytest.mark.parametrize("data", [struct.pack(">I", FRAME_BYTES_MAX + 1), struct.pack(">I", 1) + b"\xc1"])
def test_what_is_no_word_of_a_parent_ends_the_pipe(ends: tuple[Pipe, socket.socket], data: bytes) -> None:
    pipe, parent = ends
    parent.sendall(data)
    assert pipe.receive() == []
    assert pipe.closed


def test_a_parent_that_does_not_read_does_not_hold_up_the_child(ends: tuple[Pipe, socket.socket]) -> None:
    pipe, parent = ends
    large = Ready(["x" * 100_000])
    sent = 0
    while not pipe.closed:
        pipe.send(large)
        sent += 1
        assert sent * 100_000 < 4 * UNSENT_BYTES_MAX, "it must give up at its limit"
    assert sent * 100_000 > UNSENT_BYTES_MAX
    parent.close()


def test_what_found_no_room_is_sent_later(ends: tuple[Pipe, socket.socket]) -> None:
    pipe, parent = ends
    for _ in range(20):
        pipe.send(Ready(["x" * 50_000]))
    pipe.send(BodyEnded(7))
    received = b""
    while not received.endswith(msgspec.msgpack.encode(BodyEnded(7))):
        received += parent.recv(1 << 20)
        pipe.flush()
    assert len(received) > 20 * 50_000


@pytest.mark.parametrize(("code", "expected"), [(None, 0), (0, 0), (3, 3), (-1, 255), (256, 0), ("why", 1)])
def test_exit_codes_are_pythons(code: object, expected: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(SystemExit(code)) == expected
    if code == "why":
        assert capsys.readouterr().err == "why\n"


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("project_for_find_app")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_an_application_is_found_by_its_attribute(project: types.ModuleType) -> None:
    project.shop = App("shop", set_as_current=False)  # type: ignore[attr-defined]
    assert find_app("project_for_find_app:shop") is project.shop
    assert find_app("project_for_find_app") is project.shop


@pytest.mark.parametrize("name", ["app", "celery"])
def test_celerys_names_go_before_any_other(project: types.ModuleType, name: str) -> None:
    project.another = App("another", set_as_current=False)  # type: ignore[attr-defined]
    setattr(project, name, App("mine", set_as_current=False))
    assert find_app("project_for_find_app") is getattr(project, name)


def test_a_submodule_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "project_with_celery"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "celery.py").write_text(
        "from greenroom.actors.app import App\nmine = App('mine', set_as_current=False)\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert find_app("project_with_celery").main == "mine"


def test_an_error_inside_of_a_submodule_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "project_with_error"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "app.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        find_app("project_with_error")


def test_what_is_no_application_is_told(project: types.ModuleType) -> None:
    project.number = 3  # type: ignore[attr-defined]
    with pytest.raises(ImproperlyConfigured, match="names 3"):
        find_app("project_for_find_app:number")
    with pytest.raises(ImproperlyConfigured, match="has no application"):
        find_app("project_for_find_app")


def test_a_pipe_whose_parent_died_is_closed_when_it_is_written_to() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    pipe = Pipe(writer)
    pipe.send(Ready())
    assert pipe.closed
    os.close(writer)
