"""Who comes back, who is restarted with whom, and who ends the supervisor: three tables.

Owns the rules that depend on nothing but the spec and the way in which a child ended. What is done about
it, and in which order over time, is `tree`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

from .reasons import ExitReason
from .spec import AutoShutdown, RestartType, Strategy

#: (restart type, ended abnormally) -> it is started again.
COMES_BACK: dict[tuple[RestartType, bool], bool] = {
    ("permanent", False): True,
    ("permanent", True): True,
    ("transient", False): False,
    ("transient", True): True,
    ("temporary", False): False,
    ("temporary", True): False,
}

#: strategy -> (those started before it are restarted too, those started after it are restarted too).
RESTARTED_WITH: dict[Strategy, tuple[bool, bool]] = {
    "one_for_one": (False, False),
    "one_for_all": (True, True),
    "rest_for_one": (False, True),
}

#: (auto shutdown, another significant child is left) -> the supervisor stops.
STOPS: dict[tuple[AutoShutdown, bool], bool] = {
    ("never", False): False,
    ("never", True): False,
    ("any_significant", False): True,
    ("any_significant", True): True,
    ("all_significant", False): True,
    ("all_significant", True): False,
}


def comes_back(restart: RestartType, reason: ExitReason) -> bool:
    """Return whether a child of this restart type is started again after it ended so."""
    return COMES_BACK[restart, reason.abnormal]


def group(strategy: Strategy, names: Sequence[str], ended: str) -> list[str]:
    """Return who is restarted when `ended` is, itself included, in the start order of `names`.

    They are started in this order and stopped in its reverse.
    """
    before, after = RESTARTED_WITH[strategy]
    place = names.index(ended)
    return [*(names[:place] if before else ()), ended, *(names[place + 1 :] if after else ())]


def stops_the_supervisor(auto_shutdown: AutoShutdown, others_left: bool) -> bool:
    """Return whether the end of a significant child ends its supervisor; `others_left` are significant."""
    return STOPS[auto_shutdown, others_left]
