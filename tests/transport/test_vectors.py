"""The bytes of each verb, as docs/protocol.md promises them to clients in other languages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast, get_args

import msgspec
import pytest

from greenroom.transport import codec, verbs
from greenroom.transport.message import Aftermath, Delivery, Envelope, Failure, Result

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "verbs.json").read_text("utf-8"))
STRUCTS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "structs.json").read_text("utf-8"))
BROKEN: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "broken.json").read_text("utf-8"))
TYPES: dict[str, type] = {kind.__name__: kind for kind in (Envelope, Delivery, Result, Failure, Aftermath)}


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_a_frame_with_one_verb_has_these_bytes(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["hex"])
    decoded: list[Any] | codec.BadFrame
    if vector["to"] == "broker":
        decoded = cast("list[Any] | codec.BadFrame", codec.decode_to_broker([frame]))
    else:
        decoded = cast("list[Any] | codec.BadFrame", codec.decode_from_broker([frame]))
    assert not isinstance(decoded, codec.BadFrame), decoded
    assert [type(verb).__name__ for verb in decoded] == [vector["name"].split()[0]]
    assert codec.encode(decoded) == [frame]
    # What a client in another language sees: plain arrays, a tag first.
    assert msgspec.msgpack.decode(frame) == [_from_json(vector["array"])]


@pytest.mark.parametrize("vector", STRUCTS, ids=[vector["name"] for vector in STRUCTS])
def test_a_struct_inside_verbs_has_these_bytes(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["hex"])
    kind: Any = TYPES[vector["name"].split()[0]]
    decoded: Any = msgspec.msgpack.decode(raw, type=kind)
    assert msgspec.msgpack.encode(decoded) == raw
    assert msgspec.msgpack.decode(raw) == _from_json(vector["array"])


@pytest.mark.parametrize("vector", BROKEN, ids=[vector["name"] for vector in BROKEN])
def test_what_is_no_frame_is_a_value_and_not_an_exception(vector: dict[str, Any]) -> None:
    decoded = codec.decode_to_broker([bytes.fromhex(vector["hex"])])
    assert isinstance(decoded, codec.BadFrame)
    assert decoded.reason


def test_every_verb_has_a_vector() -> None:
    named = {(vector["name"].split()[0], vector["to"]) for vector in VECTORS}
    for kind in get_args(verbs.ToBroker):
        assert (kind.__name__, "broker") in named
    for kind in get_args(verbs.FromBroker):
        assert (kind.__name__, "peer") in named


def test_no_two_verbs_of_a_direction_share_a_tag() -> None:
    for direction in (verbs.ToBroker, verbs.FromBroker):
        tags = [kind.__struct_config__.tag for kind in get_args(direction)]
        assert len(set(tags)) == len(tags)


def test_the_document_names_every_verb_with_its_tag() -> None:
    text = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")
    for kind in {*get_args(verbs.ToBroker), *get_args(verbs.FromBroker)}:
        assert f"| {kind.__struct_config__.tag} | {kind.__name__} |" in text, kind.__name__


def _from_json(value: Any) -> Any:
    """JSON has no bytes: {"hex": "..."} stands for them."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        if set(fields) == {"hex"}:
            return bytes.fromhex(fields["hex"])
        return {key: _from_json(item) for key, item in fields.items()}
    if isinstance(value, list):
        return list(map(_from_json, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return value
