"""What a store promises of the states of durable actors, over every engine."""

from __future__ import annotations

from typing import Any

import pytest

from greenroom.transport.errors import StoreFull
from greenroom.transport.store.base import Store
from greenroom.transport.store.records import (
    ActorState,
    ActorStatesGone,
    Append,
    Drop,
    Lease,
    Purge,
    Recovered,
    Synchronous,
    Unlease,
)

FULL = Synchronous.FULL


def append(base: int, mailbox: str) -> Append:
    return Append(base, 1, mailbox, 0, 0, "client", b"body")


def opened(engine: Any) -> tuple[Store, Recovered]:
    store = engine.store()
    return store, store.open()


def test_an_actors_state_is_there_after_a_crash_and_of_two_the_newer_one_whatever_their_order(engine: Any) -> None:
    store, _ = opened(engine)
    mia, tom = "actor:bank.Account:mia", "actor:bank.Account:tom"
    store.commit([ActorState(mia, 7, b"balance 100"), ActorState(tom, 9, b"")], FULL)
    store.commit([ActorState(mia, 7, b"balance 150"), ActorState(mia, 6, b"balance 50")], FULL)
    store.commit([ActorState(mia, 5, b"balance 20")], FULL)
    engine.crash(store)
    store, _ = opened(engine)
    found = [ActorState(mia, 7, b"balance 150"), ActorState(tom, 9, b"")]
    assert store.read_states([mia, "actor:bank.Account:eve", tom, mia]) == found
    store.close()


def test_an_actor_whose_state_was_taken_away_has_none_until_it_has_a_new_one(engine: Any) -> None:
    store, recovered = opened(engine)
    mia = "actor:bank.Account:mia"
    store.commit([ActorState(mia, 7, b"balance 100"), append(recovered.next_position, mia)], FULL)
    store.commit([Purge(mia, [])], FULL)
    assert [state.blob for state in store.read_states([mia])] == [b"balance 100"]
    store.commit([ActorStatesGone([mia, "actor:bank.Account:eve"])], FULL)
    assert store.read_states([mia]) == []
    store.commit([ActorState(mia, 7, b"balance 5")], FULL)
    store.commit([ActorStatesGone([mia]), ActorState(mia, 3, b"balance 1")], FULL)
    assert store.read_states([mia]) == [ActorState(mia, 3, b"balance 1")]
    store.close()


def test_a_state_and_the_end_of_its_message_are_one_commit(engine: Any) -> None:
    store, recovered = opened(engine)
    base, mia = recovered.next_position, "actor:bank.Account:mia"
    store.commit([append(base, mia), Lease(recovered.next_lease, "child", [base])], FULL)
    engine.fill(True)
    ends: list[Any] = [ActorState(mia, 1, b"balance 100" * 1_000), Drop([base]), Unlease([recovered.next_lease])]
    with pytest.raises(StoreFull):
        store.commit(ends, FULL)
    assert (store.read_states([mia]), [row.base for row in store.read_ready(mia, 0, 0, 9)]) == ([], [base])
    # The room that the ballast gives is for settles.
    store.commit(ends, FULL)
    assert (len(store.read_states([mia])), [row.base for row in store.read_ready(mia, 0, 0, 9)]) == (1, [])
    store.close()
