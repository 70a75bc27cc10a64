"""What a user installs is what the tree holds: the list of packages, the links for type checkers, the wheel.

The repository's root is the package, so setuptools can't find the packages by itself, and nothing but these
tests would notice a folder that is not on the list.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("transport", "actors", "supervisor")
FACES = ("__init__.py", "__main__.py", "testing.py")
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

PACKAGES = sorted(
    "greenroom." + folder.relative_to(ROOT).as_posix().replace("/", ".")
    for floor in FLOORS
    for folder in {path.parent for path in (ROOT / floor).rglob("*.py")}
)


def package_files(source: Path) -> set[str]:
    """Return every file of the package in this copy of the tree, as the wheel should name it."""
    files = [source / name for name in (*FACES, "py.typed")]
    for floor in FLOORS:
        files.extend(path for path in (source / floor).rglob("*") if path.is_file())
    return {f"greenroom/{path.relative_to(source).as_posix()}" for path in files}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the tree: building writes into the tree that it builds from."""
    copy = tmp_path_factory.mktemp("tree") / "source"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
    shutil.copytree(ROOT, copy, ignore=left_out)
    return copy


@pytest.fixture(scope="module")
def built(source: Path) -> tuple[Path, set[str]]:
    """Build the wheel; return its path, and the names of the files it should hold."""
    expected = package_files(source)
    folder = source.parent
    build = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stdout + build.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel, expected


@pytest.fixture(scope="module")
def wheel(built: tuple[Path, set[str]]) -> Path:
    """Return the path of the wheel."""
    return built[0]


def test_the_written_list_of_packages_is_the_tree() -> None:
    written = PYPROJECT["tool"]["setuptools"]["packages"]
    assert sorted(written) == sorted(["greenroom", *PACKAGES])
    assert len(set(written)) == len(written)


def test_every_folder_with_python_files_has_an_init_file() -> None:
    folders = {path.parent for floor in FLOORS for path in (ROOT / floor).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_type_checkers_see_the_package_through_seven_relative_links() -> None:
    links = {path.name: path for path in (ROOT / ".dev" / "greenroom").iterdir()}
    assert sorted(links) == sorted([*FACES, "py.typed", *FLOORS])
    for name, link in links.items():
        assert link.is_symlink(), f"{link} is no link"
        assert str(link.readlink()) == f"../../{name}"
        assert link.resolve() == (ROOT / name).resolve(strict=True)


def test_the_seven_links_are_committed_as_links() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this tree is not a clone, so there is no index to look into")
    listed = subprocess.run(
        ["git", "ls-files", "--stage", ".dev"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(listed) == len(FACES) + len(FLOORS) + 1
    assert all(line.startswith("120000 ") for line in listed), listed


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(built: tuple[Path, set[str]]) -> None:
    wheel, expected = built
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    information = f"greenroom-{PYPROJECT['project']['version']}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"greenroom", information}
    assert {name for name in names if name.startswith("greenroom/")} == expected
    assert f"{information}/licenses/LICENSE" in names


def test_the_wheel_is_imported_without_the_tree(wheel: Path, tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(wheel)!r}); import greenroom; print(greenroom.__file__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(wheel))


def test_the_command_of_the_wheel_is_in_it(wheel: Path) -> None:
    module, _, function = PYPROJECT["project"]["scripts"]["greenroom"].partition(":")
    path = f"{module.replace('.', '/')}.py"
    with zipfile.ZipFile(wheel) as archive:
        assert path in archive.namelist()
        tree = ast.parse(archive.read(path))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assigned = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert function in defined | assigned


def requirement_names(requirements: list[str]) -> set[str]:
    """Return the names of these requirements in their normal form: "psycopg[binary]>=3.2" -> psycopg."""
    return {
        requirement.partition("[")[0].partition(">")[0].strip().lower().replace("_", "-")
        for requirement in requirements
    }


def imported_names(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"__future__"}


def test_everything_the_package_imports_is_a_declared_dependency() -> None:
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    declared = requirement_names(project["dependencies"])
    for extra in extras:
        # The harness is part of the package; what it needs (hypothesis, apsw) comes with the extra `test`.
        if extra != "check":
            declared |= requirement_names(extras[extra])
    distributions = packages_distributions()
    undeclared: list[str] = []
    for file in [ROOT / face for face in FACES] + [path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")]:
        for name in sorted(imported_names(file.read_text("utf-8"))):
            providers = requirement_names(distributions.get(name, [name]))
            if not providers & declared:
                undeclared.append(f"{file.relative_to(ROOT)} imports {name} ({', '.join(sorted(providers))})")
    assert not undeclared, "\n".join(["", *undeclared])
