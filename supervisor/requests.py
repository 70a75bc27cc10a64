"""Children added and removed while the supervisor runs.

Owns what each request does to a child in each state, and the words of its refusal. `tree` calls it only
when no group is being restarted, so no child is doomed here.

    request     idle           waiting           starting, running       stopping
    AddChild    refused: a child of this name exists
    Restart     started        refused           refused                 refused
    Terminate   done           cancelled, done   stopped                 done when it has stopped
    Remove      dropped        dropped           stopped and dropped     dropped when it has stopped
    Delete      dropped        refused           refused                 refused
"""

from __future__ import annotations

from .events import AddChild, DeleteChild, RemoveChild, RestartChild, TerminateChild
from .moves import Moves
from .roster import Child, ChildState, Fate
from .spec import SpecError, Supervisor

Request = AddChild | TerminateChild | RestartChild | DeleteChild | RemoveChild

#: Requests that wait for one thing; who asks faster than children stop is refused.
REQUESTS_WAITING_MAX = 10_000


class Requests:
    """Fulfils requests on the children of one supervisor."""

    __slots__ = ("_moves", "_spec")

    def __init__(self, spec: Supervisor, moves: Moves) -> None:
        self._spec = spec
        self._moves = moves

    def apply(self, request: Request, now: int) -> None:
        """Fulfil one request, or refuse it; the answer may follow in a later step."""
        if isinstance(request, AddChild):
            self._add(request, now)
            return
        child = self._moves.roster.get(request.name)
        if child is None:
            self._moves.refuse(request.request, f"there is no child {request.name!r} in this supervisor")
        elif isinstance(request, RestartChild):
            self._restart(request, child, now)
        elif isinstance(request, DeleteChild):
            self._delete(request, child)
        else:
            self._terminate(request, child, now)

    def _add(self, request: AddChild, now: int) -> None:
        moves, spec = self._moves, request.spec
        try:
            self._spec.check_child(spec)
        except SpecError as error:
            moves.refuse(request.request, str(error))
            return
        present = moves.roster.get(spec.name)
        if present is not None:
            moves.refuse(
                request.request,
                f"there is a child {spec.name!r} already ({present.state}); remove it first, or restart it",
            )
            return
        if len(moves.roster) >= self._spec.children_max:
            moves.refuse(
                request.request,
                f"child {spec.name!r} cannot be added: there are {len(moves.roster)} children, "
                "children_max; remove some, or raise it",
            )
            return
        child = moves.roster.add(spec)
        child.added_by_request = True
        child.start_request = request.request
        moves.begin(child, now)

    def _restart(self, request: RestartChild, child: Child, now: int) -> None:
        if child.state is not ChildState.IDLE:
            self._moves.refuse(request.request, f"child {request.name!r} is {child.state}; terminate it first")
            return
        child.start_request = request.request
        self._moves.begin(child, now)

    def _delete(self, request: DeleteChild, child: Child) -> None:
        if child.state is not ChildState.IDLE:
            self._moves.refuse(request.request, f"child {request.name!r} is {child.state}; terminate it first")
            return
        self._moves.delete(child)
        self._moves.reply(request.request, child.incarnation)

    def _terminate(self, request: TerminateChild | RemoveChild, child: Child, now: int) -> None:
        moves, leaves = self._moves, isinstance(request, RemoveChild)
        if not child.alive:
            if leaves:
                moves.delete(child)
            else:
                moves.settle(child)
            moves.reply(request.request, child.incarnation)
            return
        if len(child.stop_requests) >= REQUESTS_WAITING_MAX:
            moves.refuse(
                request.request,
                f"{REQUESTS_WAITING_MAX} requests wait for child {request.name!r} to stop; wait for it",
            )
            return
        child.stop_requests.append(request.request)
        if leaves or child.added_by_request or child.spec.restart == "temporary":
            child.fate = Fate.LEAVES
        elif child.fate is None:
            child.fate = Fate.STAYS
        if child.state is not ChildState.STOPPING:
            moves.stop(child, now, child.spec.shutdown_microseconds)
