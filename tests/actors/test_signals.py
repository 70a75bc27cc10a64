"""Signals."""

# Short lambdas stand for tasks and receivers here, and some tests look inside.
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from __future__ import annotations

import gc
import logging
from typing import Any

import pytest

from greenroom.actors import signals
from greenroom.actors.signals import Signal

CELERYS = {
    "after_setup_logger", "after_setup_task_logger", "after_task_publish", "beat_embedded_init", "beat_init",
    "before_task_publish", "celeryd_after_setup", "celeryd_init", "eventlet_pool_apply",
    "eventlet_pool_postshutdown", "eventlet_pool_preshutdown", "eventlet_pool_started", "heartbeat_sent",
    "import_modules", "setup_logging", "task_failure", "task_internal_error", "task_postrun", "task_prerun",
    "task_received", "task_rejected", "task_retry", "task_revoked", "task_sent", "task_success", "task_unknown",
    "user_preload_options", "worker_before_create_process", "worker_init", "worker_process_init",
    "worker_process_shutdown", "worker_ready", "worker_shutdown", "worker_shutting_down",
}  # fmt: skip


@pytest.fixture
def signal() -> Signal:
    return Signal("moment", ("what",))


def test_there_are_celerys_34_signals() -> None:
    assert set(signals.ALL) == CELERYS
    assert len(CELERYS) == 34
    assert all(getattr(signals, name) is signal for name, signal in signals.ALL.items())


def test_a_receiver_gets_sender_signal_and_arguments(signal: Signal) -> None:
    got: list[dict[str, Any]] = []

    @signal.connect
    def receive(**kwargs: Any) -> str:
        got.append(kwargs)
        return "answer"

    assert signal.send(sender="me", what=1) == [(receive, "answer")]
    assert got == [{"signal": signal, "sender": "me", "what": 1}]


def test_a_receiver_may_be_for_one_sender(signal: Signal) -> None:
    got: list[Any] = []
    me = object()

    @signal.connect(sender=me)
    def receive(sender: Any, **_kwargs: Any) -> None:
        got.append(sender)

    signal.send(sender=object())
    signal.send(sender=me)
    assert got == [me]
    assert signal.has_listeners(me)
    assert not signal.has_listeners(object())


def test_a_sender_that_is_a_name_is_known_by_its_text(signal: Signal) -> None:
    got: list[Any] = []

    @signal.connect(sender="proj." + "add")
    def receive(sender: Any, **_kwargs: Any) -> None:
        got.append(sender)

    signal.send(sender="".join(["proj", ".add"]))
    signal.send(sender="proj.other")
    assert got == ["proj.add"]


def test_an_error_of_a_receiver_is_logged_and_the_others_are_called(
    signal: Signal, caplog: pytest.LogCaptureFixture
) -> None:
    error = ValueError("mine")

    def bad(**_kwargs: Any) -> None:
        raise error

    def good(**_kwargs: Any) -> int:
        return 1

    signal.connect(bad)
    signal.connect(good)
    with caplog.at_level(logging.ERROR):
        assert signal.send() == [(bad, error), (good, 1)]
    assert "signal moment" in caplog.text
    assert "mine" in caplog.text


def test_a_receiver_that_nobody_holds_is_forgotten_unless_asked_otherwise(signal: Signal) -> None:
    got: list[str] = []

    class Listener:
        def receive(self, **_kwargs: Any) -> None:
            got.append("method")

    def weakly(**_kwargs: Any) -> None:
        got.append("weak")

    listener = Listener()
    signal.connect(weakly)
    signal.connect(listener.receive)
    signal.connect(lambda **_kwargs: got.append("strong"), weak=False)
    signal.send()
    assert got == ["weak", "method", "strong"]
    got.clear()
    del weakly, listener
    gc.collect()
    signal.send()
    assert got == ["strong"]


def test_a_receiver_is_connected_once_for_each_uid_or_sender(signal: Signal) -> None:
    got: list[int] = []

    def receive(**_kwargs: Any) -> None:
        got.append(1)

    signal.connect(receive)
    signal.connect(receive)
    signal.connect(lambda **_kwargs: got.append(2), dispatch_uid="two", weak=False)
    signal.connect(lambda **_kwargs: got.append(3), dispatch_uid="two", weak=False)
    signal.send()
    assert got == [1, 2]


def test_disconnecting(signal: Signal) -> None:
    def receive(**_kwargs: Any) -> None: ...

    signal.connect(receive)
    signal.connect(receive, sender="x")
    signal.connect(receive, dispatch_uid="uid")
    assert signal.has_receivers
    signal.disconnect(receive)
    assert len(signal.receivers) == 2
    signal.disconnect(receive, sender="x")
    signal.disconnect(dispatch_uid="uid")
    assert not signal.has_receivers
    assert signal.send() == []


def test_a_receiver_must_be_callable_with_keywords(signal: Signal) -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match="callable"):
        signal.connect(wrong)
    with pytest.raises(ValueError, match=r"\*\*kwargs"):
        signal.connect(lambda sender: None)


def test_a_receiver_may_disconnect_itself_while_it_is_called(signal: Signal) -> None:
    got: list[int] = []

    def once(**_kwargs: Any) -> None:
        got.append(1)
        signal.disconnect(once)

    signal.connect(once)
    signal.connect(lambda **_kwargs: got.append(2), weak=False)
    signal.send()
    signal.send()
    assert got == [1, 2, 2]
