"""Results: what became of a task, for whoever called it.

Owns `AsyncResult`, with Celery's members, and what makes one of a tuple. A result knows an id and asks brokers by it;
what is final is asked for once. The failure of a dead letter is not final, since it may be redriven: it is asked for
each time, so that every member tells how things stand. Waiting is a subscription: the broker's word ends it, nothing
is polled.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from copy import copy
from datetime import datetime
from signal import Signals
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ...transport import payload, requests
from ...transport.peer.contract import Promise
from ...transport.verbs import Known, Op
from ..current import get_current_app
from . import states
from .meta import PENDING, Meta, read_known
from .waiting import assert_will_not_block, wait, wait_async

if TYPE_CHECKING:
    from ..app import App

R_co = TypeVar("R_co", covariant=True)

#: How long a question to a broker may take.
ANSWER_SECONDS = 10.0


class ResultBase:
    """What tasks' results and groups' results have in common."""

    __slots__ = ("__weakref__",)

    parent: ResultBase | None
    id: str

    def as_tuple(self) -> tuple[Any, Any]:
        """Return a plain form of it, for `result_from_tuple`."""
        raise TypeError(f"{type(self).__name__} has no plain form")


class AsyncResult(ResultBase, Generic[R_co]):
    """The result of one task, here or to come. A value: it can be pickled, compared with another or with an id."""

    __slots__ = ("_app", "_meta", "_name", "_sent", "id", "ignored", "parent")

    def __init__(
        self,
        id: str,
        backend: object = None,
        task_name: str | None = None,
        app: App | None = None,
        parent: ResultBase | None = None,
        *,
        ignored: bool = False,
        sent: Promise[object] | None = None,
    ) -> None:
        if id is None:  # pyright: ignore[reportUnnecessaryComparison]
            raise ValueError("a result needs the id of a task, not None")
        self.id: str = id
        self.parent: ResultBase | None = parent
        #: The task keeps no result: `get` returns None at once.
        self.ignored = ignored
        self._app = app
        self._name = task_name
        self._sent = sent
        #: How it ended, as far as this result was told; asked for again unless that is final.
        self._meta: Meta | None = None

    # --- what it belongs to

    @property
    def app(self) -> App:
        """The app that asks: the one that made it, else the current one."""
        return self._app or get_current_app()

    @property
    def task_id(self) -> str:
        """The id of the task."""
        return self.id

    @property
    def name(self) -> str | None:
        """The task's name, where the result was made by a call."""
        return self._name

    @property
    def confirmed(self) -> bool:
        """Whether a broker has accepted the call. Raises what it was refused with."""
        if self._sent is None:
            return True
        if not self._sent.done():
            return False
        self._sent.result(0)
        return True

    # --- what became of it

    def _get_meta(self) -> Meta:
        if self._meta is not None and self._meta.final:
            return self._meta
        for known in self.app.client.known([self.id]):
            if known.id == self.id:
                return self._learn(known)
        self._meta = None
        return PENDING

    def _learn(self, known: Known) -> Meta:
        meta = read_known(known, self.app)
        self._meta = meta if meta.terminal else None
        return meta

    def _known_end(self) -> Meta | None:
        """How it ended, if that is known without waiting for it: asked for where it may have been redriven."""
        meta = self._meta
        if meta is None or meta.final:
            return meta
        meta = self._get_meta()
        return meta if meta.terminal else None

    def _as_of(self, meta: Meta) -> AsyncResult[R_co]:
        """Return this result, or a copy of it that stands still: for whoever is told of a moment and may not ask."""
        if meta.final:
            return self
        told = copy(self)
        told._meta = meta.as_final()
        return told

    @property
    def state(self) -> str:
        """PENDING (or unknown), STARTED, RETRY, SUCCESS, FAILURE, REVOKED, or a state that the task named itself."""
        return self._get_meta().state

    status = state

    @property
    def result(self) -> Any:
        """What the task returned, the exception that it raised, or the meta of its own state; None until then."""
        return self._get_meta().value

    info = result

    @property
    def traceback(self) -> str | None:
        """The traceback of a failure, as text."""
        return self._get_meta().traceback

    @property
    def date_done(self) -> datetime | None:
        """When the task ended, in UTC."""
        return self._get_meta().date_done

    @property
    def worker(self) -> str | None:
        """The worker that ran the task."""
        record = self._get_meta().record
        return record.worker or None if record is not None else None

    @property
    def retries(self) -> int | None:
        """How often the task was retried."""
        record = self._get_meta().record
        return record.retries if record is not None else None

    # Kept in results by Celery's result_extended; the message itself is not kept here.
    args: Any = None
    kwargs: Any = None
    queue: str | None = None

    @property
    def dead(self) -> requests.DeadInfo | None:
        """The story of a message that became a dead letter: each delivery and how it ended; None for any other."""
        page = cast(
            "requests.DeadPage",
            self.app.client.request(Op.DEAD_SHOW, requests.DeadFilter(ids=[self.id]), ANSWER_SECONDS),
        )
        return next((letter for letter in page.letters if letter.id == self.id), None)

    def ready(self) -> bool:
        """Tell whether the task has ended, in whatever way."""
        return self._get_meta().ready

    def successful(self) -> bool:
        """Tell whether the task returned."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Tell whether the task failed."""
        return self.state == states.FAILURE

    def exists(self) -> bool:
        """Tell whether anything is known of the task."""
        return (self._meta is not None and self._meta.final) or any(
            known.id == self.id for known in self.app.client.known([self.id])
        )

    # --- waiting

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], object] | None = None,
        on_message: Callable[[Any], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> R_co:
        """Wait until the task has ended; return what it returned. A dead letter that was redriven has not ended.

        Raises what the task raised (unless `propagate` is off: then it is returned), TimeoutError after `timeout`
        seconds, RuntimeError inside a task (see `allow_join_result`), and what the call itself was refused with.
        `callback(id, value)` is called with a success, `on_interval()` each `interval` seconds.
        """
        if self.ignored:
            return cast("R_co", None)
        if disable_sync_subtasks:
            assert_will_not_block()
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._sent is not None and not self._sent.done():
            wait(self._sent, timeout, what=self)
        if self.parent is not None and follow_parents and propagate:
            self._raise_parents_failure()
        meta = self._known_end()
        if meta is None:
            if self._sent is not None:
                self._sent.result(0)  # raises what the call was refused with
            promise = self.app.client.result_future(self.id)
            if not promise.done():
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                wait(promise, left, what=self, interval=interval, on_interval=on_interval)
            meta = self._learn(promise.result(0))
            if on_message is not None:
                on_message({"task_id": self.id, "status": meta.state, "result": meta.value})
        return self._take(meta, propagate=propagate, callback=callback)

    wait = get

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> R_co:
        """Wait in asyncio; otherwise as `get`."""
        if self.ignored:
            return cast("R_co", None)
        if self._sent is not None:
            await wait_async(self._sent, timeout, what=self)
        meta = self._meta
        if meta is None or not meta.final:
            meta = self._learn(await wait_async(self.app.client.result_future(self.id), timeout, what=self))
        return self._take(meta, propagate=propagate)

    def __await__(self) -> Generator[Any, None, R_co]:
        return self.aget().__await__()

    def then(
        self, callback: Callable[[Any], object], on_error: Callable[[Any], object] | None = None, weak: bool = False
    ) -> AsyncResult[R_co]:
        """Call `callback(result)` once the task succeeded, `on_error(result)` once it failed; in another thread.

        Returns the result itself.
        """

        def done(promise: Promise[Known]) -> None:
            # Who is called may not ask the broker: the thread that would bring the answer is calling.
            meta = self._learn(promise.result(0))
            if meta.state == states.SUCCESS:
                callback(self._as_of(meta))
            elif on_error is not None:
                on_error(self._as_of(meta))

        self.app.client.result_future(self.id).add_done_callback(done)
        return self

    def _take(self, meta: Meta, *, propagate: bool, callback: Callable[[str, Any], object] | None = None) -> R_co:
        if meta.state in states.PROPAGATE_STATES and propagate:
            raise _as_exception(meta.value)
        if callback is not None:
            callback(self.id, meta.value)
        return cast("R_co", meta.value)

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], object] | None = None) -> Any:
        """Raise what the task raised, if it failed; else return what is known now."""
        return self._take(self._get_meta(), propagate=propagate, callback=callback)

    maybe_reraise = maybe_throw

    def throw(self, *args: Any, **kwargs: Any) -> None:
        """Raise the exception that the task raised."""
        raise _as_exception(self.result)

    def _raise_parents_failure(self) -> None:
        for node in reversed(list(self._parents())):
            if isinstance(node, AsyncResult):
                node.maybe_throw()

    def _parents(self) -> Iterator[ResultBase]:
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    # --- acting on it

    def forget(self) -> None:
        """Let the broker forget the result, and those of its parents."""
        self._meta = None
        self.app.client.request(Op.FORGET, requests.Forget(ids=[self.id]), ANSWER_SECONDS)
        if isinstance(self.parent, AsyncResult):
            cast("AsyncResult[object]", self.parent).forget()

    def revoke(
        self,
        connection: object = None,
        terminate: bool = False,
        signal: str | int | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Forbid the task to start. With `terminate`, kill the process that runs it, with `signal` (SIGTERM).

        Returns once the broker has written it down, whatever `wait` says.
        """
        revoke_ids(self.app, [self.id], terminate=terminate, signal=signal, timeout=timeout)

    # --- what it led to

    @property
    def children(self) -> list[ResultBase] | None:
        """The results of what the task itself sent; None until it has ended."""
        record = self._get_meta().record
        if record is None:
            return None
        return decode_children(record.children, self.app)

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[ResultBase | None, ResultBase]]:
        """Yield (parent, result) for the task and all that it led to, breadth first.

        Raises RuntimeError at a task that has not ended, unless `intermediate`.
        """
        waiting: deque[tuple[ResultBase | None, ResultBase]] = deque([(None, self)])
        while waiting:
            parent, node = waiting.popleft()
            yield parent, node
            waiting.extend((node, child) for child in _children_of(node, intermediate=intermediate))

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[ResultBase, Any]]:
        """Yield (result, value) for the task and all that it led to, waiting for each."""
        for _, node in self.iterdeps(intermediate=intermediate):
            yield node, cast("Any", node).get(**kwargs)

    def get_leaf(self) -> Any:
        """Return the value of the last that the task led to."""
        last = deque(self.collect(), maxlen=1)
        return last[0][1] if last else None

    # --- as a value

    def as_tuple(self) -> tuple[Any, Any]:
        """Return ((id, parent), None), the plain form that Celery gives results."""
        return (self.id, self.parent and self.parent.as_tuple()), None

    def as_list(self) -> list[str]:
        """Return the ids of the task and of its parents."""
        return [self.id, *(parent.id for parent in self._parents())]

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return cast("AsyncResult[object]", other).id == self.id
        if isinstance(other, str):
            return other == self.id
        return NotImplemented

    def __copy__(self) -> AsyncResult[R_co]:
        return type(self)(self.id, None, self._name, self._app, self.parent, ignored=self.ignored)

    def __reduce__(self) -> Any:
        return type(self), (self.id, None, self._name, None, self.parent)


def revoke_ids(
    app: App,
    ids: list[str],
    *,
    terminate: bool = False,
    signal: str | int | None = None,
    timeout: float | None = None,
) -> None:
    """Forbid these tasks to start; see `AsyncResult.revoke`. Raises ValueError for a signal that does not exist."""
    number = Signals.SIGTERM if signal is None else _signal(signal)
    params = requests.Revoke(ids=ids, terminate=terminate, signal=number)
    app.client.request(Op.REVOKE, params, ANSWER_SECONDS if timeout is None else timeout)


def _signal(signal: str | int) -> int:
    if isinstance(signal, int):
        return Signals(signal).value
    name = signal.upper()
    try:
        return Signals[name if name.startswith("SIG") else f"SIG{name}"].value
    except KeyError:
        raise ValueError(f"there is no signal {signal!r}; expected a name such as SIGKILL, or its number") from None


def _children_of(node: ResultBase, *, intermediate: bool) -> list[ResultBase]:
    if not isinstance(node, AsyncResult):
        return list(cast("Iterable[ResultBase]", getattr(node, "results", ())))
    result = cast("AsyncResult[object]", node)
    if not intermediate and not result.ready():
        raise RuntimeError(f"{result!r} has not ended yet; wait for it first, or pass intermediate=True")
    return result.children or []


def _as_exception(value: Any) -> BaseException:
    return value if isinstance(value, BaseException) else RuntimeError(str(value))


# --- plain forms ----------------------------------------------------------------------------------------------


def result_from_tuple(data: Any, app: App | None = None) -> ResultBase:
    """Return the result, or the group of results, whose `as_tuple` this is."""
    if isinstance(data, ResultBase):
        return data
    own, members = cast("tuple[Any, list[Any] | None]", data)
    id, parent = cast("tuple[str, Any]", own if isinstance(own, list | tuple) else (own, None))
    parent_result = result_from_tuple(parent, app) if parent else None
    if members is not None:
        app = app or get_current_app()
        return app.GroupResult(id, [result_from_tuple(member, app) for member in members], parent=parent_result)
    made: AsyncResult[Any] = AsyncResult(id, app=app, parent=parent_result)
    return made


def encode_children(children: Iterable[ResultBase] | None) -> bytes:
    """Return what `transport.message.Result.children` holds of these results."""
    plain = [child.as_tuple() for child in children or ()]
    return payload.encode(plain).data if plain else b""


def decode_children(data: bytes, app: App) -> list[ResultBase]:
    """Return the results that `encode_children` wrote down."""
    if not data:
        return []
    plain = payload.decode(payload.Body("msgpack", "", data), accept=("msgpack",))
    return [result_from_tuple(item, app) for item in cast("list[Any]", plain)]
