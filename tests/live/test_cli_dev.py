"""`greenroom dev` on a terminal, and `greenroom run` around a command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from .cluster import GONE_SECONDS, PATIENCE_SECONDS, Cluster, wait_for
from .terminal import CONTROL_C, Terminal

pytestmark = pytest.mark.live

APPLICATION = """
import os, time
from greenroom import App
app = App("shop")

@app.task
def version():
    return {version}

@app.task
def nap(seconds, path):
    open(path, "w").close()
    time.sleep(seconds)
"""


@pytest.fixture
def place() -> Iterator[Cluster]:
    """A folder with an application in it. At the end nothing may run, and no temporary folder be left."""
    with Cluster() as place:
        (place.folder / "tmp").mkdir()
        place.environment["TMPDIR"] = str(place.folder / "tmp")
        place.environment["NO_COLOR"] = "1"
        write(place, 1)
        yield place
        place.close()
        assert list((place.folder / "tmp").iterdir()) == []


def write(place: Cluster, version: object) -> None:
    """Save another version of the application."""
    (place.folder / "shop.py").write_text(APPLICATION.format(version=version))


def dev(place: Cluster, *arguments: str, columns: int = 100) -> Terminal:
    """`greenroom dev` on a terminal."""
    command = [sys.executable, "-m", "greenroom", "dev", "-A", "shop", "--bind", place.address, *arguments]
    return Terminal(*command, folder=place.folder, environment=place.environment, columns=columns)


def asked(place: Cluster) -> str:
    """What the task says now."""
    return place.command("call", "shop.version", "-w", "20").stdout


# ---- dev ----


def test_dev_starts_the_worker_anew_when_a_file_changes(place: Cluster) -> None:
    with dev(place) as terminal:
        terminal.wait_for("for development, not for production")
        terminal.wait_for("shop.version")
        terminal.wait_for("Ctrl-C")
        assert asked(place) == "SUCCESS: 1\n"
        write(place, 2)
        terminal.wait_for("greenroom: shop.py changed, the worker starts anew")
        terminal.wait_for("greenroom: the worker is ready, with 2 tasks, after")
        assert asked(place) == "SUCCESS: 2\n"
        terminal.type(CONTROL_C)
        terminal.wait_for("greenroom: stopped")
        assert terminal.wait() == 0
        assert "Traceback" not in terminal.text
        place.assert_nothing_left()


def test_dev_tells_of_a_syntax_error_once_and_waits_for_the_mending(place: Cluster) -> None:
    with dev(place, "-l", "WARNING") as terminal:
        terminal.wait_for("Ctrl-C")
        write(place, "(")
        terminal.wait_for("the application 'shop' cannot be loaded: SyntaxError: '(' was never closed")
        terminal.wait_for("    return (\n")
        terminal.wait_for("greenroom: the worker cannot start; waiting for a change")
        write(place, 3)
        terminal.wait_for("greenroom: the worker is ready, with 2 tasks")
        assert asked(place) == "SUCCESS: 3\n"
        assert terminal.text.count("was never closed") == 2  # in the sentence, and at the end of the traceback
        terminal.popen.send_signal(signal.SIGTERM)
        assert terminal.wait() == 0


def test_dev_with_an_application_that_is_broken_from_the_start_waits_for_the_mending(place: Cluster) -> None:
    write(place, "(")
    with dev(place, "-l", "WARNING") as terminal:
        terminal.wait_for("greenroom: the worker cannot start; waiting for a change")
        write(place, 4)
        terminal.wait_for("greenroom: the worker is ready, with 2 tasks")
        assert asked(place) == "SUCCESS: 4\n"
        terminal.type(CONTROL_C)
        assert terminal.wait() == 0


def test_dev_without_reload_ends_when_the_application_is_broken(place: Cluster) -> None:
    write(place, "(")
    with dev(place, "--no-reload", "-l", "CRITICAL") as terminal:
        terminal.wait_for("greenroom: the worker of shop could not start: the application 'shop' cannot be loaded")
        assert terminal.wait() == 1


@pytest.mark.parametrize("moment", ["at once", "broker", "worker", "reload", "task"])
def test_ctrl_c_ends_dev_at_any_moment_and_leaves_nothing(place: Cluster, moment: str) -> None:
    with dev(place) as terminal:
        if moment == "at once":
            wait_for(lambda: place.left(), "it should run")
        elif moment == "broker":
            wait_for(lambda: len(place.left()) > 1, "it should start something")
        elif moment == "worker":
            wait_for(lambda: any("cluster.node" in command for command in place.left().values()), "a worker")
        else:
            terminal.wait_for("Ctrl-C")
            if moment == "reload":
                write(place, 2)
                terminal.wait_for("starts anew")
            else:
                place.command("call", "shop.nap", "-a", f'[60, "{place.folder}/napping"]')
                wait_for((place.folder / "napping").exists, "the task should run")
        terminal.type(CONTROL_C)
        if moment == "task":
            # The first one lets the task run; this one is in a hurry.
            terminal.wait_for("SIGTERM")
            terminal.type(CONTROL_C)
        terminal.wait(10)
        place.assert_nothing_left(GONE_SECONDS)


def test_dev_whose_worker_dies_says_so_and_starts_it_with_the_next_change(place: Cluster) -> None:
    with dev(place) as terminal:
        terminal.wait_for("Ctrl-C")
        (node,) = [pid for pid, command in place.left().items() if "cluster.node" in command]
        os.kill(node, signal.SIGKILL)
        terminal.wait_for("greenroom: the worker ended with exit code -9; waiting for a change")
        write(place, 5)
        terminal.wait_for("greenroom: the worker is ready")
        assert asked(place) == "SUCCESS: 5\n"
        terminal.type(CONTROL_C)
        assert terminal.wait() == 0


def test_dev_whose_broker_dies_ends_with_exit_code_1(place: Cluster) -> None:
    with dev(place) as terminal:
        terminal.wait_for("Ctrl-C")
        (broker,) = [pid for pid, command in place.left().items() if "cluster.broker" in command]
        os.kill(broker, signal.SIGKILL)
        terminal.wait_for("greenroom: the broker ended with exit code -9")
        assert terminal.wait() == 1


def test_a_killed_dev_leaves_no_process(place: Cluster) -> None:
    with dev(place) as terminal:
        terminal.wait_for("Ctrl-C")
        terminal.popen.kill()
        terminal.popen.wait()
        place.assert_nothing_left(GONE_SECONDS)


def test_dev_tells_what_happens_in_lines_of_json(place: Cluster) -> None:
    command = ["dev", "-A", "shop", "--bind", place.address, "--json", "-l", "ERROR"]
    with subprocess.Popen(
        [sys.executable, "-m", "greenroom", *command],
        cwd=place.folder,
        env=place.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert (ready["event"], ready["app"], ready["address"]) == ("ready", "shop", place.address)
        write(place, 2)
        assert json.loads(process.stdout.readline())["paths"] == ["shop.py"]
        assert json.loads(process.stdout.readline())["event"] == "ready"
        process.send_signal(signal.SIGTERM)
        assert json.loads(process.stdout.readline())["event"] == "stopped"
        assert process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("columns", [80, 120])
def test_dev_s_banner_fits_the_terminal(place: Cluster, columns: int) -> None:
    with dev(place, "-l", "WARNING", columns=columns) as terminal:
        terminal.wait_for("Ctrl-C")
        assert max(map(len, terminal.text.splitlines())) <= columns
        assert "mailboxes  celery" in terminal.text
        terminal.type(CONTROL_C)
        terminal.wait()


# ---- run ----

SCRIPT = """
import sys
from shop import app, version
print(app.conf.broker_url.partition(":")[0], version.delay().get(timeout=20))
sys.exit(7)
"""


def test_run_gives_a_command_a_broker_and_a_worker_and_passes_its_exit_code_on(place: Cluster) -> None:
    (place.folder / "script.py").write_text(SCRIPT)
    for words in ([sys.executable, "script.py"], ["script.py"]):
        done = place.command("run", "-A", "shop", "-c", "1", "--", *words)
        assert (done.returncode, done.stdout) == (7, "ipc 1\n"), done.stderr
        place.assert_nothing_left()


def test_run_without_an_application_is_a_broker_alone(place: Cluster) -> None:
    done = place.command("run", "--json", "--", sys.executable, "-m", "greenroom", "mailboxes", "--json")
    assert (done.returncode, done.stdout) == (0, "[]\n")
    ready, over = map(json.loads, done.stderr.splitlines())
    assert ready["address"].startswith("ipc://")
    assert over["exit_code"] == 0
    assert over["seconds"] > 0


def test_run_of_a_program_that_is_not_there_is_told(place: Cluster) -> None:
    done = place.command("run", "--", "no-such-program")
    assert done.returncode == 127
    assert done.stderr == "greenroom: no-such-program cannot be run: No such file or directory\n"


def test_run_with_a_broken_application_runs_nothing(place: Cluster) -> None:
    write(place, "(")
    done = place.command("run", "-A", "shop", "-l", "CRITICAL", "--", "touch", "ran")
    assert done.returncode == 1
    assert done.stderr.startswith("greenroom: the worker of shop could not start: the application 'shop'")
    assert not (place.folder / "ran").exists()


WAITING = """
import signal, sys, time
def told(number, frame):
    sys.exit(5)
