"""The token that keeps other users of this machine out of a broker on loopback.

Owns where tokens lie and how they are made, found and compared. A TCP port on loopback is open to every
local user, so the broker asks each peer for a random token in its Hello, and writes it where only its own
user can read it: into its data folder (`token`, kept from run to run, so that peers survive a restart), and
under the port's number where clients look: `$XDG_RUNTIME_DIR/greenroom/PORT`, else `~/.greenroom/PORT`.
Files are 0600, folders that are made 0700. A Unix socket needs no token: it lies in a folder that only its
user can enter.

This is authentication of a link, at the wire: the broker's core never sees a frame of a peer that lacks it.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from ..errors import SecurityError
from .address import Address

TOKEN_BYTES: Final = 32
_FILE_BYTES_MAX: Final = 4096


def runtime_folder() -> Path:
    """Return where clients of this user look for tokens."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "greenroom" if runtime else Path.home() / ".greenroom"


def keep_token(data_folder: Path | None) -> bytes:
    """Return the token of this data folder, made now if there is none; without a folder, a new one.

    Raises SecurityError if the file may be read by other users.
    """
    if data_folder is None:
        return secrets.token_bytes(TOKEN_BYTES)
    path = data_folder / "token"
    held = _read_private(path)
    if held:
        return held
    token = secrets.token_bytes(TOKEN_BYTES)
    # The store may be elsewhere, so that nobody has made the folder.
    data_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_private(path, token)
    return token


def publish_token(port: int, token: bytes) -> Path:
    """Write the token where clients of the same user look for it; return the file."""
    folder = runtime_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / str(port)
    _write_private(path, token)
    return path


def withdraw_token(path: Path, token: bytes) -> None:
    """Remove a published token, unless another broker has put its own there since."""
    try:
        if path.read_bytes() == token:
            path.unlink()
    except FileNotFoundError:
        pass


def find_token(address: Address) -> bytes:
    """Return the token that this user's broker at `address` wrote, or nothing if there is none to be read."""
    if address.kind != "tcp":
        return b""
    try:
        return _read_private(runtime_folder() / str(address.port))
    except OSError:
        return b""


def tokens_match(ours: bytes, theirs: bytes) -> bool:
    """Compare in a time that tells nothing about where they differ."""
    return hmac.compare_digest(ours, theirs)


def check_ipc_folder(path: str) -> None:
    """Refuse a Unix socket in a folder that others may enter. Raises SecurityError in words."""
    folder = Path(path).parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise SecurityError(
            f"the folder {str(folder)!r} of ipc://{path} has mode {stat.S_IMODE(found.st_mode):04o} and "
            f"owner {found.st_uid}; it must be yours with mode 0700, since whoever can enter it can use "
            f"the broker: chmod 700 {folder}"
        )


def _read_private(path: Path) -> bytes:
    """Return the file's bytes; nothing if there is none. Raises SecurityError if others may use it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise SecurityError(
                f"the token file {str(path)!r} has mode {stat.S_IMODE(found.st_mode):04o} and owner "
                f"{found.st_uid}; it must be yours with mode 0600: chmod 600 {path}, or delete it and "
                f"restart the broker"
            )
        return file.read(_FILE_BYTES_MAX)


def _write_private(path: Path, token: bytes) -> None:
    """Write whole or not at all, never readable by others in between."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(token)
    draft.replace(path)
