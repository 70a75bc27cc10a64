"""Failures as values: they come back as what they were, and a hostile one does nothing."""

# Values and classes of every kind pass through here untyped, and some privates are looked at.
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations

import asyncio
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.errors import (
    PoisonMessage,
    RemoteError,
    Retry,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)
from greenroom.actors.results import failure as failure_module
from greenroom.actors.results.failure import (
    BODY_BYTES_MAX,
    CAUSES_MAX,
    MEMBERS_MAX,
    TEXT_CHARACTERS_MAX,
    ExceptionInfo,
    RemoteTraceback,
    describe,
    format_traceback,
    rebuild,
)
from greenroom.transport.errors import MailboxFull
from greenroom.transport.message import Failure
from greenroom.transport.payload import Body, decode, encode


class CardRefused(Exception):
    """Its constructor wants what `args` does not hold."""

    built = 0

    def __init__(self, code: int, *, bank: str) -> None:
        type(self).built += 1
        super().__init__(f"refused with {code}")
        self.code = code
        self.bank = bank


class Slotted(Exception):
    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Nested:
    class Error(ValueError):
        pass


class Opaque:
    def __repr__(self) -> str:
        return "<Opaque>"


class Silent(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def sent(exc: BaseException) -> Exception:
    """Send an exception through the wire's own encoding."""
    wire = msgspec.msgpack.encode(describe(exc))
    return rebuild(msgspec.msgpack.decode(wire, type=Failure))


def raised(exc: BaseException) -> BaseException:
    try:
        raise exc
    except BaseException as caught:
        return caught


# ---- what comes back ----


@pytest.mark.parametrize(
    "exc",
    [
        KeyError("x"),
        ValueError(),
        ValueError("a", 1, (2, 3), {"b": None}),
        ZeroDivisionError("division by zero"),
        FileNotFoundError(2, "No such file", "/x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        SyntaxError("bad", ("f.py", 1, 2, "x =")),
        Nested.Error("inner"),
        TimeLimitExceeded(5),
        WorkerLostError("Worker exited prematurely: signal 9 (SIGKILL) Job: 1."),
        MailboxFull(mailbox="a", messages=1, messages_max=1),
        PoisonMessage(task="t", deliveries=3, last_cause="signal 9 (SIGKILL)"),
        asyncio.InvalidStateError("late"),
    ],
    ids=repr,
)
def test_an_exception_of_a_loaded_class_comes_back_as_it_was(exc: Exception) -> None:
    came = sent(exc)
    assert type(came) is type(exc)
    assert (came.args, str(came), came.__dict__) == (exc.args, str(exc), exc.__dict__)
    assert came.__cause__ is None


@given(st.lists(st.none() | st.integers() | st.text() | st.binary() | st.dates() | st.tuples(st.text())))
def test_arguments_come_back(args: list[Any]) -> None:
    assert sent(LookupError(*args)).args == tuple(args)


def test_an_import_error_keeps_its_name() -> None:
    came = sent(ImportError("no", name="zlib", path="/x"))
    assert isinstance(came, ImportError)
    assert (came.name, came.path) == ("zlib", "/x")


def test_a_constructor_that_wants_more_than_args_is_not_run() -> None:
    original = CardRefused(3, bank="x")
    built = CardRefused.built
    came = sent(original)
    assert isinstance(came, CardRefused)
    assert (str(came), came.code, came.bank) == ("refused with 3", 3, "x")
    assert CardRefused.built == built


def test_what_cannot_be_sent_arrives_as_its_repr() -> None:
    exc = ValueError("a", Opaque(), 3)
    exc.tool = Opaque()  # type: ignore[attr-defined]
    came = sent(exc)
    assert came.args == ("a", "<Opaque>", 3)
    assert came.__dict__ == {"tool": "<Opaque>"}


def test_notes_come_back() -> None:
    exc = ValueError("a")
    exc.add_note("while counting")
    assert sent(exc).__notes__ == ["while counting"]


def test_a_class_whose_text_needs_what_did_not_come_is_a_remote_error() -> None:
    came = sent(Slotted("why"))
    assert isinstance(came, RemoteError)
    assert (type(came).__name__, str(came)) == ("Slotted", "why")


def test_an_exception_whose_text_cannot_be_made_still_arrives() -> None:
    failure = describe(raised(Silent("x")))
    assert failure.text == "<Silent, whose text cannot be made: ValueError>"
    assert type(rebuild(failure)).__name__ == "Silent"


def test_causes_come_back_in_order_and_end_in_the_traceback() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as outer:
        came = sent(outer)
    assert isinstance(came.__cause__, KeyError)
    shown = came.__cause__.__cause__
    assert isinstance(shown, RemoteTraceback)
    assert "raise KeyError" in shown.text
    assert "raise ValueError" in shown.text
    assert "test_failure.py" in "".join(traceback.format_exception(came))


def test_a_second_journey_does_not_add_a_cause() -> None:
    once = sent(raised(ValueError("x")))
    twice = sent(once)
    assert isinstance(twice, ValueError)
    assert isinstance(once.__cause__, RemoteTraceback)
    assert twice.__cause__ is None or isinstance(twice.__cause__, RemoteTraceback)


def test_a_group_comes_back_with_its_members() -> None:
    group = ExceptionGroup("several", [KeyError(1), ExceptionGroup("more", [CardRefused(3, bank="x")])])
    came: Any = sent(group)
    assert type(came) is ExceptionGroup
    assert repr(came) == repr(group)
    inner: Any = came.exceptions[1]
    assert isinstance(inner.exceptions[0], CardRefused)


def test_a_retry_comes_back_with_its_time_and_the_text_of_its_reason() -> None:
    came = sent(Retry(exc=KeyError("x"), when=5))
    assert isinstance(came, Retry)
    assert str(came) == "Retry in 5s: KeyError('x')"


def test_a_failure_that_a_broker_made_is_of_the_named_class() -> None:
    for cls in (WorkerLostError, TaskRevokedError, PoisonMessage):
        args = msgspec.msgpack.encode(["why"])
        came = rebuild(Failure(cls.__name__, "greenroom.actors.errors", args, "why"))
        assert (type(came), str(came)) == (cls, "why")
        repr(came)
        describe(came)


# ---- what does not ----


@pytest.mark.parametrize(
    "exc", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), StopIteration(3)]
)
def test_what_would_end_the_reader_is_a_remote_error(exc: BaseException) -> None:
    came = sent(exc)
    assert isinstance(came, RemoteError)
    assert type(came).__name__ == type(exc).__name__
    assert not isinstance(came, type(exc))


