"""What a system, a client of it and a row of the table are to each other.

Two halves, because each system's client runs under an interpreter of its own. A `System` lives in the benchmark's
process: it knows what has to be installed, and starts and stops servers and workers. A `Client` lives in the agent
(agent.py), a process under the system's interpreter: it makes calls. A `Row` is known on both sides: the agent runs
its `measure`, the benchmark shows what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from marks import Marks
    from processes import Children

#: The no-op with a late ack and no result, the same with an early ack, and the one that returns its argument.
TaskName = Literal["late", "early", "echo"]

#: Worker processes of every system.
WORKERS = 2

#: Where the files of the workers' applications (work/) are imported from.
FOLDER = Path(__file__).resolve().parent


class NotOfferedError(Exception):
    """Raised when a system has not got what a row asks for; the message is shown in the table."""


class Client(Protocol):
    """One process's way to call a system's tasks."""

    def send(self, task: TaskName) -> None:
        """Call once; return when the system says that it has the call."""

    def send_many(self, task: TaskName, count: int) -> Sequence[Any]:
        """Call `count` times in the fastest way that the system offers; echo's arguments are 0, 1, 2 ...

        Returns what `fetch` takes.
        """

    def fetch(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """Wait for the results of these calls, `seconds` at most; return their values in order."""

    def hold(self, token: str) -> None:
        """Call the task that stays in its body the first time it starts with this token (late ack)."""

    def purge(self) -> None:
        """Drop what waits."""

    def close(self) -> None:
        """Close the link."""


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    #: Calls to make; None: as many as take about `seconds`.
    count: int | None
    #: How long one measurement should take, about.
    seconds: float
    #: How long anything may take before it counts as failed.
    patience: float
    #: What the workers' tasks leave behind.
    marks: Marks
    #: The processes that hold the messages.
    servers: tuple[int, ...]
    full: bool = False


@dataclass(frozen=True)
class Metric:
    """One figure of a row."""

    name: str
    title: str
    unit: str
    #: Which way is good; None: a fact without a ratio.
    better: Literal["more", "less"] | None


@dataclass(frozen=True)
class Row:
    """One kind of measurement."""

    name: str
    title: str
    metrics: tuple[Metric, ...]
    #: Runs in the agent. Returns the metrics' values and may add others, which only the JSON shows.
    measure: Callable[[Client, Plan], dict[str, float]]
    #: Whether workers run meanwhile.
    workers: bool = True
    #: Whether the client asks for confirms where they are an option.
    confirm: bool = False
    #: Whether it kills a worker, after which no other row can use the pool.
    kills: bool = False
    #: Whether one round is enough in a full run, because it takes minutes.
    once_in_full: bool = False
    #: How many seconds a measurement should take: in a short run, in a full one.
    seconds: tuple[float, float] = (1.5, 10.0)
    #: Seconds after which a measurement is given up: in a short run, in a full one.
    patience: tuple[float, float] = (40.0, 150.0)


@dataclass
class Place:
    """Where one start of a system lives: a temporary folder, its processes, and what they and the agent are told."""

    folder: Path
    children: Children
    #: BENCH_BROKER, BENCH_RESULTS and BENCH_MARKS.
    environment: dict[str, str] = field(default_factory=dict)
    #: The processes that hold the messages.
    servers: list[int] = field(default_factory=list)


class System(Protocol):
    """Something that runs tasks, as the benchmark's process sees it."""

    @property
    def name(self) -> str:
        """What `--systems` calls it."""

    @property
    def title(self) -> str:
        """What the table calls it."""

    @property
    def durability(self) -> str:
        """What an accepted call survives by the system's own defaults, and when it is acked."""

    @property
    def work(self) -> str:
        """The module with its tasks and its client, imported by the workers and by the agent."""

    @property
    def python(self) -> str:
        """The interpreter of its client and workers."""

    def missing(self) -> str | None:
        """Say what is not installed; None: nothing."""

    def versions(self) -> Mapping[str, str]:
        """Return what was measured: the versions of its libraries and servers."""

    def start_servers(self, place: Place) -> None:
        """Start what holds the messages, and wait until it listens."""

    def start_workers(self, place: Place) -> None:
        """Start the workers. Whether they are ready, the first task shows."""
