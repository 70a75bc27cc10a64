"""What a worker node is started with."""

from __future__ import annotations

import os
import socket

import pytest

from greenroom.actors.worker.control import CHILDREN_MAX
from greenroom.supervisor.cluster.config import NodeConfig, NodeConfigError, node_name


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("", "celery@blue.example.org"),
        ("celery@%h", "celery@blue.example.org"),
        ("w1@%n", "w1@blue"),
        ("w%i@%d", "w2@example.org"),
        ("w%I@%n", "w-2@blue"),
        ("green", "celery@green"),
        ("100%%@here", "100%@here"),
    ],
)
def test_a_nodes_name_is_filled_in(monkeypatch: pytest.MonkeyPatch, pattern: str, name: str) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "blue.example.org")
    assert node_name(pattern, 2) == name


@pytest.mark.parametrize("pattern", ["w@%q", "w@%"])
def test_a_name_with_a_letter_that_nobody_knows_is_refused_in_words(pattern: str) -> None:
    with pytest.raises(NodeConfigError, match="%h, %n"):
        node_name(pattern)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "-A module"),
        ({"app": "shop", "pool": "gevent"}, "prefork, threads"),
        ({"app": "shop", "concurrency": -1}, "concurrency is -1"),
        ({"app": "shop", "concurrency": CHILDREN_MAX + 1}, "concurrency is 4097"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_in_words(options: dict[str, object], words: str) -> None:
    with pytest.raises(NodeConfigError, match=words):
        NodeConfig(broker="tcp://127.0.0.1:1", **options).check()  # type: ignore[arg-type]


def test_the_most_children_are_allowed() -> None:
    NodeConfig(broker="tcp://127.0.0.1:1", app="shop", concurrency=CHILDREN_MAX).check()


def test_concurrency_is_the_processors_unless_told_and_one_for_solo() -> None:
    def limits(**options: object) -> int:
        return NodeConfig(broker="x", app="shop", **options).pool_limits().concurrency  # type: ignore[arg-type]

    assert limits() == len(os.sched_getaffinity(0))
    assert limits(concurrency=7) == 7
    assert limits(concurrency=7, pool="solo") == 1
