"""Bodies whose reading runs code: they are read after their signature was verified, and only then."""

# Values and classes of every kind pass through here untyped, and some privates are looked at.
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations

import gzip
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.transport import pickling, signing
from greenroom.transport.errors import ContentDisallowed, DecodeError, EncodeError, SecurityError
from greenroom.transport.payload import Body, decode, encode

KEY = b"0123456789abcdef"
CONTEXT = b"cluster/mailbox/task"
ACCEPT = ("msgpack", "json", "pickle", "cloudpickle")

sprung: list[str] = []


def spring(trap: str) -> None:
    sprung.append(trap)


class Tripwire:
    """Whoever loads this has lost."""

    def __reduce__(self) -> tuple[Any, ...]:
        return spring, ("loaded",)


listeners: list[list[str]] = []


def listen(event: str, args: tuple[Any, ...]) -> None:
    if event == "pickle.find_class":
        for events in listeners:
            events.append(event)


# Once for the process: an audit hook cannot be taken back.
sys.addaudithook(listen)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the interpreter and the loader were asked to do, by their own account."""
    sprung.clear()
    events: list[str] = []
    load = pickling.loads

    def loads(data: bytes) -> object:
        events.append("loads")
        return load(data)

    monkeypatch.setattr(pickling, "loads", loads)
    listeners.append(events)
    yield events
    listeners.remove(events)


def decode_signed(body: Body, *, key: bytes | None = KEY, context: bytes = CONTEXT) -> object:
    return decode(body, accept=ACCEPT, key=key, context=context)


@pytest.mark.parametrize("serializer", ["pickle", "cloudpickle"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_signed_body_comes_back(serializer: str, compression: str | None, watched: list[str]) -> None:
    body = encode(Tripwire(), serializer, key=KEY, context=CONTEXT, compression=compression)
    decode_signed(body)
    # The wire is live: what the next tests show not to happen does happen here.
    assert sprung == ["loaded"]
    assert watched == ["loads", "pickle.find_class"]


def test_a_function_travels_with_its_code_by_cloudpickle() -> None:
    factor = 2
    body = encode(lambda number: number * factor, "cloudpickle", key=KEY, context=CONTEXT)
    function: Any = decode_signed(body)
    assert function(21) == 42


good = encode(Tripwire(), "pickle", key=KEY, context=CONTEXT)
raw = pickle.dumps(Tripwire())
compressed = encode(Tripwire(), "pickle", key=KEY, context=CONTEXT, compression="gzip")

FORGED: dict[str, tuple[Body, dict[str, Any]]] = {
    "unsigned": (good._replace(data=raw), {}),
    "empty": (good._replace(data=b""), {}),
    "a header alone": (good._replace(data=good.data[:20]), {}),
    "signed with zeros": (good._replace(data=good.data[:4] + bytes(32) + good.data[36:]), {}),
    "another key": (encode(Tripwire(), "pickle", key=KEY[::-1], context=CONTEXT), {}),
    "another task": (good, {"context": CONTEXT + b"2"}),
    "another kind": (good._replace(content_type="cloudpickle"), {}),
    "another payload": (good._replace(data=good.data[:36] + raw + b"."), {}),
    "a later format": (good._replace(data=b"GRS\x02" + good.data[4:]), {}),
    "compressed afterwards": (good._replace(encoding="gzip", data=gzip.compress(good.data)), {}),
    "encoding taken away": (compressed._replace(encoding=""), {}),
    "encoding added": (good._replace(encoding="gzip"), {}),
    "no key here": (good, {"key": None}),
    "an empty key here": (good, {"key": b""}),
    "a short key here": (good, {"key": KEY[:15]}),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
def test_a_body_without_a_good_signature_is_never_loaded(
    forged: tuple[Body, dict[str, Any]], watched: list[str]
) -> None:
    body, options = forged
    with pytest.raises(SecurityError):
        decode_signed(body, **options)
    assert (sprung, watched) == ([], [])


@given(st.integers(0, len(good.data) - 1), st.integers(1, 255))
def test_a_body_with_any_byte_changed_is_never_loaded(place: int, difference: int) -> None:
    sprung.clear()
    changed = bytearray(good.data)
    changed[place] ^= difference
    with pytest.raises(SecurityError):
        decode_signed(good._replace(data=bytes(changed)))
    assert sprung == []


def test_the_signature_is_verified_before_anything_is_decompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: object, **options: object) -> bytes:
        raise AssertionError("decompressed before it was verified")

    monkeypatch.setattr("greenroom.transport.payload.decompress", explode)
    with pytest.raises(SecurityError):
        decode_signed(compressed, context=b"")


def test_parts_of_what_is_signed_cannot_flow_into_one_another() -> None:
    def signed(context: bytes, payload: bytes) -> bytes:
        return signing.seal(payload, key=KEY, context=context, content_type="pickle", encoding="")

    # One after the other, the parts of these two are the same bytes.
    first, second = signed(b"x", b"picklecd"), signed(b"xpickle", b"cd")
    assert first[:36] != second[:36]
    with pytest.raises(SecurityError):
        signing.unseal(first[:36] + b"cd", key=KEY, context=b"xpickle", content_type="pickle", encoding="")


def test_a_pickle_is_not_accepted_unless_this_end_opted_in(watched: list[str]) -> None:
    with pytest.raises(ContentDisallowed):
        decode(good, key=KEY, context=CONTEXT)
    assert (sprung, watched) == ([], [])


@pytest.mark.parametrize("serializer", ["pickle", "cloudpickle", "application/x-python-serialize"])
@pytest.mark.parametrize("key", [None, b"", KEY[:15]])
def test_a_pickle_is_not_made_without_a_good_key(serializer: str, key: bytes | None) -> None:
    with pytest.raises(SecurityError, match="key"):
        encode(1, serializer, key=key)


def test_plain_bodies_need_no_key_and_are_the_same_with_one() -> None:
    assert encode([1], key=KEY, context=CONTEXT) == encode([1])


def test_an_object_that_cannot_be_pickled_is_named_by_its_path() -> None:
    class Holder:
        def __init__(self, part: object) -> None:
            self.part = part

    def iter_nothing() -> Iterator[None]:
        yield

    sample: Any = Holder({"x": (1, iter_nothing())})
    with pytest.raises(EncodeError, match=r"args\[0\]\.part\['x'\]\[1\]: <class 'generator'>"):
        encode(((sample,), {}, None), "cloudpickle", key=KEY)


def test_a_verified_body_whose_class_is_missing_here_is_a_decode_error() -> None:
    payload = b"cnot_a_module_anywhere\nThing\n."
    data = signing.seal(payload, key=KEY, context=CONTEXT, content_type="pickle", encoding="")
    with pytest.raises(DecodeError, match="not_a_module_anywhere"):
        decode_signed(Body("pickle", "", data))


def test_plain_bodies_load_no_pickle_loader() -> None:
    program = (
        "import sys; from greenroom.transport.payload import encode, decode; decode(encode([1, (2,)]));"
        "assert 'cloudpickle' not in sys.modules; assert 'greenroom.transport.pickling' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_cloudpickle_writes_what_the_oldest_supported_python_reads() -> None:
    body = encode([1], "cloudpickle", key=KEY)
    assert body.data.endswith(pickle.dumps([1], 5))
