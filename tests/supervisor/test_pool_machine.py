"""The pool's machine: examples of each rule, and a world (`pool_world`) that plays against it at random.

How soon those that die at work are replaced is in `test_pace`.
"""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from greenroom.actors.worker.control import BodyEnded, BodyStarted, FromChild, Leaving, Ready, StopChild, Unusable
from greenroom.supervisor.pool.events import (
    BrokerReachable,
    ChildEnded,
    Exit,
    ForkFailed,
    Looked,
    ReloadAsked,
    ResizeAsked,
    Said,
    SpawnAsked,
    StartPool,
    Stop,
    StopAsked,
    TerminateAsked,
)
from greenroom.supervisor.pool.limits import PoolLimits
from greenroom.supervisor.pool.machine import EXIT_GAVE_UP, EXIT_KILLED, EXIT_UNUSABLE, SPAWNERS_MAX
from greenroom.transport.verbs import ChildKind

from .pool_world import SECOND, World

# ---- the right number ----


@pytest.mark.parametrize(
    ("kind", "children", "slots"), [("prefork", 3, 1), ("threads", 1, 3), ("asyncio", 1, 3), ("solo", 1, 1)]
)
def test_each_kind_of_pool_has_its_number_of_children_and_slots(kind: str, children: int, slots: int) -> None:
    world = World(PoolLimits(concurrency=3), kind).start()
    assert [(fork.pool, fork.slots) for fork in world.forks] == [(kind, slots)] * children


def test_the_pool_is_ready_once_all_its_children_are() -> None:
    world = World().start(ready=False)
    world.spawner_up(1)
    world.comes_up(1)
    assert world.ready_with is None
    world.comes_up(2)
    assert world.ready_with == ["tasks.add"]


def test_recycling_replaces_a_child_before_it_has_ended_and_is_not_counted() -> None:
    world = World(PoolLimits(concurrency=1, start_failures_max=0)).start()
    world.say(1, Leaving("100 tasks"))
    assert world.counting() == [2]
    assert world.ends(1, 0).orderly


def test_d25_children_for_suspects_come_when_asked_for_and_stay() -> None:
    world = World(PoolLimits(concurrency=2), "threads").start()
    world.tell(SpawnAsked(ChildKind.QUARANTINE, 1))
    fork = world.forks[-1]
    assert (fork.kind, fork.pool, fork.slots) == (ChildKind.QUARANTINE, "prefork", 1)
    world.tell(SpawnAsked(ChildKind.QUARANTINE, 1))
    assert len(world.counting(ChildKind.QUARANTINE)) == 1
    world.comes_up(fork.number)
    world.ends(fork.number, by=signal.SIGKILL, ran=True)
    assert len(world.counting(ChildKind.QUARANTINE)) == 1


@pytest.mark.parametrize(
    ("kind", "pool"), [("prefork", "threads"), ("solo", "threads"), ("threads", "threads"), ("asyncio", "asyncio")]
)
def test_a_child_for_actors_runs_several_at_once_so_that_one_can_ask_another(kind: str, pool: str) -> None:
    world = World(PoolLimits(concurrency=2, actor_slots=5), kind).start()
    world.tell(SpawnAsked(ChildKind.ACTORS, 1))
    assert (world.forks[-1].pool, world.forks[-1].slots) == (pool, 5)


def test_a_broker_cannot_ask_for_more_children_than_the_limit() -> None:
    world = World(PoolLimits(concurrency=2)).start()
    world.tell(SpawnAsked(ChildKind.QUARANTINE, 2))
    assert not world.said("spawn_limited")
    world.tell(SpawnAsked(ChildKind.QUARANTINE, 3))
    assert len(world.counting(ChildKind.QUARANTINE)) == 2
    assert world.said("spawn_limited")


def test_the_pool_grows_and_shrinks_but_never_below_one() -> None:
    world = World(PoolLimits(concurrency=2)).start()
    world.tell(ResizeAsked(1))
    world.everybody_comes_up()
    assert world.counting() == [1, 2, 3]
    world.tell(ResizeAsked(-5))
    assert world.counting() == [1]
    assert world.ends(2, 0).orderly


def test_a_pool_with_one_child_of_many_slots_is_not_resized() -> None:
    world = World(PoolLimits(concurrency=2), "threads").start()
    world.tell(ResizeAsked(1))
    assert world.counting() == [1]
    assert world.said("resize_refused")


# ---- starts that fail ----


