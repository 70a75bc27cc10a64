"""Who is on duty: never nobody while somebody waits."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from greenroom.transport.wire.stand_in import StandIn


class Desk:
    """A work of which the test says what there is to do."""

    def __init__(self) -> None:
        self.others = 0
        self.orders = False
        self.open: list[Future[None]] = []
        self.attended_by: list[threading.Thread] = []
        self.slept: list[float] = []
        self.stays = True

    def waiting(self) -> int:
        return self.others + len(self.open)

    def has_orders(self) -> bool:
        return self.orders

    def attend(self) -> None:
        self.attended_by.append(threading.current_thread())
        if len(self.attended_by) == 2:
            self.open.pop().set_result(None)

    def sleep(self, seconds: float) -> bool:
        self.slept.append(seconds)
        return self.stays

    def ask(self) -> Future[None]:
        future: Future[None] = Future()
        self.open.append(future)
        return future


def test_one_who_waits_alone_stands_in_and_the_thread_rests_for_a_moment_after() -> None:
    desk = Desk()
    stand_in = StandIn(desk)
    assert not stand_in.rests()
    future = desk.ask()
    stand_in.wait(future, 5)
    assert future.done()
    assert desk.attended_by == [threading.current_thread()] * 2
    # It slept between the two passes and not after the answer had come.
    assert len(desk.slept) == 1
    assert desk.slept[0] <= 0.05
    assert stand_in.nobody_is_on_duty
    assert stand_in.rests()
    stand_in.close()


def test_where_others_wait_too_it_is_the_thread_who_works() -> None:
    desk = Desk()
    desk.others = 1
    stand_in = StandIn(desk)
    stand_in.wait(desk.ask(), 5)
    assert not desk.attended_by
    assert not stand_in.rests()
    stand_in.close()


def test_whoever_leaves_while_somebody_waits_calls_the_thread() -> None:
    desk = Desk()
    desk.stays = False
    stand_in = StandIn(desk)
    future = desk.ask()
    stand_in.wait(future, 5)
    assert not future.done()
    assert not stand_in.nobody_is_on_duty
    # The call ends the thread's sleep wherever it sleeps, once.
    stand_in.rest()
    assert not stand_in.rests()
    stand_in.close()


def test_an_order_while_nobody_is_on_duty_calls_the_thread() -> None:
    desk = Desk()
    stand_in = StandIn(desk)
    stand_in.wait(desk.ask(), 5)
    assert stand_in.rests()
    desk.orders = True
    stand_in.look()
    assert not stand_in.rests()
    stand_in.close()


def test_the_thread_does_not_rest_where_somebody_waits_and_nobody_stands_in() -> None:
    desk = Desk()
    stand_in = StandIn(desk)
    stand_in.wait(desk.ask(), 5)
    desk.ask()
    assert not stand_in.rests()
    stand_in.close()
