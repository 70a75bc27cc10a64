"""The tree is tidy: what a machine can see of the style is checked by a machine.

Each rule takes a path and a text and says what is wrong; it runs over every source and page of the tree, and
over a small bad text that shows that it notices.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("transport", "actors", "supervisor", "tests", "examples", "benchmarks", "docs", ".ci")
SUFFIXES = (".py", ".md", ".toml", "")  # the last: Makefile, LICENSE and the scripts of .ci

CHARACTERS_MAX = 120
LINES_MAX = 500
#: A file of tests stands beside its twin, and may be longer than it.
TEST_LINES_MAX = 900
#: Files that are longer, each with the reason why it is still one idea.
LONGER: dict[str, str] = {
    "transport/sim/world.py": "one world: every move that a test can make in it, and who remembers what",
}

#: Taken apart, so that this file passes its own rule.
LEFT_OPEN = re.compile(r"\b(TO" + "DO|FIX" + "ME|XX" + "X|HA" + r"CK)\b")
#: Makefiles are written with tabs.
TABS_ALLOWED = ("Makefile",)

Rule = Callable[[str, str], Iterator[str]]


def has_a_long_line(path: str, text: str) -> Iterator[str]:
    """Lines of code end before column 120; a table or an address on a page of prose can't be broken."""
    if path.endswith(".md"):
        return
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > CHARACTERS_MAX:
            yield f"{path}:{number}: {len(line)} characters, the limit is {CHARACTERS_MAX}"


def is_a_long_file(path: str, text: str) -> Iterator[str]:
    """A source of more than 500 lines usually holds two ideas."""
    lines = text.count("\n")
    limit = TEST_LINES_MAX if path.startswith("tests/") else LINES_MAX
    if path.endswith(".py") and lines > limit and path not in LONGER:
        yield f"{path}: {lines} lines, the limit is {limit}; part it, or list it in LONGER with why"


def leaves_something_open(path: str, text: str) -> Iterator[str]:
    """What is left to do is an issue, not a comment."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := LEFT_OPEN.search(line):
            yield f"{path}:{number}: {found.group()} is left in the tree"


def has_no_docstring(path: str, text: str) -> Iterator[str]:
    """Each module says first what it owns; a file without a statement owns nothing."""
    if not path.endswith(".py"):
        return
    tree = ast.parse(text, path)
    if tree.body and not ast.get_docstring(tree):
        yield f"{path}: the module has no docstring"


def has_a_tab(path: str, text: str) -> Iterator[str]:
    """Indents are spaces."""
    if path in TABS_ALLOWED:
        return
    for number, line in enumerate(text.splitlines(), 1):
        if "\t" in line:
            yield f"{path}:{number}: a tab character"


def ends_badly(path: str, text: str) -> Iterator[str]:
    """A file ends with one newline, and a line without spaces."""
    if text and (not text.endswith("\n") or text.endswith("\n\n")):
        yield f"{path}: does not end with one newline"
    for number, line in enumerate(text.splitlines(), 1):
        if line != line.rstrip():
            yield f"{path}:{number}: spaces at the end of the line"


RULES: tuple[Rule, ...] = (
    has_a_long_line,
    is_a_long_file,
    leaves_something_open,
    has_no_docstring,
    has_a_tab,
    ends_badly,
)


def files() -> list[Path]:
    """Return the tree's own texts, leaving out what is vendored or was built."""
    found = [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".")]
    for folder in FOLDERS:
        found.extend((ROOT / folder).rglob("*"))
    return sorted(
        path
        for path in found
        if path.is_file() and path.suffix in SUFFIXES and not {"__pycache__", "static", ".venv"} & set(path.parts)
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    broken = [
        sentence for path in files() for sentence in rule(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
    ]
    assert not broken, "\n".join(["", *broken])


def test_the_list_of_longer_files_is_true_and_says_why() -> None:
    for path, reason in LONGER.items():
        assert (ROOT / path).read_text("utf-8").count("\n") > LINES_MAX, f"{path} is short again"
        assert len(reason.split()) > 3, f"{path} needs a reason"


def test_the_files_include_the_faces_the_makefile_and_the_scripts() -> None:
    read = {path.relative_to(ROOT).as_posix() for path in files()}
    assert {"__init__.py", "Makefile", "README.md", "pyproject.toml", ".ci/run", "transport/clock.py"} <= read


BAD: tuple[tuple[Rule, str, str], ...] = (
    (has_a_long_line, "actors/x.py", "#" * 121 + "\n"),
    (is_a_long_file, "actors/x.py", '"""x"""\n' + "x = 1\n" * 500),
    (leaves_something_open, "docs/x.md", "later: TO" + "DO\n"),
    (leaves_something_open, "actors/x.py", "# FIX" + "ME: it\n"),
    (has_no_docstring, "actors/x.py", "x = 1\n"),
    (has_a_tab, "actors/x.py", "if x:\n\ty = 1\n"),
    (ends_badly, "actors/x.py", "x = 1"),
    (ends_badly, "actors/x.py", "x = 1\n\n"),
    (ends_badly, "docs/x.md", "x \n"),
)

GOOD: tuple[tuple[str, str], ...] = (
    ("actors/__init__.py", ""),
    ("actors/x.py", '"""Owns x."""\n' + "x = 1\n" * 499),
    ("actors/x.py", '"""' + "x" * 104 + '"""\n'),
    ("docs/x.md", "| a table |" + "x" * 200 + "\n"),
    ("Makefile", "all:\n\ttrue\n"),
    ("actors/x.py", '"""Owns HACKS and the mktemp of XXXX."""\n'),
)


@pytest.mark.parametrize(("rule", "path", "text"), BAD)
def test_an_untidy_text_is_noticed(rule: Rule, path: str, text: str) -> None:
    assert list(rule(path, text))


@pytest.mark.parametrize(("path", "text"), GOOD)
def test_a_tidy_text_passes_every_rule(path: str, text: str) -> None:
    assert [sentence for rule in RULES for sentence in rule(path, text)] == []
