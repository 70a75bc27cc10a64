"""Signatures on bodies whose decoding runs code.

Owns the form of a signed body and the only two functions that make and check one. A signed body is

    "GRS" | format version (1 byte) | HMAC-SHA256 (32 bytes) | payload

and the signature covers the version, the caller's context, the content type, the content encoding and
the payload, each preceded by its length so that no byte can move from one to the next. The context binds
a body to its place: the caller puts there what must not be exchanged, such as the cluster, the mailbox
and the task's id. What a body means, and when it must be signed, is decided in `payload.py`.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

from .errors import SecurityError

#: Shorter keys can be guessed; `secrets.token_bytes(32)` makes a good one.
KEY_BYTES_MIN = 16

_FORMAT = b"GRS\x01"
_SIGNATURE_BYTES = 32
_HEADER_BYTES = len(_FORMAT) + _SIGNATURE_BYTES


def seal(payload: bytes, *, key: bytes, context: bytes, content_type: str, encoding: str) -> bytes:
    """Return `payload` with its signature in front.

    Raises SecurityError when the key is too short to protect anything.
    """
    return _FORMAT + _signature(payload, key, context, content_type, encoding) + payload


def unseal(sealed: bytes, *, key: bytes, context: bytes, content_type: str, encoding: str) -> bytes:
    """Return the payload of a signed body once its signature has been verified.

    Raises SecurityError when there is no signature, or one that was made with another key, for another
    context or over other bytes.
    """
    if not sealed.startswith(_FORMAT) or len(sealed) < _HEADER_BYTES:
        raise SecurityError(
            f"a {content_type} body came unsigned and was not loaded; both ends need the same signing key"
        )
    payload = sealed[_HEADER_BYTES:]
    expected = _signature(payload, key, context, content_type, encoding)
    if not hmac.compare_digest(expected, sealed[len(_FORMAT) : _HEADER_BYTES]):
        raise SecurityError(
            f"the signature of a {content_type} body does not verify and it was not loaded: it was signed "
            "with another key, was meant for another task, or was changed on its way"
        )
    return payload


def _signature(payload: bytes, key: bytes, context: bytes, content_type: str, encoding: str) -> bytes:
    if len(key) < KEY_BYTES_MIN:
        raise SecurityError(
            f"a signing key needs at least {KEY_BYTES_MIN} bytes, this one has {len(key)}; "
            "make one with `python -c 'import secrets; print(secrets.token_hex(32))'`"
        )
    signer = hmac.new(key, _FORMAT, sha256)
    for part in (context, content_type.encode(), encoding.encode(), payload):
        signer.update(len(part).to_bytes(8, "big"))
        signer.update(part)
    return signer.digest()
