"""The application of the self-test: tasks of every kind whose delivery differs, and none that does anything; and
accounts, durable actors that remember what they were asked.

What a body does follows from its message and from how often it has run in this world, so that a world goes the same
way twice.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any, ClassVar

from ....actors.actor import Actor
from ....actors.app import App
from ....actors.errors import Reject
from ....actors.tasks.task import Task


class Account(Actor):
    """It remembers each question, in order."""

    durable = True
    #: How often each question has begun in the present world.
    began: ClassVar[Counter[int]] = Counter()

    def __init__(self) -> None:
        self.asked: list[int] = []

    def ask(self, number: int, seconds: float, again_seconds: float) -> int:
        """Remember this question. It takes another time where somebody has begun with it before."""
        Account.began[number] += 1
        self.asked.append(number)
        time.sleep(seconds if Account.began[number] == 1 else again_seconds)
        return len(self.asked)


class Question:
    """What is asked of two accounts in turn."""

    def __init__(self, app: App, seconds: float, again_seconds: float) -> None:
        self._app = app
        self._times = seconds, again_seconds
        #: How often it was asked in the present world.
        self.count = 0

    def ask(self) -> None:
        """Ask it."""
        self.count += 1
        self._app.ref(Account, f"account {self.count % 2}").ask(Account.ask, self.count, *self._times)


class Shop:
    """The application, its tasks by what they are for, and how often each body ran in the present world."""

    def __init__(self) -> None:
        self.app = app = App("selftest", set_as_current=False)
        self.ran = Counter[str]()
        self.moods = 0
        #: Questions to accounts, by what they are for.
        self.questions = {
            "account": Question(app, 0.0005, 0.0005),
            "slow account": Question(app, 3, 3),
            # Who was thought to be lost comes back before the next one is done.
            "account that is slow again": Question(app, 0.0005, 30),
        }
        self.tasks: dict[str, Task[Any, Any]] = {}
        late = {"acks_late": True, "reject_on_worker_lost": True}

        def task(name: str, body: Any, **options: Any) -> None:
            self.tasks[name] = app.task(body, name=name, **options)

        def run(self_: Any) -> str:
            self.ran[self_.request.id] += 1
            return str(self_.request.id)

        def quick(self_: Any) -> str:
            # Short enough to be handed out ahead of time and to be settled with others, and not over at once.
            time.sleep(0.0005)
            return run(self_)

        def moody(self_: Any) -> str:
            # Quick until it has been measured, and now and then slow: what was handed out ahead of time waits for it.
            self.moods += 1
            time.sleep(3 if self.moods % 3 == 0 else 0.002)
            return run(self_)

        def slow(self_: Any) -> str:
            time.sleep(3)
            return run(self_)

        def long(self_: Any) -> str:
            # Longer than a session that is away is waited for.
            time.sleep(20)
            return run(self_)

        def fall(self_: Any) -> None:
            run(self_)
            sys.exit(3)

        def fall_late(self_: Any) -> None:
            # Whatever else runs in the process by then falls with it.
            time.sleep(1)
            fall(self_)

        def fail(self_: Any) -> None:
            run(self_)
            raise ValueError("as it was told to")

        def retry(self_: Any) -> str:
            if self_.request.retries == 0:
                raise self_.retry(countdown=0.5)
            return run(self_)

        def give_back(self_: Any) -> str:
            if not self.ran[self_.request.id]:
                run(self_)
                raise Reject("not yet", requeue=True)
            return run(self_)

        task("early", run, bind=True)
        task("late", run, bind=True, **late)
        task("quick early", quick, bind=True)
        task("quick late", quick, bind=True, **late)
        task("moody early", moody, bind=True)
        task("moody late", moody, bind=True, **late)
        task("slow early", slow, bind=True)
        task("slow late", slow, bind=True, **late)
        task("slow poison", fall_late, bind=True, max_deliveries=1, **late)
        task("long early", long, bind=True)
        task("long late", long, bind=True, **late)
        task("poison", fall, bind=True, max_deliveries=2, **late)
        task("poison early", fall, bind=True)
        task("fail", fail, bind=True)
        task("retry", retry, bind=True, max_retries=1)
        task("give back", give_back, bind=True, **late)
        task("hang", slow, bind=True, time_limit=1, **late)

    def begin(self) -> None:
        """Forget the world before: nothing has run yet."""
        self.ran.clear()
        for question in self.questions.values():
            question.count = 0
        Account.began.clear()
        self.moods = 0
