"""Several results together.

Owns `ResultSet`, and `GroupResult`, which has an id of its own and keeps the order of its members. What asks brokers
asks once for all members that are not known to have ended.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ...transport import requests
from ...transport.peer.contract import Promise
from ...transport.verbs import Known, Op
from ..current import get_current_app
from ..errors import TimeoutError
from . import states
from .meta import PENDING, Meta
from .result import ANSWER_SECONDS, AsyncResult, ResultBase, revoke_ids
from .waiting import assert_will_not_block

if TYPE_CHECKING:
    from ..app import App


class ResultSet(ResultBase):
    """A collection of results, each once, in the order of adding."""

    __slots__ = ("_app", "parent", "results")

    def __init__(self, results: Iterable[Any], app: App | None = None, **_options: Any) -> None:
        self._app = app
        self.parent: ResultBase | None = None
        self.results: list[Any] = list(results)

    @property
    def app(self) -> App:
        """The app that asks: the one that was given, else that of the first member, else the current one."""
        if self._app is not None:
            return self._app
        for result in self.results:
            if isinstance(result, AsyncResult):
                return cast("AsyncResult[object]", result).app
        return get_current_app()

    # --- members

    def add(self, result: Any) -> None:
        """Add a result, unless it is there."""
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: Any) -> None:
        """Remove a result, or the one with this id. Raises KeyError."""
        try:
            self.results.remove(result)
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: Any) -> None:
        """Remove a result if it is there."""
        if result in self.results:
            self.results.remove(result)

    def update(self, results: Iterable[Any]) -> None:
        """Add several."""
        for result in results:
            self.add(result)

    def clear(self) -> None:
        """Remove all."""
        self.results.clear()

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: int) -> Any:
        return self.results[index]

    def __contains__(self, result: object) -> bool:
        return result in self.results

    # --- how they stand

    def _look(self) -> list[tuple[AsyncResult[Any], Meta]]:
        """Return how each stands, those of groups in it one by one; what may have changed is asked for at once."""
        leaves = list(self._leaves())
        open_ids = [leaf.id for leaf in leaves if not _is_final(leaf)]
        known = {known.id: known for known in self.app.client.known(open_ids)} if open_ids else {}
        return [(leaf, _meta_of(leaf, known.get(leaf.id))) for leaf in leaves]

    def _leaves(self) -> Iterator[AsyncResult[Any]]:
        for result in self.results:
            if isinstance(result, ResultSet):
                yield from result._leaves()
            else:
                yield cast("AsyncResult[Any]", result)

    def successful(self) -> bool:
        """Tell whether all returned."""
        return all(meta.state == states.SUCCESS for _, meta in self._look())

    def failed(self) -> bool:
        """Tell whether one failed."""
        return any(meta.state == states.FAILURE for _, meta in self._look())

    def waiting(self) -> bool:
        """Tell whether one has not ended."""
        return not self.ready()

    def ready(self) -> bool:
        """Tell whether all have ended."""
        return all(meta.ready for _, meta in self._look())

    def completed_count(self) -> int:
        """Return how many returned."""
        return sum(1 for _, meta in self._look() if meta.state == states.SUCCESS)

    def maybe_throw(self, callback: Callable[[str, Any], object] | None = None, propagate: bool = True) -> None:
        """Raise the exception of the first that failed."""
        for result, meta in self._look():
            result._take(meta, callback=callback, propagate=propagate)  # pyright: ignore[reportPrivateUsage]

    maybe_reraise = maybe_throw

    # --- waiting

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, Any], object] | None = None,
        no_ack: bool = True,
        on_message: Callable[[Any], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[Any]:
        """Wait for all; return what they returned, in order.

        Raises what the first that failed raised, TimeoutError when not all ended within `timeout` seconds, and
        RuntimeError inside a task. `callback(id, value)` is called for each, in order.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        deadline = None if timeout is None else time.monotonic() + timeout
        self._subscribe()
        values: list[Any] = []
        for result in self.results:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            value = result.get(
                timeout=left,
                propagate=propagate,
                interval=interval,
                on_interval=on_interval,
                on_message=on_message,
                disable_sync_subtasks=False,
            )
            if callback is not None:
                callback(result.id, value)
            values.append(value)
        return values

    join = get
    join_native = get

    def iterate(self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5) -> Iterator[Any]:
        """Yield what they return, in the order in which they end."""
        for result, meta in self._as_they_end(timeout):
            yield result._take(meta, propagate=propagate)  # pyright: ignore[reportPrivateUsage]

    def iter_native(self, timeout: float | None = None, interval: float = 0.5) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (id, what is known) in the order in which they end."""
        for result, meta in self._as_they_end(timeout):
            yield (
                result.id,
                {"task_id": result.id, "status": meta.state, "result": meta.value, "traceback": meta.traceback},
            )

    def then(
        self, callback: Callable[[Any], object], on_error: Callable[[Any], object] | None = None, weak: bool = False
    ) -> ResultSet:
        """Call `callback(self)` once all have ended; in another thread."""
        leaves = list(self._leaves())
        if not leaves:
            callback(self)
            return self
        # Taken from by one thread at a time, whichever ends last; a list's pop is one step.
        missing = list(leaves)
        for result in leaves:

            def ended(_result: Any) -> None:
                missing.pop()
                if not missing:
                    (callback if on_error is None or self.successful() else on_error)(self)

            result.then(ended, ended)
        return self

    def _subscribe(self) -> list[tuple[AsyncResult[Any], Promise[Known]]]:
        waiting = [result for result in self._leaves() if not _is_final(result) and not result.ignored]
        if not waiting:
            return []
        promises = self.app.client.result_futures([result.id for result in waiting])
        return list(zip(waiting, promises, strict=True))

    def _as_they_end(self, timeout: float | None) -> Iterator[tuple[AsyncResult[Any], Meta]]:
        assert_will_not_block()
        deadline = None if timeout is None else time.monotonic() + timeout
        ended: queue.SimpleQueue[tuple[AsyncResult[Any], Promise[Known]]] = queue.SimpleQueue()
        subscribed = self._subscribe()
        waited_for = {id(result) for result, _ in subscribed}
        for result, promise in subscribed:
            promise.add_done_callback(partial(_put, ended, result))
        for result in self._leaves():
            if id(result) not in waited_for:
                yield result, _meta_of(result, None)
        for _ in subscribed:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                result, promise = ended.get(timeout=left)
            except queue.Empty:
                raise TimeoutError(f"The operation timed out: not all of {self!r} ended in {timeout} s") from None
            yield result, _meta_of(result, promise.result(0))

    # --- acting on them

    def forget(self) -> None:
        """Let the broker forget all of them."""
        ids = [result.id for result in self._leaves()]
        if ids:
            self.app.client.request(Op.FORGET, requests.Forget(ids=ids), ANSWER_SECONDS)

    def revoke(
        self,
        connection: object = None,
        terminate: bool = False,
        signal: str | int | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Forbid all of them to start; see `AsyncResult.revoke`."""
        ids = [result.id for result in self._leaves()]
        if ids:
            revoke_ids(self.app, ids, terminate=terminate, signal=signal, timeout=timeout)

    # --- as a value

    @property
    def supports_native_join(self) -> bool:
        """Whether one subscription waits for all members: always."""
        return True

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ResultSet):
            return other.results == self.results
        return NotImplemented

    def __hash__(self) -> int:
        raise TypeError(f"a {type(self).__name__} without an id cannot be hashed: its members may change")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(str(getattr(result, 'id', result)) for result in self.results)}]>"


