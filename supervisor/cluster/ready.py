"""What a started process and its starter tell each other: the configuration, and one word back.

The configuration is MessagePack and ends with its pipe. The word, that it is ready or why it never will be, is a line
of JSON through another pipe, whose end without a word means that the process ended before it could say any.
"""

from __future__ import annotations

import contextlib
import os
from typing import TypeVar

import msgspec

C = TypeVar("C", bound=msgspec.Struct)


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker (`address`) or a node (the rest) says once. `failed`: why it ends, in words; empty: it is ready."""

    failed: str = ""
    address: str = ""
    name: str = ""
    mailboxes: list[str] = []
    tasks: list[str] = []


_decoder = msgspec.json.Decoder(Word)


def read_config(descriptor: int, kind: type[C]) -> C | None:
    """Return the configuration, once it is there; None if the starter ended before it gave one."""
    with os.fdopen(descriptor, "rb") as file:
        data = file.read()
    return msgspec.msgpack.decode(data, type=kind) if data else None


def say(descriptor: int, word: Word) -> None:
    """Say it and close the descriptor; -1: nobody asked. A starter that is gone is no error."""
    if descriptor < 0:
        return
    os.set_blocking(descriptor, True)
    data = msgspec.json.encode(word) + b"\n"
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(descriptor, data) :]
    with contextlib.suppress(OSError):
        os.close(descriptor)


def understand(line: bytes) -> Word:
    """Return what a line says. Raises ValueError for one that `say` did not write."""
    return _decoder.decode(line)
