"""Exceptions as values, and back.

Owns the two directions between a raised exception and the `Failure` that travels in a result, and
`ExceptionInfo`, what a task's hooks are told of a failure.

A failure comes from elsewhere and is not believed. The class of what is raised here is looked up, never
imported: it must be there already, in a module that this process has loaded, and be an `Exception`. Its
constructor is not run either: the C base of the class makes the instance from the arguments, and the
attributes are put back. That also spares exceptions whose constructors want other arguments than
`args`, which break in Celery. Everything else is raised as a `RemoteError` that bears the original's
name.

Limits: text and traceback 64 KiB each, arguments and attributes 64 KiB each, of which the ones that
cannot be encoded become their repr; eight causes in a row; 64 members of a group.
"""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any, TypeGuard, cast

from ...transport.errors import DecodeError, EncodeError
from ...transport.message import Failure
from ...transport.payload import Body, decode, encode
from ..errors import RemoteError

TEXT_CHARACTERS_MAX = 64 * 1024
BODY_BYTES_MAX = 64 * 1024
REPR_CHARACTERS_MAX = 1024
CAUSES_MAX = 8
MEMBERS_MAX = 64
ATTRIBUTES_MAX = 64

#: Of a text that is too long, what is kept of its beginning; the rest is kept of its end.
_HEAD_CHARACTERS = 8 * 1024


class RemoteTraceback(Exception):
    """Raised when an exception came from elsewhere: its last cause, which shows the traceback there."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class ExceptionInfo:
    """A failure as hooks and signals are told of it, with Celery's attributes.

    `exception` is the exception, `type` its class, `traceback` its text, `tb` the traceback itself where
    there is one. Printed, it is the traceback's text.
    """

    def __init__(self, exception: BaseException, traceback_text: str | None = None) -> None:
        self.exception = exception
        self.type: type[BaseException] = type(exception)
        self.traceback = format_traceback(exception) if traceback_text is None else traceback_text
        self.tb: TracebackType | None = exception.__traceback__
        self.internal = False

    @property
    def exc_info(self) -> tuple[type[BaseException], BaseException, TracebackType | None]:
        """Return what `sys.exc_info` returned where it was caught."""
        return self.type, self.exception, self.tb

    def __str__(self) -> str:
        return self.traceback

    def __repr__(self) -> str:
        return f"<ExceptionInfo: {_guarded(repr, self.exception)}>"


# ---- from an exception to a value ----


def format_traceback(exc: BaseException) -> str:
    """Return the traceback of an exception and its causes as text.

    It begins at the first frame that is not ours, and is cut in the middle beyond `TEXT_CHARACTERS_MAX`.
    """
    first = tb = exc.__traceback__
    while tb is not None and _is_ours(tb):
        tb = tb.tb_next
    lines = traceback.TracebackException(type(exc), exc, tb or first).format()
    return _bounded("".join(lines))


def describe(exc: BaseException, traceback_text: str | None = None) -> Failure:
    """Return an exception as a value that can be sent and stored.

    `traceback_text` stands for a traceback that this process does not have; without it the exception's
    own is taken.
    """
    if traceback_text is None:
        # One that was never raised has nothing to show.
        traceback_text = "" if exc.__traceback__ is None else format_traceback(exc)
    return _describe(exc, _bounded(traceback_text), CAUSES_MAX)


def _describe(exc: BaseException, text: str, depth: int) -> Failure:
    cls = type(exc)
    name, module = cls.__qualname__, cls.__module__
    if isinstance(exc, RemoteError) and exc.exc_type:
        name, module = exc.exc_type, exc.exc_module
    args, attributes = _state(exc)
    members: list[Failure] | None = None
    if issubclass(cls, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        args = (group.message,)
        members = [_describe(item, "", depth - 1) for item in group.exceptions[:MEMBERS_MAX]] if depth else []
    cause = exc.__cause__
    if isinstance(cause, RemoteTraceback):
        # It came from elsewhere already; the text that was made here includes the earlier one.
        cause = None
    return Failure(
        exc_type=_bounded(name),
        exc_module=_bounded(module),
        args=_encode_args(args),
        text=_bounded(_guarded(str, exc)),
        traceback=text,
        cause=_describe(cause, "", depth - 1) if cause is not None and depth else None,
        attributes=_encode_attributes(attributes),
        members=members,
    )


def _state(exc: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that make such an exception again, and its attributes."""
    if isinstance(exc, RemoteError):
        return exc.exc_args, {}
    # The C base knows of arguments that `args` does not show: the file name of an OSError.
    reduced: Any = _c_base(type(exc)).__reduce__(exc)
    return tuple(reduced[1]), dict(reduced[2]) if len(reduced) > 2 else {}


