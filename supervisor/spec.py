"""What to supervise and how: the values that a user writes down.

Owns `ChildSpec` (one child), `Supervisor` (a list of children and the rules for them) and `Backoff`,
and every check of them. They are plain immutable values: nothing runs here, and a spec that was built is
valid, so that the machine never meets a bad one. A child whose target is a `Supervisor` is a subtree.

Times are seconds here, as the user writes them, and integer microseconds in the properties that the
machine reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..transport.clock import MICROSECONDS
from ..transport.errors import GreenroomError

RestartType = Literal["permanent", "transient", "temporary"]
"""When an ended child comes back: always; only after an abnormal end; never (and its spec is dropped)."""

Shutdown = float | Literal["infinity", "brutal_kill"]
"""Seconds between the request to stop and the kill; "brutal_kill" does not ask, "infinity" never kills."""

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
"""Who is restarted with an ended child: nobody; everybody; everybody who was started after it."""

AutoShutdown = Literal["never", "any_significant", "all_significant"]
"""Whether a supervisor stops when a significant child ends for good, or when the last of them does."""

NAME_CHARACTERS_MAX = 255
#: A bound on what a window remembers; more restarts than this in a period is a mistake.
INTENSITY_MAX = 1_000_000
DEFAULT_SHUTDOWN_SECONDS = 5.0
#: A start that takes longer is stuck: it would hold up all who are started after it.
DEFAULT_START_TIMEOUT_SECONDS = 60.0
DEFAULT_CHILDREN_MAX = 1_000_000


class SpecError(GreenroomError, ValueError):
    """Raised when a supervisor or a child is described in a way that cannot work."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a restart: min * 2 ** failures, at most max, times 1 to 1 + `jitter`.

    The count of failures starts again once the child has been up for `reset_after_seconds`, by default
    half of min + max.
    """

    min_seconds: float
    max_seconds: float
    jitter: float = 0.2
    reset_after_seconds: float | None = None

    def __post_init__(self) -> None:
        _check_seconds("backoff", "min_seconds", self.min_seconds)
        _check_seconds("backoff", "max_seconds", self.max_seconds)
        if self.max_seconds < self.min_seconds:
            raise SpecError(
                f"backoff: max_seconds is {self.max_seconds!r}, less than min_seconds, {self.min_seconds!r}"
            )
        if not _is_number(self.jitter) or not 0 <= self.jitter <= 1:
            raise SpecError(f"backoff: jitter must be a fraction from 0 to 1, not {self.jitter!r}")
        if self.reset_after_seconds is not None:
            _check_seconds("backoff", "reset_after_seconds", self.reset_after_seconds)

    @property
    def min_microseconds(self) -> int:
        """The first delay."""
        return _microseconds(self.min_seconds)

    @property
    def max_microseconds(self) -> int:
        """The longest delay, before jitter."""
        return _microseconds(self.max_seconds)

    @property
    def reset_after_microseconds(self) -> int:
        """How long a child must have been up for its failures to be forgotten."""
        if self.reset_after_seconds is None:
            return (self.min_microseconds + self.max_microseconds) // 2
        return _microseconds(self.reset_after_seconds)


@dataclass(frozen=True, slots=True, init=False)
class ChildSpec:
    """One child: what runs, and what happens when it ends.

    `target` is an actor class, a `Supervisor` or whatever else the runner of the tree understands; it is
    given `args` and `kwargs`. `name` defaults to the target's `__name__`. `shutdown` is the time from the
    request to stop until the kill, by default 5 s, and without limit for a `Supervisor`; the same holds
    for `start_timeout`, by default 60 s. A `significant` child can end its supervisor (`auto_shutdown`).

    Raises `SpecError` if one of these cannot be.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    name: str
    restart: RestartType
    shutdown: Shutdown
    backoff: Backoff | None
    significant: bool
    start_timeout: float | None

    def __init__(
        self,
        target: Any,
        *args: Any,
        name: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
        restart: RestartType = "permanent",
        shutdown: Shutdown | None = None,
        backoff: Backoff | None = None,
        significant: bool = False,
        start_timeout: float | None = None,
    ) -> None:
        nested = isinstance(target, Supervisor)
        if name is None:
            name = getattr(target, "__name__", None)
            if name is None:
                raise SpecError(f"a child that runs {target!r} needs a name; give it one with name=")
        _check_name(name)
        where = f"child {name!r}"
        _check_choice(where, "restart", restart, get_args(RestartType))
        if shutdown is None:
            shutdown = "infinity" if nested else DEFAULT_SHUTDOWN_SECONDS
        _check_shutdown(where, shutdown)
        _check_instance(where, "backoff", backoff, (Backoff, type(None)), "a Backoff or None")
        if significant and restart == "permanent":
            raise SpecError(
                f"{where}: a permanent child always comes back, so it cannot be significant; "
                "make it transient or temporary"
            )
        if start_timeout is None:
            start_timeout = None if nested else DEFAULT_START_TIMEOUT_SECONDS
        else:
            _check_seconds(where, "start_timeout", start_timeout)
        for field, value in (
            ("target", target),
            ("args", args),
            ("kwargs", dict(kwargs or {})),
            ("name", name),
            ("restart", restart),
            ("shutdown", shutdown),
            ("backoff", backoff),
            ("significant", bool(significant)),
            ("start_timeout", start_timeout),
        ):
            object.__setattr__(self, field, value)

    @property
    def shutdown_microseconds(self) -> int | None:
        """The budget of a stop: 0 for a kill at once, None for no limit."""
        if self.shutdown == "infinity":
            return None
        return 0 if isinstance(self.shutdown, str) else _microseconds(self.shutdown)

    @property
    def start_timeout_microseconds(self) -> int | None:
        """The budget of a start, None for no limit."""
        return None if self.start_timeout is None else _microseconds(self.start_timeout)


