"""Bodies: what goes in comes out, what may not come in does not, and errors name the place."""

# Values and classes of every kind pass through here untyped, and some privates are looked at.
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import enum
import json
import math
import socket
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greenroom.transport import payload_msgpack, payload_types
from greenroom.transport.errors import DecodeError, EncodeError
from greenroom.transport.payload import Body, decode, encode, register_type

ZONES = ["Europe/London", "America/New_York", "Asia/Kolkata", "UTC"]

offsets = st.integers(-86_399, 86_399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
zones = st.none() | offsets | st.sampled_from(ZONES).map(ZoneInfo)
datetimes = st.datetimes(timezones=zones, allow_imaginary=True)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
    | datetimes
    | st.dates()
    | st.times(timezones=zones)
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
hashables = st.recursive(
    scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4
)
values = st.recursive(
    scalars | st.sets(hashables, max_size=4) | hashables,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashables, inner, max_size=4)
    ),
    max_leaves=12,
)


def exactly(value: Any) -> Any:
    """Make what `==` does not tell apart different: types, zones, folds, signs of zero."""
    if isinstance(value, dict):
        return dict, [(exactly(key), exactly(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [exactly(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(exactly(item)) for item in value)
    if isinstance(value, (datetime, time)):
        zone = value.tzinfo
        named = zone.key if isinstance(zone, ZoneInfo) else None
        return type(value), value.isoformat(), value.fold, named, value.utcoffset()
    return type(value), repr(value)


@given(values)
@example([(1, 2), [1, 2], {3}, frozenset({4}), ()])
@example({(1, "a"): [2**64, -(2**63) - 1, 2**63, -(2**63)]})
@example(datetime(2025, 10, 26, 1, 30, fold=1, tzinfo=ZoneInfo("Europe/London")))
@example(datetime(2025, 10, 26, 1, 30, fold=1))  # noqa: DTZ001
@example(time(1, 30, fold=1, tzinfo=timezone(timedelta(hours=1, seconds=1))))
@example([-0.0, math.inf, Decimal("-0"), Decimal("1E+1000"), 1 - 0j])
def test_a_value_comes_back_from_msgpack_with_every_type(value: object) -> None:
    assert exactly(decode(encode(value))) == exactly(value)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(plain)
def test_plain_data_is_ordinary_messagepack(value: object) -> None:
    data = encode(value).data
    assert data == msgpack.packb(value)
    assert exactly(decode(Body("msgpack", "", data))) == exactly(msgpack.unpackb(data))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.none() | offsets)
    | st.dates()
    | st.times()
    | st.decimals(allow_nan=False)
    | st.uuids(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_a_value_comes_back_from_json(value: object) -> None:
    assert decode(encode(value, "json")) == value


def test_json_bodies_have_the_form_that_celery_writes() -> None:
    moment = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
    uuid = UUID(int=7)
    data = json.loads(encode([moment, date(2024, 5, 1), time(12), Decimal("1.5"), uuid, b"\xff"], "json").data)
    assert data == [
        {"__type__": "datetime", "__value__": "2024-05-01T12:00:00+00:00"},
        {"__type__": "date", "__value__": "2024-05-01"},
        {"__type__": "time", "__value__": "12:00:00"},
        {"__type__": "decimal", "__value__": "1.5"},
        {"__type__": "uuid", "__value__": {"hex": uuid.hex}},
        {"__type__": "base64", "__value__": "/w=="},
    ]


def test_json_reads_both_of_celerys_forms_of_bytes() -> None:
    text = b'[{"__type__": "bytes", "__value__": "ab"}, {"__type__": "base64", "__value__": "/w=="}]'
    assert decode(Body("json", "", text)) == [b"ab", b"\xff"]


@given(st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.lists(inner), max_leaves=8))
def test_compressed_bodies_come_back(value: object) -> None:
    for compression in ("gzip", "bz2", "lzma"):
        body = encode(value, compression=compression)
        assert body.encoding == compression
        assert decode(body) == value


# ---- values at the edges ----


class Colour(enum.IntEnum):
    RED = 1


class Mood(enum.StrEnum):
    GLAD = "glad"


class Point(NamedTuple):
    x: int
    y: int


class Pixels(bytes):
    pass


class Huge(int):
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, 1),
        (Mood.GLAD, "glad"),
        (Point(1, 2), (1, 2)),
        (OrderedDict(a=1), {"a": 1}),
        (Pixels(b"ab"), b"ab"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (Huge(2**70), 2**70),
        (Huge(3), 3),
    ],
)
def test_a_subclass_travels_as_its_base(value: object, expected: object) -> None:
    assert exactly(decode(encode([value]))) == exactly([expected])


def test_file_names_that_are_not_text_come_back() -> None:
    assert decode(encode(["caf\udce9", (1,)])) == ["caf\udce9", (1,)]
    assert decode(encode("caf\udce9", "json")) == "caf\udce9"


def test_not_a_number_comes_back() -> None:
    came = decode(encode([math.nan, Decimal("NaN"), Decimal("sNaN")]))
    assert repr(came) == "[nan, Decimal('NaN'), Decimal('sNaN')]"


def test_a_zone_that_is_unknown_here_keeps_the_instant_by_its_offset() -> None:
    extension = msgpack.ExtType(2, b"2024-05-01T12:00:00+02:00[Mars/Olympus]")
    came = decode(Body("msgpack", "", msgpack.packb(extension)))
    assert came == datetime(2024, 5, 1, 10, tzinfo=UTC)


def test_a_zone_whose_rules_differ_here_keeps_the_instant_by_its_offset() -> None:
    extension = msgpack.ExtType(2, b"2024-05-01T12:00:00+05:00[Europe/London]")
    came = decode(Body("msgpack", "", msgpack.packb(extension)))
    assert came == datetime(2024, 5, 1, 7, tzinfo=UTC)


def test_a_timestamp_of_another_language_is_a_datetime_in_utc() -> None:
    data = msgpack.packb(msgpack.Timestamp(1_714_557_600, 5_000))
    assert decode(Body("msgpack", "", data)) == datetime(2024, 5, 1, 10, 0, 0, 5, tzinfo=UTC)


#: Of the library, in both directions.
LEVELS_MAX = 1024


def nested(levels: int) -> Any:
    value: Any = 7
    for _ in range(levels):
        value = [value]
    return value


def test_nesting_is_written_to_its_limit_and_not_beyond() -> None:
    encode(nested(LEVELS_MAX))
    with pytest.raises(EncodeError, match="nested too deeply"):
        encode(nested(LEVELS_MAX + 1))


def test_nesting_is_read_to_its_limit_and_not_beyond() -> None:
    decode(Body("msgpack", "", b"\x91" * LEVELS_MAX + b"\x07"))
    with pytest.raises(DecodeError, match="msgpack"):
        decode(Body("msgpack", "", b"\x91" * (LEVELS_MAX + 1) + b"\x07"))
    with pytest.raises(DecodeError, match="json"):
        decode(Body("json", "", b"[" * 100_000))


def test_tuples_nest_no_deeper_for_the_decoder_than_lists() -> None:
    value: Any = 7
    for _ in range(LEVELS_MAX):
        value = (value,)
    came: Any = decode(encode(value))
    for _ in range(LEVELS_MAX):
        assert type(came) is tuple
        came = came[0]
    assert came == 7


def test_a_value_that_contains_itself_is_refused_with_its_place() -> None:
    circle: list[Any] = []
    circle.append(circle)
    for serializer in ("msgpack", "json"):
        with pytest.raises(EncodeError, match=r"args\[0\].*contains itself"):
            encode(((circle,), {}, None), serializer)


# ---- errors that name the place ----


@pytest.fixture
def photo() -> Iterator[socket.socket]:
    with socket.socket() as opened:
        yield opened


class User(NamedTuple):
    name: str
    photo: object


def test_an_argument_that_cannot_be_encoded_is_named_by_its_path(photo: socket.socket) -> None:
    call: Any = ((1, {"user": User("ada", photo)}), {}, None)
    with pytest.raises(EncodeError) as caught:
        encode(call)
    assert str(caught.value) == (
        "argument args[1]['user'].photo: <class 'socket.socket'> cannot be encoded as msgpack; pass plain "
        "data, register_type(...), or serializer='cloudpickle' where both ends opted in"
    )
    assert caught.value.path == "args[1]['user'].photo"
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("serializer", ["msgpack", "json"])
def test_a_keyword_argument_is_named_and_a_result_is_a_value(serializer: str, photo: socket.socket) -> None:
    with pytest.raises(EncodeError, match=r"^argument kwargs\['to'\]\[0\]: "):
        encode(((), {"to": [photo]}, None), serializer)
    with pytest.raises(EncodeError, match=r"^value\['x'\]: "):
        encode({"x": photo}, serializer)
    with pytest.raises(EncodeError, match=r"^the value: <class 'socket.socket'>"):
        encode(photo, serializer)


def test_the_member_of_a_set_and_the_key_of_a_dict_are_named() -> None:
    with pytest.raises(EncodeError, match=r"args\[0\] member: <class 'object'>"):
        encode((({1, object()},), {}, None))
    with pytest.raises(EncodeError, match=r"args\[0\] key <object>: <class 'object'>"):
        encode((({object(): 1},), {}, None))
    with pytest.raises(EncodeError, match=r"args\[0\]: <class 'dict'>.*keys must be str"):
        encode((({(1, 2): 1},), {}, None), "json")


def test_a_set_is_refused_by_json_with_its_place() -> None:
    with pytest.raises(EncodeError, match=r"args\[0\]: <class 'set'> cannot be encoded as json"):
        encode((({1, 2},), {}, None), "json")


def test_an_unknown_serializer_is_refused_with_those_that_exist() -> None:
    with pytest.raises(EncodeError, match="'yaml'; there are cloudpickle, json, msgpack, pickle"):
        encode(1, "yaml")
    with pytest.raises(EncodeError, match="'rar'; there are bz2, gzip, lzma"):
        encode(1, compression="rar")


class Interrupted(Exception):
    pass


def test_an_interruption_during_encoding_is_not_taken_for_a_bad_value(own_types: None) -> None:
    alarms = iter([Interrupted()])

    class Slow:
        pass

    def encode_slow(value: Slow) -> int:
        for alarm in alarms:
            raise alarm
        return 1

    register_type(Slow, None, encode_slow)
    with pytest.raises(Interrupted):
        encode([Slow()])


# ---- registered classes ----


@pytest.fixture
def own_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_types, "_by_class", {})
    monkeypatch.setattr(payload_types, "_by_label", {})


