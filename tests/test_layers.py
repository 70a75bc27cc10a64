"""Who may use what: reads every import of the package, and says where a rule of construction is broken.

The tables at the top say what is allowed. A rule is a function from a module to the sentences that say what
is wrong with it; it runs over the tree, and over small bad modules that show that it notices. What counts as
a use: an import anywhere (also inside a function or under TYPE_CHECKING), an import by string, an attribute
of an imported module, and a string that is nothing but the name of one of our modules.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "greenroom"

#: The floors, from the ground up. A module may use its own floor and those below it.
FLOORS = ("transport", "actors", "supervisor")
#: The only Python files beside the folders. They may use every floor; no floor may use them.
FACES = ("__init__.py", "__main__.py", "testing.py")
FACE_MODULES = ("", "__main__", "testing")
#: Texts that name a module and import nothing: where a reader of a failure looks for its class.
NAMES_AS_DATA = ("greenroom.actors.errors",)

#: The modules that may load pickled bytes; whoever calls them has verified the body's signature before.
PICKLE_HOMES = ("transport/pickling.py",)
#: The last one starts fresh interpreters, which is what it is for: to see that a replay goes the same way there.
PROCESS_HOMES = ("supervisor/pool", "supervisor/cluster", "supervisor/harness/selftest/replay.py")

#: What only some places may use. A name covers everything below it; a star stands for any letters.
RESERVED: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("zmq",), ("transport/wire",)),
    (("sqlite3", "psycopg", "psycopg_pool", "aiosqlite", "asyncpg"), ("transport/store",)),
    # The simulated disk is a VFS of apsw's; it moves pages and knows no SQL.
    (("apsw",), ("transport/store", "transport/sim/vfs.py")),
    (
        (
            "subprocess",
            "multiprocessing",
            "pty",
            "posix",
            "_posixsubprocess",
            "concurrent.futures.ProcessPoolExecutor",
            "concurrent.futures.process",
            "asyncio.subprocess",
            "asyncio.create_subprocess_*",
            "os.fork",
            "os.forkpty",
            "os.posix_spawn*",
            "os.spawn*",
            "os.exec*",
            "os.system",
            "os.popen",
        ),
        PROCESS_HOMES,
    ),
    (("pickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal"), PICKLE_HOMES),
)

#: The machines: they decide and touch nothing (tests/test_cores.py looks further into them).
CORES = (
    "transport/broker",
    "transport/peer",
    "actors/worker/consumer.py",
    "actors/worker/events.py",
    "actors/worker/window.py",
    "supervisor/backoff.py",
    "supervisor/events.py",
    "supervisor/intensity.py",
    "supervisor/monitors.py",
    "supervisor/moves.py",
    "supervisor/pool/deaths.py",
    "supervisor/pool/endings.py",
    "supervisor/pool/events.py",
    "supervisor/pool/limits.py",
    "supervisor/pool/machine.py",
    "supervisor/pool/members.py",
    "supervisor/pool/spawners.py",
    "supervisor/pool/starts.py",
    "supervisor/pool/strength.py",
    "supervisor/pool/watches.py",
    "supervisor/reasons.py",
    "supervisor/requests.py",
    "supervisor/roster.py",
    "supervisor/spec.py",
    "supervisor/strategy.py",
    "supervisor/tree.py",
    "supervisor/view.py",
)
#: What would let a machine read a clock, draw randomness, do I/O or tell anybody about it.
FORBIDDEN_IN_CORES = (
    "asyncio",
    "concurrent",
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "greenroom.transport.clock.system_now",
    "greenroom.transport.sim",
    "greenroom.transport.wire",
    "logging",
    "os",
    "random",
    "secrets",
    "select",
    "selectors",
    "socket",
    "threading",
    "time",
    "uuid",
    "uuid_utils",
    "warnings",
    "zmq",
)

IMPORTS_BY_STRING = ("import_module", "__import__", "find_spec", "resolve_name", "run_module")
MODULE_NAME = re.compile(rf"{PACKAGE}(\.\w+)+(:[\w.]+)?")


@dataclass(frozen=True)
class Use:
    """One use of a name: where, which (dotted, absolute), and how: relative, absolute, attribute or text."""

    line: int
    name: str
    how: str


@dataclass(frozen=True)
class Module:
    """A source file of the package and everything that it uses."""

    path: str
    uses: tuple[Use, ...]

    def is_in(self, places: tuple[str, ...]) -> bool:
        """Tell whether this file is one of these files, or lies in one of these folders."""
        return any(self.path == place or self.path.startswith(f"{place}/") for place in places)


Rule = Callable[[Module], Iterator[str]]


# --- reading -----------------------------------------------------------------------------------------------


def package_of(path: str) -> list[str]:
    """Return the parts of the package that holds the module: actors/x.py -> ["greenroom", "actors"]."""
    return [PACKAGE, *Path(path).parent.parts]


def absolute(path: str, level: int, name: str) -> str:
    """Return the absolute name of a relative import of `level` dots in the module at `path`."""
    parts = package_of(path)
    if level > len(parts):
        return "(outside the package)"
    return ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])


def uses_in_imports(path: str, tree: ast.AST) -> Iterator[Use]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Use(node.lineno, alias.name, "absolute")
        elif isinstance(node, ast.ImportFrom):
            base = absolute(path, node.level, node.module or "") if node.level else node.module or ""
            for alias in node.names:
                yield Use(node.lineno, f"{base}.{alias.name}", "relative" if node.level else "absolute")


def names_bound_by_imports(tree: ast.AST) -> dict[str, str]:
    """Return what each name stands for that is imported from elsewhere: `import os as o` -> {"o": "os"}."""
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                bound[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return bound


def dotted(node: ast.expr, bound: dict[str, str]) -> str:
    """Return what an expression such as `o.path.join` names, or "" if it does not start at an import."""
    if isinstance(node, ast.Name):
        return bound.get(node.id, "")
    if isinstance(node, ast.Attribute):
        base = dotted(node.value, bound)
        return f"{base}.{node.attr}" if base else ""
    return ""


def text_of(node: ast.expr) -> str:
    """Return a literal string, or the literal start of an f-string; "" for anything else."""
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""


def uses_in_expressions(path: str, tree: ast.AST) -> Iterator[Use]:
    bound = names_bound_by_imports(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if name := dotted(node, bound):
                yield Use(node.lineno, name, "attribute")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if MODULE_NAME.fullmatch(node.value):
                yield Use(node.lineno, node.value.replace(":", "."), "text")
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "getattr" and len(node.args) > 1:
                if (base := dotted(node.args[0], bound)) and (attribute := text_of(node.args[1])):
                    yield Use(node.lineno, f"{base}.{attribute}", "attribute")
            elif called in IMPORTS_BY_STRING and (text := text_of(node.args[0])):
                name = text.lstrip(".")
                dots = len(text) - len(name)
                yield Use(
                    node.lineno,
                    absolute(path, dots, name) if dots else name,
                    "relative" if dots else "absolute",
                )


def read(path: str, source: str) -> Module:
    tree = ast.parse(source, path)
    uses = {*uses_in_imports(path, tree), *uses_in_expressions(path, tree)}
    return Module(path, tuple(sorted(uses, key=lambda use: (use.line, use.name, use.how))))


@cache
def package() -> tuple[Module, ...]:
    paths = [ROOT / face for face in FACES]
    for floor in FLOORS:
        paths.extend(sorted((ROOT / floor).rglob("*.py")))
    return tuple(read(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in paths)


# --- rules -------------------------------------------------------------------------------------------------


def matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def runs_up(module: Module) -> Iterator[str]:
    """Imports run down: supervisor -> actors -> transport, and nothing uses the faces."""
    own = module.path.partition("/")[0]
    if own not in FLOORS:
        return
    for use in module.uses:
        parts = use.name.split(".")
        if parts[0] != PACKAGE:
            continue
        target = parts[1] if len(parts) > 1 else ""
        if use.how == "text" and (target not in (*FLOORS, *FACE_MODULES) or use.name in NAMES_AS_DATA):
            continue
        if target not in FLOORS or FLOORS.index(target) > FLOORS.index(own):
            yield f"{module.path}:{use.line}: {own} uses {use.name}, which is above it; let it be handed in"


def is_not_relative(module: Module) -> Iterator[str]:
    """Inside the package we import ourselves relatively, and never from outside it."""
    for use in module.uses:
        if use.how == "absolute" and matches(use.name, PACKAGE):
            yield f"{module.path}:{use.line}: {use.name} is imported by its full name; import it relatively"
        elif use.name.startswith("("):
            yield f"{module.path}:{use.line}: a relative import with more dots than the package has folders"


def is_reserved(module: Module) -> Iterator[str]:
    """Sockets, SQL, processes and pickles each have a home."""
    for patterns, homes in RESERVED:
        if module.is_in(homes):
            continue
        for use in module.uses:
            if any(matches(use.name, pattern) for pattern in patterns):
                yield f"{module.path}:{use.line}: {use.name} belongs in {' or '.join(homes)}"


def touches_the_world(module: Module) -> Iterator[str]:
    """A machine has no way to a clock, randomness, a socket, a thread or a log."""
    if not module.is_in(CORES):
        return
    for use in module.uses:
        if any(matches(use.name, forbidden) for forbidden in FORBIDDEN_IN_CORES):
            yield f"{module.path}:{use.line}: a machine uses {use.name}; let its driver do it"


RULES: tuple[Rule, ...] = (runs_up, is_not_relative, is_reserved, touches_the_world)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    broken = [sentence for module in package() for sentence in rule(module)]
    assert not broken, "\n".join(["", *broken])


def test_the_root_holds_faces_only() -> None:
    assert sorted(path.name for path in ROOT.glob("*.py")) == sorted(FACES)


def test_every_file_of_every_floor_is_read() -> None:
    read_paths = {module.path for module in package()}
    for floor in FLOORS:
        assert f"{floor}/__init__.py" in read_paths
    assert set(FACES) < read_paths


def test_every_machine_that_the_rules_name_is_in_the_tree() -> None:
    missing = [place for place in CORES if not (ROOT / place).exists()]
    assert not missing, f"the rules guard nothing at {missing}; name the places where these machines are now"


# --- the rules themselves ----------------------------------------------------------------------------------

BAD: tuple[tuple[Rule, str, str], ...] = (
    (runs_up, "transport/x.py", "from ..actors.ref import ActorRef"),
    (runs_up, "transport/x.py", "from .. import supervisor"),
    (runs_up, "transport/store/x.py", "from ...supervisor import spec"),
    (runs_up, "transport/x.py", "from .. import App"),
    (runs_up, "transport/x.py", "from ..testing import World"),
    (runs_up, "transport/x.py", "import greenroom"),
    (runs_up, "actors/x.py", "def late():\n    from ..supervisor.tree import Tree"),
    (
        runs_up,
        "actors/x.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..supervisor.spec import ChildSpec",
    ),
    (runs_up, "actors/x.py", "import importlib\nimportlib.import_module('greenroom.supervisor.pool')"),
    (runs_up, "actors/x.py", "import importlib\nimportlib.import_module(f'greenroom.supervisor.{name}')"),
    (
        runs_up,
        "actors/tasks/x.py",
        "from importlib import import_module\nimport_module('...supervisor.pool', __package__)",
    ),
    (runs_up, "actors/x.py", "__import__('greenroom.supervisor')"),
    (runs_up, "actors/x.py", "PLACES = {'run': 'greenroom.supervisor.cluster.plan:run'}"),
    (is_not_relative, "actors/x.py", "from greenroom.transport.clock import Now"),
    (is_not_relative, "supervisor/x.py", "import greenroom.transport.clock as clock"),
    (is_not_relative, "__init__.py", "def late():\n    import greenroom.actors"),
    (is_not_relative, "supervisor/x.py", "import importlib\nimportlib.import_module('greenroom.actors.ref')"),
    (is_not_relative, "actors/x.py", "from .... import secret"),
    (is_reserved, "actors/x.py", "import zmq"),
    (is_reserved, "transport/sim/x.py", "import zmq.asyncio as sockets"),
    (is_reserved, "supervisor/x.py", "def late():\n    from zmq.auth import certs"),
    (is_reserved, "transport/wired.py", "import zmq"),
    (is_reserved, "transport/x.py", "import importlib\nimportlib.import_module('zmq')"),
    (is_reserved, "transport/broker/x.py", "import sqlite3"),
    (is_reserved, "transport/sim/network.py", "import apsw"),
    (is_reserved, "supervisor/gateway/x.py", "from psycopg.rows import dict_row"),
    (is_reserved, "supervisor/tree.py", "import subprocess"),
    (is_reserved, "actors/x.py", "from multiprocessing import Process"),
    (is_reserved, "supervisor/control.py", "import os\nos.fork()"),
    (is_reserved, "supervisor/control.py", "import os as o\npid = o.posix_spawnp('sh', ['sh'], {})"),
    (is_reserved, "supervisor/cli/x.py", "from os import execvpe as become"),
    (is_reserved, "supervisor/cli/x.py", "import os\ngetattr(os, 'system')('ls')"),
    (
        is_reserved,
        "supervisor/x.py",
        "import asyncio\nasync def f():\n    await asyncio.create_subprocess_exec('ls')",
    ),
    (is_reserved, "actors/x.py", "from concurrent.futures import ProcessPoolExecutor"),
    (is_reserved, "transport/codec.py", "import pickle"),
    (is_reserved, "actors/x.py", "def late():\n    import cloudpickle"),
    (touches_the_world, "transport/broker/core.py", "import time"),
    (touches_the_world, "transport/peer/x.py", "from random import choice"),
    (touches_the_world, "transport/peer/x.py", "def late():\n    import uuid"),
    (touches_the_world, "actors/worker/consumer.py", "import os.path"),
    (touches_the_world, "supervisor/strategy.py", "import logging as log"),
    (touches_the_world, "supervisor/intensity.py", "from datetime import datetime\nx = datetime.now()"),
    (touches_the_world, "supervisor/tree.py", "from ..transport.clock import Now, system_now"),
    (touches_the_world, "transport/broker/leases/x.py", "import threading"),
)

GOOD: tuple[tuple[str, str], ...] = (
    (
        "supervisor/x.py",
        "from ..actors.ref import ActorRef\nfrom ..transport import clock\nfrom . import spec",
    ),
    ("actors/x.py", "import importlib\nimportlib.import_module(name)\nimportlib.import_module('shop.tasks')"),
    ("__init__.py", "from .actors.app import App\ndef late():\n    from .supervisor.spec import ChildSpec"),
    ("__main__.py", "from .supervisor.cli.main import main"),
    ("transport/wire/sockets.py", "import zmq\nfrom zmq.utils.monitor import recv_monitor_message"),
    ("transport/store/sqlite.py", "import sqlite3\nimport apsw"),
    ("transport/sim/vfs.py", "import apsw"),
    ("transport/pickling.py", "import cloudpickle\nimport pickle"),
    ("supervisor/pool/spawner.py", "import os\nimport subprocess\nos.fork()"),
    ("supervisor/control.py", "import os\nos.kill(os.getpid(), 15)\nos.path.join('a', 'b')"),
    ("transport/broker/core.py", "from ..clock import Now\nfrom ..store.records import Record\nimport heapq"),
    ("transport/errors.py", "'''Names greenroom.supervisor in a sentence.'''\nimport time, logging"),
    ("transport/x.py", "self.fork()\nsubprocess = 1\nlog = 'greenroom.transport.x'"),
)


@pytest.mark.parametrize(("rule", "path", "source"), BAD)
def test_a_broken_rule_is_noticed(rule: Rule, path: str, source: str) -> None:
    sentences = list(rule(read(path, source)))
    assert sentences
    assert all(sentence.startswith(f"{path}:") for sentence in sentences)


@pytest.mark.parametrize(("path", "source"), GOOD)
def test_what_is_allowed_passes_every_rule(path: str, source: str) -> None:
    module = read(path, source)
    assert [sentence for rule in RULES for sentence in rule(module)] == []