@dataclass(frozen=True, slots=True, init=False)
class Supervisor:
    """A list of children in start order and the rules by which they are kept running.

    More than `intensity` restarts within `period` seconds and the supervisor gives up, stops its children
    and ends; its own supervisor then decides. A `dynamic` supervisor is for children that come and go (a
    pool, the actors of a system): they know no order, start together and stop together.

    Raises `SpecError` if one of these cannot be.
    """

    children: tuple[ChildSpec, ...]
    strategy: Strategy
    intensity: int
    period: float
    auto_shutdown: AutoShutdown
    dynamic: bool
    children_max: int

    def __init__(
        self,
        children: Sequence[ChildSpec] = (),
        *,
        strategy: Strategy = "one_for_one",
        intensity: int = 1,
        period: float = 5.0,
        auto_shutdown: AutoShutdown = "never",
        dynamic: bool = False,
        children_max: int = DEFAULT_CHILDREN_MAX,
    ) -> None:
        _check_choice("supervisor", "strategy", strategy, get_args(Strategy))
        _check_choice("supervisor", "auto_shutdown", auto_shutdown, get_args(AutoShutdown))
        _check_integer("intensity", intensity, 0, INTENSITY_MAX)
        _check_seconds("supervisor", "period", period)
        _check_integer("children_max", children_max, 1, DEFAULT_CHILDREN_MAX)
        if period <= 0:
            raise SpecError(f"supervisor: period must be more than 0 seconds, not {period!r}")
        if dynamic and strategy != "one_for_one":
            raise SpecError(
                f"supervisor: dynamic children know no order, so strategy {strategy!r} means nothing to "
                "them; use one_for_one, or dynamic=False"
            )
        for field, value in (
            ("children", tuple(children)),
            ("strategy", strategy),
            ("intensity", intensity),
            ("period", period),
            ("auto_shutdown", auto_shutdown),
            ("dynamic", bool(dynamic)),
            ("children_max", children_max),
        ):
            object.__setattr__(self, field, value)
        if len(self.children) > children_max:
            raise SpecError(f"supervisor: {len(self.children)} children, children_max is {children_max}")
        names: dict[str, None] = {}
        for child in self.children:
            self.check_child(child)
            if child.name in names:
                raise SpecError(f"supervisor: two children are named {child.name!r}; names must differ")
            names[child.name] = None

    def check_child(self, child: ChildSpec) -> None:
        """Raise `SpecError` if this child cannot live under the rules of this supervisor."""
        _check_instance("supervisor", "a child", child, (ChildSpec,), "a ChildSpec(...)")
        if child.significant and self.auto_shutdown == "never":
            raise SpecError(
                f"child {child.name!r}: it is significant, but its supervisor has auto_shutdown='never'; "
                "choose any_significant or all_significant there, or drop significant here"
            )

    @property
    def period_microseconds(self) -> int:
        """The length of the window in which restarts are counted."""
        return _microseconds(self.period)


def _microseconds(seconds: float) -> int:
    return round(seconds * MICROSECONDS)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_seconds(where: str, option: str, value: object) -> None:
    if not _is_number(value) or value < 0:  # type: ignore[operator]
        raise SpecError(f"{where}: {option} must be a number of seconds, 0 or more, not {value!r}")


def _check_integer(option: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise SpecError(f"supervisor: {option} must be a whole number from {least} to {most}, not {value!r}")


def _check_instance(where: str, option: str, value: object, kinds: tuple[type, ...], wanted: str) -> None:
    if not isinstance(value, kinds):
        raise SpecError(f"{where}: {option} must be {wanted}, not {value!r}")


def _check_choice(where: str, option: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise SpecError(f"{where}: {option} must be one of {allowed}, not {value!r}")


def _check_shutdown(where: str, value: object) -> None:
    if value in ("infinity", "brutal_kill"):
        return
    if not _is_number(value) or value < 0:  # type: ignore[operator]
        raise SpecError(f"{where}: shutdown must be a number of seconds, 'infinity' or 'brutal_kill', not {value!r}")


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name or "/" in name or len(name) > NAME_CHARACTERS_MAX:
        raise SpecError(
            f"the name of a child must be a text of 1 to {NAME_CHARACTERS_MAX} characters without '/', not {name!r}"
        )
