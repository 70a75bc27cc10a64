"""Whether a call fits a task's signature, in Python's own words, and cheaply.

`compile_check` makes a function with the same parameters and no body: calling it with a call's arguments costs a
tenth of a microsecond and raises the very TypeError that the task itself would raise on the worker.
"""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable
from typing import Any

Check = Callable[..., object]


def compile_check(function: Callable[..., Any], *, name: str) -> Check | None:
    """Return a function that takes what `function` takes.

    `name` is what errors call it. Returns None where the function tells nothing about its parameters.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    if not all(parameter.name.isidentifier() for parameter in parameters):
        return None
    if any(keyword.iskeyword(parameter.name) for parameter in parameters):
        return None
    scope: dict[str, Any] = {}
    # Only the names of parameters go into this text, and they were read from a function that Python compiled.
    exec(f"def check({_parameter_list(parameters)}): pass", scope)
    check: Check = scope["check"]
    check.__name__ = check.__qualname__ = name
    return check


def _parameter_list(parameters: list[inspect.Parameter]) -> str:
    words: list[str] = []
    kinds = [parameter.kind for parameter in parameters]
    for index, parameter in enumerate(parameters):
        default = "" if parameter.default is inspect.Parameter.empty else "=None"
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            words.append(f"*{parameter.name}")
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            words.append(f"**{parameter.name}")
        else:
            starts_keywords = parameter.kind is inspect.Parameter.KEYWORD_ONLY and (
                index == 0 or kinds[index - 1] not in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_POSITIONAL)
            )
            if starts_keywords:
                words.append("*")
            words.append(f"{parameter.name}{default}")
        last_positional_only = parameter.kind is inspect.Parameter.POSITIONAL_ONLY and (
            index + 1 == len(kinds) or kinds[index + 1] is not inspect.Parameter.POSITIONAL_ONLY
        )
        if last_positional_only:
            words.append("/")
    return ", ".join(words)