def failure_of(module: str, name: str, args: Any = ("x",), **fields: Any) -> Failure:
    return Failure(name, module, encode(list(args)).data, "the text", **fields)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "int"),
        ("builtins", "BaseException"),
        ("builtins", "Exception.__class__"),
        ("builtins", "__import__"),
        ("sys", "modules"),
        ("subprocess", "Popen"),
        ("greenroom.actors.errors", "WorkerShutdown"),
        ("greenroom.actors.errors", "traceback.TracebackException"),
        ("", ""),
        (".", "."),
        ("builtins", "ValueError."),
        ("no.such.module", "Error"),
        ("x\0", "y\0"),
        ("a b", "<script>"),
        ("a" * 300, "class"),
    ],
)
def test_a_name_that_is_no_loaded_exception_is_a_remote_error(module: str, name: str) -> None:
    before = set(sys.modules)
    came = rebuild(failure_of(module, name, ("true",)))
    assert isinstance(came, RemoteError)
    assert (str(came), came.exc_module, came.exc_type, came.exc_args) == ("the text", module, name, ("true",))
    assert set(sys.modules) == before


def test_a_class_that_is_known_elsewhere_alone_keeps_its_name() -> None:
    came = rebuild(failure_of("shop.errors", "Outer.CardRefused", (7,)))
    assert (type(came).__module__, type(came).__qualname__) == ("shop.errors", "Outer.CardRefused")
    assert (str(came), came.args) == ("the text", (7,))
    assert type(came) is type(rebuild(failure_of("shop.errors", "Outer.CardRefused")))
    again = sent(came)
    assert (type(again), str(again), again.args) == (type(came), "the text", (7,))


