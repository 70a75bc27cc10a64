"""The check of a call at the call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.tasks.check import compile_check


def plain(x: int, y: int = 2) -> None: ...


def everything(a: int, b: int = 1, /, c: int = 2, *more: int, d: int, e: int = 3, **rest: int) -> None: ...


def only_names(*, a: int, b: int = 1) -> None: ...


def only_positions(a: int, b: int, /) -> None: ...


def nothing() -> None: ...


FUNCTIONS: list[Callable[..., Any]] = [plain, everything, only_names, only_positions, nothing]


def said(function: Callable[..., Any], args: list[int], kwargs: dict[str, int]) -> str | None:
    try:
        function(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return None


@given(
    function=st.sampled_from(FUNCTIONS),
    args=st.lists(st.integers(), max_size=5),
    kwargs=st.dictionaries(st.sampled_from("abcdexyz"), st.integers(), max_size=4),
)
def test_a_wrong_call_fails_in_pythons_own_words(
    function: Callable[..., Any], args: list[int], kwargs: dict[str, int]
) -> None:
    check = compile_check(function, name=function.__name__)
    assert check is not None
    assert said(check, args, kwargs) == said(function, args, kwargs)


def test_a_bound_method_is_checked_without_its_self() -> None:
    class Body:
        def run(self, x: int) -> None: ...

    check = compile_check(Body().run, name="charge")
    assert check is not None
    check(1)
    with pytest.raises(TypeError, match=r"^charge\(\) takes 1 positional argument but 2 were given$"):
        check(1, 2)


def test_a_wrapper_is_checked_by_what_it_wraps() -> None:
    @functools.wraps(plain)
    def wrapper(*args: Any, **kwargs: Any) -> None: ...

    check = compile_check(wrapper, name="plain")
    assert check is not None
    with pytest.raises(TypeError):
        check()


def test_what_tells_nothing_about_itself_is_not_checked() -> None:
    class Silent:
        __signature__ = "none"

        def __call__(self) -> None: ...

    assert compile_check(Silent(), name="silent") is None
