"""A broker's verbs into frames: as few as the limits of a frame allow, a long list cut where it must be.

Owns the way from what a core wants said to messages of a link, for every driver. Order is kept. A
Deliver or a Results that is too big for one frame becomes several of the same lease; an answer that fits no
frame becomes an error in words, since nobody can receive it.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ..codec import FRAME_BYTES_MAX, Parts, encode
from ..errors import FrameTooLarge
from ..verbs import ITEMS_MAX, Deliver, FromBroker, Reply, Results


def frames_of(verbs: Sequence[FromBroker]) -> list[tuple[Sequence[FromBroker], Parts]]:
    """Return the messages that say `verbs`, in order, each with the verbs that it says.

    Raises FrameTooLarge for a verb that fits no frame and cannot be cut.
    """
    if len(verbs) <= ITEMS_MAX:
        try:
            return [(verbs, encode(verbs))]
        except FrameTooLarge:
            if len(verbs) == 1:
                return frames_of(_cut(verbs[0]))
    middle = len(verbs) // 2
    return [*frames_of(verbs[:middle]), *frames_of(verbs[middle:])]


def _cut(verb: FromBroker) -> list[FromBroker]:
    """Return smaller verbs that say the same."""
    if isinstance(verb, Deliver) and len(verb.deliveries) > 1:
        middle = len(verb.deliveries) // 2
        return [
            replace(verb, deliveries=verb.deliveries[:middle]),
            replace(verb, deliveries=verb.deliveries[middle:]),
        ]
    if isinstance(verb, Results) and len(verb.results) > 1:
        middle = len(verb.results) // 2
        return [Results(verb.results[:middle]), Results(verb.results[middle:])]
    if isinstance(verb, Reply):
        reason = f"the answer has over {FRAME_BYTES_MAX} bytes, more than a frame holds; ask for less at a time"
        return [Reply(verb.number, error=reason)]
    raise FrameTooLarge(f"a {type(verb).__name__} fits no frame of {FRAME_BYTES_MAX} bytes")
