"""Results of one task."""

# Short lambdas stand for tasks and receivers here, and some tests look inside.
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from greenroom.actors.app import App
from greenroom.actors.current import allow_join_result, pop_frame, push_frame
from greenroom.actors.errors import PoisonMessage, RemoteError, TaskRevokedError, TimeoutError, UnknownOutcome
from greenroom.actors.results.failure import describe
from greenroom.actors.results.result import AsyncResult, decode_children, encode_children, result_from_tuple
from greenroom.actors.results.sets import GroupResult
from greenroom.actors.tasks.request import Context
from greenroom.transport.message import State
from greenroom.transport.requests import DeadInfo, DeadPage
from greenroom.transport.verbs import Op


@pytest.fixture
def result(app: App) -> AsyncResult[Any]:
    return app.AsyncResult("id-1", task_name="tasks.add")


# --- looking


def test_an_unknown_id_is_pending(result: AsyncResult[Any]) -> None:
    assert (result.state, result.status, result.result, result.info) == ("PENDING", "PENDING", None, None)
    assert not result.ready()
    assert not result.successful()
    assert not result.failed()
    assert not result.exists()
    assert (result.traceback, result.date_done, result.worker, result.retries) == (None, None, None, None)
    assert result.children is None


def test_a_success_is_asked_for_once(result: AsyncResult[Any], client: Any) -> None:
    client.succeed("id-1", {"a": (1, 2)}, worker="celery@here", retries=2)
    assert result.ready()
    assert result.successful()
    assert result.result == {"a": (1, 2)}
    assert result.worker == "celery@here"
    assert result.retries == 2
    assert result.date_done == datetime.fromtimestamp(1_700_000_000, UTC)
    assert result.get(timeout=0) == {"a": (1, 2)}
    assert len(client.asked) == 1


def test_a_state_of_the_tasks_own_is_asked_for_anew(result: AsyncResult[Any], client: Any) -> None:
    client.settle("id-1", State.CUSTOM, custom="PROGRESS", body=b"\x81\xa4done\x01")
    assert (result.state, result.info) == ("PROGRESS", {"done": 1})
    client.settle("id-1", State.STARTED)
    assert result.state == "STARTED"
    assert not result.ready()
    client.settle("id-1", State.RETRY)
    assert result.state == "RETRY"


def test_a_failure_is_raised_as_the_original_class(result: AsyncResult[Any], client: Any) -> None:
    error = KeyError("why")
    client.fail("id-1", error)
    assert result.failed()
    assert isinstance(result.result, KeyError)
    with pytest.raises(KeyError, match="why"):
        result.get()
    assert isinstance(result.get(propagate=False), KeyError)
    with pytest.raises(KeyError):
        result.maybe_throw()
    with pytest.raises(KeyError):
        result.throw()


def test_the_traceback_of_a_failure_is_text(result: AsyncResult[Any], client: Any) -> None:
    try:
        raise ValueError("deep")
    except ValueError as error:
        client.fail("id-1", error)
    assert result.traceback is not None
    assert 'raise ValueError("deep")' in result.traceback


def test_an_exception_of_a_class_that_is_not_here_keeps_its_name(result: AsyncResult[Any], client: Any) -> None:
    elsewhere = type("OnlyThere", (Exception,), {"__module__": "a_module_over_there"})
    client.fail("id-1", elsewhere("x"))
    with pytest.raises(RemoteError) as caught:
        result.get()
    assert type(caught.value).__name__ == "OnlyThere"


@pytest.mark.parametrize(
    ("state", "error", "name"),
    [(State.REVOKED, TaskRevokedError, "REVOKED"), (State.REJECTED, Exception, "FAILURE")],
)
def test_an_end_of_which_nothing_is_told_is_an_exception_all_the_same(
    result: AsyncResult[Any], client: Any, state: State, error: type[Exception], name: str
) -> None:
    client.say_nothing_more("id-1", state)
    assert result.state == name
    with pytest.raises(error):
        result.get()


def dies(client: Any) -> None:
    """Let the message be a dead letter."""
    client.settle("id-1", State.FAILURE, failure=describe(PoisonMessage("poison")), dead=True)


def test_the_end_of_a_dead_letter_is_asked_for_each_time(result: AsyncResult[Any], client: Any) -> None:
    dies(client)
    for _ in range(2):
        with pytest.raises(PoisonMessage):
            result.get(timeout=0)
        assert (result.state, result.ready(), result.failed()) == ("FAILURE", True, True)
    client.settle("id-1", State.STARTED)
    assert (result.state, result.result, result.ready(), result.failed()) == ("STARTED", None, False, False)
    with pytest.raises(TimeoutError):
        result.get(timeout=0)
    client.succeed("id-1", 42)
    assert result.get(timeout=0) == 42
    assert (result.state, result.result, result.ready()) == ("SUCCESS", 42, True)


def test_who_saw_a_dead_letter_and_waits_gets_the_redriven_ones_end(result: AsyncResult[Any], client: Any) -> None:
    dies(client)
    assert isinstance(result.get(timeout=0, propagate=False), PoisonMessage)
    client.settle("id-1", State.PENDING)
    threading.Timer(0.01, lambda: client.succeed("id-1", 42)).start()
    assert result.get(timeout=5) == 42