def test_s1_the_pool_gives_up_at_exactly_one_failed_start_more_than_allowed() -> None:
    world = World(PoolLimits(concurrency=1, start_failures_max=3)).start(ready=False)
    world.spawner_up(1)
    for number in (1, 2, 3):
        world.forked(number)
        world.ends(number, 1)
        assert world.exit is None
        world.wait(3 * SECOND)
    world.forked(4)
    world.ends(4, 1)
    assert world.exit is not None
    assert world.exit.code == EXIT_GAVE_UP
    assert "exit code 1" in world.exit.reason


def test_s1_failures_further_apart_than_the_period_are_not_too_many() -> None:
    limits = PoolLimits(concurrency=1, start_failures_max=1, start_timeout=1000 * SECOND)
    world = World(limits).start(ready=False)
    for number in range(1, 6):
        world.forked(number)
        world.ends(number, 1)
        world.wait(world.limits.start_failures_period + SECOND)
    assert world.exit is None


def test_s8_the_fork_after_a_failed_start_waits_twice_as_long_each_time() -> None:
    world = World(PoolLimits(concurrency=1)).start(ready=False)
    delays: list[int] = []
    for number in (1, 2, 3, 4):
        world.forked(number)
        world.ends(number, 1)
        before, count = world.boot, len(world.forks)
        while len(world.forks) == count:
            world.wait(SECOND // 100)
        delays.append((world.boot - before) // (SECOND // 100))
    assert delays == [10, 20, 40, 80]


def test_s8_starts_that_fail_wait_twice_as_long_each_time_also_in_a_pool_that_was_up_before() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    world.wait(100 * SECOND)
    world.ends(1, by=signal.SIGKILL, ran=True)
    delays: list[int] = []
    for number in (2, 3, 4, 5, 6):
        world.forked(number)
        world.wait(2 * SECOND)
        world.ends(number, 1)
        wake = world.machine.wake_at()
        assert wake is not None
        delays.append((wake - world.boot) // (SECOND // 10))
        world.wait(2 * SECOND)
    assert delays == [1, 2, 4, 8, 16]


def test_a_fork_that_the_system_refuses_is_a_failed_start() -> None:
    world = World(PoolLimits(concurrency=1, start_failures_max=0)).start(ready=False)
    del world.processes[1]
    world.tell(ForkFailed(1, "Resource temporarily unavailable"))
    assert world.exit is not None
    assert world.exit.code == EXIT_GAVE_UP


def test_a_sigkill_before_ready_says_nothing_of_the_application_but_slows_the_forks() -> None:
    world = World(PoolLimits(concurrency=1, start_failures_max=0)).start(ready=False)
    world.forked(1)
    world.ends(1, by=signal.SIGKILL)
    assert world.counting() == []
    world.wait(world.limits.killed_delay)
    assert world.counting() == [2]
    world.forked(2)
    world.ends(2, by=signal.SIGKILL, oom=True)
    assert world.exit is not None


@pytest.mark.parametrize(
    ("exit_code", "by", "ran", "after", "counted"),
    [
        (1, 0, False, 0, True),
        (None, signal.SIGSEGV, False, 0, True),
        (None, signal.SIGSEGV, True, 0, False),
        (None, signal.SIGSEGV, False, SECOND, False),
        (None, signal.SIGKILL, False, 0, False),
        (None, signal.SIGTERM, False, 0, False),
    ],
)
def test_a_crash_right_after_ready_counts_unless_something_ran_or_somebody_killed_it(
    exit_code: int | None, by: int, ran: bool, after: int, counted: bool
) -> None:
    world = World(PoolLimits(concurrency=1, start_failures_max=0)).start()
    world.wait(after)
    world.ends(1, exit_code, by, ran=ran)
    assert (world.exit is not None) == counted


def test_an_application_that_no_child_could_load_ends_the_worker_at_once() -> None:
    world = World(PoolLimits(concurrency=2)).start(ready=False)
    world.spawner_up(1)
    for number in (1, 2):
        world.forked(number)
        world.say(number, Unusable("No module named 'shop'", "Traceback ..."))
    world.ends(1, 1)
    world.ends(2, by=signal.SIGKILL)
    assert world.exit == Exit(EXIT_UNUSABLE, "No module named 'shop'")
    assert world.said("unusable") == ["No module named 'shop'\nTraceback ..."]


def test_a_child_that_is_not_ready_in_time_is_killed_while_a_broker_is_there() -> None:
    world = World(PoolLimits(concurrency=1)).start(ready=False)
    world.forked(1)
    world.wait(world.limits.start_timeout - 1)
    assert world.processes[1].signals == []
    world.wait(1)
    assert world.processes[1].signals == [signal.SIGKILL]
    world.ends(1, by=signal.SIGKILL)
    assert world.said("start_failed")


def test_without_a_broker_nobody_can_be_ready_and_nobody_is_killed_for_it() -> None:
    world = World(PoolLimits(concurrency=1)).start(ready=False)
    world.forked(1)
    world.tell(BrokerReachable(False))
    world.wait(100 * world.limits.start_timeout)
    assert world.processes[1].signals == []
    world.tell(BrokerReachable(True))
    world.wait(world.limits.start_timeout)
    assert world.processes[1].signals == [signal.SIGKILL]


# ---- spawners ----


def test_d31_a_spawner_that_dies_is_replaced_and_its_children_are_buried() -> None:
    world = World(PoolLimits(concurrency=2)).start()
    world.spawner_dies(1)
    assert sorted(world.buried) == [1, 2]
    assert not any(end.orderly for end in world.buried.values())
    assert list(world.spawners) == [2]
    world.everybody_comes_up()
    assert [fork.generation for fork in world.forks[2:]] == [2, 2]


def test_spawners_that_keep_dying_end_the_worker() -> None:
    world = World(PoolLimits(concurrency=1, spawner_deaths_max=2)).start(ready=False)
    for generation in (1, 2, 3):
        assert world.exit is None
        world.spawner_dies(generation)
    assert world.exit is not None
    assert world.exit.code == EXIT_GAVE_UP


def test_a_spawner_that_does_not_fork_in_time_is_killed() -> None:
    world = World(PoolLimits(concurrency=1)).start(ready=False)
    world.wait(world.limits.start_timeout)
    assert list(world.spawners) == [2]
    assert sorted(world.buried) == [1]


# ---- time limits and revokes ----


def test_a_child_is_killed_at_the_hard_limit_of_what_it_still_runs() -> None:
    world = World().start()
    world.processes[1].running = {7: 3}
    world.say(1, BodyStarted(7, 3, world.boot, SECOND))
    world.wait(SECOND - 1)
    assert world.processes[1].signals == []
    world.wait(1)
    assert world.processes[1].signals == [signal.SIGKILL]
    end = world.ends(1, by=signal.SIGKILL, ran=True)
    assert (end.timed_out, end.orderly) == ([7], False)
    assert world.counting() == [2, 3]


def test_a_child_that_runs_others_leaves_and_is_killed_when_only_what_is_over_its_limit_is_left() -> None:
    world = World(PoolLimits(concurrency=3), "threads").start()
    process = world.processes[1]
    process.running = {7: 1, 8: 1, 9: 1}
    world.say(1, BodyStarted(7, 1, world.boot, SECOND))
    world.say(1, BodyStarted(8, 1, world.boot, 3 * SECOND))
    world.wait(SECOND)
    assert (process.told, process.signals) == (StopChild(), [])
    assert world.counting() == [2], "another child takes the new work"
    world.wait(10 * SECOND)
    assert process.signals == []
    del process.running[9]
    world.wait(world.limits.look_again)
    assert process.signals == [signal.SIGKILL]
    assert sorted(world.ends(1, by=signal.SIGKILL, ran=True).timed_out) == [7, 8]


@pytest.mark.parametrize("running", [{}, {7: 4}, {8: 3}])
def test_a_child_is_spared_when_its_page_shows_another_delivery(running: dict[int, int]) -> None:
    world = World().start()
    world.processes[1].running = running
    world.say(1, BodyStarted(7, 3, world.boot, SECOND))
    world.wait(10 * SECOND)
    assert world.processes[1].signals == []


def test_a_body_that_ended_in_time_has_no_limit_any_more() -> None:
    world = World().start()
    world.processes[1].running = {7: 3}
    world.say(1, BodyStarted(7, 3, world.boot, SECOND))
    world.say(1, BodyEnded(7))
    world.wait(10 * SECOND)
    assert world.processes[1].signals == []


def test_s16_a_revoke_signals_the_child_that_runs_the_message_and_kills_it_if_that_is_ignored() -> None:
    world = World().start()
    world.processes[1].running = {7: 3}
    world.tell(TerminateAsked(1, 7, signal.SIGTERM))
    assert world.processes[1].signals == [signal.SIGTERM]
    world.tell(TerminateAsked(1, 7, signal.SIGTERM))
    world.wait(world.limits.terminate_grace)
    assert world.processes[1].signals == [signal.SIGTERM, signal.SIGKILL]
    end = world.ends(1, by=signal.SIGKILL, ran=True)
    assert (end.terminated, end.orderly) == ([7], False)


def test_a_revoke_with_a_signal_that_is_survived_kills_nobody() -> None:
    world = World().start()
    world.processes[1].running = {7: 3}
    world.tell(TerminateAsked(1, 7, signal.SIGUSR1))
    world.wait(100 * SECOND)
    assert world.processes[1].signals == [signal.SIGUSR1]


def test_a_revoke_of_what_does_not_run_signals_nobody() -> None:
    world = World().start()
    world.tell(TerminateAsked(1, 7, signal.SIGTERM))
    assert world.processes[1].signals == []


def test_a_child_that_runs_others_too_is_not_terminated() -> None:
    world = World(PoolLimits(concurrency=2), "threads").start()
    world.processes[1].running = {7: 3, 8: 3}
    world.tell(TerminateAsked(1, 7, signal.SIGTERM))
    assert world.processes[1].signals == []
    assert world.said("terminate_refused")


# ---- stops ----


def test_a_warm_stop_waits_for_what_runs() -> None:
    world = World().start()
    world.stopping = True
    world.tell(StopAsked(Stop.WARM))
    assert [process.told for process in world.processes.values()] == [StopChild(), StopChild()]
    world.wait(10_000 * SECOND)
    assert world.exit is None
    assert world.ends(1, 0).orderly
    assert world.ends(2, 0).orderly
    assert world.exit == Exit(0, "")


def test_a_crash_during_a_warm_stop_is_not_let_off() -> None:
    world = World().start()
    world.tell(StopAsked(Stop.WARM))
    assert not world.ends(1, by=signal.SIGSEGV).orderly
    assert world.ends(2, by=signal.SIGTERM).orderly


def test_a_cold_stop_says_so_then_terminates_then_kills() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    world.tell(StopAsked(Stop.COLD))
    assert world.processes[1].told == StopChild(cold=True)
    world.wait(world.limits.cold_grace)
    assert world.processes[1].signals == [signal.SIGTERM]
    world.wait(world.limits.kill_grace)
    assert world.processes[1].signals == [signal.SIGTERM, signal.SIGKILL]
    assert world.ends(1, by=signal.SIGKILL, ran=True).orderly
    assert world.exit == Exit(0, "")


def test_a_soft_stop_is_warm_first() -> None:
    world = World(PoolLimits(concurrency=1, soft_stop=10 * SECOND)).start()
    world.tell(StopAsked(Stop.COLD))
    assert world.processes[1].told == StopChild()
    world.wait(10 * SECOND)
    assert world.processes[1].told == StopChild(cold=True)


def test_a_hard_stop_kills_at_once_and_tells_it_by_the_exit_code() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    world.tell(StopAsked(Stop.WARM))
    world.tell(StopAsked(Stop.HARD))
    assert world.processes[1].signals == [signal.SIGKILL]
    assert world.ends(1, by=signal.SIGKILL, ran=True).orderly
    assert world.exit == Exit(EXIT_KILLED, "")


def test_a_lower_stop_takes_nothing_back() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    world.tell(StopAsked(Stop.COLD))
    assert world.tell(StopAsked(Stop.WARM)) == []


def test_a_stop_before_the_spawner_is_up_does_not_wait_for_the_import() -> None:
    world = World().start(ready=False)
    world.tell(StopAsked(Stop.WARM))
    assert world.exit == Exit(0, "")


def test_a_spawner_that_does_not_kill_is_killed_at_a_stop() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    world.tell(StopAsked(Stop.HARD))
    world.wait(world.limits.idle_grace)
    assert world.exit == Exit(EXIT_KILLED, "")


# ---- reloads ----


def test_a_reload_replaces_one_child_after_the_other_without_a_gap() -> None:
    world = World(PoolLimits(concurrency=2)).start()
    world.tell(ReloadAsked())
    assert list(world.spawners) == [1, 2]
    assert world.counting() == [1, 2, 3]
    world.comes_up(3)
    assert world.counting() == [1, 3, 4]
    world.comes_up(4)
    assert world.counting() == [3, 4]
    world.ends(2, 0)
    assert list(world.spawners) == [1, 2]
    world.ends(1, 0)
    assert list(world.spawners) == [2]


def test_a_reload_of_a_broken_application_leaves_the_old_children_at_work() -> None:
    world = World(PoolLimits(concurrency=2, start_failures_max=0)).start()
    world.tell(ReloadAsked())
    world.forked(3)
    world.say(3, Unusable("SyntaxError: invalid syntax", "..."))
    world.ends(3, 1)
    assert world.exit is None
    assert world.said("reload_failed")
    assert world.counting() == [1, 2]
    assert list(world.spawners) == [1]
    world.ends(1, by=signal.SIGKILL, ran=True)
    assert world.forks[-1].generation == 1


def test_reloads_that_wait_for_long_tasks_are_bounded() -> None:
    world = World(PoolLimits(concurrency=1)).start()
    for _ in range(SPAWNERS_MAX - 1):
        world.tell(ReloadAsked())
        world.everybody_comes_up()
        assert not world.said("reload_refused")
    world.tell(ReloadAsked())
    assert world.said("reload_refused")
    assert len(world.spawners) == SPAWNERS_MAX


# ---- anything, in any order ----

POSITIONS = st.integers(1, 3)


class PoolPlay(RuleBasedStateMachine):
    """The world does whatever processes and people may do, in any order."""

    @initialize(
        concurrency=st.integers(1, 3),
        kind=st.sampled_from(["prefork", "prefork", "threads", "solo"]),
        failures=st.integers(0, 4),
        soft=st.sampled_from([0, 3 * SECOND]),
        deaths=st.integers(0, 3),
    )
    def begin(self, concurrency: int, kind: str, failures: int, soft: int, deaths: int) -> None:
        limits = PoolLimits(
            concurrency=concurrency,
            start_failures_max=failures,
            soft_stop=soft,
            start_timeout=20 * SECOND,
            crashes_max=deaths,
            kills_max=deaths,
        )
        self.world = World(limits, kind)
        self.kind = kind
        self.wanted = {ChildKind.POOL: concurrency if kind == "prefork" else 1}
        self.world.tell(StartPool())

    def running(self) -> bool:
        return self.world.machine.running

    def pick(self, data: st.DataObject, numbers: list[int]) -> int | None:
        return data.draw(st.sampled_from(numbers)) if numbers else None

    @rule(data=st.data())
    def a_spawner_comes_up(self, data: st.DataObject) -> None:
        generation = self.pick(data, [g for g, up in self.world.spawners.items() if not up])
        if generation is not None:
            self.world.spawner_up(generation)

    @rule(data=st.data())
    def a_spawner_dies(self, data: st.DataObject) -> None:
        generation = self.pick(data, list(self.world.spawners))
        if generation is not None:
            self.world.spawner_dies(generation)

    @rule(data=st.data())
    def a_child_is_forked(self, data: st.DataObject) -> None:
        number = self.pick(data, [n for n, process in self.world.processes.items() if not process.pid])
        if number is not None:
            self.world.forked(number)

    @rule(data=st.data())
    def a_fork_is_refused(self, data: st.DataObject) -> None:
        number = self.pick(data, [n for n, process in self.world.processes.items() if not process.pid])
        if number is not None:
            del self.world.processes[number]
            self.world.tell(ForkFailed(number, "no memory"))

    @rule(data=st.data())
    def a_child_gets_ready(self, data: st.DataObject) -> None:
        number = self.pick(data, [n for n, process in self.world.processes.items() if not process.ready])
        if number is not None:
            self.world.comes_up(number)

    @rule(
        data=st.data(),
        how=st.sampled_from([(0, 0), (1, 0), (None, 9), (None, 11), (None, 15)]),
        ran=st.booleans(),
        oom=st.booleans(),
    )
    def a_child_ends(self, data: st.DataObject, how: tuple[int | None, int], ran: bool, oom: bool) -> None:
        number = self.pick(data, [n for n, process in self.world.processes.items() if process.pid])
        if number is not None:
            self.world.ends(number, *how, ran=ran, oom=oom and how[1] == signal.SIGKILL)

    @rule(data=st.data(), message=st.sampled_from([Leaving("told to"), Unusable("no module", "")]))
    def a_child_says_that_it_goes(self, data: st.DataObject, message: FromChild) -> None:
        number = self.pick(data, [n for n, process in self.world.processes.items() if process.pid])
        if number is not None:
            self.world.say(number, message)

    @rule(data=st.data(), position=POSITIONS, lease=st.integers(1, 2), limit=st.sampled_from([0, 1, SECOND]))
    def a_body_starts(self, data: st.DataObject, position: int, lease: int, limit: int) -> None:
        number = self.pick(data, [n for n, process in self.world.processes.items() if process.ready])
        if number is not None:
            self.world.processes[number].running[position] = lease
            self.world.say(number, BodyStarted(position, lease, self.world.boot, limit))

    @rule(data=st.data(), position=POSITIONS, says=st.booleans())
    def a_body_ends(self, data: st.DataObject, position: int, says: bool) -> None:
        number = self.pick(data, [n for n, process in self.world.processes.items() if process.ready])
        if number is not None:
            self.world.processes[number].running.pop(position, None)
            if says:
                self.world.say(number, BodyEnded(position))

    @rule(number=st.integers(1, 6), position=POSITIONS, which=st.sampled_from([signal.SIGTERM, signal.SIGUSR1]))
    def a_revoke_comes(self, number: int, position: int, which: int) -> None:
        self.world.tell(TerminateAsked(number, position, which))

    @rule(kind=st.sampled_from([ChildKind.QUARANTINE, ChildKind.ACTORS]), count=st.integers(0, 5))
    def the_broker_asks_for_children(self, kind: ChildKind, count: int) -> None:
        self.wanted[kind] = max(self.wanted.get(kind, 0), min(count, self.world.limits.most(kind)))
        self.world.tell(SpawnAsked(kind, count))

    @rule(reachable=st.booleans())
    def the_broker_comes_or_goes(self, reachable: bool) -> None:
        self.world.tell(BrokerReachable(reachable))

    @rule(by=st.integers(-2, 2))
    def somebody_resizes(self, by: int) -> None:
        if self.kind == "prefork":
            self.wanted[ChildKind.POOL] = max(1, self.wanted[ChildKind.POOL] + by)
        self.world.tell(ResizeAsked(by))

    @rule()
    def somebody_reloads(self) -> None:
        self.world.tell(ReloadAsked())

    @rule(how=st.sampled_from(Stop), really=st.integers(0, 3))
    def somebody_stops_it(self, how: Stop, really: int) -> None:
        if really == 0:
            self.world.stopping = True
            self.world.tell(StopAsked(how))

    @rule(microseconds=st.sampled_from([1, SECOND // 10, SECOND, 10 * SECOND]))
    def time_passes(self, microseconds: int) -> None:
        self.world.wait(microseconds)

    @rule(number=st.integers(1, 6))
    def a_late_word_comes(self, number: int) -> None:
        if number in self.world.buried:
            self.world.tell(Said(number, Ready()))
            self.world.tell(ChildEnded(number, 1))
            self.world.tell(Looked(number, 1, True))

    @invariant()
    def there_are_never_too_many(self) -> None:
        if not hasattr(self, "world"):
            return
        for kind in ChildKind:
            spare = 1 if len(self.world.spawners) > 1 else 0
            of_dead_spawners = [
                n
                for n in self.world.counting(kind)
                if self.world.processes[n].fork.generation not in self.world.spawners
            ]
            assert len(self.world.counting(kind)) <= self.wanted.get(kind, 0) + spare + len(of_dead_spawners)

    @invariant()
    def whoever_is_missing_comes_within_the_longest_wait(self) -> None:
        if not hasattr(self, "world") or not self.running():
            return
        world = self.world
        missing = [kind for kind in ChildKind if len(world.counting(kind)) < self.wanted.get(kind, 0)]
        if missing:
            wake = world.machine.wake_at()
            assert wake is not None
            assert wake - world.boot <= world.limits.crash_backoff.max_microseconds
            assert world.trouble or world.said("start_failed") or world.said("died")

    @invariant()
    def whoever_gives_up_says_so(self) -> None:
        if hasattr(self, "world") and self.world.exit is not None and not self.world.stopping:
            assert self.world.exit.code in (EXIT_GAVE_UP, EXIT_UNUSABLE)
            assert self.world.exit.reason

    def teardown(self) -> None:
        """From any state: running, the pool comes to its right number; stopping, to its end."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.tell(BrokerReachable(True))
        for _ in range(20):
            if world.exit is not None:
                return
            for number, process in list(world.processes.items()):
                if number in world.processes and process.pid and not process.counts:
                    world.ends(number, 0)
            if world.exit is None:
                world.everybody_comes_up()
                world.wait(10 * SECOND)
        assert self.running(), "it was stopped, and its children have ended, and it goes on"
        for kind in ChildKind:
            assert len(world.counting(kind)) == self.wanted.get(kind, 0)
        assert len(world.spawners) == 1
        assert world.trouble == ""


PoolPlay.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestPoolPlay = PoolPlay.TestCase
