"""Running a task in the caller the way a worker would."""

# Short lambdas stand for tasks and receivers here, and some tests look inside.
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from greenroom.actors import signals
from greenroom.actors.app import App
from greenroom.actors.current import allow_join_result, denied_join_result
from greenroom.actors.errors import EncodeError, Ignore, Reject
from greenroom.actors.results.eager import EagerResult
from greenroom.actors.tasks.task import Task


class Recording(Task[..., Any]):
    """Notes which hooks are called with what."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        self.calls.append(("before_start", task_id, args, kwargs))

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self.calls.append(("on_success", retval, task_id))

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.calls.append(("on_failure", repr(exc), task_id, type(einfo.traceback)))

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.calls.append(("on_retry", repr(exc), task_id))

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.calls.append(("after_return", status))


def test_apply_runs_here_and_tells_the_value(app: App, client: Any) -> None:
    result = app.task(name="add")(lambda x, y: x + y).apply((1,), {"y": 2}, task_id="t")
    assert isinstance(result, EagerResult)
    assert (result.id, result.get(), result.state, result.ready(), result.successful()) == (
        "t",
        3,
        "SUCCESS",
        True,
        True,
    )
    assert not client.published
    assert repr(result) == "<EagerResult: t>"


def test_hooks_and_signals_come_in_their_order(app: App) -> None:
    told: list[str] = []
    names = ("task_prerun", "task_postrun", "task_success", "task_failure", "task_retry")
    for name in names:
        signals.ALL[name].connect(lambda name=name, **_kwargs: told.append(name), weak=False, dispatch_uid=f"t{name}")
    try:
        good: Any = app.task(base=Recording, name="good")(lambda x: x)
        good.apply((1,), task_id="g")
        assert good.calls == [
            ("before_start", "g", [1], {}),
            ("on_success", 1, "g"),
            ("after_return", "SUCCESS"),
        ]
        assert told == ["task_prerun", "task_success", "task_postrun"]
        told.clear()

        @app.task(base=Recording, name="bad")
        def bad() -> None:
            raise KeyError

        bad.apply(task_id="b")
        calls = [call for call in vars(bad)["calls"] if call[0] != "before_start"]
        assert calls == [("on_failure", "KeyError()", "b", str), ("after_return", "FAILURE")]
        assert told == ["task_prerun", "task_failure", "task_postrun"]
    finally:
        for name in names:
            signals.ALL[name].disconnect(dispatch_uid=f"t{name}")


def test_s22_on_failure_gets_the_exception_and_a_traceback_of_text(app: App) -> None:
    printed: list[str] = []

    class Base(Task[..., Any]):
        def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            printed.append(f"{task_id!r} failed: {exc!r}")
            assert "raise KeyError" in einfo.traceback

    @app.task(base=Base, name="a")
    def add(x: int, y: int) -> None:
        raise KeyError

    result = add.apply((1, 2), task_id="t")
    assert printed == ["'t' failed: KeyError()"]
    assert result.failed()
    assert result.traceback is not None
    assert "raise KeyError" in result.traceback
    with pytest.raises(KeyError):
        result.get()
    assert isinstance(result.get(propagate=False), KeyError)


def test_a_retry_runs_at_once_and_counts(app: App) -> None:
    @app.task(bind=True, base=Recording, name="a", max_retries=3)
    def work(self: Any, x: int) -> tuple[int, int]:
        if self.request.retries < 2:
            self.retry(args=(x + 1,), countdown=3600)
        return x, self.request.retries

    result = work.apply((1,), task_id="t")
    assert result.get() == (3, 2)
    assert result.retries == 2
    assert result.id == "t"


def test_retries_end_with_the_exception(app: App) -> None:
    runs: list[int] = []

    @app.task(name="a", autoretry_for=(ZeroDivisionError,), max_retries=2)
    def work() -> None:
        runs.append(1)
        raise ZeroDivisionError

    assert isinstance(work.apply().result, ZeroDivisionError)
    assert len(runs) == 3


def test_ignore_and_reject_store_nothing(app: App) -> None:
    def raising(error: Exception) -> Any:
        def body() -> None:
            raise error

        return body

    assert app.task(name="i")(raising(Ignore())).apply().state == "IGNORED"
    assert app.task(name="r")(raising(Reject("no"))).apply().state == "REJECTED"


def test_exceptions_come_out_if_wanted(app: App) -> None:
    @app.task(name="a")
    def bad() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        bad.apply(throw=True)
    app.conf.task_eager_propagates = True
    with pytest.raises(KeyError):
        bad.apply()
    assert bad.apply(throw=False).failed()


def test_a_coroutine_is_run_to_its_end_also_where_a_loop_runs(app: App) -> None:
    @app.task(bind=True, name="a")
    async def double(self: Task[..., Any], x: int) -> tuple[int, Any]:
        await asyncio.sleep(0)
        return 2 * x, self.request.id

    assert double.apply((4,), task_id="t").get() == (8, "t")

    async def main() -> Any:
        return double.apply((5,), task_id="u").get(), await double.apply((6,), task_id="v")

    assert asyncio.run(main()) == ((10, "u"), (12, "v"))


def test_links_are_called_after_success_and_failure(app: App) -> None:
    app.conf.task_always_eager = True
    got: list[Any] = []
    note = app.task(name="note")(lambda *args: got.append(args))
    inline = app.task(name="inline")(lambda request, exc, traceback: got.append((request.id, repr(exc))))
    old = app.task(name="old")(lambda id: got.append(id))
    good = app.task(name="good")(lambda: 5)

    @app.task(name="bad")
    def bad() -> None:
        raise KeyError

    good.apply(link=note.s("own"))
    assert got == [(5, "own")]
    got.clear()
    bad.apply(task_id="b", link_error=[inline.s(), old.s()])
    assert got == [("b", "KeyError()"), "b"]


# --- always eager


def test_always_eager_runs_calls_here(app: App, client: Any) -> None:
    app.conf.task_always_eager = True
    task = app.task(name="add")(lambda x, y=0: x + y)
    assert task.delay(1).get() == 1
    assert task.apply_async((1,), {"y": 2}, countdown=60, task_id="t").id == "t"
    assert [result.get() for result in task.send_many([(1, 2), {"x": 5}])] == [3, 5]
    assert not client.published


def test_always_eager_takes_the_arguments_through_the_serializer(app: App) -> None:
    app.conf.task_always_eager = True
    as_json = app.task(name="a", serializer="json")(lambda x: x)
    assert as_json.delay((1, 2)).get() == [1, 2]
    with pytest.raises(EncodeError):
        as_json.delay({1})
    with pytest.raises(TypeError):
        as_json.apply_async()


def test_a_nested_eager_call_knows_its_family(app: App) -> None:
    seen: list[Any] = []

    @app.task(bind=True, name="inner")
    def inner(self: Task[..., Any]) -> None:
        seen.append((self.request.root_id, self.request.parent_id, self.request.is_eager))

    app.task(name="outer")(lambda: inner.apply() and None).apply(task_id="o")
    assert seen == [("o", "o", True)]


def test_an_eager_result_may_not_be_waited_for_where_that_is_denied(app: App) -> None:
    result = app.task(name="a")(lambda: 1).apply()
    with denied_join_result():
        with pytest.raises(RuntimeError, match=r"Never call result.get\(\) within a task!"):
            result.get()
        with allow_join_result():
            assert result.get() == 1
        assert result.get(disable_sync_subtasks=False) == 1
