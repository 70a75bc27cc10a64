"""Coroutines and limits: the exception that is meant reaches the body where it waits, and nowhere else."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from greenroom.actors.errors import SoftTimeLimitExceeded, Terminated
from greenroom.actors.worker.control import BodyEnded, BodyStarted
from greenroom.actors.worker.coroutines import Interruptible, coroutine_runner
from greenroom.actors.worker.events import Held, Interrupt
from greenroom.actors.worker.limits import Deadlines, ThreadTarget, error_of
from greenroom.transport.message import Delivery, Envelope


def test_an_interrupted_body_sees_the_limit_and_may_clean_up() -> None:
    seen: list[str] = []

    async def body() -> str:
        try:
            await asyncio.Event().wait()
        except SoftTimeLimitExceeded as error:
            seen.append(type(error).__name__)
            await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0, "the loop must not take it for a cancellation"
            return "cleaned up"
        return "not interrupted"

    async def main() -> str:
        interruptible = Interruptible(body())

        async def run() -> Any:
            return await interruptible

        task = asyncio.create_task(run())
        await asyncio.sleep(0)
        interruptible.interrupt(SoftTimeLimitExceeded())
        interruptible.interrupt(Terminated())
        return str(await task)

    assert asyncio.run(main()) == "cleaned up"
    assert seen == ["SoftTimeLimitExceeded"]


def test_a_real_cancellation_stays_one() -> None:
    async def main() -> None:
        async def run() -> Any:
            return await Interruptible(asyncio.sleep(60))

        task = asyncio.create_task(run())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_an_exception_in_an_awaited_future_reaches_the_body() -> None:
    async def body(future: asyncio.Future[int]) -> str:
        try:
            await future
        except ValueError as error:
            return str(error)
        return "nothing came"

    async def main() -> str:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def run() -> Any:
            return await Interruptible(body(future))

        task = asyncio.create_task(run())
        await asyncio.sleep(0)
        future.set_exception(ValueError("from the future"))
        return str(await task)

    assert asyncio.run(main()) == "from the future"


def test_a_runner_keeps_its_loop_and_passes_values_and_failures() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def body(fail: bool) -> int:
        loops.append(asyncio.get_running_loop())
        if fail:
            raise ValueError("x")
        return 3

    runner = coroutine_runner()
    assert runner is coroutine_runner()
    assert runner.run(body(False)) == 3
    with pytest.raises(ValueError, match="x"):
        runner.run(body(True))
    assert loops[0] is loops[1]


def test_a_limit_that_hits_the_loop_is_raised_in_the_body() -> None:
    async def body() -> str:
        asyncio.get_running_loop().call_soon(hit_the_loop)
        try:
            await asyncio.Event().wait()
        except SoftTimeLimitExceeded:
            return "seen"
        return "missed"

    def hit_the_loop() -> None:
        # As a signal's handler does that runs between two callbacks: it leaves run_until_complete.
        raise SystemError

    class Loop(asyncio.SelectorEventLoop):
        def call_exception_handler(self, context: dict[str, Any]) -> None:
            raise SoftTimeLimitExceeded

    runner = type(coroutine_runner())()
    runner._loop.close()  # pyright: ignore[reportPrivateUsage]
    runner._loop = Loop()  # pyright: ignore[reportPrivateUsage]
    assert runner.run(body()) == "seen"
    runner._loop.close()  # pyright: ignore[reportPrivateUsage]


def held(position: int) -> Held:
    return Held(Delivery(position, Envelope("id", "task", "msgpack", b""), "celery"), 7)


def test_a_hard_limit_is_told_to_the_parent_and_a_soft_one_is_kept_here() -> None:
    told: list[BodyStarted | BodyEnded] = []
    now = [1000]
    deadlines = Deadlines(told.append, lambda: now[0])
    deadlines.begin(held(1), 50, 0)
    deadlines.begin(held(2), 60, 90)
    assert told == [BodyStarted(2, 7, 1000, 90)]
    assert deadlines.next_due == 1050
    assert deadlines.passed(1049) == []
    assert deadlines.passed(1050) == [1]
    assert deadlines.passed(1050) == [], "told once"
    deadlines.end(held(1))
    deadlines.end(held(2))
    assert told[1:] == [BodyEnded(2)]
    assert deadlines.next_due == 0
    assert deadlines.passed(10**9) == []


@pytest.mark.parametrize(("how", "error"), [(10, SoftTimeLimitExceeded), (0, Terminated), (15, Terminated)])
def test_a_cancel_by_sigusr1_is_a_soft_limit_and_any_other_an_end(how: int, error: type[Exception]) -> None:
    assert type(error_of(Interrupt(0, 1, how))) is error


def test_a_thread_is_hit_while_it_runs_the_body_that_is_meant_and_never_later() -> None:
    target = ThreadTarget()
    running, hit, over, may_end = (threading.Event() for _ in range(4))
    seen: list[str] = []

    def work() -> None:
        target.arm(1)
        try:
            running.set()
            while not over.wait(0.001):
                pass
        except SoftTimeLimitExceeded:
            seen.append("hit")
        finally:
            target.disarm()
        hit.set()
        may_end.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    assert running.wait(10)
    assert not target.hit(2, SoftTimeLimitExceeded)
    assert target.hit(1, SoftTimeLimitExceeded)
    assert hit.wait(10)
    assert seen == ["hit"]
    assert not target.hit(1, SoftTimeLimitExceeded), "its body is over"
    assert not target.hit_any(SoftTimeLimitExceeded)
    over.set()
    may_end.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_late_hit_is_absorbed_when_the_body_is_over() -> None:
    target = ThreadTarget()
    survived: list[bool] = []

    def work() -> None:
        for position in range(1, 300):
            target.arm(position)
            try:
                target.hit(position, SoftTimeLimitExceeded)
                for _ in range(position % 3):
                    len(survived)
            except SoftTimeLimitExceeded:
                pass
            finally:
                target.disarm()
        survived.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert survived == [True]
