"""The package's root: what it offers, and that it is cheap to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import greenroom

ROOT = Path(__file__).resolve().parent.parent


def names_for_type_checkers() -> set[str]:
    """Return what the root imports under TYPE_CHECKING."""
    tree = ast.parse((ROOT / "__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_every_name_is_there_and_is_listed_once() -> None:
    assert sorted(greenroom.__all__) == greenroom.__all__
    assert len(set(greenroom.__all__)) == len(greenroom.__all__)
    for name in greenroom.__all__:
        assert getattr(greenroom, name) is not None
    assert set(greenroom.__all__) <= set(dir(greenroom))


def test_type_checkers_see_the_same_names() -> None:
    assert names_for_type_checkers() == set(greenroom.__all__)


def test_a_name_comes_from_the_module_that_type_checkers_are_told() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {
        f".{node.module}": {alias.name for alias in node.names}
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    }
    assert {place: set(names) for place, names in vars(greenroom)["_PLACES"].items()} == told


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'greenroom' has no attribute 'Ap'"):
        greenroom.Ap  # noqa: B018  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["chain", "chord", "group"])
def test_a_canvas_is_not_there_and_says_so(name: str) -> None:
    assert not hasattr(greenroom, name)
    with pytest.raises(AttributeError, match=f"no attribute '{name}': there are no canvases yet.*send_many"):
        getattr(greenroom, name)
    with pytest.raises(ImportError, match=f"cannot import name '{name}' from 'greenroom'"):
        exec(f"from greenroom import {name}")


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("import greenroom", {"greenroom.actors.app", "greenroom.supervisor", "msgspec", "zmq", "asyncio"}),
        (
            "from greenroom import App\napp = App()\n@app.task\ndef add(x): return x\nadd(1)",
            {"zmq", "asyncio", "cloudpickle", "pickle", "greenroom.supervisor", "sqlite3", "multiprocessing"},
        ),
    ],
)
def test_importing_brings_in_no_more_than_is_needed(program: str, absent: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )
    assert absent.isdisjoint(done.stdout.split())


def test_the_runtime_is_loaded_when_it_is_needed() -> None:
    runtime = vars(greenroom)["_load_runtime"]()
    assert all(hasattr(runtime, name) for name in ("run", "worker_main", "start"))
