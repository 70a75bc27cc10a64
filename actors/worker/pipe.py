"""The child's end of the pipe to its parent: `control`'s structs, framed; it never waits for the parent to read.

The end of the stream is the end of the parent. What finds no room is kept and sent later; a parent that does not
read for so long that UNSENT_BYTES_MAX wait is as good as gone.
"""

from __future__ import annotations

import os
import struct
from typing import Final

import msgspec

from .control import FromChild, ToChild

FRAME_BYTES_MAX: Final = 1 << 20
UNSENT_BYTES_MAX: Final = 4 << 20

_LENGTH = struct.Struct(">I")
_decoder: Final = msgspec.msgpack.Decoder(ToChild)
_encoder: Final = msgspec.msgpack.Encoder()


class Pipe:
    """A stream with a parent at its other end. Any thread may send, under its owner's lock."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        #: True once the parent is gone, or has said what is no word of its.
        self.closed = False
        self._received = bytearray()
        self._unsent = bytearray()

    def fileno(self) -> int:
        """Return the descriptor, to wait for it."""
        return self._descriptor

    def send(self, word: FromChild) -> None:
        """Tell the parent, now or as soon as there is room."""
        encoded = _encoder.encode(word)
        self._unsent += _LENGTH.pack(len(encoded)) + encoded
        self.flush()

    def flush(self) -> None:
        """Send what there is room for."""
        while self._unsent and not self.closed:
            try:
                sent = os.write(self._descriptor, self._unsent)
            except BlockingIOError:
                self.closed = len(self._unsent) > UNSENT_BYTES_MAX
                return
            except OSError:
                self.closed = True
                return
            del self._unsent[:sent]

    def receive(self) -> list[ToChild]:
        """Return what the parent has said."""
        while not self.closed:
            try:
                data = os.read(self._descriptor, 65536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.closed = True
            self._received += data
        return self._cut()

    def _cut(self) -> list[ToChild]:
        words: list[ToChild] = []
        received = self._received
        while len(received) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(received)
            if length > FRAME_BYTES_MAX:
                self.closed = True
                break
            if len(received) < _LENGTH.size + length:
                break
            try:
                words.append(_decoder.decode(bytes(received[_LENGTH.size : _LENGTH.size + length])))
            except msgspec.MsgspecError:
                # A parent of another release: it is not to be trusted with what runs here.
                self.closed = True
                break
            del received[: _LENGTH.size + length]
        return words
