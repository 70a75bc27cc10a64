"""Aftermath: hooks, signals and errbacks of a task that ended without its worker (D23)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from greenroom.actors import signals
from greenroom.actors.app import App
from greenroom.actors.bodies import Content, pack_call, pack_embed
from greenroom.actors.errors import WorkerLostError
from greenroom.actors.results.failure import describe
from greenroom.actors.tasks.task import Task
from greenroom.actors.worker.aftermath import AftermathRunner
from greenroom.actors.worker.events import Held
from greenroom.actors.worker.execute import Executor
from greenroom.actors.worker.outcomes import Outcomes
from greenroom.transport.message import Aftermath, Delivery, Envelope, Kind, More, Outcome, Result, State


class Nobody:
    """Limits and states are not these tests' subject."""

    def progress(self, held: Held, result: bytes) -> None: ...

    def begin(self, held: Held, soft: int, hard: int) -> None: ...

    def end(self, held: Held) -> None: ...


@pytest.fixture(autouse=True)
def no_signal_is_left_connected() -> Iterator[None]:
    before = {name: signal.receivers for name, signal in signals.ALL.items()}
    yield
    for name, signal in signals.ALL.items():
        signal.receivers = before[name]


class Bench:
    def __init__(self) -> None:
        self.app = App("bench", set_as_current=False)
        self.executor = Executor(
            self.app, Outcomes("celery@here", lambda: 5), Nobody(), Nobody(), hostname="celery@here"
        )
        self.executor.others[Kind.AFTERMATH] = AftermathRunner(self.executor)

    def run(
        self,
        name: str,
        *args: Any,
        state: State = State.FAILURE,
        reason: str = "lost",
        embed: dict[str, Any] | None = None,
        body: bytes | None = None,
        kind: Kind = Kind.TASK,
    ) -> Outcome:
        content, call = pack_call(args, {}, Content(), "id1")
        more = More(opaque=pack_embed(embed)) if embed else None
        envelope = Envelope("id1", name, content, call if body is None else body, kind=kind, more=more)
        failure = describe(WorkerLostError("Worker exited prematurely: signal 9 (SIGKILL)."), "")
        result = msgspec.msgpack.encode(Result(int(state), failure=failure if state == State.FAILURE else None))
        aftermath = msgspec.msgpack.encode(Aftermath(envelope, int(state), result, reason))
        outer = Envelope("after-id1", name, "msgpack", aftermath, kind=Kind.AFTERMATH)
        done = self.executor.run(Held(Delivery(9, outer, "celery"), 7))
        assert isinstance(done, Outcome)
        return done


def hooked(bench: Bench, told: list[Any]) -> Task[..., Any]:
    class Hooked(Task[..., Any]):
        def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            told.append(("on_failure", type(exc).__name__, task_id, args, self.request.id, str(einfo.traceback)))

        def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            told.append(("after_return", status))

    @bench.app.task(base=Hooked)
    def body(*args: Any) -> None:
        raise AssertionError("an aftermath runs no body")

    return body


def test_d23_the_hooks_and_the_signal_of_a_lost_task_are_called_with_its_arguments() -> None:
    bench = Bench()
    told: list[Any] = []

    @signals.task_failure.connect
    def failed(task_id: str, exception: Any, args: Any, **_: Any) -> None:
        told.append(("signal", task_id, str(exception), args))

    task = hooked(bench, told)
    outcome = bench.run(task.name, 1, 2)
    assert told == [
        ("on_failure", "WorkerLostError", "id1", [1, 2], "id1", ""),
        ("signal", "id1", "Worker exited prematurely: signal 9 (SIGKILL).", [1, 2]),
        ("after_return", "FAILURE"),
    ]
    assert (outcome.position, outcome.lease, outcome.state, outcome.result) == (9, 7, State.SUCCESS, b"")


def test_d23_errbacks_of_a_lost_task_follow_and_are_called() -> None:
    bench = Bench()
    called: list[Any] = []

    @bench.app.task
    def by_id(failed: str) -> None: ...

    @bench.app.task
    def by_error(request: Any, exc: Any, traceback: Any) -> None:
        called.append((request.id, type(exc).__name__))

    @bench.app.task
    def body() -> None: ...

    outcome = bench.run(body.name, embed={"errbacks": [dict(by_id.s()), dict(by_error.s())]})
    assert outcome.follows is not None
    [envelope] = outcome.follows[0].messages
    assert bench.executor.arguments_of(envelope) == (["id1"], {})
    assert called == [("id1", "WorkerLostError")]


@pytest.mark.parametrize(
    ("reason", "expired", "terminated"),
    [("expired", True, False), ("terminated", False, True), ("revoked", False, False)],
)
def test_d23_a_revoked_task_calls_its_signal_and_no_failure_hook(reason: str, expired: bool, terminated: bool) -> None:
    bench = Bench()
    told: list[Any] = []

    @signals.task_revoked.connect
    def revoked(request: Any, expired: bool, terminated: bool, **_: Any) -> None:
        told.append((request.id, expired, terminated))

    bench.run(hooked(bench, told).name, state=State.REVOKED, reason=reason)
    assert told == [("id1", expired, terminated)]


def test_an_aftermath_of_an_unknown_task_or_of_nonsense_is_settled_all_the_same() -> None:
    bench = Bench()
    assert bench.run("nobody.knows").state == State.SUCCESS
    outer = Envelope("x", "y", "msgpack", b"\xc1", kind=Kind.AFTERMATH)
    done = bench.executor.run(Held(Delivery(9, outer, "celery"), 7))
    assert isinstance(done, Outcome)
    assert done.state == State.SUCCESS


@pytest.mark.parametrize(("state", "told"), [(State.FAILURE, "ended without its worker: Worker"), (State.REVOKED, "")])
def test_an_aftermath_of_an_actors_message_is_told_in_the_log_as_that(
    caplog: pytest.LogCaptureFixture, state: State, told: str
) -> None:
    caplog.set_level("INFO", "greenroom.worker")
    bench = Bench()
    # A method may well be called as a task is.
    called: list[Any] = []
    task = hooked(bench, called)
    for method in ("bump", task.name):
        caplog.clear()
        assert bench.run(method, state=state, reason="revoked", kind=Kind.ACTOR).state == State.SUCCESS
        assert "unregistered" not in caplog.text
        assert told in caplog.text
        assert f"{method}[id1]" in caplog.text
    assert called == []


def test_hooks_are_called_without_arguments_when_those_cannot_be_read() -> None:
    bench = Bench()
    told: list[Any] = []
    bench.run(hooked(bench, told).name, body=b"\xc1")
    assert told[0][:4] == ("on_failure", "WorkerLostError", "id1", [])


def test_a_hook_that_raises_does_not_stop_the_aftermath(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()

    class Bad(Task[..., Any]):
        def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            raise RuntimeError("in a hook")

    @bench.app.task(base=Bad)
    def body() -> None: ...

    assert bench.run(body.name).state == State.SUCCESS
    assert "in a hook" in caplog.text
