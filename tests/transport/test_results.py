"""The result book: who is asked about, what is expected by itself, and what came lately."""

from __future__ import annotations

import msgspec
import pytest

from greenroom.transport.errors import LocalProtocolError
from greenroom.transport.message import Result, State
from greenroom.transport.peer import results
from greenroom.transport.peer.results import KEPT_MAX, ResultBook
from greenroom.transport.verbs import Known


def success(id: str, result: bytes = b"") -> Known:
    return Known(id, State.SUCCESS, result)


def linked() -> ResultBook:
    book = ResultBook()
    assert book.attached() == []
    return book


def test_what_is_asked_for_without_a_link_is_watched_when_there_is_one() -> None:
    book = ResultBook()
    assert book.ask(["a", "b"]) == ([], [])
    assert book.attached() == ["a", "b"]
    assert book.ask(["c", "a"]) == ([], ["c"])


def test_what_was_published_on_this_link_needs_no_watch() -> None:
    book = linked()
    book.expect(["a"])
    assert book.ask(["a"]) == ([], [])
    assert book.learn([success("a")]) == [success("a")]


def test_after_a_lost_link_everything_that_is_asked_for_is_watched_anew() -> None:
    book = linked()
    book.expect(["a"])
    book.ask(["a", "b"])
    book.detached()
    assert sorted(book.attached()) == ["a", "b"]
    book.expect(["c"])
    book.detached()
    book.attached()
    assert book.ask(["c"]) == ([], ["c"])


def test_a_terminal_result_is_told_once_and_kept_for_who_asks_later() -> None:
    book = linked()
    book.ask(["a"])
    started = Known("a", State.STARTED, b"")
    assert book.learn([started, success("a"), success("a")]) == [started, success("a")]
    assert book.ask(["a"]) == ([success("a")], [])
    assert book.kept("a") == success("a")
    assert book.kept("b") is None


def test_what_nobody_asked_for_is_kept_but_not_told() -> None:
    book = linked()
    assert book.learn([success("a")]) == []
    assert book.ask(["a"]) == ([success("a")], [])


def test_the_end_of_a_dead_letter_is_told_and_not_kept() -> None:
    failed = msgspec.msgpack.encode(Result(State.FAILURE))
    dead = Known("d", State.FAILURE, msgspec.msgpack.encode(Result(State.FAILURE, dead=True)))
    book = linked()
    book.expect(["d"])
    assert book.ask(["d"]) == ([], [])
    assert book.learn([dead]) == [dead]
    assert book.kept("d") is None
    assert book.ask(["d"]) == ([], ["d"])
    others = [Known("f", State.FAILURE, failed), Known("silent", State.FAILURE, b""), Known("bad", 4, b"\xc1")]
    book.learn(others)
    assert [book.kept(known.id) for known in others] == others


def test_what_was_kept_and_has_left_is_watched_when_it_is_asked_for() -> None:
    book = linked()
    book.expect(["first"])
    book.learn([success("first")])
    book.learn([success(str(number)) for number in range(KEPT_MAX - 1)])
    assert book.kept("first") is not None
    book.learn([success("last")])
    assert book.kept("first") is None
    assert book.ask(["first"]) == ([], ["first"])


def test_kept_results_have_a_limit_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "KEPT_BYTES_MAX", 100)
    book = linked()
    book.learn([success("a", bytes(60)), success("b", bytes(40))])
    assert book.kept("a") is not None
    book.learn([success("b", bytes(41))])
    assert book.kept("a") is None
    assert book.kept("b") is not None


def test_forgetting_tells_which_watches_to_take_back() -> None:
    book = linked()
    book.expect(["a"])
    book.ask(["a", "b"])
    assert book.forget(["a", "b", "c"]) == ["b"]
    assert book.learn([success("b")]) == []


def test_the_number_of_ids_that_are_asked_for_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "ASKED_MAX", 2)
    book = linked()
    book.ask(["a", "b"])
    with pytest.raises(LocalProtocolError, match="fewer at a time"):
        book.ask(["c"])


def test_the_oldest_expectation_leaves_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "EXPECTED_MAX", 2)
    book = linked()
    book.expect(["a", "b", "c"])
    assert book.ask(["a", "b", "c"]) == ([], ["a"])
