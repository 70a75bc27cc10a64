"""What the pages say is so: links, verbs, paths, programs, and the tables of settings, limits, errors and rules.

A table that is compared with the code stands behind a comment such as `<!-- settings: honoured -->`, a program that is
run behind `<!-- runs -->`. What a program prints is the next block of text.
"""

from __future__ import annotations

import ast
import enum
import fnmatch
import importlib
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import pytest

from greenroom.actors import signals
from greenroom.actors.settings.defaults import OPTIONS
from greenroom.actors.settings.names import IGNORED
from greenroom.actors.tasks.attributes import TaskAttributes
from greenroom.actors.tasks.options import CALL_OPTIONS, FROM_SETTINGS
from greenroom.supervisor.cli.main import VERBS, cli
from greenroom.supervisor.harness.invariants.runs import BY_EVENTS
from greenroom.supervisor.pool.limits import PoolLimits
from greenroom.transport.broker.settings import BrokerSettings
from greenroom.transport.event_log import FACTS
from greenroom.transport.store.schema import TABLES

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("transport", "actors", "supervisor")
PAGES = ("README.md", "CHANGELOG.md", "docs", "benchmarks/README.md")

FOLDER_OR_SOURCE = re.compile(
    r"(?:actors|transport|supervisor|tests|examples|docs|benchmarks|\.ci|\.dev)/(?:[\w./-]*/|[\w./-]*\.(?:py|md|toml))?"
)
#: A command: its verb, perhaps a second word, and the rest.
COMMAND = re.compile(r"(?<!from )(?<![\w./`])(?:\S*/)?greenroom ([a-z]+(?:-[a-z]+)*)(?: ([a-z]+))?([^`;]*)")
#: Verbs that a page names to say that they are not there.
NOT_VERBS = ("beat",)
#: Settings that the code reads or writes, and that lead to nothing all the same: each with where it ends.
READ_IN_VAIN = {
    "beat_schedule": "add_periodic_task writes it, and nothing runs it",
    "task_default_rate_limit": "the value of a task's rate_limit, which nothing enforces",
    "task_store_eager_result": "the value of a task's store_eager_result, which nothing reads",
    "deprecated_settings": "left out where settings are shown",
}


# --- reading pages -----------------------------------------------------------------------------------------------


class Page(NamedTuple):
    """A page of documentation."""

    name: str
    text: str


class Program(NamedTuple):
    """A block of Python on a page. `marked`: it is to be run; `same_as`: the file that it repeats."""

    page: str
    line: int
    text: str
    marked: bool
    same_as: str
    prints: str