def test_in_asyncio_a_redriven_dead_letter_is_awaited_anew(app: App, client: Any) -> None:
    async def main() -> None:
        result = app.AsyncResult("id-1")
        dies(client)
        assert isinstance(await result.aget(propagate=False), PoisonMessage)
        client.succeed("id-1", 7)
        assert await result == 7

    asyncio.run(main())


def test_who_is_called_with_a_dead_letter_need_not_ask(app: App, client: Any) -> None:
    told: list[AsyncResult[Any]] = []
    app.AsyncResult("id-1").then(told.append, told.append)
    dies(client)
    asked = len(client.asked)
    assert told == ["id-1"]
    assert isinstance(told[0].result, PoisonMessage)
    assert (told[0].state, len(client.asked)) == ("FAILURE", asked)


def test_an_ignored_task_ends_with_nothing(result: AsyncResult[Any], client: Any) -> None:
    client.say_nothing_more("id-1", State.IGNORED)
    assert result.state == "IGNORED"
    assert result.ready()
    assert result.get() is None


# --- waiting


def test_get_waits_for_the_brokers_word(result: AsyncResult[Any], client: Any) -> None:
    threading.Timer(0.02, lambda: client.succeed("id-1", 42)).start()
    assert result.get(timeout=5) == 42


def test_a_timeout_is_told_and_harms_nothing(result: AsyncResult[Any], client: Any) -> None:
    with pytest.raises(TimeoutError, match=r"<AsyncResult: id-1> has no result after 0\.01 s"):
        result.get(timeout=0.01)
    client.succeed("id-1", 1)
    assert result.get(timeout=5) == 1
    assert result.wait() == 1


def test_on_interval_is_called_while_waiting(result: AsyncResult[Any], client: Any) -> None:
    calls: list[int] = []

    def tick() -> None:
        calls.append(1)
        if len(calls) == 3:
            client.succeed("id-1", 1)

    assert result.get(timeout=5, interval=0.001, on_interval=tick) == 1
    assert len(calls) == 3


def test_callbacks_get_the_value(result: AsyncResult[Any], client: Any) -> None:
    got: list[Any] = []
    client.succeed("id-1", 5)
    result.get(callback=lambda id, value: got.append((id, value)), on_message=got.append)
    assert got == [{"task_id": "id-1", "status": "SUCCESS", "result": 5}, ("id-1", 5)]


def test_waiting_inside_a_task_is_refused_unless_it_is_allowed(app: App, result: AsyncResult[Any], client: Any) -> None:
    client.succeed("id-1", 1)
    task = app.task(name="a")(lambda: None)
    token = push_frame(task, Context(id="t", called_directly=False))
    try:
        with pytest.raises(RuntimeError, match=r"Never call result.get\(\) within a task!"):
            result.get()
        with allow_join_result():
            assert result.get() == 1
        assert result.get(disable_sync_subtasks=False) == 1
    finally:
        pop_frame(token)
    assert result.get() == 1


def test_a_failed_parent_is_raised_first(app: App, client: Any) -> None:
    parent = app.AsyncResult("parent")
    child = app.AsyncResult("child", parent=parent)
    client.fail("parent", KeyError("parent's"))
    with pytest.raises(KeyError, match="parent's"):
        child.get(timeout=0)
    with pytest.raises(TimeoutError):
        child.get(timeout=0, follow_parents=False)


