"""What every test begins with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from greenroom.actors.current import set_top_frame


@pytest.fixture(autouse=True)
def nobody_is_being_called() -> Iterator[None]:
    """Take away the call that an executor leaves behind for the next one: tests run where bodies have run."""
    yield
    set_top_frame(None)
