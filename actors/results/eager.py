"""The result of a task that has run in the caller already (`apply`, `task_always_eager`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ...transport.message import Result, State
from .meta import Meta
from .result import AsyncResult
from .waiting import assert_will_not_block

if TYPE_CHECKING:
    from ..app import App

R_co = TypeVar("R_co", covariant=True)


class EagerResult(AsyncResult[R_co]):
    """What a task returned or raised here. It is ready, asks no broker, and cannot be revoked any more."""

    __slots__ = ()

    def __init__(
        self,
        id: str,
        ret_value: Any,
        state: str,
        traceback: str | None = None,
        name: str | None = None,
        app: App | None = None,
        retries: int = 0,
        children: bytes = b"",
    ) -> None:
        super().__init__(id, None, name, app)
        record = Result(State.SUCCESS, retries=retries, children=children)
        self._meta = Meta(state, ret_value, traceback, True, record)

    def _get_meta(self) -> Meta:
        return cast("Meta", self._meta)

    def get(  # type: ignore[override]
        self,
        timeout: float | None = None,
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
        callback: Callable[[str, Any], object] | None = None,
        **_options: Any,
    ) -> R_co:
        """Return what the task returned, or raise what it raised."""
        if disable_sync_subtasks:
            assert_will_not_block()
        return self._take(self._get_meta(), propagate=propagate, callback=callback)

    wait = get  # type: ignore[assignment]

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> R_co:
        """Return what the task returned, or raise what it raised."""
        return self._take(self._get_meta(), propagate=propagate)

    def ready(self) -> bool:
        """Tell whether the task has ended: it has."""
        return True

    def exists(self) -> bool:
        """Tell whether anything is known of the task: everything is."""
        return True

    def then(
        self, callback: Callable[[Any], object], on_error: Callable[[Any], object] | None = None, weak: bool = False
    ) -> EagerResult[R_co]:
        """Call `callback(result)`, or `on_error(result)` for a failure, at once."""
        if self.successful():
            callback(self)
        elif on_error is not None:
            on_error(self)
        return self

    def forget(self) -> None:
        """Do nothing: nothing is kept elsewhere."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Say that it is revoked; it has run all the same."""
        self._meta = self._get_meta()._replace(state="REVOKED")

    def __repr__(self) -> str:
        return f"<EagerResult: {self.id}>"

    def __copy__(self) -> EagerResult[R_co]:
        meta = self._get_meta()
        return type(self)(self.id, meta.value, meta.state, meta.traceback, self._name, self._app)

    def __reduce__(self) -> Any:
        meta = self._get_meta()
        return type(self), (self.id, meta.value, meta.state, meta.traceback, self._name)