def _encode_args(args: tuple[Any, ...]) -> bytes:
    try:
        data = encode([*args]).data
        if len(data) <= BODY_BYTES_MAX:
            return data
    except EncodeError:
        # Some of them cannot be sent; those that can should arrive as they are.
        pass
    data = encode([_sendable(item) for item in args]).data
    return data if len(data) <= BODY_BYTES_MAX else encode([_short_repr(args)]).data


def _encode_attributes(attributes: dict[str, Any]) -> bytes:
    if not attributes:
        return b""
    names = [name for name in attributes if type(name) is str][:ATTRIBUTES_MAX]
    data = encode({name: _sendable(attributes[name]) for name in names}).data
    if len(data) > BODY_BYTES_MAX:
        data = encode({name: _short_repr(attributes[name]) for name in names}).data
    return data if len(data) <= BODY_BYTES_MAX else b""


def _sendable(value: Any) -> Any:
    try:
        return value if len(encode(value).data) <= BODY_BYTES_MAX else _short_repr(value)
    except EncodeError:
        return _short_repr(value)


def _short_repr(value: object) -> str:
    text = _guarded(repr, value)
    return text if len(text) <= REPR_CHARACTERS_MAX else text[: REPR_CHARACTERS_MAX - 3] + "..."


def _guarded(function: Callable[[Any], str], value: object) -> str:
    try:
        return function(value)
    except Exception as error:
        # A method of the user's class; this text, in place of the exception's own, tells of it.
        return f"<{type(value).__qualname__}, whose text cannot be made: {type(error).__name__}>"


def _bounded(text: str) -> str:
    """Return a text of limited length that can be written as UTF-8."""
    if len(text) > TEXT_CHARACTERS_MAX:
        tail = TEXT_CHARACTERS_MAX - _HEAD_CHARACTERS
        left_out = len(text) - TEXT_CHARACTERS_MAX
        text = f"{text[:_HEAD_CHARACTERS]}\n... {left_out} characters left out ...\n{text[-tail:]}"
    return text.encode("utf-8", "backslashreplace").decode()


def _is_ours(tb: TracebackType) -> bool:
    name: object = tb.tb_frame.f_globals.get("__name__")
    return isinstance(name, str) and name.partition(".")[0] == _PACKAGE


_PACKAGE = __name__.partition(".")[0]

# ---- from a value to an exception ----


def rebuild(failure: Failure) -> Exception:
    """Return an exception that can be raised for a failure.

    It is of the original class if this process has loaded it and it is an `Exception`, else of a subclass
    of `RemoteError` with the original's name. Its causes end in a `RemoteTraceback` if there is a text.
    """
    exc = _rebuild(failure, CAUSES_MAX)
    if failure.traceback:
        last: BaseException = exc
        while last.__cause__ is not None:
            last = last.__cause__
        last.__cause__ = RemoteTraceback(failure.traceback)
    return exc


def _rebuild(failure: Failure, depth: int) -> Exception:
    args = _decode_args(failure)
    cls = _loaded_class(failure.exc_module, failure.exc_type)
    exc = _remake(cls, failure, args, depth) if cls is not None else None
    if exc is None:
        exc = _remote_class(failure.exc_module, failure.exc_type)(
            failure.text, exc_module=failure.exc_module, exc_type=failure.exc_type, exc_args=args
        )
    if failure.cause is not None and depth:
        exc.__cause__ = _rebuild(failure.cause, depth - 1)
    return exc