def test_a_promise_that_is_broken_with_a_timeout_is_not_taken_for_one_that_is_late(
    result: AsyncResult[Any], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    future = client.result_future("id-1")
    future.set_exception(UnknownOutcome("nobody knows"))
    monkeypatch.setattr(client, "result_future", lambda _id: future)
    with pytest.raises(UnknownOutcome, match="nobody knows"):
        result.get(timeout=5)


def test_in_asyncio_a_result_is_awaited(app: App, client: Any) -> None:
    async def main() -> None:
        result = app.AsyncResult("id-1")
        asyncio.get_running_loop().call_later(0.01, lambda: client.succeed("id-1", 7))
        assert await result == 7
        assert await app.AsyncResult("id-1").aget(timeout=1) == 7
        with pytest.raises(TimeoutError, match="id-2"):
            await app.AsyncResult("id-2").aget(timeout=0.01)
        client.fail("id-3", KeyError("x"))
        with pytest.raises(KeyError):
            await app.AsyncResult("id-3")
        assert isinstance(await app.AsyncResult("id-3").aget(propagate=False), KeyError)

    asyncio.run(main())


def test_a_result_that_comes_in_another_thread_wakes_the_loop(app: App, client: Any) -> None:
    async def main() -> int:
        threading.Timer(0.01, lambda: client.succeed("id-1", 7)).start()
        return await app.AsyncResult("id-1").aget(timeout=5)  # type: ignore[no-any-return]

    assert asyncio.run(main()) == 7


def test_then_is_called_once_it_is_there(app: App, client: Any) -> None:
    got: list[Any] = []
    for id in ("good", "bad", "late"):
        app.AsyncResult(id).then(lambda r: got.append((r.id, "ok")), lambda r: got.append((r.id, "error")))
    assert got == []
    client.succeed("good", 1)
    client.fail("bad", KeyError())
    client.succeed("late", 1)
    assert got == [("good", "ok"), ("bad", "error"), ("late", "ok")]


# --- acting


def test_forgetting_reaches_the_parents(app: App, client: Any) -> None:
    client.succeed("child", 1)
    child = app.AsyncResult("child", parent=app.AsyncResult("parent"))
    child.get()
    child.forget()
    assert [(op, params.ids) for op, params in client.requests] == [(Op.FORGET, ["child"]), (Op.FORGET, ["parent"])]


@pytest.mark.parametrize(("signal", "number"), [(None, 15), ("SIGKILL", 9), ("kill", 9), (2, 2)])
def test_s16_revoking(result: AsyncResult[Any], client: Any, signal: Any, number: int) -> None:
    result.revoke(terminate=True, signal=signal)
    op, params = client.requests[-1]
    assert op == Op.REVOKE
    assert (params.ids, params.terminate, params.signal) == (["id-1"], True, number)


def test_a_signal_that_does_not_exist_is_an_error(result: AsyncResult[Any], client: Any) -> None:
    with pytest.raises(ValueError, match="no signal 'SIGNOPE'"):
        result.revoke(signal="SIGNOPE")
    assert not client.requests


def test_a_dead_letter_tells_its_story(result: AsyncResult[Any], client: Any) -> None:
    letter = DeadInfo("id-1", "tasks.add", "celery", "poison", 3, 1.0, 2.0, "id-1", [])
    client.answers[Op.DEAD_SHOW] = DeadPage([letter], 1)
    assert result.dead is letter
    assert client.requests[-1][1].ids == ["id-1"]
    client.answers[Op.DEAD_SHOW] = DeadPage([], 0)
    assert result.dead is None


# --- the family


def test_children_and_what_they_led_to(app: App, client: Any) -> None:
    leaf, child = app.AsyncResult("leaf"), app.AsyncResult("child")
    client.succeed("top", 1, children=encode_children([child, app.GroupResult("g", [leaf])]))
    client.succeed("child", 2)
    client.succeed("leaf", 3)
    top = app.AsyncResult("top")
    assert top.children == [child, app.GroupResult("g", [leaf])]
    assert [str(node) for _, node in top.iterdeps()] == ["top", "child", "g", "leaf"]
    assert [value for _, value in top.collect()] == [1, 2, [3], 3]
    assert top.get_leaf() == 3
    waiting = app.AsyncResult("nobody knows")
    with pytest.raises(RuntimeError, match="has not ended yet"):
        list(waiting.iterdeps())
    assert len(list(waiting.iterdeps(intermediate=True))) == 1


def test_children_as_bytes_and_back(app: App) -> None:
    assert encode_children(None) == b""
    assert decode_children(b"", app) == []
    results = [app.AsyncResult("a", parent=app.AsyncResult("p")), app.GroupResult("g", [app.AsyncResult("b")])]
    again = decode_children(encode_children(results), app)
    assert again == results
    assert again[0].parent == app.AsyncResult("p")


# --- as a value


def test_a_result_compares_with_results_and_ids(app: App) -> None:
    one: Any = app.AsyncResult("id-1")
    assert one == app.AsyncResult("id-1") == "id-1"
    assert one != app.AsyncResult("id-2")
    assert one != "id-2"
    assert one != 1
    assert len({one, app.AsyncResult("id-1")}) == 1
    assert (str(one), repr(one), one.task_id) == ("id-1", "<AsyncResult: id-1>", "id-1")
    wrong: Any = None
    with pytest.raises(ValueError, match="needs the id"):
        AsyncResult(wrong)


def test_a_result_survives_pickling_and_copying(app: App) -> None:
    result = app.AsyncResult("id-1", task_name="tasks.add", parent=app.AsyncResult("p"))
    for again in (pickle.loads(pickle.dumps(result)), copy.copy(result)):
        assert again == result
        assert (again.name, again.parent, again.app) == ("tasks.add", result.parent, app)


def test_plain_forms(app: App) -> None:
    result = app.AsyncResult("a", parent=app.AsyncResult("b"))
    assert result.as_tuple() == (("a", (("b", None), None)), None)
    assert result.as_list() == ["a", "b"]
    again: Any = result_from_tuple(result.as_tuple(), app)
    assert again == result
    assert again.parent == "b"
    assert result_from_tuple(result, app) is result
    assert result_from_tuple(["a", None], app) == app.AsyncResult("a")
    group = app.GroupResult("g", [result], parent=app.AsyncResult("p"))
    restored = result_from_tuple(group.as_tuple(), app)
    assert isinstance(restored, GroupResult)
    assert restored == group


def test_a_results_app_is_the_current_one_where_none_made_it(make_app: Callable[..., App]) -> None:
    app = make_app("here")
    result: AsyncResult[Any] = AsyncResult("id-1")
    assert result.app is app
