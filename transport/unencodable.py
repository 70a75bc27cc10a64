"""Where in a value the part is that cannot be encoded.

Owns the search that follows a failed `encode`, and the text of its error. It runs only then: encoding
itself keeps no path. A part is blamed when it fails by itself and none of its own parts does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

from .errors import EncodeError
from .payload_types import registered_class

#: Parts that are tried before the search contents itself with what it has found.
TRIES_MAX = 20_000

#: A path longer than this many steps says nothing to a reader; beyond it the nesting itself is at fault.
DEPTH_MAX = 40

#: Of such a path, the steps that are told.
_OUTER_DEPTH = 3

Try = Callable[[object], Exception | None]


class Culprit(NamedTuple):
    """The part that fails: where it is, what it is, and what encoding it alone raised."""

    path: str
    value: object
    error: Exception


def find_culprit(value: object, attempt: Try, *, attributes: bool) -> Culprit | None:
    """Return the innermost part of `value` for which `attempt` returns an error, or None if all is well.

    With `attributes`, the attributes of objects are parts as well, as they are for pickle.
    """
    error = attempt(value)
    if error is None:
        return None
    culprit = Culprit("", value, error)
    parts = _call_parts(value) or _parts("value", value, attributes)
    tries_left = TRIES_MAX
    outer = culprit
    for depth in range(DEPTH_MAX):
        for path, part in parts:
            tries_left -= 1
            if tries_left < 0:
                return culprit
            error = attempt(part)
            if error is not None:
                culprit = Culprit(path, part, error)
                parts = _parts(path, part, attributes)
                if depth < _OUTER_DEPTH:
                    outer = culprit
                break
        else:
            return culprit
    return outer


def explain(culprit: Culprit, serializer: str) -> EncodeError:
    """Return the error that names a culprit and what the caller can do."""
    path, value, error = culprit
    subject = f"argument {path}" if path.startswith(("args", "kwargs")) else path or "the value"
    cls: type[Any] = type(value)
    if _is_nesting(error):
        return EncodeError(
            f"{subject} cannot be encoded as {serializer}: it is nested too deeply or contains itself",
            path=path,
        )
    # That a class is unknown is said by its name; anything else needs the words of what failed.
    known = cls in _KNOWN or any(registered_class(base) for base in cls.__mro__)
    reason = f" ({type(error).__name__}: {error})" if known or "pickle" in serializer else ""
    advice = _ADVICE.get(serializer, "pass plain data")
    return EncodeError(f"{subject}: {cls!r} cannot be encoded as {serializer}{reason}; {advice}", path=path)


def _is_nesting(error: Exception) -> bool:
    # The libraries tell these two apart from other errors by their text alone.
    return isinstance(error, RecursionError) or str(error).startswith(("recursion limit", "Circular reference"))


_KNOWN = (bool, int, float, str, bytes, tuple, list, dict)
_OPT_IN = "pass plain data, register_type(...), or serializer='cloudpickle' where both ends opted in"
_ADVICE = {
    "msgpack": _OPT_IN,
    "json": _OPT_IN,
    "pickle": "pass plain data, or serializer='cloudpickle' where both ends opted in",
}


def _call_parts(value: object) -> Iterator[tuple[str, object]] | None:
    """Return the parts of a call's body, (args, kwargs, embedded), by the names that callers know."""
    if not isinstance(value, (tuple, list)):
        return None
    items = cast("tuple[object, ...] | list[object]", value)
    if len(items) < 2 or not isinstance(items[0], (tuple, list)) or not isinstance(items[1], dict):
        return None
    names = ("args", "kwargs", "embed")
    return ((names[min(index, 2)], item) for index, item in enumerate(items))


def _parts(path: str, value: Any, attributes: bool) -> Iterator[tuple[str, object]]:
    """Yield the parts of a value with their paths."""
    cls = type(cast("object", value))
    fields: tuple[str, ...] | None = getattr(cls, "_fields", None)
    user_type = registered_class(cls)
    if user_type is not None and not attributes:
        try:
            plain = user_type.encode(value)
        except Exception:
            # The class's own method is at fault; trying the object has told the search so already.
            return
        yield from _parts(path, plain, attributes)
    elif isinstance(value, dict):
        for key, item in cast("dict[object, object]", value).items():
            yield f"{path}[{_short(key)}]", item
        for key in cast("dict[object, object]", value):
            yield f"{path} key {_short(key)}", key
    elif isinstance(value, tuple) and fields is not None:
        for name in fields:
            yield f"{path}.{name}", getattr(cast("object", value), name)
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(cast("tuple[object, ...]", value)):
            yield f"{path}[{index}]", item
    elif isinstance(value, (set, frozenset)):
        for item in cast("frozenset[object]", value):
            yield f"{path} member", item
    elif attributes and hasattr(value, "__dict__") and not isinstance(value, type):
        for name, item in cast("dict[str, object]", vars(value)).items():
            yield f"{path}.{name}", item


def _short(key: object) -> str:
    # Only of these is it known what their repr does and tells.
    text = repr(key) if type(key) in (str, int, float, bool, bytes) else f"<{type(key).__qualname__}>"
    return text if len(text) <= 40 else text[:37] + "..."