signal.signal(signal.SIGTERM, told)
open("waiting", "w").close()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_ends_its_command(place: Cluster, number: signal.Signals) -> None:
    (place.folder / "waiting.py").write_text(WAITING)
    command = [sys.executable, "-m", "greenroom", "run", "-A", "shop", "--", "waiting.py"]
    with subprocess.Popen(command, cwd=place.folder, env=place.environment) as process:
        wait_for((place.folder / "waiting").exists, "the command should run")
        process.send_signal(number)
        # The command's own code after TERM, which is passed on to it.
        assert process.wait(PATIENCE_SECONDS) == (5 if number == signal.SIGTERM else -number)
    place.assert_nothing_left(GONE_SECONDS)


def test_ctrl_c_is_for_the_command_that_runs(place: Cluster) -> None:
    (place.folder / "waiting.py").write_text(
        "import time\ntry:\n    print('it waits', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    raise SystemExit(9)\n"
    )
    command = [sys.executable, "-m", "greenroom", "run", "-A", "shop", "--", "waiting.py"]
    with Terminal(*command, folder=place.folder, environment=place.environment) as terminal:
        terminal.wait_for("it waits")
        terminal.type(CONTROL_C)
        assert terminal.wait() == 9
    place.assert_nothing_left()


def test_ctrl_c_before_the_command_runs_ends_run(place: Cluster) -> None:
    command = [sys.executable, "-m", "greenroom", "run", "-A", "shop", "--", "touch", "ran"]
    with Terminal(*command, folder=place.folder, environment=place.environment) as terminal:
        wait_for(lambda: any("cluster.broker" in command for command in place.left().values()), "a broker")
        began = time.monotonic()
        terminal.type(CONTROL_C)
        assert terminal.wait() == 128 + signal.SIGINT
        assert time.monotonic() - began < 10
    place.assert_nothing_left()
    assert not (place.folder / "ran").exists()
