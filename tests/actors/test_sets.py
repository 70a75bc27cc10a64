"""Several results together."""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from greenroom.actors.app import App
from greenroom.actors.errors import PoisonMessage, TimeoutError
from greenroom.actors.results.failure import describe
from greenroom.actors.results.sets import GroupResult, ResultSet
from greenroom.transport.message import State
from greenroom.transport.verbs import Op


@pytest.fixture
def three(app: App) -> ResultSet:
    return app.ResultSet([app.AsyncResult(id) for id in "abc"])


def test_members_come_and_go(app: App, three: ResultSet) -> None:
    three.add(app.AsyncResult("a"))
    three.add(app.AsyncResult("d"))
    assert [result.id for result in three] == ["a", "b", "c", "d"]
    three.remove("a")
    three.discard("not there")
    three.update([app.AsyncResult("b"), app.AsyncResult("e")])
    assert len(three) == 4
    assert three[0] == "b"
    assert "e" in three
    with pytest.raises(KeyError):
        three.remove("a")
    three.clear()
    assert len(three) == 0


def test_how_they_stand_is_asked_for_at_once(three: ResultSet, client: Any) -> None:
    client.succeed("a", 1)
    client.fail("b", KeyError("b's"))
    assert three.waiting()
    assert three.failed()
    assert not three.ready()
    assert not three.successful()
    assert three.completed_count() == 1
    assert all(len(ids) <= 3 for ids in client.asked)
    client.succeed("c", 3)
    client.asked.clear()
    assert three.ready()
    assert client.asked == [["c"]]
    with pytest.raises(KeyError, match="b's"):
        three.maybe_throw()


@pytest.mark.parametrize(
    "look",
    [
        ResultSet.ready,
        ResultSet.waiting,
        ResultSet.successful,
        ResultSet.failed,
        ResultSet.completed_count,
        ResultSet.maybe_throw,
    ],
)
def test_each_look_is_one_question_whatever_is_open(app: App, client: Any, look: Callable[[ResultSet], object]) -> None:
    client.succeed("0", 1)
    client.settle("1", State.STARTED)
    client.settle("2", State.FAILURE, failure=describe(PoisonMessage("poison")), dead=True)
    many = app.ResultSet([app.AsyncResult(str(number)) for number in range(2500)])
    for _ in range(2):
        client.asked.clear()
        with contextlib.suppress(PoisonMessage):
            look(many)
        assert [len(ids) for ids in client.asked] in ([2500], [2499])
    assert many.completed_count() == 1


def test_members_of_groups_are_asked_for_together_with_the_others(app: App, client: Any) -> None:
    inner = app.GroupResult("inner", [app.AsyncResult("a"), app.AsyncResult("b")])
    outer = app.ResultSet([inner, app.AsyncResult("c")])
    client.succeed("a", 1)
    assert outer.completed_count() == 1
    assert not outer.ready()
    assert client.asked == [["a", "b", "c"], ["b", "c"]]


def test_iterating_over_a_dead_letter_asks_nobody_again(three: ResultSet, client: Any) -> None:
    client.succeed("a", 1)
    client.settle("b", State.FAILURE, failure=describe(PoisonMessage("poison")), dead=True)
    client.succeed("c", 3)
    values = list(three.iterate(timeout=5, propagate=False))
    assert [values[0], values[2]] == [1, 3]
    assert isinstance(values[1], PoisonMessage)
    assert [meta["status"] for _, meta in three.iter_native(timeout=5)] == ["SUCCESS", "SUCCESS", "FAILURE"]
    assert client.asked == []


def test_get_returns_the_values_in_order(three: ResultSet, client: Any) -> None:
    got: list[Any] = []
    for id, value in (("c", 3), ("a", 1), ("b", 2)):
        client.succeed(id, value)
    assert three.get(timeout=0, callback=lambda id, value: got.append((id, value))) == [1, 2, 3]
    assert three.join() == three.join_native() == [1, 2, 3]
    assert got == [("a", 1), ("b", 2), ("c", 3)]


def test_get_waits_within_one_timeout_for_all(three: ResultSet, client: Any) -> None:
    client.succeed("a", 1)
    with pytest.raises(TimeoutError):
        three.get(timeout=0.01)
    timers = [threading.Timer(0.01, client.succeed, (id, id)) for id in "bc"]
    for timer in timers:
        timer.start()
    assert three.get(timeout=5) == [1, "b", "c"]


def test_get_raises_the_first_failure(three: ResultSet, client: Any) -> None:
    client.succeed("a", 1)
    client.succeed("c", 1)
    client.fail("b", KeyError("b's"))
    with pytest.raises(KeyError, match="b's"):
        three.get(timeout=0)
    assert isinstance(three.get(propagate=False)[1], KeyError)


def test_iterating_gives_them_as_they_end(three: ResultSet, client: Any) -> None:
    client.succeed("b", "b")
    values = three.iterate(timeout=5)
    assert next(values) == "b"
    client.succeed("c", "c")
    assert next(values) == "c"
    client.succeed("a", "a")
    assert list(values) == ["a"]
    assert [id for id, _ in three.iter_native()] == ["a", "b", "c"]
    assert dict(three.iter_native())["a"]["status"] == "SUCCESS"


def test_iterating_ends_with_its_timeout(three: ResultSet) -> None:
    with pytest.raises(TimeoutError, match="not all of"):
        list(three.iterate(timeout=0.01))


def test_then_is_called_when_the_last_one_ended(app: App, three: ResultSet, client: Any) -> None:
    got: list[Any] = []
    three.then(got.append)
    client.succeed("a", 1)
    client.succeed("b", 1)
    assert got == []
    client.fail("c", KeyError())
    assert got == [three]
    app.ResultSet([]).then(got.append)
    assert len(got) == 2


def test_acting_on_all_is_one_request(three: ResultSet, client: Any) -> None:
    three.revoke(terminate=True, signal="KILL")
    three.forget()
    revoke, forget = client.requests
    assert revoke[0] == Op.REVOKE
    assert (revoke[1].ids, revoke[1].signal) == (["a", "b", "c"], 9)
    assert (forget[0], forget[1].ids) == (Op.FORGET, ["a", "b", "c"])


def test_a_set_cannot_be_hashed_and_compares_by_members(app: App, three: ResultSet) -> None:
    with pytest.raises(TypeError):
        hash(three)
    assert three == app.ResultSet(["a", "b", "c"])
    assert repr(three) == "<ResultSet: [a, b, c]>"


def test_a_group_is_a_value_with_an_id(app: App) -> None:
    members = [app.AsyncResult("a"), app.AsyncResult("b")]
    group = app.GroupResult("g", members)
    assert (str(group), repr(group)) == ("g", "<GroupResult: g [a, b]>")
    assert group == app.GroupResult("g", members)
    assert group != app.GroupResult("g", members[:1])
    assert group != app.GroupResult("h", members)
    assert hash(group) == hash("g")
    assert group.children == members
    assert bool(group)
    assert not GroupResult()
    assert pickle.loads(pickle.dumps(group)) == group
    assert group.as_tuple() == (("g", None), [(("a", None), None), (("b", None), None)])


def test_groups_in_groups_are_waited_for_together(app: App, client: Any) -> None:
    inner = app.GroupResult("inner", [app.AsyncResult("b")])
    outer = app.GroupResult("outer", [app.AsyncResult("a"), inner])
    client.succeed("a", 1)
    assert not outer.ready()
    client.succeed("b", 2)
    assert outer.ready()
    assert outer.get() == [1, [2]]
    assert outer.completed_count() == 2
