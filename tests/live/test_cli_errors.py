"""What a person sees who did something wrong: one sentence that names it and says what to do, and an exit code."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from greenroom.supervisor.cli.main import run

from .cluster import Cluster, Worker, wait_for

pytestmark = pytest.mark.live


@pytest.fixture
def place() -> Iterator[Cluster]:
    """A folder for programs; nobody listens at its address yet."""
    with Cluster() as place:
        yield place


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# ---- no broker ----


@pytest.mark.parametrize(
    "asked",
    [
        ["status"],
        ["mailboxes"],
        ["dead", "ls"],
        ["dead", "show", "some-id"],
        ["dead", "redrive", "--all"],
        ["dead", "purge", "--all", "--force"],
        ["purge", "celery", "--force"],
        ["call", "tasks.add"],
        ["result", "some-id"],
    ],
    ids=" ".join,
)
def test_a_broker_that_is_not_there_is_told_with_its_address_in_bounded_time(
    asked: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    began = time.monotonic()
    code = run([*asked, "-b", address, "--timeout", "0.3"])
    assert 0.3 < time.monotonic() - began < 5
    out, err = capfd.readouterr()
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert err.startswith(f"greenroom: no broker answered at {address} within 0.3 s")
    assert "start one with `greenroom broker`" in err


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("5670", "'5670' is not the address of a broker; write tcp://HOST:PORT"),
        ("amqp://localhost", "begins with 'amqp'"),
        ("tcp://127.0.0.1:seven", "'seven' in 'tcp://127.0.0.1:seven' is not a port"),
    ],
)
def test_an_address_that_is_none_is_told_at_once(address: str, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "-b", address]) == 1
    err = capfd.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 1


# ---- a broker that cannot start ----


def refused(place: Cluster, *arguments: str) -> str:
    """What a broker says that cannot start: one line, and nothing else."""
    done = place.command("broker", *arguments)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("greenroom: the broker could not start: ")
    return done.stderr


def test_a_second_broker_on_a_data_folder_names_the_pid_of_the_first(place: Cluster) -> None:
    first = place.start_broker()
    told = refused(place, "--bind", f"tcp://127.0.0.1:{free_port()}", "--data", str(place.folder / "data"))
    assert f"is in use by process {first.pid}" in told
    assert "--data" in told


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:5670", "tcp://*:5670", "greenroom://192.0.2.1"])
def test_binding_off_loopback_is_refused_with_the_reason(place: Cluster, address: str) -> None:
    told = refused(place, "--bind", address, "--data", "fresh")
    assert f"{address} can be reached from other machines" in told
    assert "SSH tunnel" in told


def test_a_data_folder_that_cannot_be_written_is_told_with_its_path(place: Cluster) -> None:
    (place.folder / "file").touch()
    told = refused(place, "--bind", f"tcp://127.0.0.1:{free_port()}", "--data", "file/data")
    assert "data folder 'file/data'" in told
    assert "--data" in told


@pytest.mark.parametrize("kind", ["tcp", "ipc"])
def test_an_address_in_use_is_told(place: Cluster, kind: str) -> None:
    with socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX) as taken:
        if kind == "tcp":
            taken.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        else:
            taken.bind(str(place.folder / "taken"))
            address = f"ipc://{place.folder}/taken"
        taken.listen()
        told = refused(place, "--bind", address, "--data", "fresh")
        assert address in told
        assert "choose another address" in told


def test_a_store_that_nobody_knows_is_told_without_what_its_url_holds(place: Cluster) -> None:
    told = refused(place, "--store", "mysql://somebody:secret@host/db", "--data", "fresh")
    assert "nothing is known of a store mysql://" in told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["broker", "--max-messages", "0"], "--max-messages"),
        (["broker", "--on-full", "explode"], "explode"),
        (["worker"], "A worker needs an application"),
        (["worker", "-A", "tasks", "-c", "none"], "'none' is neither a number nor 'auto'"),
        (["worker", "-A", "tasks", "-c", "0"], "0 is less than 1"),
        (["worker", "-A", "tasks", "-P", "gevent"], "gevent"),
        (["worker", "-A", "tasks", "-l", "LOUD"], "LOUD"),
        (["worker", "-A", "tasks", "--workdir", "nowhere"], "nowhere"),
        (["dev"], "--app"),
        (["dev", "-A", "tasks", "--bananas"], "--bananas"),
        (["run"], "COMMAND"),
    ],
)
def test_wrong_options_are_refused_with_exit_code_2(
    arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert words in err


# ---- a worker that cannot start ----


def ended(place: Cluster, app: str, *arguments: str) -> tuple[int, str]:
    """The exit code and the log of a worker that cannot use its application."""
    if place.broker is None:
        place.start_broker()
    worker: Worker = place.start_worker(app, "-c", "2", *arguments, wait=False)
    code = worker.wait()
    return code, worker.log.read_text()


def test_a_module_that_is_not_there_is_told_once_without_a_traceback(place: Cluster) -> None:
    code, log = ended(place, "no_such_module:app")
    assert code == 3
    assert log.count("no_such_module") == 2  # the application, and the module of it that is missing
    assert f"there is no module 'no_such_module' in {place.folder}" in log
    assert "name it as module or module:attribute" in log
    assert "Traceback" not in log


def test_a_module_without_an_application_is_told_once(place: Cluster) -> None:
    (place.folder / "empty.py").write_text("x = 1\n")
    code, log = ended(place, "empty")
    assert code == 3
    assert log.count("module 'empty' has no application; expected an attribute app = App(...)") == 1
    code, log = ended(place, "empty:x")
    assert code == 3
    assert log.count("'empty:x' names 1, which is no application") == 1


def test_an_error_at_the_import_is_told_once_with_the_application_s_own_traceback(place: Cluster) -> None:
    (place.folder / "broken.py").write_text("from greenroom import App\napp = App()\nfrom nowhere_at_all import x\n")
    code, log = ended(place, "broken")
    assert code == 3
    assert log.count("Traceback") == 1
    assert log.count("the application 'broken' cannot be loaded: ModuleNotFoundError") == 1
    assert f'File "{place.folder}/broken.py", line 3' in log
    # Neither our own frames nor those of the import system.
    assert log.count('  File "') == 1
    assert "the worker ends with exit code 3" in log


def test_a_syntax_error_is_told_once_with_its_place(place: Cluster) -> None:
    (place.folder / "wrong.py").write_text("def (\n")
    code, log = ended(place, "wrong")
    assert code == 3
    assert log.count("    def (\n") == 1
    assert f'File "{place.folder}/wrong.py", line 1' in log


def test_a_module_that_exits_when_it_is_imported_ends_the_worker(place: Cluster) -> None:
    (place.folder / "script.py").write_text("import sys\nsys.exit('this is a script')\n")
    code, log = ended(place, "script")
    assert code != 0
    assert "ended before it was ready" in log


def test_a_node_name_that_cannot_be_is_told(place: Cluster) -> None:
    (place.folder / "good.py").write_text("from greenroom import App\napp = App()\n")
    code, log = ended(place, "good", "-n", "blue@%q")
    assert code == 2
    assert log == (
        "greenroom: the worker could not start: the node name 'blue@%q' has %q; %h, %n, %d, %i and %I are known, "
        "%% is a percent sign\n"
    )


def test_a_worker_tells_of_an_absent_broker_once_and_finds_it_when_it_comes(place: Cluster) -> None:
    (place.folder / "good.py").write_text("from greenroom import App\napp = App()\n")
    worker = place.start_worker("good", "-c", "1", wait=False)
    wait_for(lambda: "no broker at" in worker.log.read_text(), "the worker should miss its broker")
    place.start_broker()
    worker.ready()
    log = worker.log.read_text()
    assert log.count("no broker at") == 1
    assert place.address in log


# ---- what is seen when all is well ----


def test_a_worker_s_banner_comes_when_it_is_ready_and_names_its_mailboxes(place: Cluster) -> None:
    (place.folder / "good.py").write_text(
        "from greenroom import App\napp = App(task_default_queue='orders')\n"
        "@app.task\ndef add(x, y):\n    return x + y\n"
    )
    place.start_broker()
    worker = place.start_worker("good", "-c", "1", "-l", "WARNING")
    banner = worker.banner()
    assert (banner["mailboxes"], banner["concurrency"], banner["pid"]) == (["orders"], 1, worker.pid)
    assert "good.add" in banner["tasks"]
    assert [child.mailboxes for child in place.children(worker)] == [["orders"]]
    assert worker.log.read_text() == ""


def test_term_and_interrupt_end_broker_and_worker_with_exit_code_0(place: Cluster) -> None:
    (place.folder / "good.py").write_text("from greenroom import App\napp = App()\n")
    for number in (signal.SIGTERM, signal.SIGINT):
        broker = place.start_broker()
        worker = place.start_worker("good", "-c", "1")
        worker.send(number)
        assert worker.wait() == 0
        broker.send(number)
        assert broker.wait() == 0
        assert re.search(r"the broker stops", broker.log.read_text())
        assert "Traceback" not in worker.log.read_text() + broker.log.read_text()


def test_output_that_nobody_reads_ends_a_verb_quietly(place: Cluster) -> None:
    place.start_broker()
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "greenroom", "report"]
    done = subprocess.run(command, env=place.environment, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")