def test_nothing_is_imported_for_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap_for_failures.py").write_text("class Error(Exception): pass\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert isinstance(rebuild(failure_of("trap_for_failures", "Error")), RemoteError)
    assert "trap_for_failures" not in sys.modules


def test_a_module_that_imports_when_it_is_asked_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    obliging = ModuleType("obliging")

    def oblige(name: str) -> type[Exception]:
        asked.append(name)
        return KeyError

    obliging.__dict__["__getattr__"] = oblige
    monkeypatch.setitem(sys.modules, "obliging", obliging)
    assert isinstance(rebuild(failure_of("obliging", "Error")), RemoteError)

    source = tmp_path / "lazy.py"
    source.write_text("class Error(Exception): pass\n")
    spec = importlib.util.spec_from_file_location("lazy", source)
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    lazy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    spec.loader.exec_module(lazy)
    assert isinstance(rebuild(failure_of("lazy", "Error")), RemoteError)
    assert "Error" not in object.__getattribute__(lazy, "__dict__")
    assert asked == []


class Guarded(Exception):
    """A loaded class with methods that would notice being called."""

    calls: list[str] = []  # noqa: RUF012

    def __new__(cls, *args: Any) -> Guarded:
        cls.calls.append("new")
        return super().__new__(cls, *args)

    def __init__(self, *args: Any) -> None:
        self.calls.append("init")

    def __setattr__(self, name: str, value: object) -> None:
        self.calls.append("setattr")

    def __setstate__(self, state: Any) -> None:
        self.calls.append("setstate")


def test_no_method_of_a_loaded_class_is_run_with_what_came() -> None:
    attributes = encode({"code": 3, "__class__": "x", "__dict__": {}, "a b": 1, "__notes__": 5}).data
    came = rebuild(failure_of(__name__, "Guarded", ("x",), attributes=attributes))
    assert isinstance(came, Guarded)
    assert (came.args, came.__dict__) == (("x",), {"code": 3})
    assert Guarded.calls == []


@given(
    st.text(max_size=20),
    st.sampled_from(["builtins", "greenroom.actors.errors", __name__, "asyncio.exceptions"]) | st.text(max_size=9),
    st.sampled_from(["ValueError", "OSError", "UnicodeDecodeError", "ExceptionGroup", "SyntaxError", "Retry"])
    | st.text(max_size=9),
    st.binary(max_size=30) | st.lists(st.integers() | st.text()).map(lambda args: encode(args).data),
    st.binary(max_size=30) | st.dictionaries(st.text(), st.none() | st.text()).map(lambda items: encode(items).data),
)
def test_any_failure_can_be_rebuilt(text: str, module: str, name: str, args: bytes, attributes: bytes) -> None:
    inner = Failure("KeyError", "builtins", b"", "")
    failure = Failure(name, module, args, text, "tb", inner, attributes, [inner])
    came = rebuild(failure)
    assert isinstance(came, Exception)
    assert not isinstance(came, StopIteration)
    assert isinstance(str(came), str)
    traceback.format_exception(came)


# ---- limits ----


def test_a_long_text_is_cut_in_the_middle() -> None:
    for characters in (TEXT_CHARACTERS_MAX, TEXT_CHARACTERS_MAX + 1):
        text = "a" * 10 + "-" * (characters - 20) + "z" * 10
        failure = describe(ValueError("x"), text)
        assert failure.traceback.startswith("a" * 10)
        assert failure.traceback.endswith("z" * 10)
        assert ("left out" in failure.traceback) == (characters > TEXT_CHARACTERS_MAX)


