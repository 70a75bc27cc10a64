"""The verbs that ask and act, against a real broker and a real worker; one cluster for all of them."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

import pytest

from greenroom import AsyncResult
from greenroom.supervisor.cli.main import run
from greenroom.transport.requests import Declare
from greenroom.transport.verbs import Op

from . import cli_app
from .cluster import Cluster, wait_for
from .terminal import Terminal

pytestmark = pytest.mark.live

#: As design.md has them.
MAILBOX_KEYS = {
    "name", "ready", "scheduled", "acquired", "started", "depth", "oldest_age_seconds", "consumers", "dead",
}  # fmt: skip
LETTER_KEYS = {
    "id", "task", "mailbox", "reason", "deliveries", "first_failure", "last_failure", "root_id", "attempts",
}  # fmt: skip
ATTEMPT_KEYS = {
    "worker", "node", "pid", "incarnation", "exit_code", "signal", "oom", "max_rss", "started_at", "ended_at",
    "traceback",
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(cli_app.app, tcp=True) as cluster:
        cluster.start_broker()
        cluster.start_worker("cli_app", "-c", "2")
        yield cluster


class Done(NamedTuple):
    """How a verb ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def verb(cluster: Cluster, *arguments: str) -> Done:
    """Run a verb in this process, where the output is no terminal."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("GREENROOM_BROKER", cluster.address)
        code = run(arguments)
    return Done(code, out.getvalue(), err.getvalue())


def answer(cluster: Cluster, *arguments: str) -> Any:
    """What a verb says with --json."""
    done = verb(cluster, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def show(cluster: Cluster, *arguments: str, columns: int = 80, environment: dict[str, str] | None = None) -> str:
    """What a verb shows on a terminal."""
    told = {**cluster.environment, "GREENROOM_BROKER": cluster.address, **(environment or {})}
    command = [sys.executable, "-m", "greenroom", *arguments]
    with Terminal(*command, folder=cluster.folder, environment=told, columns=columns) as terminal:
        terminal.wait()
        return terminal.text


@pytest.fixture
def letter(cluster: Cluster) -> Iterator[str]:
    """A dead letter, in a world without others."""
    verb(cluster, "dead", "purge", "--all", "--force")
    result: AsyncResult[Any] = cli_app.app.send_task("cli_app.poison", kwargs={"reason": "nobody knows"})
    result.get(timeout=30, propagate=False)
    yield result.id
    (cluster.folder / "antidote").unlink(missing_ok=True)
    verb(cluster, "dead", "purge", "--all", "--force")


# ---- call and result ----


def test_call_prints_the_id_by_which_result_shows_what_became_of_it(cluster: Cluster) -> None:
    done = verb(cluster, "call", "cli_app.add", "-a", "[20]", "-k", '{"y": 22}')
    id = done.stdout.strip()
    assert re.fullmatch(r"[0-9a-f-]{36}", id), done
    assert verb(cluster, "result", id, "-w", "10").stdout == "SUCCESS: 42\n"
    assert answer(cluster, "result", id) == {
        "id": id,
        "state": "SUCCESS",
        "result": 42,
        "error": None,
        "traceback": None,
    }
    assert answer(cluster, "call", "cli_app.add", "-a", "[1, 2]").keys() == {"id"}


def test_call_with_wait_prints_the_result(cluster: Cluster) -> None:
    assert verb(cluster, "call", "cli_app.add", "-a", "[20, 22]", "--wait", "10").stdout == "SUCCESS: 42\n"
    assert answer(cluster, "call", "cli_app.add", "-a", "[20, 22]", "--wait", "10")["result"] == 42


def test_results_that_json_does_not_know_are_told_as_text(cluster: Cluster) -> None:
    assert answer(cluster, "call", "cli_app.today", "-w", "10")["result"].startswith("2024-02-29T00:00:00")
    assert answer(cluster, "call", "cli_app.not_a_number", "-w", "10")["result"] == "nan"


def test_a_failure_is_told_with_exit_code_1_and_its_traceback_when_asked(cluster: Cluster) -> None:
    done = verb(cluster, "call", "cli_app.fail", "-a", '["no luck"]', "-w", "10")
    assert (done.returncode, done.stdout) == (1, "FAILURE: ValueError: no luck\n")
    done = verb(cluster, "call", "cli_app.fail", "-a", '["no luck"]', "-w", "10", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["state"], told["result"], told["error"]) == (
        1,
        "FAILURE",
        None,
        "ValueError: no luck",
    )
    assert told["traceback"].rstrip().endswith("ValueError: no luck")
    assert "cli_app.py" in verb(cluster, "result", told["id"], "--traceback").stdout


def test_a_result_that_does_not_come_in_time_is_told_with_exit_code_1(cluster: Cluster) -> None:
    done = verb(cluster, "call", "cli_app.nap", "-a", "[1.5]", "-w", "0.2")
    assert done.returncode == 1
    assert "after 0.2 s; look again with `greenroom result" in done.stderr
    done = verb(cluster, "call", "cli_app.nap", "-a", "[1.5]", "-w", "0.2", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["state"] in ("PENDING", "STARTED")


def test_an_unknown_id_is_pending_and_told_in_words(cluster: Cluster) -> None:
    done = verb(cluster, "result", "no-such-id")
    assert done.returncode == 0
    assert done.stdout == "PENDING: it waits or runs, or nothing is known of this id (any more)\n"
    assert answer(cluster, "result", "no-such-id")["state"] == "PENDING"


def test_call_takes_an_id_a_mailbox_a_delay_and_an_expiry(cluster: Cluster) -> None:
    options = ["-Q", "side", "--task-id", "my-own", "--countdown", "500", "--expires", "900", "--priority", "5"]
    assert answer(cluster, "call", "cli_app.add", "-a", "[1, 2]", *options) == {"id": "my-own"}
    assert cluster.mailbox("side").scheduled == 1
    # The same id again is the same message.
    answer(cluster, "call", "cli_app.add", "-a", "[1, 2]", *options)
    assert cluster.mailbox("side").depth == 1
    assert answer(cluster, "purge", "side", "--force") == {"mailbox": "side", "purged": 1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-a", "[1"], "'[1' is no JSON"),
        (["-a", '{"x": 1}'], "is no JSON array"),
        (["-k", "[1]"], "is no JSON object"),
        (["--countdown", "-1"], "-1"),
        (["--priority", "256"], "256"),
        (["--bananas"], "--bananas"),
    ],
)
def test_wrong_options_of_a_call_are_refused_before_anything_is_sent(
    cluster: Cluster, options: list[str], words: str
) -> None:
    accepted = cluster.status().accepted
    done = verb(cluster, "call", "cli_app.add", *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert cluster.status().accepted == accepted


# ---- status and mailboxes ----


def test_mailboxes_have_the_shape_that_programs_rely_on(cluster: Cluster) -> None:
    verb(cluster, "call", "cli_app.add", "-a", "[1, 2]", "-w", "10")
    found = {info["name"]: info for info in answer(cluster, "mailboxes")}
    assert all(info.keys() == MAILBOX_KEYS for info in found.values())
    assert found["celery"]["consumers"] == 2
    assert answer(cluster, "mailboxes", "celery")[0]["name"] == "celery"
    assert answer(cluster, "mailboxes", "never-used") == []
    assert verb(cluster, "mailboxes", "never-used").stdout == "Nothing was ever sent to never-used.\n"


def test_mailboxes_are_a_table_with_one_line_each(cluster: Cluster) -> None:
    verb(cluster, "call", "cli_app.add", "-a", "[1, 2]", "-w", "10")
    head, *rows = verb(cluster, "mailboxes").stdout.splitlines()
    assert head.split() == [
        "mailbox", "ready", "scheduled", "acquired", "started", "depth", "oldest", "consumers", "dead",
    ]  # fmt: skip
    assert "celery" in [row.split()[0] for row in rows]


def test_status_shows_nodes_with_their_children_and_not_who_asks(cluster: Cluster) -> None:
    worker = cluster.workers[0]
    status = answer(cluster, "status")
    assert {session["pid"] for session in status["sessions"] if session["role"] == "node"} == {worker.pid}
    assert {"broker", "epoch", "uptime_seconds", "accepted", "settled", "redelivered", "dead", "refused"} <= set(status)
    lines = verb(cluster, "status").stdout.splitlines()
    assert cluster.address in lines[0]
    at = next(index for index, line in enumerate(lines) if line.startswith(worker.node))
    assert str(worker.pid) in lines[at]
    children = [line.split() for line in lines[at + 1 : at + 3]]
    assert {(child[0], child[-1]) for child in children} == {("child", "celery")}
    assert {int(child[1]) for child in children} == {child.pid for child in cluster.children(worker)}
    assert not any(line.startswith("cli") for line in lines)


def test_status_tells_children_for_actors_from_the_others(cluster: Cluster) -> None:
    cli_app.app.ref("cli_app.Note", "a").tell("write", "x")
    line = re.compile(r"^  actors child +\d+", re.M)
    wait_for(lambda: line.search(verb(cluster, "status").stdout), "a child should host the actor")


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_the_terminal(cluster: Cluster, letter: str, columns: int) -> None:
    for asked in (["status"], ["mailboxes"], ["dead", "ls"], ["dead", "show", letter], ["report"]):
        text = show(cluster, *asked, columns=columns, environment={"NO_COLOR": "1"})
        wide = [line for line in text.splitlines() if len(line) > columns]
        assert not wide, text
        assert len(text.splitlines()) > 1


def test_colours_are_for_terminals_whose_user_wants_them(cluster: Cluster) -> None:
    verb(cluster, "call", "cli_app.add", "-a", "[1, 2]", "-w", "10")
    assert "\x1b[" in show(cluster, "mailboxes")
    assert "\x1b" not in show(cluster, "mailboxes", environment={"NO_COLOR": "1"})
    assert "\x1b" not in verb(cluster, "mailboxes").stdout


def test_a_call_that_waits_for_room_says_so_and_is_ended_by_an_interrupt(cluster: Cluster) -> None:
    cluster.client.request(Op.DECLARE, Declare("narrow", max_messages=1, on_full="block"))
    assert verb(cluster, "call", "cli_app.add", "-a", "[1, 2]", "-Q", "narrow").returncode == 0
    command = [sys.executable, "-m", "greenroom", "call", "cli_app.add", "-a", "[3, 4]", "-Q", "narrow"]
    told = cluster.folder / "told"
    with told.open("w") as errors:
        call = subprocess.Popen(
            command,
            cwd=cluster.folder,
            env={**cluster.environment, "GREENROOM_BROKER": cluster.address},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        wait_for(lambda: "mailbox 'narrow' holds 1 message, its limit is 1" in told.read_text(), "it should say why")
        assert call.poll() is None
        began = time.monotonic()
        call.send_signal(signal.SIGINT)
        assert call.wait(30) != 0
        # The exit does not wait for what was given up, as it does for what was sent in the background (10 s).
        assert time.monotonic() - began < 5
    finally:
        call.kill()
        call.wait()
    assert "Traceback" not in told.read_text()
    assert verb(cluster, "purge", "narrow", "--force").returncode == 0
    assert cluster.mailbox("narrow").depth == 0


# ---- dead letters ----


def test_dead_letters_have_the_shape_that_programs_rely_on(cluster: Cluster, letter: str) -> None:
    (found,) = answer(cluster, "dead", "ls")
    assert found.keys() == LETTER_KEYS
    assert (found["id"], found["task"], found["mailbox"]) == (letter, "cli_app.poison", "celery")
    assert (found["deliveries"], found["root_id"]) == (2, letter)
    assert 0 < found["first_failure"] <= found["last_failure"]
    assert "SIGKILL" in found["reason"]
    assert len(found["attempts"]) == 2
    for attempt in found["attempts"]:
        assert attempt.keys() >= ATTEMPT_KEYS
        assert (attempt["signal"], attempt["exit_code"], attempt["oom"]) == (9, None, False)
        assert attempt["node"] == cluster.workers[0].node
        assert attempt["pid"] > 0
        assert attempt["max_rss"] > 0
    assert answer(cluster, "dead", "ls", "--task", "cli_app.add") == []
    assert [item["id"] for item in answer(cluster, "dead", "ls", "--mailbox", "celery")] == [letter]


def test_a_dead_letter_is_shown_with_its_story(cluster: Cluster, letter: str) -> None:
    shown = answer(cluster, "dead", "show", letter)
    assert shown["arguments"] == "reason='nobody knows'"
    assert shown["redriven"] == 0
    assert "after 2 deliveries that ended badly" in shown["reason"]
    text = verb(cluster, "dead", "show", letter).stdout
    for words in (f"cli_app.poison[{letter}]", "reason='nobody knows'", "signal 9", f"greenroom dead redrive {letter}"):
        assert words in text
    line = verb(cluster, "dead", "ls").stdout.splitlines()[1]
    assert line.startswith(letter)
    assert "cli_app.poison" in line
    assert "SIGKILL" in line


def test_a_dead_letter_that_is_redriven_runs_again(cluster: Cluster, letter: str) -> None:
    (cluster.folder / "antidote").touch()
    # Of a client that has seen it fail, and of one that was told and did not look.
    seen: AsyncResult[Any] = cli_app.app.AsyncResult(letter)
    assert seen.failed()
    assert verb(cluster, "dead", "redrive", letter).stdout == "1 dead letter redriven.\n"
    assert answer(cluster, "dead", "ls") == []
    for result in (seen, cli_app.app.AsyncResult(letter)):
        assert result.get(timeout=30) == "alive"
        assert (result.state, result.ready(), result.result) == ("SUCCESS", True, "alive")
    assert verb(cluster, "result", letter).stdout == "SUCCESS: 'alive'\n"


def test_dead_letters_are_purged_by_filter_and_are_gone(cluster: Cluster, letter: str) -> None:
    assert answer(cluster, "dead", "purge", "--filter", "task:cli_app.add", "--force") == {"purged": 0}
    assert answer(cluster, "dead", "purge", "--filter", "task:cli_app.poison", "--force") == {"purged": 1}
    assert verb(cluster, "dead", "ls").stdout == "No dead letters.\n"
    done = verb(cluster, "dead", "show", letter)
    assert done.returncode == 1
    assert "there is no dead letter" in done.stderr


@pytest.mark.parametrize("deed", ["redrive", "purge"])
def test_which_letters_are_meant_must_be_said_and_exist(cluster: Cluster, deed: str) -> None:
    force = ["--force"] if deed == "purge" else []
    done = verb(cluster, "dead", deed, *force)
    assert done.returncode == 2
    assert f"Say which letters to {deed}" in done.stderr
    assert verb(cluster, "dead", deed, "some-id", "--all", *force).returncode == 2
    done = verb(cluster, "dead", deed, "--filter", "colour:red", *force)
    assert done.returncode == 2
    assert "task:NAME" in done.stderr
    done = verb(cluster, "dead", deed, "no-such-id", *force)
    assert done.returncode == 1
    assert "1 of the 1 ids named are not among the dead letters" in done.stderr


# ---- purge ----


def test_purge_drops_what_waits_and_asks_before(cluster: Cluster) -> None:
    for _ in range(3):
        verb(cluster, "call", "cli_app.add", "-a", "[1, 2]", "-Q", "side")
    done = verb(cluster, "purge", "side")
    assert done.returncode == 1
    assert "say --force" in done.stderr
    told = {**cluster.environment, "GREENROOM_BROKER": cluster.address}
    command = [sys.executable, "-m", "greenroom", "purge", "side"]
    with Terminal(*command, folder=cluster.folder, environment=told) as terminal:
        terminal.wait_for("Drop 3 messages of mailbox 'side'?")
        terminal.type("n\n")
        assert terminal.wait() == 1
    assert cluster.mailbox("side").ready == 3
    with Terminal(*command, folder=cluster.folder, environment=told) as terminal:
        terminal.wait_for("Drop 3 messages of mailbox 'side'?")
        terminal.type("y\n")
        terminal.wait_for("3 messages of 'side' dropped.")
        assert terminal.wait() == 0
    assert cluster.mailbox("side").depth == 0
    assert verb(cluster, "purge", "side", "--force").stdout == "0 messages of 'side' dropped.\n"


# ---- report ----


def test_report_names_versions_and_no_setting_s_value(cluster: Cluster) -> None:
    secret = {**cluster.environment, "GREENROOM_SIGNING_KEY": "do-not-tell"}
    text = show(cluster, "report", environment=secret)
    for words in ("greenroom", "libzmq", "sqlite", "python", "GREENROOM_SIGNING_KEY"):
        assert words in text
    assert "do-not-tell" not in text
    assert answer(cluster, "report")["cores"].isdigit()
