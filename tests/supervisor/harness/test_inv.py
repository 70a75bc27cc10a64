"""The names of invariants, as tests say them."""

from __future__ import annotations

import pytest

from greenroom.supervisor.harness.invariants.table import ALL
from greenroom.testing import inv


def test_each_invariant_that_is_judged_can_be_named() -> None:
    assert inv.all() == tuple(invariant.name for invariant in ALL)
    assert all(getattr(inv, name) == name for name in inv.all())
    assert inv.but(inv.LOSS, inv.PLACE) == tuple(name for name in inv.all() if name not in ("LOSS", "PLACE"))
    assert inv.sentence(inv.AMO).startswith("The body of a task that is acked early starts at most once")


def test_a_name_that_no_invariant_has_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="there is no invariant 'LOST'; there are LOSS, AMO"):
        inv.sentence("LOST")
    with pytest.raises(ValueError, match=r"CANVAS is not there yet: \w+"):
        inv.checked(["CANVAS"])
    assert "CANVAS" in inv.not_yet()


def test_what_is_not_judged_cannot_be_covered() -> None:
    assert inv.covered(["LOSS"], None) == ("LOSS",)
    with pytest.raises(ValueError, match="covers AMO, which are not among the invariants LOSS, ALO"):
        inv.covered(["LOSS", "AMO"], ["LOSS", "ALO"])
