"""Addresses of brokers: every spelling that is meant to work, and words for those that are not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from greenroom.transport.errors import BrokerUnavailable, SecurityError
from greenroom.transport.wire.address import IPC_PATH_BYTES_MAX, PORT_DEFAULT, AddressError, parse_address
from greenroom.transport.wire.link import UnsupportedLibrary, check_libzmq
from greenroom.transport.wire.token import find_token, keep_token, publish_token, tokens_match, withdraw_token


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("tcp://127.0.0.1:5670", "tcp://127.0.0.1:5670"),
        ("greenroom://127.0.0.1:5671", "tcp://127.0.0.1:5671"),
        ("greenroom://host", f"tcp://host:{PORT_DEFAULT}"),
        ("tcp://[::1]:99", "tcp://[::1]:99"),
        ("tcp://[::1]", f"tcp://[::1]:{PORT_DEFAULT}"),
        ("tcp://127.0.0.1:*", "tcp://127.0.0.1:0"),
        (" tcp://a:1 ", "tcp://a:1"),
        ("ipc:///run/greenroom/broker", "ipc:///run/greenroom/broker"),
    ],
)
def test_an_address_means_what_it_says(text: str, meaning: str) -> None:
    assert str(parse_address(text)) == meaning


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("127.0.0.1:5670", "write tcp://HOST:PORT"),
        ("redis://localhost", "'redis'"),
        ("tcp://::1:5670", "without brackets"),
        ("tcp://[::1:5670", "bracket"),
        ("tcp://:5670", "names no host"),
        ("tcp://host:port", "not a port"),
        ("tcp://host:65536", "not a port"),
        ("ipc:///" + "x" * IPC_PATH_BYTES_MAX, "107 bytes"),
    ],
)
def test_what_is_no_address_is_said_so(text: str, words: str) -> None:
    with pytest.raises(AddressError, match=words.replace("[", "\\[")):
        parse_address(text)


def test_a_name_that_nobody_knows_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror("unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(BrokerUnavailable, match="'nowhere' of tcp://nowhere:1 cannot be resolved"):
        parse_address("tcp://nowhere:1").resolve()


def test_a_name_with_version_6_addresses_only_needs_libzmqs_option(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(10, 1, 6, "", ("::1", 5670))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert parse_address("tcp://six:1").is_version_6()
    assert not parse_address("tcp://127.0.0.1:1").is_version_6()


@pytest.mark.parametrize(("version", "allowed"), [((4, 3, 5), True), ((4, 4, 0), True), ((4, 3, 4), False)])
def test_a_libzmq_with_known_holes_is_refused_in_words(version: tuple[int, ...], allowed: bool) -> None:
    if allowed:
        check_libzmq(version)
    else:
        with pytest.raises(UnsupportedLibrary, match=r"libzmq 4\.3\.4 was loaded, and 4\.3\.5 or newer"):
            check_libzmq(version)


def test_a_token_is_found_by_its_port_and_withdrawn_only_by_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    address = parse_address("tcp://127.0.0.1:5999")
    assert find_token(address) == b""
    path = publish_token(5999, b"secret")
    assert path == tmp_path / ".greenroom" / "5999"
    assert find_token(address) == b"secret"
    assert find_token(parse_address("ipc:///run/x")) == b""
    withdraw_token(path, b"of an earlier broker")
    assert find_token(address) == b"secret"
    withdraw_token(path, b"secret")
    assert find_token(address) == b""


def test_a_token_that_others_may_read_is_refused_in_words(tmp_path: Path) -> None:
    token = keep_token(tmp_path)
    assert keep_token(tmp_path) == token
    (tmp_path / "token").chmod(0o640)
    with pytest.raises(SecurityError, match=r"mode 0640.*chmod 600"):
        keep_token(tmp_path)


def test_tokens_are_compared_whole() -> None:
    assert tokens_match(b"abc", b"abc")
    assert not tokens_match(b"abc", b"abcd")
    assert not tokens_match(b"abc", b"")
