"""A broker's verbs into frames, cut where a frame ends."""

from __future__ import annotations

import msgspec
import pytest

from greenroom.transport.codec import FRAME_BYTES_MAX, BadFrame, decode_from_broker
from greenroom.transport.errors import FrameTooLarge
from greenroom.transport.message import Delivery, Envelope
from greenroom.transport.peer.framing import frames_of
from greenroom.transport.verbs import ITEMS_MAX, Confirm, Deliver, FromBroker, Known, Recall, Reply, Results


def said(verbs: list[FromBroker]) -> list[list[FromBroker]]:
    """The verbs of each frame, as a peer reads them."""
    frames: list[list[FromBroker]] = []
    for of, message in frames_of(verbs):
        assert len(message[0]) <= FRAME_BYTES_MAX
        read = decode_from_broker(message)
        assert not isinstance(read, BadFrame)
        assert len(read) == len(of)
        frames.append(read)
    return frames


def delivery(position: int, body: bytes) -> Delivery:
    return Delivery(position, Envelope(str(position), "t", "msgpack", body), "m")


def test_what_fits_one_frame_is_one() -> None:
    verbs: list[FromBroker] = [Confirm(0, 1, number) for number in range(100)]
    assert said(verbs) == [verbs]


def test_too_many_verbs_become_several_frames_in_order() -> None:
    verbs: list[FromBroker] = [Confirm(0, 1, number) for number in range(ITEMS_MAX + 1)]
    frames = said(verbs)
    assert len(frames) == 2
    assert [verb for frame in frames for verb in frame] == verbs


def test_a_deliver_that_is_too_big_becomes_several_under_the_same_lease() -> None:
    deliveries = [delivery(position, bytes(15_000)) for position in range(200)]
    frames = said([Deliver(0, 1, 77, deliveries), Recall([1])])
    delivers = [verb for frame in frames for verb in frame if isinstance(verb, Deliver)]
    assert len(delivers) > 2
    assert {verb.lease for verb in delivers} == {77}
    assert [item for verb in delivers for item in verb.deliveries] == deliveries
    assert frames[-1][-1] == Recall([1])


def test_large_bodies_travel_behind_the_frame() -> None:
    deliveries = [delivery(position, bytes(500_000)) for position in range(5)]
    ((_, message),) = frames_of([Deliver(0, 1, 77, deliveries)])
    assert len(message) == 6
    assert said([Deliver(0, 1, 77, deliveries)]) == [[Deliver(0, 1, 77, deliveries)]]


def test_results_that_are_too_big_become_several() -> None:
    known = [Known(str(number), 3, bytes(10_000)) for number in range(300)]
    frames = said([Results(known)])
    assert [item for frame in frames for verb in frame if isinstance(verb, Results) for item in verb.results] == known


def test_an_answer_that_fits_no_frame_becomes_an_error_in_words() -> None:
    value = msgspec.Raw(msgspec.msgpack.encode(bytes(FRAME_BYTES_MAX)))
    ((reply,),) = said([Reply(5, value=value)])
    assert isinstance(reply, Reply)
    assert reply.number == 5
    assert "ask for less" in reply.error


def test_one_item_that_fits_no_frame_is_refused() -> None:
    with pytest.raises(FrameTooLarge, match="Results"):
        frames_of([Results([Known("1", 3, bytes(FRAME_BYTES_MAX))])])