def pages() -> list[Page]:
    paths: list[Path] = []
    for name in PAGES:
        paths += sorted((ROOT / name).glob("*.md")) if (ROOT / name).is_dir() else [ROOT / name]
    return [Page(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in paths]


def page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def rows_after(text: str, mark: str) -> list[list[str]]:
    """The rows of the table behind a comment, without its head; each a list of cells."""
    _, found, rest = text.partition(f"<!-- {mark} -->\n")
    assert found, f"there is no comment <!-- {mark} -->"
    table = list(itertools.takewhile(lambda line: line.startswith("|"), rest.splitlines()))
    assert len(table) > 2, f"no table stands behind <!-- {mark} -->"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def ticked(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def slug(heading: str) -> str:
    """The anchor of a heading, by GitHub's rule."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower())
    return kept.replace(" ", "-")


def anchors(text: str) -> set[str]:
    return {slug(found) for found in re.findall(r"^#+ (.*)$", without_blocks(text), re.MULTILINE)}


def programs() -> Iterator[Program]:
    block = re.compile(
        r"(?:<!-- (?P<mark>runs)(?:: (?P<file>\S+))? -->\n)?^```python\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
    )
    for name, text in pages():
        for match in block.finditer(text):
            printed = re.match(r"\s*[^`#|]*?```text\n(.*?)^```$", text[match.end() :], re.DOTALL | re.MULTILINE)
            yield Program(
                page=name,
                line=text[: match.start("text")].count("\n") + 1,
                text=match["text"],
                marked=match["mark"] is not None,
                same_as=match["file"] or "",
                prints=printed[1] if printed else "",
            )


def snippets(text: str) -> Iterator[str]:
    """The commands of a page: what stands in backticks, and the lines of indented and shell blocks."""
    for block in re.findall(r"^```(?:ini|sh|bash)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield from block.splitlines()
    plain = without_blocks(text)
    yield from ticked(plain)
    yield from (line for line in plain.splitlines() if line.startswith("    "))


# --- reading the code --------------------------------------------------------------------------------------------


@cache
def trees() -> dict[str, ast.Module]:
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8"))
        for floor in FLOORS
        for path in sorted((ROOT / floor).rglob("*.py"))
    }


@cache
def texts_in_code() -> str:
    """Every text of the code, f-strings cut at their values, a line each."""
    return "\n".join(
        node.value
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def reads_of(tree: ast.Module) -> Iterator[str]:
    """Names that a module may read off an object: attributes and texts."""
    fallbacks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "_FALLBACKS"
    ]
    skipped = {id(node) for top in fallbacks for node in ast.walk(top)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@cache
def settings_in_use() -> frozenset[str]:
    """Settings whose names the code above the transport reads, apart from where they are listed."""
    listed = ("actors/settings/defaults.py", "actors/settings/names.py")
    used = {
        name
        for path, tree in trees().items()
        if path not in listed and not path.startswith("transport/")
        for name in reads_of(tree)
    }
    return frozenset(used & OPTIONS.keys())


def sent_signals() -> set[str]:
    """Names of signals on which the code calls `send`."""
    sent: set[str] = set()
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "send":
                holder = node.func.value
                sent.add(holder.attr if isinstance(holder, ast.Attribute) else getattr(holder, "id", ""))
    return sent & signals.ALL.keys()


def notices() -> set[str]:
    """The words of the broker's notices."""
    return {
        node.args[0].value
        for path, tree in trees().items()
        if path.startswith("transport/broker/")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "notice"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def worker_notices() -> set[str]:
    """The words of a worker's notices."""
    return {
        node.args[0].value
        for path, tree in trees().items()
        if path.startswith("supervisor/pool/")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Notice"
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


@cache
def names_of_tests() -> dict[str, str]:
    """Every test of the tree, and its file."""
    return {
        node.name: path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def names_in(rows: Iterable[list[str]]) -> list[str]:
    return [name for row in rows for name in ticked(row[0])]


def expanded(names: Iterable[str]) -> list[str]:
    """Settings that are meant by names with a * in them."""
    found: list[str] = []
    for name in names:
        meant = fnmatch.filter(OPTIONS, name)
        assert meant, f"no setting is called {name}"
        found += meant
    return found


def assert_same(said: Iterable[str], true: Iterable[str], what: str) -> None:
    listed = list(said)
    twice = sorted({name for name in listed if listed.count(name) > 1})
    missing, wrong = sorted(set(true) - set(listed)), sorted(set(listed) - set(true))
    assert (twice, missing, wrong) == ([], [], []), f"{what}: told twice, not told, told and not there"


# --- links, paths, verbs, names ----------------------------------------------------------------------------------


def broken_links(name: str, text: str) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(text)):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path
        if path and not file.exists():
            yield f"{name}: {target} is not there"
        elif anchor and anchor not in anchors(file.read_text("utf-8") if path else text):
            yield f"{name}: {path or name} has no heading #{anchor}"


def broken_paths(name: str, text: str) -> Iterator[str]:
    """Folders and sources of the tree in backticks."""
    for path in ticked(without_blocks(text)):
        if FOLDER_OR_SOURCE.fullmatch(path) and not (ROOT / path).exists():
            yield f"{name}: there is no {path}"


def wrong_commands(name: str, text: str) -> Iterator[str]:
    """Commands with a verb, a verb of `dead`, or an option that is not there."""
    for snippet in snippets(text):
        for match in COMMAND.finditer(snippet):
            verb, second, rest = match[1], match[2] or "", f" {match[2] or ''}{match[3]}"
            if verb in NOT_VERBS:
                continue
            if verb not in VERBS:
                yield f"{name}: there is no verb {verb!r} ({snippet.strip()})"
                continue
            command: click.Command | None = cli.commands.get(verb) or cli.get_command(click.Context(cli), verb)
            assert command is not None
            if isinstance(command, click.Group):
                if second and second not in command.commands:
                    yield f"{name}: there is no {verb} {second}"
                    continue
                command = command.commands.get(second, command)
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            # What comes after the program that `greenroom run` runs is that program's.
            words = re.findall(r"(?<=\s)(--?[a-zA-Z][\w-]*)", rest.partition(" -- ")[0])
            for word in words:
                if word not in known and word != "--help":
                    yield f"{name}: {verb} has no option {word} ({snippet.strip()})"


def wrong_imports(name: str, text: str) -> Iterator[str]:
    for module, names in re.findall(r"`from (greenroom[\w.]*) import ([\w, ]+)`", text):
        holder = importlib.import_module(module)
        for wanted in names.split(","):
            if not hasattr(holder, wanted.strip()):
                yield f"{name}: {module} has no {wanted.strip()}"


def wrong_targets(name: str, text: str) -> Iterator[str]:
    targets = set(re.findall(r"^([a-z-]+):", page("Makefile"), re.MULTILINE))
    for snippet in snippets(text):
        for target in re.findall(r"(?:^|\s)make ([a-z-]+)\b", snippet):
            if target not in targets:
                yield f"{name}: there is no `make {target}`"


RULES: tuple[Callable[[str, str], Iterator[str]], ...] = (
    broken_links,
    broken_paths,
    wrong_commands,
    wrong_imports,
    wrong_targets,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_pages_keep_the_rule(rule: Callable[[str, str], Iterator[str]]) -> None:
    broken = [sentence for name, text in pages() for sentence in rule(name, text)]
    assert not broken, "\n".join(["", *broken])


BAD = (
    (broken_links, "see [this](nowhere.md)"),
    (broken_links, "see [this](operations.md#no-such-heading)"),
    (broken_links, "see [this](#no-such-heading)"),
    (broken_paths, "it is in `transport/broker/nothing.py`"),
    (wrong_commands, "call `greenroom inspect`"),
    (wrong_commands, "    greenroom broker --no-such-option\n"),
    (wrong_commands, "call `greenroom dead revive ID`"),
    (wrong_commands, "```ini\nExecStart=/opt/bin/greenroom worker --nothing 4\n```"),
    (wrong_imports, "`from greenroom import App, chord`"),
    (wrong_targets, "    make coffee\n"),
)
GOOD = (
    "see [this](operations.md#stopping), [that](../README.md) and [this](#here)\n\n# Here\n",
    "`transport/broker/core.py`, `greenroom.actors`, `greenroom dead ls --task x`, `from greenroom import App`",
    "    greenroom run -A shop:app -- python x.py --anything\n    make test\n",
    "a greenroom is a room, and `greenroom broker -l DEBUG` runs",
)


@pytest.mark.parametrize(("rule", "text"), BAD)
def test_a_wrong_page_is_noticed(rule: Callable[[str, str], Iterator[str]], text: str) -> None:
    assert list(rule("docs/x.md", text))


@pytest.mark.parametrize("text", GOOD)
def test_a_right_page_passes_every_rule(text: str) -> None:
    assert [sentence for rule in RULES for sentence in rule("docs/x.md", text)] == []


# --- programs ----------------------------------------------------------------------------------------------------


def test_every_block_of_python_compiles_and_some_are_run() -> None:
    found = list(programs())
    for program in found:
        compile(program.text, f"{program.page}:{program.line}", "exec")
    assert {program.page for program in found if program.marked} == {"README.md", "docs/celery.md", "docs/actors.md"}
    assert all(program.prints for program in found if program.marked)


def test_the_example_of_the_readme_is_the_one_in_the_tree() -> None:
    (program,) = [program for program in programs() if program.same_as]
    assert program.text == page(program.same_as)


@pytest.mark.live
@pytest.mark.parametrize(
    "program", [program for program in programs() if program.marked], ids=lambda program: program.page
)
def test_a_program_of_the_pages_runs_and_prints_what_is_said(program: Program, tmp_path: Path) -> None:
    script = ROOT / program.same_as if program.same_as else tmp_path / "program.py"
    if not program.same_as:
        script.write_text(program.text, "utf-8")
    run = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert (run.returncode, run.stdout) == (0, program.prints), run.stderr


# --- coming from Celery ------------------------------------------------------------------------------------------


def settings_told() -> tuple[list[str], list[str], list[str]]:
    """The names in the three tables: honoured, ignored, unused."""
    text = page("docs/celery.md")
    honoured, ignored, unused = (rows_after(text, f"settings: {what}") for what in ("honoured", "ignored", "unused"))
    return names_in(honoured), expanded(names_in(ignored)), expanded(names_in(unused))


def test_every_setting_stands_in_one_of_the_three_tables() -> None:
    honoured, ignored, unused = settings_told()
    assert_same([*honoured, *ignored, *unused], OPTIONS, "settings")


def test_ignored_settings_are_told_with_their_reasons() -> None:
    for cells in rows_after(page("docs/celery.md"), "settings: ignored"):
        for name in expanded(ticked(cells[0])):
            assert IGNORED.get(name) == cells[1], f"{name} is ignored because: {IGNORED.get(name)}"
    assert_same(settings_told()[1], IGNORED, "ignored settings")


def test_honoured_settings_are_read_by_the_code_and_have_the_default_that_is_told() -> None:
    for cells in rows_after(page("docs/celery.md"), "settings: honoured"):
        (name,) = ticked(cells[0])
        assert name in settings_in_use(), f"nothing reads {name}"
        assert name not in READ_IN_VAIN
        assert cells[1] == f"`{OPTIONS[name].default!r}`", f"the default of {name} is {OPTIONS[name].default!r}"


def test_settings_that_nothing_uses_are_read_nowhere() -> None:
    unused = settings_told()[2]
    used = [name for name in unused if name in settings_in_use() and name not in READ_IN_VAIN]
    assert not used, f"the code reads {used}: if it acts on them, move them to the table of honoured settings"
    assert READ_IN_VAIN.keys() <= set(unused), "what leads to something now is honoured"


def test_the_options_and_hooks_of_tasks_are_told() -> None:
    text = page("docs/celery.md")
    public = {name: value for name, value in vars(TaskAttributes).items() if not name.startswith("_")}
    hooks = {name for name, value in public.items() if callable(value)}
    options = ({*public, *FROM_SETTINGS} - hooks - {"abstract"}) | {"base", "lazy"}
    assert_same(names_in(rows_after(text, "task options")), options, "options of tasks")
    assert_same(names_in(rows_after(text, "task hooks")), hooks, "hooks of tasks")


def test_options_of_tasks_that_are_not_used_are_read_nowhere() -> None:
    unused = [
        name
        for cells in rows_after(page("docs/celery.md"), "task options")
        for name in ticked(cells[0])
        if cells[1] == "not used"
    ]
    read = {
        name
        for path, tree in trees().items()
        if path.startswith(("actors/tasks/", "actors/worker/"))
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute)
        for name in [node.attr]
        if (node.value.id if isinstance(node.value, ast.Name) else node.value.attr) in ("task", "self", "handling")
    }
    assert unused
    assert not read & set(unused), f"the code reads {sorted(read & set(unused))}"


def test_the_options_of_calls_are_told() -> None:
    named = {"args", "kwargs", "task_id", "producer", "link", "link_error", "shadow"}
    assert_same(names_in(rows_after(page("docs/celery.md"), "call options")), CALL_OPTIONS | named, "options of calls")


def test_the_signals_are_told_and_which_of_them_are_sent() -> None:
    sent, silent = (ticked(cells[0]) for cells in rows_after(page("docs/celery.md"), "signals"))
    assert_same(sent, sent_signals(), "signals that are sent")
    assert_same([*sent, *silent], signals.ALL, "signals")


# --- running it --------------------------------------------------------------------------------------------------

UNITS = {"s": 1_000_000, "ms": 1_000, "h": 3_600_000_000, "KiB": 1 << 10, "MiB": 1 << 20, "": 1}


def value_of(text: str) -> int | str:
    """A number with or without a unit, in microseconds or bytes; any other text as it is."""
    match = re.fullmatch(r"([\d,]+)(?: (\w+))?", text)
    return int(match[1].replace(",", "")) * UNITS[match[2] or ""] if match else text


def plain(value: Any) -> Any:
    return value.name.lower() if isinstance(value, enum.Enum) else value


def test_the_limits_of_a_broker_are_told_with_their_defaults_and_options() -> None:
    rows = rows_after(page("docs/operations.md"), "broker settings")
    settings = BrokerSettings()
    assert_same(names_in(rows), BrokerSettings.__struct_fields__, "settings of a broker")
    broker = cli.get_command(click.Context(cli), "broker")
    assert broker is not None
    options = {option for parameter in broker.params for option in parameter.opts}
    for name, default, option, _ in rows:
        field = name.strip("`")
        assert value_of(default) == plain(getattr(settings, field)), (
            f"the default of {field} is {getattr(settings, field)}"
        )
        assert not option or option.strip("`") in options


def test_the_limits_of_a_worker_are_told_with_their_defaults() -> None:
    limits = msgspec.structs.asdict(PoolLimits())
    for name, default, _ in rows_after(page("docs/operations.md"), "pool limits"):
        assert value_of(default) == limits[name.strip("`")], f"{name} is {limits[name.strip('`')]}"


def test_the_words_of_a_brokers_notices_are_told() -> None:
    assert_same(names_in(rows_after(page("docs/operations.md"), "notices")), notices(), "notices")


def test_the_words_of_a_workers_notices_are_told() -> None:
    assert_same(names_in(rows_after(page("docs/operations.md"), "worker notices")), worker_notices(), "notices")


def test_the_kinds_of_events_are_told_with_the_facts_that_they_have() -> None:
    rows = rows_after(page("docs/operations.md"), "event kinds")
    assert_same(names_in(rows), [str(kind) for kind in FACTS], "kinds of events")
    facts = {str(kind): list(facts) for kind, facts in FACTS.items()}
    for cells in rows:
        for kind in ticked(cells[0]):
            assert ticked(cells[1]) == facts[kind], f"a {kind} has {facts[kind]}"


def test_the_promises_that_events_suffice_for_are_told() -> None:
    rows = rows_after(page("docs/operations.md"), "judged by events")
    assert_same(names_in(rows), [invariant.name for invariant in BY_EVENTS], "promises")


def test_the_errors_that_are_explained_are_those_that_are_said() -> None:
    for cells in rows_after(page("docs/operations.md"), "errors"):
        (error,) = ticked(cells[0])
        for piece in error.split("..."):
            assert piece.strip() in texts_in_code(), f"no error says {piece.strip()!r} (of {error!r})"


def test_the_tables_of_the_store_are_told() -> None:
    made = re.findall(r"CREATE TABLE (\w+)", "\n".join(TABLES))
    assert_same(names_in(rows_after(page("docs/architecture.md"), "tables")), made, "tables of the store")


# --- the rules of delivery ---------------------------------------------------------------------------------------

NONE_YET = "none yet"


def test_each_rule_of_delivery_has_a_module_and_a_test_of_its_number_or_says_that_it_has_none() -> None:
    rows = rows_after(page("docs/architecture.md"), "rules")
    assert [cells[0] for cells in rows] == [f"D{number}" for number in range(1, 32)]
    for rule, _, modules, test in rows:
        for module in ticked(modules):
            assert (ROOT / module).is_file(), f"{rule}: there is no {module}"
        mark = f"_{rule.lower()}_"
        bearing = sorted(name for name in names_of_tests() if mark in name)
        if test == NONE_YET:
            assert not bearing, f"{rule} has tests now; name one of them: {bearing}"
            continue
        (name,) = ticked(test)
        assert name in bearing, f"{rule}: {name} is not among {bearing}"