def _put(
    ended: queue.SimpleQueue[tuple[AsyncResult[Any], Promise[Known]]], result: AsyncResult[Any], promise: Promise[Known]
) -> None:
    ended.put((result, promise))


def _is_final(result: AsyncResult[Any]) -> bool:
    meta = result._meta  # pyright: ignore[reportPrivateUsage]
    return meta is not None and meta.final


def _meta_of(result: AsyncResult[Any], known: Known | None) -> Meta:
    """How a result stands: as it knows itself for good, else as the broker says, which may be nothing."""
    meta = result._meta  # pyright: ignore[reportPrivateUsage]
    if meta is not None and meta.final:
        return meta
    return PENDING if known is None else result._learn(known)  # pyright: ignore[reportPrivateUsage]


class GroupResult(ResultSet):
    """The results of a group's members, in order, under the group's own id."""

    __slots__ = ("id",)

    def __init__(
        self,
        id: str = "",
        results: Iterable[Any] = (),
        parent: ResultBase | None = None,
        app: App | None = None,
        **_options: Any,
    ) -> None:
        super().__init__(results, app)
        self.id: str = id
        self.parent = parent

    @property
    def children(self) -> list[Any]:
        """The members."""
        return self.results

    def as_tuple(self) -> tuple[Any, Any]:
        """Return ((id, parent), [members]), the plain form that Celery gives groups."""
        return (self.id, self.parent and self.parent.as_tuple()), [result.as_tuple() for result in self.results]

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return other.id == self.id and other.results == self.results and other.parent == self.parent
        if isinstance(other, str):
            return other == self.id
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        members = ", ".join(str(getattr(result, "id", result)) for result in self.results)
        return f"<GroupResult: {self.id} [{members}]>"

    def __reduce__(self) -> Any:
        return type(self), (self.id, self.results, self.parent)
