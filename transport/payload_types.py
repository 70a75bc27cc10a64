"""Types that users teach to the serializers.

Owns the registry behind `register_type`, which `msgpack` and `json` bodies share, and what is tried for
a value that nobody registered. A label travels in the body in place of the class, and a label that is
not registered here is an error: nothing is ever imported because a message said so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

_T = TypeVar("_T")

#: The encoders write these themselves and never ask, so that a registration would do nothing.
_NATIVE = (type(None), bool, int, float, str, bytes, tuple, list, dict, set, frozenset)

#: Labels that mean something in `json` bodies already.
_RESERVED_LABELS = {"bytes", "base64"}


class UserType(NamedTuple):
    """How one class travels. Without a label, only its plain form travels and nothing comes back."""

    cls: type
    label: str | None
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


_by_class: dict[type, UserType] = {}
_by_label: dict[str, UserType] = {}


def _identity(value: Any) -> Any:
    return value


def register_type(
    cls: type[_T], label: str | None, encode: Callable[[_T], Any], decode: Callable[[Any], _T] = _identity
) -> None:
    """Let values of `cls` and its subclasses travel in `msgpack` and `json` bodies.

    `encode(value)` returns something that can be encoded; `decode` gets that back and returns the value.
    Both ends must register the same label. With None as the label the result of `encode` travels by
    itself and the other end receives that. A class that is registered again is replaced.

    Raises ValueError when the label belongs to another class, or the class is one that the encoders
    write by themselves.
    """
    if cls in _NATIVE:
        raise ValueError(f"{cls.__name__} travels by itself; register a class of your own")
    if label in _RESERVED_LABELS:
        raise ValueError(f"the label {label!r} is taken; choose one such as 'myapp.{cls.__name__}'")
    if label is not None:
        holder = _by_label.get(label)
        # A module that is loaded again brings a new class under its old name.
        if holder is not None and (holder.cls.__module__, holder.cls.__qualname__) != (
            cls.__module__,
            cls.__qualname__,
        ):
            raise ValueError(f"the label {label!r} belongs to {holder.cls!r}; choose another one for {cls!r}")
    user_type = UserType(cls, label, encode, decode)
    _by_class[cls] = user_type
    if label is not None:
        _by_label[label] = user_type


def registered_class(cls: type) -> UserType | None:
    """Return how this very class travels, or None; base classes are the caller's to ask for."""
    return _by_class.get(cls)


def registered_label(label: object) -> UserType | None:
    """Return what a label stands for, or None. The label comes from the wire and may be anything."""
    return _by_label.get(label) if type(label) is str else None


def plain_form(value: Any) -> Any:
    """Return what should travel for a value of a class that nobody registered.

    An object may offer a plain form by a method `__json__`, as with Celery, and Django's lazy
    translations travel as their text. Raises TypeError for everything else.
    """
    offered = getattr(value, "__json__", None)
    if callable(offered):
        return offered()
    django = sys.modules.get("django.utils.functional")
    if django is not None and isinstance(value, django.Promise):
        return str(value)
    raise TypeError(f"{type(value)!r} cannot be encoded")
