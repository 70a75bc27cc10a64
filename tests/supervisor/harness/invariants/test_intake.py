"""WIRE, D29 and DLQ: each has had occasion to speak, is silent where all is as it should be, and speaks when not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from greenroom.actors.app import App
from greenroom.supervisor.harness.drawing import Plan
from greenroom.supervisor.harness.faults import Anchor, Fault, What
from greenroom.supervisor.harness.invariants import Violated
from greenroom.supervisor.harness.operator import Operator
from greenroom.supervisor.harness.sim import Sim, simulated
from greenroom.supervisor.harness.trace import Kind
from greenroom.transport.broker.admin import Admin
from greenroom.transport.broker.commits import Commits
from greenroom.transport.broker.links import Links
from greenroom.transport.codec import BadFrame
from greenroom.transport.store.records import Dead
from greenroom.transport.verbs import Confirm, Op

app = App("intake", set_as_current=False)
bodies: list[int] = []


@app.task(name="poison", acks_late=True, reject_on_worker_lost=True, max_deliveries=1)
def poison(number: int) -> None:
    bodies.append(number)
    raise SystemExit(3)


@app.task(name="wait", acks_late=True)
def wait() -> None:
    time.sleep(2)


def with_a_dead_letter(sim: Sim) -> None:
    bodies.clear()
    sent = sim.send(poison, 1)
    sim.settle()
    assert sent.is_dead


def ask(what: Callable[[Operator], object]) -> None:
    with simulated(app) as sim:
        with_a_dead_letter(sim)
        what(sim.world.operator)
        sim.world.settle()


def test_wire_is_silent_about_a_stranger_and_catches_a_broker_that_counts_his_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def settle() -> int:
        with simulated(app, Plan(faults=(Fault(What.STRANGER, Anchor(Kind.PUBLISH)),))) as sim:
            sim.send(poison, 1)
            sim.settle()
            sim.run_for(1)
            return sim.watch.premises()["WIRE"]

    assert settle() > 10
    before = Links.bad_frame

    def bad_frame(self: Links, link: int, bad: BadFrame) -> None:
        self._desk.counts.accepted += 1  # pyright: ignore[reportPrivateUsage]
        before(self, link, bad)

    monkeypatch.setattr(Links, "bad_frame", bad_frame)
    with pytest.raises(Violated, match="WIRE violated"):
        settle()


def test_d29_is_silent_about_a_broker_that_stops_and_catches_one_that_goes_on() -> None:
    def go_on() -> None:
        with simulated(app, Plan(faults=(Fault(What.SYNC_FAILS, Anchor(Kind.DELIVER)),))) as sim:
            sim.send(poison, 1)
            sim.settle()
            assert sim.watch.premises()["D29"] == 1
            sim.world.observed.failed()
            sim.world.observed.said("somebody", Confirm(0, 1, 0))

    with pytest.raises(Violated, match=r"D29 violated: .* says Confirm"):
        go_on()


def says_nothing(*_: object) -> None:
    """What a broker does that takes no notice."""


def test_d29_catches_a_broker_that_confirms_again_what_it_had_committed_before_a_read_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def confirm_again() -> float:
        with simulated(app) as sim:
            # The confirm is lost; soon after, with nothing to commit, the sweep of each second cannot read.
            sim.run_for(0.95)

            def cut() -> None:
                link = sim.world.clients[0].link
                assert link is not None
                sim.world.clockwork.network.cut(link)

            sim.at("COMMIT").do(cut)
            sent = sim.send(wait)
            sim.run_for(0.03)
            sim.world.disk.fail_read()
            sim.settle()
            assert sent.accepted
            assert sent.state == "SUCCESS"
            assert sim.watch.premises()["D29"] == 1
            return next(event.at for event in sim.trace.events if event.kind is Kind.DEATH) / 1e6

    assert confirm_again() == 1.0
    monkeypatch.setattr(Commits, "failed", says_nothing)
    with pytest.raises(Violated, match="D29 violated: the store has failed, and the broker says Confirm"):
        confirm_again()


def test_dlq_is_silent_about_a_redrive_and_about_a_purge() -> None:
    with simulated(app) as sim:
        with_a_dead_letter(sim)
        sim.world.operator.redrive()
        sim.world.settle()
        assert bodies == [1, 1]
        sim.world.operator.purge_dead()
        sim.world.settle()
        assert bodies == [1, 1]
        assert sim.world.operator.answers == [(Op.DEAD_REDRIVE, 1), (Op.DEAD_PURGE, 1)]
        assert sim.watch.premises()["DLQ"] == 2


def test_dlq_catches_a_purge_that_redrives(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Admin._act_on_dead  # pyright: ignore[reportPrivateUsage]

    def act(self: Admin, waiting: object, letters: list[Dead]) -> None:
        waiting.op = Op.DEAD_REDRIVE  # type: ignore[attr-defined]
        before(self, waiting, letters)  # type: ignore[arg-type]

    monkeypatch.setattr(Admin, "_act_on_dead", act)
    with pytest.raises(Violated, match=r"DLQ violated: .* is redriven, and nobody asked for it"):
        ask(Operator.purge_dead)


def test_dlq_catches_a_redrive_that_changes_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Admin._redrive  # pyright: ignore[reportPrivateUsage]

    def redrive(self: Admin, letter: Dead, mailbox: Any) -> None:
        before(self, msgspec.structs.replace(letter, blob=letter.blob.replace(b"poison", b"potion")), mailbox)

    monkeypatch.setattr(Admin, "_redrive", redrive)
    with pytest.raises(Violated, match=r"DLQ violated: .* redriven .'potion'"):
        ask(Operator.redrive)
