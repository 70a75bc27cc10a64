"""Signatures: calls that are written down."""

# Short lambdas stand for tasks and receivers here, and some tests look inside.
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownVariableType=false

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.app import App
from greenroom.actors.bodies import unpack_call
from greenroom.actors.errors import NotSupported
from greenroom.actors.tasks.signature import Signature, maybe_signature, signature
from greenroom.actors.tasks.task import Task
from greenroom.transport import payload


@pytest.fixture
def add(app: App) -> Task[..., int]:
    return app.task(name="tasks.add")(lambda x, y=0, z=0: x + y + z)


def call_of(client: Any) -> tuple[list[Any], dict[str, Any]]:
    return unpack_call(client.envelope, accept=("msgpack",))


def test_a_signature_is_a_dict_of_a_settled_form(add: Task[..., int]) -> None:
    assert dict(add.s(1, y=2)) == {
        "task": "tasks.add",
        "args": (1,),
        "kwargs": {"y": 2},
        "options": {},
        "subtask_type": None,
        "immutable": False,
    }
    assert dict(add.signature((1,), options={"queue": "q"}, countdown=5))["options"] == {"queue": "q", "countdown": 5}
    assert add.si(1).immutable
    assert add.subtask((1,)) == add.s(1)


def test_signatures_are_not_merged_where_a_chain_is_meant(add: Task[..., int]) -> None:
    first, second = add.s(1), add.s(2, z="secret")
    other: Any = dict(second)
    chains: list[Callable[[], Any]] = [
        lambda: first | second,
        lambda: first | other,
        lambda: other | first,
        lambda: first.__ior__(second),
    ]
    for chain in chains:
        with pytest.raises(NotSupported, match=r"tasks\.add.*no canvases yet.*apply_async\(link=second\)") as caught:
            chain()
        assert isinstance(caught.value, NotImplementedError)
        assert "secret" not in str(caught.value)
    assert first == add.s(1)
    assert dict(first) | {"task": "other"} == {**first, "task": "other"}


def test_arguments_of_the_call_stand_before_its_own(add: Task[..., int], client: Any) -> None:
    add.s(2, z=5).delay(1, z=9)
    assert call_of(client) == ([1, 2], {"z": 9})
    add.s(2).apply_async((1,), {"z": 3}, countdown=5)
    assert call_of(client) == ([1, 2], {"z": 3})
    assert client.envelope.more.delay == 5_000_000
    assert add.s(2)(1) == 3
    assert add.s(2).apply((1,)).get() == 3


def test_an_immutable_one_takes_none(add: Task[..., int], client: Any) -> None:
    add.si(7).delay(1, y=2)
    assert call_of(client) == ([7], {})
    made = add.s(7)
    made.set_immutable(True)
    assert made(5) == 7


def test_options_of_the_call_win(add: Task[..., int], client: Any) -> None:
    add.s(1).set(queue="own", priority=3).apply_async(queue="call")
    assert (client.mailbox, client.envelope.priority) == ("call", 3)
    assert add.s(1).set(immutable=True, queue="q").immutable


def test_a_clone_is_apart(add: Task[..., int]) -> None:
    original = add.s({"deep": []}).set(headers={"a": 1})
    clone = original.clone((0,), {"y": 1}, queue="q")
    clone.options["headers"]["a"] = 2
    assert clone.args == (0, {"deep": []})
    assert (clone.kwargs, clone.options["queue"]) == ({"y": 1}, "q")
    assert original.args == ({"deep": []},)
    assert original.options == {"headers": {"a": 1}}
    assert original.replace(args=(5,), options={}).args == (5,)
    assert clone.app is add.app


def test_links_are_options(add: Task[..., int]) -> None:
    made = add.s(1)
    callback = add.s(2)
    assert made.link(callback) is callback
    made.link(add.s(2))
    made.link(add.s(3))
    assert made.options["link"] == [add.s(2), add.s(3)]
    assert made.on_error(add.s(4)) is made
    assert made.options["link_error"] == [add.s(4)]


def test_freezing_settles_the_id(add: Task[..., int], client: Any) -> None:
    made = add.s(1)
    frozen = made.freeze()
    assert made.id == frozen.id
    assert made.delay() == frozen
    assert client.envelope.id == frozen.id
    assert add.s(1).freeze("chosen", group_id="g").id == "chosen"


def test_a_signature_of_a_task_that_is_not_here_is_sent_by_name(app: App, client: Any) -> None:
    app.signature("elsewhere.add", (1,), queue="far").delay(0)
    assert (client.mailbox, client.envelope.name) == ("far", "elsewhere.add")
    assert call_of(client) == ([0, 1], {})
    assert app.signature("elsewhere.add").type is None


def test_a_dict_becomes_a_signature_again(app: App, add: Task[..., int]) -> None:
    made = add.s(1, y=2).set(queue="q")
    for again in (
        Signature.from_dict(dict(made), app=app),
        app.signature(dict(made)),
        signature(made),
        maybe_signature(dict(made), app),
        pickle.loads(pickle.dumps(made)),
        copy.deepcopy(made),
    ):
        assert again == made
        assert isinstance(again, Signature)
        assert again is not made
        assert again.type is add
    assert maybe_signature(made) is made
    assert maybe_signature(None) is None


values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)


@given(
    args=st.lists(values, max_size=3),
    kwargs=st.dictionaries(st.text(max_size=5), values, max_size=3),
    immutable=st.booleans(),
)
def test_a_signature_travels_as_plain_data(args: list[Any], kwargs: dict[str, Any], immutable: bool) -> None:
    made: Signature[Any] = Signature("tasks.add", args, kwargs, {"queue": "q"}, immutable=immutable)
    for serializer in ("msgpack", "json"):
        again = signature(payload.decode(payload.encode(made, serializer)))  # type: ignore[arg-type]
        assert (again.task, list(again.args), again.kwargs, again.options, again.immutable) == (
            "tasks.add",
            args,
            kwargs,
            {"queue": "q"},
            immutable,
        )


def test_a_signature_is_written_as_a_call(add: Task[..., int]) -> None:
    assert repr(add.s(1, y="a")) == "tasks.add(1, y='a')"
    assert add.s(1).reprcall(0) == "tasks.add(0, 1)"


def test_a_signature_prepares_its_message_without_sending(add: Task[..., int], client: Any) -> None:
    mailbox, envelope = add.s(1).set(queue="q").prepare((0,), parent_id="p")
    assert (mailbox, envelope.name) == ("q", "tasks.add")
    assert envelope.more is not None
    assert envelope.more.parent_id == "p"
    assert unpack_call(envelope, accept=("msgpack",)) == ([0, 1], {})
    assert not client.published