@dataclass(frozen=True)
class Money:
    amount: Decimal
    tags: tuple[str, ...] = ()


class Euros(Money):
    pass


def register_money() -> None:
    register_type(Money, "money", lambda money: (money.amount, money.tags), lambda parts: Money(*parts))


def register_money_for_json() -> None:
    register_type(Money, "money", lambda money: [money.amount, *money.tags], lambda p: Money(p[0], tuple(p[1:])))


@pytest.mark.parametrize("serializer", ["msgpack", "json"])
def test_a_registered_class_comes_back_wherever_it_stands(own_types: None, serializer: str) -> None:
    register_money_for_json()
    value = [Money(Decimal("1.50"), ("a",)), {"x": [Money(Decimal(2))]}]
    assert decode(encode(value, serializer)) == value


def test_a_registered_class_may_be_a_key_and_lie_in_another(own_types: None) -> None:
    register_money()
    register_type(Colour, "colour", lambda colour: colour.name, lambda name: Colour[name])
    value = {Money(Decimal(1)): {Colour.RED}}
    assert exactly(decode(encode(value))) == exactly(value)


def test_a_subclass_of_a_registered_class_travels_as_it(own_types: None) -> None:
    register_money()
    assert type(decode(encode(Euros(Decimal(1))))) is Money