def _decode_args(failure: Failure) -> tuple[Any, ...]:
    try:
        args = decode(Body("msgpack", "", failure.args))
    except DecodeError:
        # A class that is registered where it was raised and not here; its text tells the same.
        args = None
    return tuple(args) if _is_list(args) else (failure.text,)


def _decode_attributes(failure: Failure) -> dict[str, Any]:
    if not failure.attributes:
        return {}
    try:
        attributes = decode(Body("msgpack", "", failure.attributes))
    except DecodeError:
        # As with the arguments: the exception is worth more than nothing without them.
        return {}
    if not _is_dict(attributes):
        return {}
    return {name: value for name, value in attributes.items() if _is_attribute(name, value)}


def _is_attribute(name: object, value: object) -> bool:
    if name == "__notes__":
        return _is_list(value) and all(isinstance(note, str) for note in value)
    return isinstance(name, str) and name.isidentifier() and not name.startswith("__")


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _is_dict(value: object) -> TypeGuard[dict[Any, Any]]:
    return isinstance(value, dict)


#: They have a meaning to whoever calls, a generator or a future, and would be taken for that.
_NEVER_REBUILT = (StopIteration, StopAsyncIteration)


def _loaded_class(module_name: str, qualified_name: str) -> type[Exception] | None:
    """Return the exception class of this name if it is loaded, running no code to find it."""
    module = sys.modules.get(module_name)
    # A module may import more when it is asked for an attribute; its dictionary does not.
    if not issubclass(type(module), ModuleType):
        return None
    found: Any = None
    names: dict[str, Any] = object.__getattribute__(module, "__dict__")
    for part in qualified_name.split("."):
        found = names.get(part)
        if not issubclass(type(found), type):
            return None
        names = type.__getattribute__(found, "__dict__")
    if not issubclass(found, Exception) or issubclass(found, _NEVER_REBUILT):
        return None
    cls: type[Exception] = found
    return cls


def _remake(cls: type[Exception], failure: Failure, args: tuple[Any, ...], depth: int) -> Exception | None:
    """Return an instance of a loaded class, or None if there is no way to make one."""
    base = cast("type[Exception]", _c_base(cls))
    attributes = _decode_attributes(failure)
    exc: Exception
    try:
        if issubclass(cls, BaseExceptionGroup):
            if not failure.members or not depth:
                return None
            members = [_rebuild(member, depth - 1) for member in failure.members]
            exc = base.__new__(cls, failure.text if not args else args[0], members)
        else:
            exc = base.__new__(cls, *args)
            base.__init__(exc, *args)
        if isinstance(exc, ImportError):
            exc.name = attributes.pop("name", None)
            exc.path = attributes.pop("path", None)
        exc.__dict__.update(attributes)
        str(exc)
    except Exception:
        # The arguments do not fit, or its text needs what did not come: the reader gets a RemoteError.
        return None
    return exc


def _c_base(cls: type[BaseException]) -> type[BaseException]:
    """Return the nearest class that is written in C and whose memory layout this one has."""
    base = cls
    while base.__flags__ & _HEAP_TYPE and base.__base__ is not None:
        base = cast("type[BaseException]", base.__base__)
    return base


#: CPython's flag of classes that were made at run time.
_HEAP_TYPE = 1 << 9


@functools.lru_cache(maxsize=1024)
def _remote_class(module: str, qualified_name: str) -> type[RemoteError]:
    """Return the class that stands for one that is not here. The number of classes kept is bounded."""
    name = qualified_name.rpartition(".")[2]
    if not name.isidentifier():
        return RemoteError
    return type(name, (RemoteError,), {"__module__": module, "__qualname__": qualified_name, "__doc__": None})
