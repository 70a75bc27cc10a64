"""The token of a broker: where it is kept, and for whose eyes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from greenroom.transport.errors import SecurityError
from greenroom.transport.wire.token import TOKEN_BYTES, keep_token


def test_a_token_is_made_once_for_a_data_folder_and_kept_for_its_user(tmp_path: Path) -> None:
    token = keep_token(tmp_path)
    assert len(token) == TOKEN_BYTES
    assert keep_token(tmp_path) == token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


def test_a_data_folder_that_is_not_there_is_made_since_the_store_may_be_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    assert keep_token(folder) == keep_token(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_without_a_data_folder_each_broker_has_a_token_of_its_own() -> None:
    assert keep_token(None) != keep_token(None)


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    keep_token(tmp_path)
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(SecurityError, match="chmod 600"):
        keep_token(tmp_path)