def test_a_class_without_a_label_travels_in_its_plain_form(own_types: None) -> None:
    register_type(Money, None, lambda money: (money.amount,))
    assert decode(encode(Money(Decimal(1)))) == (Decimal(1),)


def test_an_unregistered_label_is_refused_and_nothing_is_imported(own_types: None) -> None:
    register_money()
    body, text = encode(Money(Decimal(1))), encode(Money(Decimal(1)), "json")
    payload_types._by_label.clear()
    for one in (body, text):
        with pytest.raises(DecodeError, match="no class is registered as 'money'"):
            decode(one)


def test_a_class_whose_own_method_fails_is_named_with_what_it_raised(own_types: None) -> None:
    register_type(Money, "money", lambda money: float(str(money)), lambda plain: plain)
    with pytest.raises(EncodeError, match=r"args\[0\]: .*Money'> cannot be encoded as msgpack \(ValueError"):
        encode(((Money(Decimal(1)),), {}, None))


def test_a_part_of_a_registered_class_is_named_by_the_path_of_its_plain_form(own_types: None) -> None:
    register_type(Money, "money", lambda money: {"of": object()}, lambda plain: plain)
    with pytest.raises(EncodeError, match=r"args\[0\]\['of'\]: <class 'object'>"):
        encode(((Money(Decimal(1)),), {}, None))


