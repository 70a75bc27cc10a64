"""Bodies that come in: damaged, hostile, too long or of a kind that nobody asked for."""

# Values and classes of every kind pass through here untyped, and some privates are looked at.
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations

from contextlib import suppress

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.transport import payload
from greenroom.transport.errors import ContentDisallowed, DecodeError, EncodeError
from greenroom.transport.payload import Body, decode, encode, register_serializer

values = st.recursive(
    st.none()
    | st.integers()
    | st.text()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.decimals()
    | st.uuids()
    | st.timedeltas()
    | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.sets(st.integers(), max_size=4)
    ),
    max_leaves=12,
)


@given(st.binary(max_size=200))
def test_any_bytes_decode_to_a_value_or_a_decode_error(data: bytes) -> None:
    for content_type in ("msgpack", "json"):
        for encoding in ("", "gzip", "bz2", "lzma"):
            with suppress(DecodeError):
                decode(Body(content_type, encoding, data), bytes_max=10_000)


@given(values, st.data())
def test_a_damaged_body_decodes_to_a_value_or_a_decode_error(value: object, data: st.DataObject) -> None:
    good = bytearray(encode(value).data)
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] = data.draw(st.integers(0, 255))
    with suppress(DecodeError):
        decode(Body("msgpack", "", bytes(good)))


TUPLE, SET, USER = (msgpack.ExtType(1, bytes([kind])) for kind in (0, 1, 3))


@pytest.mark.parametrize(
    "hostile",
    [
        [msgpack.ExtType(1, b"\x63"), 1],
        [SET, []],
        {"a": [SET, {}]},
        [USER],
        [USER, "os.system"],
        [USER, "os.system", "true"],
        [USER, ["unhashable"], 1],
        [USER, 5, 1],
        msgpack.ExtType(77, b""),
        msgpack.ExtType(2, b"yesterday"),
        msgpack.ExtType(2, b"2024-05-01[../../etc/passwd]"),
        msgpack.ExtType(2, b"\xff"),
        msgpack.ExtType(4, b"12:00:00[Mars/Olympus]"),
        msgpack.ExtType(5, b"9" * 30),
        msgpack.ExtType(5, b"9" * 5_000),
        msgpack.ExtType(6, b"one"),
        msgpack.ExtType(7, b"short"),
        msgpack.ExtType(9, b"short"),
    ],
    ids=repr,
)
def test_a_hostile_body_is_a_decode_error(hostile: object) -> None:
    with pytest.raises(DecodeError):
        decode(Body("msgpack", "", msgpack.packb(hostile)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x01\x02",
        b"\xa2\xff\xfe\x01",
        b"\x81\x90\x01",
    ],
)
def test_a_body_that_lies_about_its_length_or_its_form_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(Body("msgpack", "", data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"1" * 5_000,
        b'{"__type__": "os.system", "__value__": "true"}',
        b'{"__type__": ["x"], "__value__": 1}',
        b'{"__type__": "datetime", "__value__": 5}',
        b'{"__type__": "decimal", "__value__": "one"}',
        b'{"__type__": "uuid", "__value__": {}}',
        b'{"__type__": "base64", "__value__": "?"}',
        b'{"__type__": "bytes", "__value__": 5}',
    ],
)
def test_a_hostile_json_body_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(Body("json", "", data))


def test_a_misplaced_mark_is_an_extension_and_nothing_else() -> None:
    assert decode(Body("msgpack", "", msgpack.packb([1, TUPLE]))) == [1, TUPLE]


def test_only_accepted_content_is_decoded() -> None:
    body = encode({"a": 1}, "json")
    assert decode(body, accept=("json",)) == {"a": 1}
    assert decode(body, accept=("application/json",)) == {"a": 1}
    assert decode(body._replace(content_type="application/json"), accept=["json"]) == {"a": 1}
    with pytest.raises(ContentDisallowed, match=r"'json'.*this end accepts"):
        decode(body, accept=("msgpack",))
    with pytest.raises(ContentDisallowed, match="no serializer here knows"):
        decode(body._replace(content_type="yaml"), accept=("yaml",))


def test_a_body_is_decoded_to_its_limit_and_not_beyond() -> None:
    body = encode(b"x" * 98)
    assert len(body.data) == 100
    assert decode(body, bytes_max=100) == b"x" * 98
    with pytest.raises(DecodeError, match="100 bytes long; the limit is 99"):
        decode(body, bytes_max=99)


@pytest.mark.parametrize("compression", ["gzip", "bz2", "lzma"])
def test_a_body_is_decompressed_to_its_limit_and_not_beyond(compression: str) -> None:
    value = b"\0" * (1 << 20)
    plain_bytes = len(encode(value).data)
    body = encode(value, compression=compression)
    assert len(body.data) < 5_000
    assert decode(body, bytes_max=plain_bytes) == value
    with pytest.raises(DecodeError, match="longer than"):
        decode(body, bytes_max=plain_bytes - 1)


@pytest.mark.parametrize("compression", ["gzip", "bz2", "lzma"])
def test_a_compressed_body_that_is_cut_or_continued_is_a_decode_error(compression: str) -> None:
    body = encode(list(range(1_000)), compression=compression)
    with pytest.raises(DecodeError, match="ends too early"):
        decode(body._replace(data=body.data[:-10]))
    with pytest.raises(DecodeError, match="followed by 3 other bytes"):
        decode(body._replace(data=body.data + b"abc"))
    with pytest.raises(DecodeError, match="content encoding"):
        decode(body._replace(data=b"plainly not"))
    with pytest.raises(DecodeError, match="this end knows"):
        decode(body._replace(encoding="rar"))


def test_celerys_names_of_compressions_are_known() -> None:
    assert encode(1, compression="bzip2").encoding == "bz2"
    assert encode(1, compression="application/x-gzip").encoding == "gzip"
    assert decode(encode(1, compression="zlib")) == 1


def test_an_envelopes_content_holds_type_and_encoding() -> None:
    for body in (encode([1]), encode([1], "json", compression="gzip")):
        assert Body.of(body.content, body.data) == body
    assert encode([1], "json", compression="gzip").content == "json+gzip"


def test_a_body_may_come_as_any_kind_of_bytes() -> None:
    body = encode((1, "a"))
    assert decode(body._replace(data=memoryview(body.data))) == (1, "a")  # type: ignore[arg-type]


def test_a_serializer_of_the_users_is_found_by_name_and_media_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "_SERIALIZERS", dict(payload._SERIALIZERS))
    monkeypatch.setattr(payload, "_SHORT_NAMES", dict(payload._SHORT_NAMES))
    monkeypatch.setattr(payload, "MEDIA_TYPES", dict(payload.MEDIA_TYPES))
    register_serializer("text", str.encode, bytes.decode, media_type="text/plain")
    body = encode("abc", "text/plain")
    assert body == Body("text", "", b"abc")
    assert decode(body, accept=("text",)) == "abc"
    with pytest.raises(ContentDisallowed):
        decode(body)
    with pytest.raises(EncodeError, match="the value: <class 'int'> cannot be encoded as text"):
        encode(5, "text")
    with pytest.raises(ValueError, match="already"):
        register_serializer("json", str.encode, bytes.decode)