def test_long_arguments_and_attributes_arrive_as_their_beginning() -> None:
    exc = ValueError("a", b"x" * BODY_BYTES_MAX, "b")
    exc.blob = b"x" * BODY_BYTES_MAX  # type: ignore[attr-defined]
    failure = describe(exc)
    assert len(failure.args) < BODY_BYTES_MAX
    assert len(failure.attributes) < BODY_BYTES_MAX
    args: Any = decode(Body("msgpack", "", failure.args))
    assert (args[0], args[1][:5], args[2]) == ("a", "b'xxx", "b")
    many = describe(ValueError(*["y" * 2_000] * 100))
    assert len(many.args) < BODY_BYTES_MAX


def test_a_long_row_of_causes_ends() -> None:
    exc: BaseException = ValueError(0)
    for number in range(1, 100):
        outer = ValueError(number)
        outer.__cause__ = exc
        exc = outer
    came: BaseException | None = sent(exc)
    count = 0
    while isinstance(came, ValueError):
        came, count = came.__cause__, count + 1
    assert count == CAUSES_MAX + 1


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError(1), ValueError(2)
    first.__cause__, second.__cause__ = second, first
    assert isinstance(sent(first), ValueError)


def test_a_large_group_arrives_with_its_first_members() -> None:
    came: Any = sent(ExceptionGroup("many", [ValueError(n) for n in range(MEMBERS_MAX + 1)]))
    assert type(came) is ExceptionGroup
    assert len(came.exceptions) == MEMBERS_MAX


def test_half_a_surrogate_pair_does_not_break_the_wire() -> None:
    came = sent(raised(ValueError("caf\udce9")))
    assert came.args == ("caf\udce9",)


# ---- tracebacks and hooks ----


def in_our_frame(function: Callable[[], object]) -> None:
    """Call a function from a frame that seems to be the package's own."""
    scope: dict[str, Any] = {"__name__": "greenroom.actors.worker.execute", "function": function}
    exec("function()", scope)


def fail() -> None:
    raise ValueError("x")


def test_a_traceback_begins_with_the_users_code() -> None:
    with pytest.raises(ValueError, match="x") as caught:
        in_our_frame(fail)
    exc = caught.value
    exc.__traceback__ = exc.__traceback__.tb_next.tb_next  # type: ignore[union-attr]
    text = format_traceback(exc)
    assert text.startswith("Traceback (most recent call last):")
    assert "in fail" in text
    assert "<string>" not in text


def test_a_traceback_of_our_code_alone_is_kept() -> None:
    scope: dict[str, Any] = {"__name__": "greenroom.transport.x"}
    with pytest.raises(ZeroDivisionError) as caught:
        exec("1 / 0", scope)
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # type: ignore[union-attr]
    assert "<string>" in format_traceback(caught.value)


def test_exception_info_is_what_celerys_hooks_read() -> None:
    exc = raised(KeyError("x"))
    info = ExceptionInfo(exc)
    assert (info.exception, info.type, info.tb) == (exc, KeyError, exc.__traceback__)
    assert info.exc_info == (KeyError, exc, exc.__traceback__)
    assert str(info) == info.traceback
    assert info.traceback.endswith("KeyError: 'x'\n")
    assert repr(info) == "<ExceptionInfo: KeyError('x')>"
    assert str(ExceptionInfo(exc, "from elsewhere")) == "from elsewhere"


def test_synthesised_classes_are_bounded_in_number() -> None:
    limit: Any = failure_module._remote_class.cache_info().maxsize
    for number in range(limit + 10):
        rebuild(failure_of("flood", f"E{number}"))
    assert failure_module._remote_class.cache_info().currsize == limit
