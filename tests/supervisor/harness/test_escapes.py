"""User code that leaves its simulated world is told where it did, and so is the test; everybody else is left alone."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.actors.app import App
from greenroom.supervisor.harness.escapes import EscapedSimulation
from greenroom.supervisor.harness.world import World

MakeWorld = Callable[..., World]


def write(path: Path) -> None:
    path.write_text("out")


ESCAPES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a file": ("open", write),
    "an appended file": ("open", lambda path: os.open(path, os.O_APPEND | os.O_CREAT)),
    "a folder": ("open", lambda path: os.mkdir(path)),
    "a socket": ("socket", lambda path: socket.create_connection(("127.0.0.1", 9), timeout=0.1)),
    "a lookup": ("socket", lambda path: socket.getaddrinfo("localhost", 80)),
    "a command": ("process", lambda path: subprocess.run([sys.executable, "-V"], check=False)),
    "a shell": ("process", lambda path: os.system("true")),  # pyright: ignore[reportDeprecated]
    "a fork": ("process", lambda path: os.fork()),
    "a thread": ("thread", lambda path: threading.Thread(target=print).start()),
}


@pytest.mark.parametrize("what", list(ESCAPES))
def test_a_body_that_leaves_the_simulation_fails_the_test_with_its_line(
    app: App, make_world: MakeWorld, tmp_path: Path, what: str
) -> None:
    kind, leave = ESCAPES[what]

    @app.task
    def body() -> None:
        with contextlib.suppress(Exception):
            leave(tmp_path / "out")

    world = make_world()
    body.delay()
    with pytest.raises(EscapedSimulation) as raised:
        world.settle()
    assert f"sim.allow({kind!r})" in str(raised.value)
    assert str(raised.value).startswith(f"{__file__}:")
    assert not (tmp_path / "out").exists()


def test_whoever_waits_for_a_body_that_leaves_is_told(app: App, make_world: MakeWorld, tmp_path: Path) -> None:
    @app.task
    def body() -> None:
        with contextlib.suppress(Exception):
            write(tmp_path / "out")

    make_world()
    with pytest.raises(EscapedSimulation):
        body.delay().get(timeout=60)


def test_what_is_allowed_is_done(app: App, make_world: MakeWorld, tmp_path: Path) -> None:
    path = tmp_path / "out"

    @app.task
    def body() -> None:
        write(path)

    world = make_world()
    body.delay()
    with world.allow("open", "socket"):
        world.settle()
    assert path.read_text() == "out"
    with pytest.raises(EscapedSimulation):
        write(path)
    with pytest.raises(ValueError, match="there is nothing to allow called 'files'; there are open, socket"):
        world.allow("files").__enter__()


def test_the_test_itself_is_held_to_it_in_its_world_and_nowhere_else(app: App, tmp_path: Path) -> None:
    world = World(app)
    with world.realm.inside(), pytest.raises(EscapedSimulation, match="on test"):
        write(tmp_path / "out")
    write(tmp_path / "out")
    world.close()


def test_reading_and_importing_are_no_escapes(app: App, make_world: MakeWorld, tmp_path: Path) -> None:
    (tmp_path / "fresh_module.py").write_text("answer = 42\n")

    @app.task
    def body() -> int:
        assert (tmp_path / "fresh_module.py").read_text()
        return int(importlib.import_module("fresh_module").answer)

    world = make_world()
    sys.path.insert(0, str(tmp_path))
    try:
        assert body.delay().get(timeout=60) == 42
    finally:
        sys.path.remove(str(tmp_path))
    world.settle()


def test_a_coroutine_that_connects_or_starts_a_process_has_left(app: App, make_world: MakeWorld) -> None:
    import asyncio

    @app.task
    async def connect() -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    @app.task
    async def start() -> None:
        await asyncio.create_subprocess_exec("true")

    for task in (connect, start):
        world = make_world()
        task.delay()
        with pytest.raises(EscapedSimulation):
            world.settle()


def test_hypothesis_may_draw_within_a_world(app: App) -> None:
    @settings(max_examples=10, deadline=None, database=None)
    @given(st.data())
    def example(data: st.DataObject) -> None:
        world = World(app)
        with world.realm.inside():
            data.draw(st.text(st.characters(categories=["Lu", "Nd"])))
            data.draw(st.randoms(use_true_random=False)).random()
        world.close()

    example()
