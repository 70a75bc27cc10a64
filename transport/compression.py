"""Compression of bodies, as a content encoding.

Owns the names of the compressors (Celery's names are accepted) and the two directions. Decompression
stops at a limit that the caller gives, so that a small body cannot become a large one in memory, and
refuses what is cut short or followed by more. Zstandard is there where Python has it (3.14), or the package
`backports.zstd`.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from .errors import DecodeError, EncodeError

#: What an lzma stream may demand for its dictionary; the highest preset of `xz` needs 65 MiB.
_LZMA_MEMORY_BYTES_MAX = 128 * 1024 * 1024

_ALIASES = {
    "application/x-bz2": "bz2",
    "application/x-gzip": "gzip",
    "application/zstd": "zstd",
    "bzip2": "bz2",
    "xz": "lzma",
    "zlib": "gzip",
    "zstandard": "zstd",
}


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def canonical_name(name: str) -> str:
    """Return our name for a compression under any of the names that it goes by."""
    return _ALIASES.get(name, name)


def compress(data: bytes, compression: str) -> tuple[str, bytes]:
    """Return the canonical name of the compression, which is the content encoding, and the compressed data.

    Raises EncodeError for a compression that does not exist here.
    """
    name = canonical_name(compression)
    compressor = _COMPRESSORS.get(name)
    if compressor is None:
        raise EncodeError(f"no compression is named {compression!r}; there are {_offered()}")
    return name, compressor(data)


def decompress(data: bytes, encoding: str, *, bytes_max: int) -> bytes:
    """Return the decompressed data, of at most `bytes_max` bytes.

    Raises DecodeError when the encoding is unknown here, the data is damaged or cut short, or there is
    more of it than allowed.
    """
    name = canonical_name(encoding)
    make = _DECOMPRESSORS.get(name)
    if make is None:
        raise DecodeError(f"a body came with content encoding {encoding!r}; this end knows {_offered()}")
    decompressor = make()
    try:
        plain = decompressor.decompress(data, bytes_max + 1)
    except tuple(_DAMAGE) as error:
        raise DecodeError(f"a body is not the {name} that its content encoding says: {error}") from error
    if len(plain) > bytes_max:
        raise DecodeError(f"a {name} body is longer than {bytes_max} bytes when decompressed, its limit")
    if not decompressor.eof:
        raise DecodeError(f"a {name} body ends too early")
    if decompressor.unused_data:
        raise DecodeError(f"a {name} body is followed by {len(decompressor.unused_data)} other bytes")
    return plain


def _gzip_compress(data: bytes) -> bytes:
    # No time stamp, so that equal bodies have equal bytes.
    return gzip.compress(data, compresslevel=6, mtime=0)


def _gzip_decompressor() -> _Decompressor:
    # 32 accepts the headers of both gzip and zlib: Celery writes the second under the name of the first.
    return zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)


def _lzma_decompressor() -> _Decompressor:
    return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY_BYTES_MAX)


def _add_zstd() -> None:
    """Offer Zstandard where the standard library (from 3.14 on) or its backport has it."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            module: Any = importlib.import_module(name)
        except ImportError:
            continue
        _COMPRESSORS["zstd"] = module.compress
        _DECOMPRESSORS["zstd"] = module.ZstdDecompressor
        _DAMAGE.append(module.ZstdError)
        return


def _offered() -> str:
    return ", ".join(sorted(_COMPRESSORS))


#: What the decompressors raise for data that is not theirs.
_DAMAGE: list[type[Exception]] = [zlib.error, lzma.LZMAError, OSError, EOFError, ValueError]

_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": _gzip_compress,
    "bz2": bz2.compress,
    "lzma": lzma.compress,
}
_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    "gzip": _gzip_decompressor,
    "bz2": bz2.BZ2Decompressor,
    "lzma": _lzma_decompressor,
}

_add_zstd()
