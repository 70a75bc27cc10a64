"""Running one delivery: every way in which a body can end, and what stands around it, in its order."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from greenroom.actors import signals
from greenroom.actors.app import App
from greenroom.actors.bodies import Content, pack_call, pack_embed, unpack_value
from greenroom.actors.current import current_frame, current_task, remember_unconfirmed
from greenroom.actors.errors import Ignore, Reject, Retry, SecurityError, SoftTimeLimitExceeded, Terminated
from greenroom.actors.results.failure import rebuild
from greenroom.actors.tasks.task import Task
from greenroom.actors.worker.afterwards import Afterwards
from greenroom.actors.worker.events import Held
from greenroom.actors.worker.execute import Done, Executor
from greenroom.actors.worker.outcomes import OUTCOME_BYTES_MAX, Outcomes
from greenroom.transport.message import Delivery, Envelope, Flag, More, Outcome, Result, State
from greenroom.transport.verbs import Known

decode_result = msgspec.msgpack.Decoder(Result).decode

WALL = 1_700_000_000_000_000


class Recorder:
    """What pools do for an executor, written down."""

    def __init__(self) -> None:
        self.states: list[tuple[int, Result]] = []
        self.limits: list[tuple[str, int, int, int]] = []

    def progress(self, held: Held, result: bytes) -> None:
        self.states.append((held.delivery.position, decode_result(result)))

    def begin(self, held: Held, soft: int, hard: int) -> None:
        self.limits.append(("begin", held.delivery.position, soft, hard))

    def end(self, held: Held) -> None:
        self.limits.append(("end", held.delivery.position, 0, 0))


class Bench:
    """An app, its executor, and messages for it."""

    def __init__(self, **settings: Any) -> None:
        self.app = App("bench", set_as_current=False, **settings)
        self.recorder = Recorder()
        self._executor: Executor | None = None
        self.position = 0

    @property
    def executor(self) -> Executor:
        if self._executor is None:
            self._executor = self.make_executor()
        return self._executor

    def make_executor(self, **options: Any) -> Executor:
        self._executor = Executor(
            self.app,
            Outcomes("celery@here", lambda: WALL),
            self.recorder,
            self.recorder,
            hostname="celery@here",
            **options,
        )
        return self._executor

    def held(
        self,
        task: Task[..., Any] | str,
        *args: Any,
        flags: int = 0,
        more: More | None = None,
        expired: bool = False,
        redelivered: bool = False,
        embed: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Held:
        self.position += 1
        id = f"id{self.position}"
        content, body = pack_call(args, kwargs, Content(), id)
        name = task if isinstance(task, str) else task.name
        # The first call of a task goes the long way, to learn about it: here every call that may goes the short one.
        self.executor.handling_of(name)
        if embed is not None:
            more = more or More()
            more.opaque = pack_embed(embed)
        envelope = Envelope(id, name, content, body, flags, more=more)
        delivery = Delivery(self.position, envelope, "celery", 2 if redelivered else 1, redelivered=redelivered)
        return Held(delivery, 7, expired=expired)

    def run(self, task: Task[..., Any] | str, *args: Any, **options: Any) -> Outcome:
        return outcome_of(self.executor.run(self.held(task, *args, **options)))


def outcome_of(done: Done) -> Outcome:
    return done if isinstance(done, Outcome) else done.outcome


def result_of(done: Done) -> Result:
    return decode_result(outcome_of(done).result)


def value_of(done: Done) -> Any:
    result = result_of(done)
    assert result.state == State.SUCCESS
    return unpack_value(result.content, result.body, "", accept=("msgpack",)) if result.body else None


def error_of(done: Done) -> Exception:
    failure = result_of(done).failure
    assert failure is not None
    return rebuild(failure)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture(autouse=True)
def no_signal_is_left_connected() -> Iterator[None]:
    before = {name: signal.receivers for name, signal in signals.ALL.items()}
    yield
    for name, signal in signals.ALL.items():
        signal.receivers = before[name]


# --- values and failures --------------------------------------------------------------------------------------


def test_a_value_is_settled_with_its_result(bench: Bench) -> None:
    @bench.app.task
    def add(x: int, y: int) -> int:
        return x + y

    outcome = bench.run(add, 2, y=3)
    assert (outcome.position, outcome.lease, outcome.state) == (1, 7, State.SUCCESS)
    assert value_of(outcome) == 5
    result = result_of(outcome)
    assert (result.worker, result.done_at) == ("celery@here", WALL)


def test_the_short_way_for_nothing_is_the_same_bytes_as_the_long_way(bench: Bench) -> None:
    @bench.app.task
    def nothing() -> None:
        return None

    short = bench.run(nothing)
    long = bench.run(nothing, more=More(root_id="r"))
    assert short.result == long.result
    assert value_of(short) is None


def test_both_ways_of_a_body_give_the_same_outcome(bench: Bench) -> None:
    @bench.app.task(bind=True)
    def seen(self: Any, *args: Any, **kwargs: Any) -> list[Any]:
        request = self.request
        return [
            request.id is not None,
            request.args,
            request.kwargs,
            request.hostname,
            request.called_directly,
            request.delivery_info["routing_key"],
            request.fence > 0,
            request.retries,
            current_task.name,
        ]

    expected = [True, [1], {"b": 2}, "celery@here", False, "celery", True, 0, seen.name]
    assert value_of(bench.run(seen, 1, b=2)) == expected
    assert value_of(bench.run(seen, 1, b=2, more=More(root_id="r"))) == expected
    bench.executor.refresh()
    assert current_frame() is None


def test_an_ignored_result_is_not_encoded_and_its_error_only_if_asked_for(bench: Bench) -> None:
    @bench.app.task
    def fine() -> object:
        return object()

    @bench.app.task
    def bad() -> None:
        raise ValueError("x")

    ignore = int(Flag.IGNORE_RESULT)
    assert bench.run(fine, flags=ignore).result == b""
    assert bench.run(fine, flags=ignore).state == State.SUCCESS
    assert bench.run(bad, flags=ignore).result == b""
    assert bench.run(bad, flags=ignore).state == State.FAILURE
    kept = bench.run(bad, flags=ignore | int(Flag.STORE_ERRORS))
    assert isinstance(error_of(kept), ValueError)


def test_a_failure_keeps_type_arguments_and_traceback(bench: Bench) -> None:
    @bench.app.task
    def bad() -> None:
        raise KeyError("missing", 3)

    outcome = bench.run(bad)
    assert outcome.state == State.FAILURE
    error = error_of(outcome)
    assert isinstance(error, KeyError)
    assert error.args == ("missing", 3)
    failure = result_of(outcome).failure
    assert failure is not None
    assert "in bad" in failure.traceback
    assert "worker/execute.py" not in failure.traceback


@pytest.mark.parametrize("more", [None, More(root_id="r")])
def test_a_result_that_cannot_be_sent_is_a_failure_that_names_it(bench: Bench, more: More | None) -> None:
    @bench.app.task
    def bad() -> object:
        return {"a": [1, object()]}

    outcome = bench.run(bad, more=more)
    assert outcome.state == State.FAILURE
    failure = result_of(outcome).failure
    assert failure is not None
    assert failure.exc_type == "EncodeError"
    assert "object" in failure.text


@pytest.mark.parametrize("more", [None, More(root_id="r")])
def test_a_result_that_is_too_large_is_a_failure_in_words_and_one_byte_less_is_not(
    bench: Bench, more: More | None
) -> None:
    @bench.app.task
    def large(size: int) -> bytes:
        return bytes(size)

    outcome = bench.run(large, OUTCOME_BYTES_MAX + 1, more=more)
    assert outcome.state == State.FAILURE
    failure = result_of(outcome).failure
    assert failure is not None
    assert failure.exc_type == "EncodeError"
    assert "keep large data elsewhere" in failure.text
    fits = bench.run(large, OUTCOME_BYTES_MAX - 300, more=more)
    assert fits.state == State.SUCCESS
    assert len(msgspec.msgpack.encode(fits)) <= OUTCOME_BYTES_MAX


def test_a_failure_that_is_too_large_keeps_its_type_its_text_and_its_traceback(bench: Bench) -> None:
    @bench.app.task
    def bad() -> None:
        raise ExceptionGroup("many", [ValueError("x" * 60_000, n) for n in range(60)])

    outcome = bench.run(bad)
    assert len(msgspec.msgpack.encode(outcome)) <= OUTCOME_BYTES_MAX
    failure = result_of(outcome).failure
    assert failure is not None
    assert failure.exc_type == "ExceptionGroup"
    assert failure.text.startswith("many")
    assert "in bad" in failure.traceback


def test_an_unknown_task_fails_with_its_name(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    @signals.task_unknown.connect
    def unknown(name: str, **_: Any) -> None:
        told.append(name)

    done = bench.executor.run(bench.held("nobody.knows"))
    assert outcome_of(done).state == State.FAILURE
    failure = result_of(done).failure
    assert failure is not None
    assert failure.exc_type == "NotRegistered"
    assert "nobody.knows" in failure.text
    assert "nobody.knows" in caplog.text
    assert isinstance(done, Afterwards)
    done.run()
    assert told == ["nobody.knows"]


@pytest.mark.parametrize(
    ("content", "body", "error"),
    [
        ("msgpack", b"\xc1", "DecodeError"),
        ("msgpack", b"\x01", "DecodeError"),
        ("msgpack", msgspec.msgpack.encode([1, {}]), "DecodeError"),
        ("msgpack", msgspec.msgpack.encode([[], 1]), "DecodeError"),
        ("pickle", b"whatever", "ContentDisallowed"),
        ("yaml", b"[[], {}]", "ContentDisallowed"),
        ("msgpack+gzip", b"not gzip", "DecodeError"),
    ],
)
def test_a_body_that_is_no_good_is_a_failure_and_was_not_run(
    bench: Bench, content: str, body: bytes, error: str
) -> None:
    ran: list[int] = []

    @bench.app.task
    def never(*args: Any, **kwargs: Any) -> None:
        ran.append(1)

    held = bench.held(never)
    held.delivery.envelope.content = content
    held.delivery.envelope.body = body
    outcome = outcome_of(bench.executor.run(held))
    assert outcome.state == State.FAILURE
    failure = result_of(outcome).failure
    assert failure is not None
    assert failure.exc_type == error
    assert ran == []


def test_arguments_that_do_not_fit_are_the_tasks_failure(bench: Bench) -> None:
    @bench.app.task
    def one(x: int) -> int:
        return x

    error = error_of(bench.run(one, 1, 2))
    assert isinstance(error, TypeError)
    assert "one()" in str(error)


def test_sys_exit_leaves_the_executor_and_nothing_else_does(bench: Bench) -> None:
    @bench.app.task
    def leave(code: object) -> None:
        raise SystemExit(code)

    @bench.app.task
    def interrupt() -> None:
        raise KeyboardInterrupt

    for more in (None, More(root_id="r")):
        with pytest.raises(SystemExit) as caught:
            bench.executor.run(bench.held(leave, 3, more=more))
        assert caught.value.code == 3
        assert bench.run(interrupt, more=more).state == State.FAILURE


# --- not run, or not again ------------------------------------------------------------------------------------


def test_d28_an_expired_delivery_is_revoked_and_its_body_does_not_run(bench: Bench) -> None:
    ran: list[int] = []
    told: list[bool] = []

    @bench.app.task
    def late() -> None:
        ran.append(1)

    @signals.task_revoked.connect
    def revoked(expired: bool, **_: Any) -> None:
        told.append(expired)

    done = bench.executor.run(bench.held(late, expired=True))
    assert outcome_of(done).state == State.REVOKED
    assert str(error_of(done)) == "expired"
    assert isinstance(done, Afterwards)
    done.run()
    assert (ran, told) == ([], [True])


class KnownResults:
    """A client that knows of some ids."""

    def __init__(self, *known: Known) -> None:
        self._known = known

    def known(self, ids: list[str]) -> list[Known]:
        return [one for one in self._known if one.id in ids]

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("redelivered", "state", "runs"),
    [(True, State.SUCCESS, 0), (True, State.FAILURE, 1), (False, State.SUCCESS, 1)],
)
def test_a_redelivered_task_that_succeeded_is_not_run_again_where_that_is_asked_for(
    redelivered: bool, state: State, runs: int
) -> None:
    bench = Bench(worker_deduplicate_successful_tasks=True)
    ran: list[int] = []

    @bench.app.task(acks_late=True)
    def once() -> None:
        ran.append(1)

    client: Any = KnownResults(Known("id1", int(state), b""))
    connect: Callable[[App], Any] = lambda _: client  # noqa: E731 - typed, as the seam is
    bench.app.sender.make_client = connect
    outcome = bench.run(once, redelivered=redelivered)
    assert outcome.state == State.SUCCESS
    assert len(ran) == runs
    assert bool(outcome.result) is bool(runs), "what is stored already is not stored again"


@pytest.mark.parametrize("flags", [0, int(Flag.IGNORE_RESULT)])
@pytest.mark.parametrize("wrong", ["absent", "another key", "another message", "no key here"])
def test_a_body_without_its_signature_is_refused_and_never_loaded(wrong: str, flags: int) -> None:
    bench = Bench(accept_content=["msgpack", "pickle"])
    ran: list[object] = []
    task = bench.app.task(name="unpickled")(ran.append)
    key = bytes(range(32))
    bench.app.signing_key = None if wrong == "no key here" else key
    sealed = pack_call([1], {}, Content("pickle", None, bytes(32) if wrong == "another key" else key), "id1")[1]
    body = pickle.dumps([[Bomb()], {}]) if wrong == "absent" else sealed
    id = "id2" if wrong == "another message" else "id1"
    held = Held(Delivery(1, Envelope(id, task.name, "pickle", body, flags), "celery"), 7)
    outcome = outcome_of(bench.executor.run(held))
    assert (outcome.state, Bomb.exploded, ran) == (State.REFUSED, False, [])
    assert (result_of(outcome).state, result_of(outcome).dead) == (State.FAILURE, True)
    assert isinstance(error_of(outcome), SecurityError)


class Bomb:
    exploded = False

    def __reduce__(self) -> Any:
        return setattr, (Bomb, "exploded", True)


# --- flow -----------------------------------------------------------------------------------------------------


def test_a_retry_is_the_same_message_with_one_more_on_its_count(bench: Bench) -> None:
    @bench.app.task(bind=True, max_retries=3)
    def again(self: Any, x: int) -> None:
        raise self.retry(countdown=2, exc=ValueError("not yet"))

    held = bench.held(again, 5)
    outcome = outcome_of(bench.executor.run(held))
    assert outcome.state == State.RETRY
    assert outcome.retry is not None
    assert outcome.retry.delay == 2_000_000
    assert outcome.retry.envelope.id == held.delivery.envelope.id
    assert outcome.retry.envelope.more is not None
    assert outcome.retry.envelope.more.retries == 1
    result = result_of(outcome)
    assert result.state == State.RETRY
    assert result.failure is not None
    assert result.failure.exc_type == "ValueError"


def test_a_retry_beyond_the_limit_is_the_failure_that_it_was_for(bench: Bench) -> None:
    @bench.app.task(bind=True, max_retries=1)
    def again(self: Any, with_error: bool) -> None:
        raise self.retry(exc=ValueError("not yet") if with_error else None)

    assert str(error_of(bench.run(again, True, more=More(retries=1)))) == "not yet"
    failure = result_of(bench.run(again, False, more=More(retries=1))).failure
    assert failure is not None
    assert failure.exc_type == "MaxRetriesExceededError"


def test_a_retry_that_was_not_thrown_takes_place_when_the_body_returns(bench: Bench) -> None:
    @bench.app.task(bind=True)
    def again(self: Any) -> int:
        self.retry(throw=False, countdown=0)
        return 1

    assert bench.run(again).state == State.RETRY


def test_a_retry_raised_by_hand_is_a_retry(bench: Bench) -> None:
    @bench.app.task
    def again() -> None:
        raise Retry("later", when=3)

    outcome = bench.run(again)
    assert outcome.state == State.RETRY
    assert outcome.retry is not None
    assert outcome.retry.delay == 3_000_000


def test_autoretry_makes_a_retry_of_an_exception(bench: Bench) -> None:
    @bench.app.task(autoretry_for=(ValueError,), default_retry_delay=1)
    def again() -> None:
        raise ValueError("x")

    assert bench.run(again).state == State.RETRY


def test_ignore_stores_nothing(bench: Bench) -> None:
    @bench.app.task
    def ignored() -> None:
        raise Ignore

    outcome = bench.run(ignored)
    assert (outcome.state, outcome.result) == (State.IGNORED, b"")


@pytest.mark.parametrize(
    ("acks_late", "requeue", "state"),
    [
        (True, True, State.REQUEUED),
        (True, False, State.REJECTED),
        # With an early ack the message was taken when it began: it must not run twice.
        (False, True, State.REJECTED),
        (False, False, State.REJECTED),
    ],
)
def test_a_rejected_message_comes_back_only_with_a_late_ack(
    bench: Bench, acks_late: bool, requeue: bool, state: State
) -> None:
    @bench.app.task(acks_late=acks_late)
    def refuse() -> None:
        raise Reject("no", requeue=requeue)

    outcome = bench.run(refuse)
    assert outcome.state == state
    if state == State.REJECTED:
        assert result_of(outcome).state == State.FAILURE


def test_a_cancelled_body_is_revoked(bench: Bench) -> None:
    @bench.app.task
    def stopped() -> None:
        raise Terminated

    outcome = bench.run(stopped)
    assert outcome.state == State.REVOKED
    assert str(error_of(outcome)) == "terminated"


def test_an_interruption_beside_the_body_is_an_outcome_too(bench: Bench) -> None:
    @bench.app.task
    def fine() -> None: ...

    held = bench.held(fine)
    assert bench.executor.interrupted(held, SoftTimeLimitExceeded()).state == State.FAILURE
    assert bench.executor.interrupted(held, Terminated()).state == State.REVOKED


# --- what the body says and sends -----------------------------------------------------------------------------


def test_update_state_and_track_started_go_to_the_broker_while_the_body_runs(bench: Bench) -> None:
    @bench.app.task(bind=True)
    def long(self: Any) -> None:
        self.update_state(state="PROGRESS", meta={"done": 3})

    bench.run(long)
    bench.run(long, flags=int(Flag.TRACK_STARTED))
    said = [(position, result.custom) for position, result in bench.recorder.states]
    assert said == [(1, "PROGRESS"), (2, "STARTED"), (2, "PROGRESS")]
    result = bench.recorder.states[0][1]
    assert unpack_value(result.content, result.body, "", accept=("msgpack",)) == {"done": 3}


def test_links_follow_a_success_in_its_own_settle(bench: Bench) -> None:
    @bench.app.task
    def add(x: int, y: int) -> int:
        return x + y

    held = bench.held(add, 1, 2, embed={"callbacks": [dict(add.s(10)), dict(add.si(7, 8))]})
    outcome = outcome_of(bench.executor.run(held))
    assert outcome.follows is not None
    [follow] = outcome.follows
    calls = [bench.executor.arguments_of(envelope) for envelope in follow.messages]
    assert calls == [([3, 10], {}), ([7, 8], {})]
    assert all(envelope.more is not None for envelope in follow.messages)
    for envelope in follow.messages:
        assert envelope.more is not None
        assert (envelope.more.parent_id, envelope.more.root_id) == ("id1", "id1")
    children = msgspec.msgpack.decode(result_of(outcome).children)
    assert len(children) == 2


def test_the_rest_of_a_chain_goes_with_its_next_task(bench: Bench) -> None:
    @bench.app.task
    def add(x: int, y: int) -> int:
        return x + y

    chain = [dict(add.s(100)), dict(add.s(10))]
    outcome = outcome_of(bench.executor.run(bench.held(add, 1, 2, embed={"chain": chain})))
    assert outcome.follows is not None
    [envelope] = outcome.follows[0].messages
    assert bench.executor.arguments_of(envelope) == ([3, 10], {})
    following = outcome_of(bench.executor.run(Held(Delivery(9, envelope, "celery"), 7)))
    assert following.follows is not None
    [last] = following.follows[0].messages
    assert bench.executor.arguments_of(last) == ([13, 100], {})


def test_a_callback_that_cannot_be_sent_is_the_tasks_failure(bench: Bench) -> None:
    @bench.app.task
    def make() -> object:
        return object()

    outcome = bench.run(make, flags=int(Flag.IGNORE_RESULT), embed={"callbacks": [dict(make.s())]})
    assert outcome.state == State.FAILURE
    assert outcome.follows is None


def test_errbacks_of_either_style_follow_a_failure(bench: Bench) -> None:
    called: list[tuple[str, str, str]] = []

    @bench.app.task
    def by_id(failed: str) -> None: ...

    @bench.app.task
    def by_error(request: Any, exc: BaseException, traceback: str) -> None:
        called.append((request.id, repr(exc), traceback.splitlines()[-1]))

    @bench.app.task
    def bad() -> None:
        raise ValueError("x")

    held = bench.held(bad, embed={"errbacks": [dict(by_id.s()), dict(by_error.s())]})
    done = bench.executor.run(held)
    assert isinstance(done, Afterwards)
    assert done.outcome.follows is not None
    [envelope] = done.outcome.follows[0].messages
    assert envelope.name == by_id.name
    assert bench.executor.arguments_of(envelope) == (["id1"], {})
    assert called == []
    done.run()
    assert called == [("id1", "ValueError('x')", "ValueError: x")]


# --- around the body ------------------------------------------------------------------------------------------


def hooked(bench: Bench, told: list[Any]) -> Task[..., Any]:
    class Hooked(Task[..., Any]):
        def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
            told.append(("before_start", task_id, args))

        def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
            told.append(("on_success", retval, self.request.id))

        def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            told.append(("on_failure", repr(exc), task_id, isinstance(einfo.traceback, str)))

        def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            told.append(("on_retry", repr(exc)))

        def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            told.append(("after_return", status))

    @bench.app.task(base=Hooked, bind=True)
    def body(self: Any, how: str) -> str:
        told.append(("body",))
        if how == "fail":
            raise KeyError("x")
        if how == "retry":
            raise self.retry(exc=ValueError("y"))
        if how == "ignore":
            raise Ignore
        return how

    return body


@pytest.mark.parametrize(
    ("how", "after"),
    [
        ("fine", [("on_success", "fine", "id1"), ("after_return", "SUCCESS")]),
        ("fail", [("on_failure", "KeyError('x')", "id1", True), ("after_return", "FAILURE")]),
        ("retry", [("on_retry", "ValueError('y')"), ("after_return", "RETRY")]),
    ],
)
def test_s22_hooks_run_after_the_outcome_and_wait_until_it_is_stored(bench: Bench, how: str, after: list[Any]) -> None:
    told: list[Any] = []
    done = bench.executor.run(bench.held(hooked(bench, told), how))
    assert told == [("before_start", "id1", [how]), ("body",)]
    assert isinstance(done, Afterwards)
    assert done.wait
    told.clear()
    done.run()
    assert told == after
    assert current_frame() is None


def test_ignore_calls_no_hook(bench: Bench) -> None:
    told: list[Any] = []
    done = bench.executor.run(bench.held(hooked(bench, told), "ignore"))
    assert isinstance(done, Outcome)


def test_a_task_without_hooks_has_nothing_afterwards(bench: Bench) -> None:
    @bench.app.task
    def plain(fail: bool) -> None:
        if fail:
            raise ValueError

    for fail in (False, True):
        assert isinstance(bench.executor.run(bench.held(plain, fail)), Outcome)


def test_only_a_hook_that_is_due_makes_the_child_wait(bench: Bench) -> None:
    class OnFailure(Task[..., Any]):
        def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None: ...

    @bench.app.task(base=OnFailure)
    def body(fail: bool) -> None:
        if fail:
            raise ValueError

    assert isinstance(bench.executor.run(bench.held(body, False)), Outcome)
    done = bench.executor.run(bench.held(body, True))
    assert isinstance(done, Afterwards)
    assert done.wait


def test_a_hook_that_raises_is_logged_and_the_others_still_run(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    class Bad(Task[..., Any]):
        def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
            raise RuntimeError("in a hook")

        def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            told.append(status)

    @bench.app.task(base=Bad)
    def body() -> None: ...

    done = bench.executor.run(bench.held(body))
    assert isinstance(done, Afterwards)
    done.run()
    assert told == ["SUCCESS"]
    assert "in a hook" in caplog.text


def test_an_exception_before_the_body_is_the_tasks_failure(bench: Bench) -> None:
    class Bad(Task[..., Any]):
        def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
            raise RuntimeError("not ready")

    @bench.app.task(base=Bad)
    def body() -> None: ...

    assert str(error_of(bench.run(body))) == "not ready"


def test_signals_are_sent_in_celerys_order_and_do_not_wait(bench: Bench) -> None:
    told: list[str] = []
    names = ("task_received", "task_prerun", "task_postrun", "task_success", "task_failure", "task_retry")

    def listen(name: str) -> None:
        def receiver(**_: Any) -> None:
            told.append(name)

        signals.ALL[name].connect(receiver, weak=False)

    for name in names:
        listen(name)

    @bench.app.task(bind=True)
    def body(self: Any, how: str) -> None:
        told.append("body")
        if how == "fail":
            raise ValueError
        if how == "retry":
            raise self.retry()

    for how, last in (("fine", "task_success"), ("fail", "task_failure"), ("retry", "task_retry")):
        told.clear()
        done = bench.executor.run(bench.held(body, how))
        assert told == ["task_received", "task_prerun", "body"]
        assert isinstance(done, Afterwards)
        assert not done.wait
        done.run()
        assert told == ["task_received", "task_prerun", "body", last, "task_postrun"]


@pytest.mark.parametrize(
    ("more", "limits"),
    [
        (None, []),
        (More(soft_time_limit=5), [("begin", 1, 5, 0), ("end", 1, 0, 0)]),
        (More(time_limit=9), [("begin", 1, 0, 9), ("end", 1, 0, 0)]),
    ],
)
def test_limits_stand_around_the_body(bench: Bench, more: More | None, limits: list[Any]) -> None:
    @bench.app.task
    def body(fail: bool) -> None:
        if fail:
            raise ValueError

    bench.run(body, True, more=more)
    assert bench.recorder.limits == limits


def test_the_workers_own_limits_are_for_tasks_that_name_none(bench: Bench) -> None:
    @bench.app.task
    def body() -> None: ...

    bench.make_executor(time_limit=20, soft_time_limit=10)
    bench.run(body)
    bench.run(body, more=More(time_limit=9, soft_time_limit=8))
    bench.executor.set_limits(0, 0)
    bench.run(body)
    begun = [limit for limit in bench.recorder.limits if limit[0] == "begin"]
    assert begun == [("begin", 1, 10, 20), ("begin", 2, 8, 9)]


def test_the_log_has_celerys_lines(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "greenroom.worker")

    @bench.app.task(throws=(KeyError,))
    def body(how: str) -> str:
        if how == "expected":
            raise KeyError(how)
        if how == "unexpected":
            raise ValueError(how)
        return how

    for how in ("fine", "expected", "unexpected"):
        bench.run(body, how, more=More(shadow="other") if how == "fine" else None)
    lines = [record.getMessage().splitlines()[0] for record in caplog.records]
    assert lines[0] == "Task other[id1] received"
    assert lines[1].startswith("Task other[id1] succeeded in ")
    assert lines[1].endswith("s: 'fine'")
    assert f"Task {body.name}[id2] raised expected: KeyError('expected')" in lines
    assert f"Task {body.name}[id3] raised unexpected: ValueError('unexpected')" in lines
    levels = [record.levelname for record in caplog.records if "raised" in record.getMessage()]
    assert levels == ["INFO", "ERROR"]


def test_a_coroutine_task_runs_in_a_thread_without_a_loop_and_in_a_loop(bench: Bench) -> None:
    @bench.app.task(bind=True)
    async def body(self: Any, x: int) -> Any:
        await asyncio.sleep(0)
        return [x, self.request.id]

    held = bench.held(body, 4)
    assert bench.executor.is_coroutine(held)
    assert value_of(bench.executor.run(held)) == [4, "id1"]
    assert value_of(asyncio.run(bench.executor.run_async(bench.held(body, 5)))) == [5, "id2"]


def test_a_coroutine_that_fails_is_a_failure_in_a_loop_too(bench: Bench) -> None:
    @bench.app.task
    async def body() -> None:
        raise ValueError("x")

    outcome = outcome_of(asyncio.run(bench.executor.run_async(bench.held(body))))
    assert isinstance(error_of(outcome), ValueError)


class LaterPromise:
    """A confirm that comes when somebody waits for it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.waited = False
        self._error = error

    def result(self, timeout: float | None = None) -> None:
        self.waited = True
        if self._error is not None:
            raise self._error

    def done(self) -> bool:
        return self.waited

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        fn(self)


@pytest.mark.parametrize("refused", [None, RuntimeError("the mailbox is full")])
@pytest.mark.parametrize("raises", [False, True])
def test_an_outcome_waits_for_the_confirms_of_what_its_body_sent(
    bench: Bench, refused: Exception | None, raises: bool, caplog: pytest.LogCaptureFixture
) -> None:
    promise = LaterPromise(refused)

    @bench.app.task
    def sends() -> int:
        remember_unconfirmed(promise)
        assert not promise.waited
        if raises:
            raise KeyError("x")
        return 1

    result = result_of(bench.run(sends))
    assert promise.waited
    assert result.state == (State.FAILURE if raises else State.SUCCESS)
    assert ("not accepted" in caplog.text) == (refused is not None)


def test_an_outcome_of_a_coroutine_waits_for_the_confirms_too(bench: Bench) -> None:
    promise = LaterPromise()

    @bench.app.task
    async def sends() -> int:
        remember_unconfirmed(promise)
        return 1

    done = asyncio.run(bench.executor.run_async(bench.held(sends)))
    assert promise.waited
    assert value_of(done) == 1
