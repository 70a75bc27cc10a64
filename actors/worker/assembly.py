"""The parts of one child, put together: the same in a process of its own and in a simulated one.

Owns what a child consists of and what its parent learns of it at its beginning. Its page, its pipe, its line and its
clock are given; how bodies are run on top of it is the pool's.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from ...transport.clock import Clock
from ...transport.message import Kind
from ...transport.page_marks import Page
from ...transport.peer.attachment import Attachment
from ...transport.peer.contract import Promise
from ...transport.verbs import ChildKind, Role
from ..app import App
from ..connecting import addresses_of
from ..settings.bounds import bounds_of
from ..tasks.queues import queue_name
from .aftermath import AftermathRunner
from .consumer import Consumer
from .control import ChildConfig, Ready
from .events import ConsumerSettings
from .execute import Executor
from .hands import AnyLine, AnyPipe
from .hosting import Hosting
from .limits import Deadlines
from .outcomes import Outcomes
from .states import Told
from .station import Station


def session_of(config: ChildConfig) -> str:
    """The session of a child: a broker knows by it whose child it is."""
    return f"{config.node_session}/{config.number}"


def own_mailboxes(app: App) -> list[str]:
    """The mailboxes that the application names: its task_queues, or the default one."""
    return app.router.queues.names or [queue_name(app.conf.task_default_queue)]


class Assembly:
    """One child without the way in which it runs bodies."""

    def __init__(
        self,
        config: ChildConfig,
        app: App,
        page: Page,
        pipe: AnyPipe,
        line: Callable[[Attachment], AnyLine],
        clock: Clock,
        *,
        host: str,
        pid: int,
        wall: Callable[[], int] | None = None,
        promise: Callable[[], Told] = Future[bytes],
    ) -> None:
        """`wall` tells the wall time alone, where that costs less than both clocks. `promise` makes one for whoever
        waits in a body."""
        self.app = app
        self.pipe = pipe
        hosts_actors = config.kind == ChildKind.ACTORS
        self.mailboxes = [] if hosts_actors else config.mailboxes or own_mailboxes(app)
        consumer = Consumer(
            ConsumerSettings(
                mailboxes=self.mailboxes,
                slots=config.slots,
                kind=config.kind,
                policies=[task.policy() for task in app.tasks.values()],
                actors=list(app.actors),
                bounds=bounds_of(app.conf),
                outcomes_max=page.entries // 4,
                max_tasks=config.max_tasks,
                max_memory_kib=config.max_memory_kib,
            )
        )
        attachment = Attachment(
            role=Role.CHILD,
            node=config.node,
            session=session_of(config),
            addresses=addresses_of(config.broker),
            incarnation=config.incarnation,
            host=host,
            pid=pid,
        )
        self.station = Station(consumer, line(attachment), page, pipe, clock)
        self.station.attached = self._attached
        self.deadlines = Deadlines(self.station.tell_parent, lambda: clock().boot)
        self.executor = Executor(
            app,
            Outcomes(
                config.node,
                wall or (lambda: clock().wall),
                app.content(app.conf.result_serializer, app.conf.result_compression),
            ),
            self.deadlines,
            self.station,
            hostname=config.node,
            time_limit=config.time_limit,
            soft_time_limit=config.soft_time_limit,
        )
        self.hosting = Hosting(self.executor, app.actors, clock, fetch=self._fetch)
        self._promise = promise
        self.executor.others[Kind.ACTOR] = self.hosting
        self.executor.others[Kind.AFTERMATH] = AftermathRunner(self.executor)
        #: The broker has taken this child in, and the parent was told.
        self.is_ready = False

    def _fetch(self, mailbox: str) -> Promise[bytes]:
        told = self._promise()
        self.station.fetch(mailbox, told)
        return told

    def _attached(self) -> None:
        if not self.is_ready:
            self.is_ready = True
            self.pipe.send(Ready(sorted(self.app.tasks), self.mailboxes))
