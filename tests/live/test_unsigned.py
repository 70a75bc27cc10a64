"""A pickle whose signature is missing or wrong is never loaded: it is a dead letter (spec security.md, 7)."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uuid_utils

from greenroom import AsyncResult
from greenroom.actors.bodies import Content, pack_call
from greenroom.actors.errors import SecurityError
from greenroom.transport.message import Envelope, Flag, Kind, More

from . import signed_app
from .cluster import Cluster, wait_for

pytestmark = pytest.mark.live

KEY = "0123456789abcdef0123456789abcdef"
RESULT_SECONDS = 30.0


class Bomb:
    """Whoever loads it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(signed_app.app) as cluster:
        cluster.start_broker()
        cluster.start_worker("signed_app", "-c", "1", environment={"GREENROOM_SIGNING_KEY": KEY})
        signed_app.app.signing_key = KEY.encode()
        yield cluster


def send(cluster: Cluster, body: bytes, *, id: str = "", to_actor: bool = False) -> AsyncResult[Any]:
    """Send a pickle as somebody would who is none of us."""
    envelope = Envelope(id or str(uuid_utils.uuid7()), "signed_app.echo", "pickle", body, int(Flag.WATCHED))
    mailbox = "celery"
    if to_actor:
        # As the worker's module is called.
        envelope.name, envelope.kind, envelope.more = "echo", Kind.ACTOR, More(actor_class="signed_app.Keeper")
        mailbox = "actor:signed_app.Keeper:k"
    cluster.client.publish(mailbox, [envelope]).result(RESULT_SECONDS)
    return signed_app.app.AsyncResult(envelope.id)


@pytest.mark.parametrize("to_actor", [False, True])
@pytest.mark.parametrize("wrong", ["absent", "another key"])
def test_a_pickle_without_its_signature_is_a_dead_letter_that_was_never_loaded(
    cluster: Cluster, tmp_path: Path, wrong: str, to_actor: bool
) -> None:
    trace = tmp_path / "loaded"
    id = str(uuid_utils.uuid7())
    if wrong == "absent":
        body = pickle.dumps([[Bomb(trace)], {}])
    else:
        body = pack_call([Bomb(trace)], {}, Content("pickle", None, b"not the key that they have"), id)[1]
    result = send(cluster, body, id=id, to_actor=to_actor)
    error = result.get(timeout=RESULT_SECONDS, propagate=False)
    assert isinstance(error, SecurityError)
    assert result.state == "FAILURE"
    assert not trace.exists()
    story = cluster.story(id)
    assert story is not None
    assert story["reason"].startswith("unsigned: ")
    assert str(error) in story["reason"]
    assert [(attempt["cause"], attempt["node"]) for attempt in story["attempts"]] == [
        ("unsigned", cluster.workers[0].node)
    ]
    assert story["arguments"].endswith("of pickle, not opened)")
    shown = cluster.command("dead", "show", id)
    assert "no good signature" in shown.stdout, shown.stderr
    # The same child serves on.
    assert signed_app.echo.delay("signed").get(timeout=RESULT_SECONDS) == "signed"


def test_an_unsigned_message_that_is_redriven_is_refused_again(cluster: Cluster, tmp_path: Path) -> None:
    result = send(cluster, pickle.dumps([[Bomb(tmp_path / "loaded")], {}]))
    assert isinstance(result.get(timeout=RESULT_SECONDS, propagate=False), SecurityError)
    assert cluster.command("dead", "redrive", result.id).returncode == 0
    wait_for(lambda: result.id in [letter.id for letter in cluster.dead_letters()], "it should be set aside again")
    assert result.failed()
    assert not (tmp_path / "loaded").exists()
