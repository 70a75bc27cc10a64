"""How soon those that die at work are replaced: at once, unless they die too often."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.worker.control import Leaving
from greenroom.supervisor.pool.events import ReloadAsked, SpawnAsked, TerminateAsked
from greenroom.supervisor.pool.limits import PoolLimits
from greenroom.transport.verbs import ChildKind

from .pool_world import SECOND, World

TENTH = SECOND // 10
STEP = SECOND // 20
LIMITS = PoolLimits()


def crash(world: World, number: int, *, finished: int = 0) -> None:
    world.ends(number, 7, ran=True, finished=finished)


def kill(world: World, number: int) -> None:
    world.ends(number, by=signal.SIGKILL, ran=True)


def newest(world: World) -> int:
    return world.forks[-1].number


def until_held(world: World, die: Callable[[World, int], None] = crash) -> int:
    """Let the only child die at once, again and again, until its successor has to wait; return how many have died."""
    for deaths in range(1, 1000):
        die(world, newest(world))
        if not world.counting():
            return deaths
        world.comes_up(newest(world))
    raise AssertionError("its successor always came at once")


def wait_of(world: World) -> int:
    """Wait for the successor; return how long it took."""
    before, count = world.boot, len(world.forks)
    while len(world.forks) == count:
        world.wait(STEP)
        assert world.boot - before < 60 * SECOND, "the successor does not come"
    return world.boot - before


def live(world: World, seconds: float, die: Callable[[World, int], None]) -> None:
    """Let children that are a tenth of a second from ready die a tenth of a second after it, for so long."""
    ages: dict[int, int] = {}
    until = world.boot + round(seconds * SECOND)
    while world.boot < until:
        world.wait(STEP)
        for number, process in list(world.processes.items()):
            ages[number] = ages.get(number, 0) + STEP
            if not process.ready and ages[number] >= TENTH:
                world.comes_up(number)
            elif process.ready and ages[number] >= 2 * TENTH:
                die(world, number)


# ---- a few, or not too often ----


def test_so_many_crashes_are_replaced_at_once_and_after_one_more_the_successor_waits() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    assert until_held(world) == LIMITS.crashes_max + 1
    assert wait_of(world) == TENTH


def test_more_kills_than_crashes_are_borne() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    assert until_held(world, kill) == LIMITS.kills_max + 1


def test_deaths_further_apart_than_the_period_are_not_too_many() -> None:
    world = World(PoolLimits(concurrency=1, crashes_max=1)).start()
    for _ in range(10):
        crash(world, newest(world))
        world.comes_up(newest(world))
        world.wait(LIMITS.deaths_period + 1)
    assert not world.said("crash_loop")


@pytest.mark.parametrize("youngest", [False, True])
def test_a_kill_every_half_second_for_ten_minutes_never_delays_a_successor(youngest: bool) -> None:
    world = World(PoolLimits(concurrency=2)).start()
    for _ in range(1200):
        world.wait(SECOND // 2)
        count = len(world.forks)
        kill(world, sorted(world.counting())[-1 if youngest else 0])
        assert len(world.forks) == count + 1
        world.wait(TENTH)
        world.comes_up(newest(world))
    assert not world.said("crash_loop")


def test_a_crash_once_a_second_never_delays_a_successor() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    for _ in range(600):
        world.wait(SECOND)
        crash(world, newest(world))
        world.comes_up(newest(world))
    assert not world.said("crash_loop")


def test_all_children_of_a_large_pool_may_die_together_twice() -> None:
    world = World(PoolLimits(concurrency=200)).start()
    for _ in range(2):
        for number in world.counting():
            crash(world, number)
        world.everybody_comes_up()
    assert len(world.counting()) == 200
    assert not world.said("crash_loop")


# ---- too often ----


def test_the_wait_doubles_with_each_round_up_to_a_limit() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    until_held(world)
    waits: list[float] = []
    for _ in range(8):
        waits.append(wait_of(world) / TENTH)
        world.comes_up(newest(world))
        crash(world, newest(world))
    assert waits == [1, 2, 4, 8, 16, 32, 50, 50]


def test_after_kills_the_work_goes_on_within_a_second_all_the_same() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    until_held(world, kill)
    waits: list[float] = []
    for _ in range(6):
        waits.append(wait_of(world) / TENTH)
        world.comes_up(newest(world))
        kill(world, newest(world))
    assert waits == [1, 2, 4, 8, 8, 8]


def test_children_that_die_together_are_one_round() -> None:
    world = World(PoolLimits(concurrency=4)).start()
    live(world, 6, crash)
    assert world.said("crash_loop")
    while any(process.ready for process in world.processes.values()) or not world.counting():
        live(world, STEP / SECOND, crash)
    assert len(world.counting()) == 4, "they come together"


@pytest.mark.parametrize(("concurrency", "most"), [(1, 60), (2, 90), (8, 260)])
def test_a_module_whose_every_task_ends_its_process_is_no_fork_loop_and_no_reason_to_give_up(
    concurrency: int, most: int
) -> None:
    world = World(PoolLimits(concurrency=concurrency)).start()
    live(world, 120, crash)
    assert LIMITS.crashes_max < len(world.forks) <= most
    assert world.exit is None
    assert len(world.said("crash_loop")) == 1
    assert not world.said("start_failed")


def test_a_module_whose_every_task_kills_its_process_is_paced_as_well() -> None:
    world = World(PoolLimits(concurrency=2)).start()
    live(world, 120, kill)
    assert len(world.forks) <= LIMITS.kills_max + 2 * 130
    assert len(world.said("crash_loop")) == 1


def test_children_that_finish_most_of_their_bodies_wait_for_the_shortest_time() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    until_held(world)
    for _ in range(20):
        assert wait_of(world) == TENTH
        world.comes_up(newest(world))
        crash(world, newest(world), finished=LIMITS.healthy_bodies)
    wait_of(world)
    world.comes_up(newest(world))
    crash(world, newest(world), finished=LIMITS.healthy_bodies - 1)
    assert wait_of(world) == 2 * TENTH


def test_a_child_that_was_up_for_a_while_makes_the_wait_the_shortest_again() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    until_held(world)
    for _ in range(4):
        wait_of(world)
        world.comes_up(newest(world))
        crash(world, newest(world))
    wait_of(world)
    world.comes_up(newest(world))
    world.wait(LIMITS.crash_backoff.reset_after_microseconds)
    crash(world, newest(world))
    assert wait_of(world) == TENTH


# ---- who is not counted ----


def test_children_that_are_recycled_never_wait() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    for number in range(1, 1001):
        world.say(number, Leaving("1 task"))
        world.ends(number, 0, ran=True)
        world.comes_up(number + 1)
    assert not world.said("crash_loop")


def test_d25_children_for_suspects_never_wait() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    world.tell(SpawnAsked(ChildKind.QUARANTINE, 1))
    for _ in range(1000):
        world.comes_up(newest(world))
        crash(world, newest(world))
        assert world.counting(ChildKind.QUARANTINE) == [newest(world)]


def test_d25_children_for_suspects_come_while_others_wait() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    until_held(world)
    world.tell(SpawnAsked(ChildKind.QUARANTINE, 1))
    assert world.counting(ChildKind.QUARANTINE)


def test_children_that_revokes_end_never_wait() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    for number in range(1, 1001):
        world.processes[number].running = {7: 3}
        world.tell(TerminateAsked(number, 7, signal.SIGTERM))
        world.ends(number, by=signal.SIGTERM, ran=True)
        world.comes_up(number + 1)
    assert not world.said("crash_loop")


def test_actors_that_crash_do_not_delay_the_others_nor_the_others_them() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    world.tell(SpawnAsked(ChildKind.ACTORS, 1))
    world.comes_up(2)
    while world.counting(ChildKind.ACTORS):
        crash(world, newest(world))
        if world.counting(ChildKind.ACTORS):
            world.comes_up(newest(world))
    assert world.said("crash_loop")
    crash(world, 1)
    assert world.counting() == [newest(world)]


# ---- what is told ----


def test_it_is_told_once_and_shown_until_a_child_has_stayed_up() -> None:
    world = World(PoolLimits(concurrency=2)).start()
    live(world, 30, crash)
    (text,) = world.said("crash_loop")
    assert f"{LIMITS.crashes_max + 1} children died within 20 s" in text
    assert world.trouble.startswith("crash_loop: ")
    assert any("in 5.0 s" in died for died in world.said("died")), "each death says when the next child comes"
    while not world.counting():
        world.wait(STEP)
    world.everybody_comes_up()
    world.wait(LIMITS.crash_backoff.reset_after_microseconds - 1)
    assert world.trouble
    assert not world.said("crash_loop_over")
    world.wait(1)
    assert world.trouble == ""
    assert len(world.said("crash_loop_over")) == 1
    crash(world, world.counting()[0])
    assert len(world.counting()) == 2, "from now on a successor comes at once"
    assert len(world.said("crash_loop")) == 1


def test_it_is_not_over_while_others_die() -> None:
    world = World(PoolLimits(concurrency=2)).start()
    until = world.boot + 100 * SECOND
    while world.boot < until:
        # One of the two works for ever.
        for number in [n for n in world.counting() if n != 1]:
            world.comes_up(number) if not world.processes[number].ready else crash(world, number)
        world.wait(TENTH)
    assert world.trouble
    assert not world.said("crash_loop_over")


def test_it_is_not_told_again_as_long_as_the_deaths_of_the_last_while_are_too_many() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    until_held(world)
    wait_of(world)
    world.comes_up(newest(world))
    world.wait(LIMITS.crash_backoff.reset_after_microseconds)
    assert not world.said("crash_loop_over"), "the next death would begin it anew"
    world.wait(LIMITS.deaths_period)
    assert world.said("crash_loop_over")


def test_a_reload_forgets_what_the_old_code_did() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    until_held(world)
    world.tell(ReloadAsked())
    assert world.counting() == [newest(world)]
    assert world.trouble == ""


# ---- anything ----

DEATHS = st.tuples(
    st.sampled_from([1, TENTH, SECOND, 3 * SECOND, 10 * SECOND]),
    st.booleans(),
    st.integers(0, 2),
)


@given(st.lists(DEATHS, min_size=1, max_size=60), st.integers(1, 3), st.integers(0, 5), st.integers(0, 5))
def test_no_successor_waits_for_longer_than_the_limit_nor_before_there_were_too_many(
    lives: list[tuple[int, bool, int]], concurrency: int, crashes_max: int, kills_max: int
) -> None:
    limits = PoolLimits(concurrency=concurrency, crashes_max=crashes_max, kills_max=kills_max, healthy_bodies=2)
    world = World(limits).start()
    times: dict[bool, list[int]] = {True: [], False: []}
    for life, by_itself, finished in lives:
        world.wait(life)
        number = world.counting()[0]
        if not world.processes[number].ready:
            world.comes_up(number)
        times[by_itself].append(world.boot)
        world.ends(number, 7 if by_itself else None, 0 if by_itself else signal.SIGKILL, ran=True, finished=finished)
        too_many = False
        for cause, most in ((True, crashes_max), (False, kills_max)):
            latest = [at for at in times[cause] if at >= world.boot - limits.deaths_period]
            too_many |= len(latest) > max(most, 2 * concurrency)
        if too_many:
            assert world.trouble
        elif not world.trouble:
            assert len(world.counting()) == concurrency, "nobody waits"
        world.wait(limits.crash_backoff.max_microseconds)
        assert len(world.counting()) == concurrency
    world.everybody_comes_up()
    world.wait(2 * limits.deaths_period)
    assert world.trouble == ""
    assert world.exit is None
