"""What tasks are called."""

from __future__ import annotations

import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.tasks.naming import generate_name

identifiers = st.from_regex(r"[a-z_][a-z0-9_]{0,10}", fullmatch=True)
modules = st.lists(identifiers, min_size=1, max_size=3).map(".".join)


@given(main=st.none() | identifiers, name=identifiers, module=modules)
def test_s08_an_imported_module_names_its_tasks_whatever_the_app_is_called(
    main: str | None, name: str, module: str
) -> None:
    if module not in sys.modules:
        assert generate_name(main, name, module) == f"{module}.{name}"


@given(main=identifiers, name=identifiers, module=st.sampled_from(["__main__", "__mp_main__", "", None]))
def test_s09_in_the_program_itself_the_apps_name_stands(main: str, name: str, module: str | None) -> None:
    assert generate_name(main, name, module) == f"{main}.{name}"


@pytest.mark.parametrize("main", [None, ""])
def test_s07_without_a_name_of_the_app_main_stays(main: str | None) -> None:
    assert generate_name(main, "add", "__main__") == "__main__.add"


def test_a_module_that_is_filed_under_another_name_counts_by_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("its_own_name")
    monkeypatch.setitem(sys.modules, "filed_as", module)
    assert generate_name("app", "add", "filed_as") == "its_own_name.add"