def test_a_class_that_encodes_a_body_while_it_is_encoded_disturbs_nobody(own_types: None) -> None:
    def read(data: bytes) -> Any:
        return decode(Body("msgpack", "", data))

    register_type(
        Money,
        "money",
        lambda money: encode([money.amount] * 3).data,
        read,
    )
    assert decode(encode(["before", Money(Decimal(1)), "after"])) == ["before", [Decimal(1)] * 3, "after"]


def test_a_label_has_one_owner_and_native_types_have_none(own_types: None) -> None:
    register_money()
    register_money()
    with pytest.raises(ValueError, match="belongs to"):
        register_type(Point, "money", tuple)
    with pytest.raises(ValueError, match="travels by itself"):
        register_type(dict, "dict", list)
    with pytest.raises(ValueError, match="is taken"):
        register_type(Point, "base64", tuple)


class Offering:
    def __json__(self) -> dict[str, int]:
        return {"a": 1}


@pytest.mark.parametrize("serializer", ["msgpack", "json"])
def test_an_object_may_offer_its_own_plain_form(serializer: str) -> None:
    assert decode(encode([Offering()], serializer)) == [{"a": 1}]


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        -(1 << 63),
        (1 << 64) - 1,
        1 << 70,
        1.5,
        "text",
        "half \ud800 a pair",
        b"bytes",
        [[1, "a", {"k": [None, True]}], {"x": 1.5}],
        (1, 2),
        {"when": datetime(2026, 1, 2, tzinfo=UTC), "set": {1, 2}, "exact": Decimal("1.10")},
        [[]],
    ],
    ids=repr,
)
def test_what_is_written_is_read_alike_in_both_ways(value: object) -> None:
    body = payload_msgpack.dumps(value)
    assert payload_msgpack.loads_quickly(body) == payload_msgpack.loads(body) == value


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x92\x01", b"\x01\x02", b"\xa1\xff", b"\xd4\x01\x09\x01"])
def test_what_is_no_body_is_refused_in_both_ways(body: bytes) -> None:
    refusals: list[str] = []
    for load in (payload_msgpack.loads, payload_msgpack.loads_quickly):
        try:
            load(body)
        except Exception as error:
            refusals.append(repr(error))
    assert len(refusals) == 2
    assert refusals[0] == refusals[1]
