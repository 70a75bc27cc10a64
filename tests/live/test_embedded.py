"""Embedded clusters: `with app.run():` in scripts, one-liners, pipes, prompts and notebooks, and what is left of them.

Each test runs a program of its own, as a user would, in a folder where everything that is started can be found again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cluster import GONE_SECONDS, PATIENCE_SECONDS, Cluster, wait_for
from .terminal import CONTROL_C, CONTROL_D, Terminal

pytestmark = pytest.mark.live

#: Tasks as somebody writes them into a script.
TASKS = """
import os, signal, sys, time
from greenroom import App

app = App("shop")

class Rejected(Exception):
    def __init__(self, order):
        super().__init__(order)
        self.order = order

@app.task
def add(x, y):
    return x + y

@app.task
def refuse(order):
    try:
        {}["price"]
    except KeyError as error:
        raise Rejected(order) from error

@app.task
def nap(seconds, path=""):
    if path:
        open(path, "w").close()
    time.sleep(seconds)
"""


@pytest.fixture
def place() -> Iterator[Cluster]:
    """A folder, and an environment by which what runs is found. At the end nothing may run, and no folder be left."""
    with Cluster() as place:
        (place.folder / "tmp").mkdir()
        place.environment["TMPDIR"] = str(place.folder / "tmp")
        place.environment["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
        yield place
        place.close()
        assert list((place.folder / "tmp").iterdir()) == []
        assert nodes_left(place) == []


def nodes_left(place: Cluster) -> list[Path]:
    """Runtime folders of nodes."""
    return list(Path(place.environment["XDG_RUNTIME_DIR"]).glob("greenroom/nodes/*"))


def python(place: Cluster, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=place.folder,
        env=place.environment,
        input=input,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def begin(place: Cluster, program: str) -> subprocess.Popen[str]:
    """Start a program, as a file `shop.py` that is run."""
    (place.folder / "shop.py").write_text(TASKS + textwrap.dedent(program))
    return subprocess.Popen(
        [sys.executable, "shop.py"],
        cwd=place.folder,
        env=place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As a shell starts it: a Ctrl-C is for it and what is in its group.
        start_new_session=True,
    )


def run(place: Cluster, program: str) -> str:
    """Run a program as a file; return what it printed."""
    process = begin(place, program)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    return out


def until(place: Cluster, name: str) -> None:
    """Wait until the program has made this file."""
    wait_for((place.folder / name).exists, f"the program should make {name}")


# ---- where tasks may stand ----


def test_tasks_of_a_script_s_main_run_in_its_workers(place: Cluster) -> None:
    out = run(
        place,
        """
        if __name__ == "__main__":
            with app.run(workers=2) as cluster:
                print(add.name, add.delay(20, 22).get(timeout=30))
                try:
                    refuse.delay("o-1").get(timeout=30)
                except Rejected as error:
                    print(type(error) is Rejected, error.order, repr(error.__cause__))
                print([info.name for info in cluster.mailboxes()], cluster.dead_letters())
                roles = sorted(session.role for session in cluster.status().sessions)
                print(roles, cluster.address.startswith("ipc://"))
        """,
    )
    assert out.splitlines() == [
        "shop.add 42",
        "True o-1 KeyError('price')",
        "['celery'] []",
        "['child', 'child', 'client', 'node'] True",
    ]


ONE_LINER = TASKS + "with app.run(workers=1): print(add.delay(20, 22).get(timeout=30))\n"


@pytest.mark.parametrize("how", ["-c", "stdin", "dash"])
def test_tasks_of_a_program_without_a_file_run_in_its_workers(place: Cluster, how: str) -> None:
    if how == "-c":
        done = python(place, "-c", ONE_LINER)
    else:
        done = python(place, *(["-"] if how == "dash" else []), input=ONE_LINER)
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


def test_tasks_of_an_interactive_session_run_in_its_workers(place: Cluster) -> None:
    with Terminal(sys.executable, "-i", "-q", folder=place.folder, environment=place.environment) as terminal:
        terminal.wait_for(">>> ")
        terminal.type("from greenroom import App\napp = App('shell')\n")
        terminal.type("@app.task\ndef add(x, y):\n    return x + y\n\n")
        terminal.type("cluster = app.run(workers=1).__enter__()\nprint('it', 'runs')\n")
        terminal.wait_for("it runs")
        terminal.type("print('=', add.delay(20, 22).get(timeout=30))\n")
        terminal.wait_for("= 42")
        # A Ctrl-C is for what is typed, not for the cluster.
        terminal.type("import time; print('now'); time.sleep(60)\n")
        terminal.wait_for("\nnow")
        terminal.type(CONTROL_C)
        terminal.wait_for("KeyboardInterrupt")
        terminal.type("print('=', add.delay(1, 2).get(timeout=30))\n")
        terminal.wait_for("= 3\n>>> ")
        # Nobody leaves the block; the end of the session is its end.
        terminal.type(CONTROL_D)
        assert terminal.wait() == 0


def test_tasks_of_a_notebook_s_cells_run_in_its_workers(place: Cluster) -> None:
    cells = [
        "from greenroom import App\napp = App('notebook')",
        "@app.task\ndef add(x, y):\n    return x + y",
        "cluster = app.run(workers=1)\ncluster.__enter__()",
        "print(await add.delay(20, 22))",
        # A cell that is run again, changed.
        "@app.task(name='add-again')\ndef add(x, y):\n    return x + y + 1",
        "cluster.__exit__(None, None, None)\ncluster = app.run(workers=1)\ncluster.__enter__()",
        "print(await add.delay(20, 22))",
        "cluster.__exit__(None, None, None)",
    ]
    # As ipykernel does: the cells are compiled one by one, with top-level await, in a running loop.
    kernel = """
        import ast, asyncio, inspect, linecache
        CELLS = {cells!r}
        async def kernel():
            for number, cell in enumerate(CELLS):
                name = f"<ipython-input-{{number}}>"
                linecache.cache[name] = len(cell), None, cell.splitlines(True), name
                code = compile(cell, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                result = eval(code, globals())
                if inspect.iscoroutine(result):
                    await result
        asyncio.run(kernel())
    """
    done = python(place, "-c", textwrap.dedent(kernel).format(cells=cells))
    assert (done.returncode, done.stdout) == (0, "42\n43\n"), done.stderr


# ---- the block ----


def test_without_workers_it_is_a_broker_alone_and_data_outlives_it(place: Cluster) -> None:
    out = run(
        place,
        """
        if __name__ == "__main__":
            with app.run(workers=0, data="kept") as cluster:
                result = add.delay(20, 22)
                print(cluster.mailboxes()[0].ready, result.state)
            with app.run(workers=1, data="kept") as cluster:
                print(app.AsyncResult(result.id).get(timeout=30))
        """,
    )
    assert out.splitlines() == ["1 PENDING", "42"]


def test_two_clusters_of_one_process_know_nothing_of_each_other(place: Cluster) -> None:
    out = run(
        place,
        """
        other = App("other")

        @other.task
        def twice(x):
            return 2 * x

        if __name__ == "__main__":
            before = app.conf.broker_url
            with app.run(workers=1) as first, other.run(workers=1, pool="threads") as second:
                print(add.delay(20, 22).get(timeout=30), twice.delay(21).get(timeout=30))
                print(first.address != second.address, first.status().accepted, second.status().accepted)
                with app.run(workers=0) as inner:
                    print(app.conf.broker_url == inner.address)
                print(app.conf.broker_url == first.address, add.delay(1, 2).get(timeout=30))
            print(app.conf.broker_url == before, app.signing_key)
        """,
    )
    assert out.splitlines() == ["42 42", "True 1 1", "True", "True 3", "True None"]


def test_a_temporary_folder_with_a_long_path_is_no_obstacle(place: Cluster) -> None:
    long = place.folder / "tmp" / ("x" * 100)
    long.mkdir()
    place.environment["TMPDIR"] = str(long)
    out = run(
        place,
        """
        if __name__ == "__main__":
            with app.run(workers=1) as cluster:
                print(cluster.address.partition(":")[0], add.delay(20, 22).get(timeout=30))
        """,
    )
    assert out == "tcp 42\n"
    long.rmdir()


def test_a_process_forked_inside_the_block_leaves_it_without_stopping_anything(place: Cluster) -> None:
    out = run(
        place,
        """
        if __name__ == "__main__":
            with app.run(workers=1):
                pid = os.fork()
                if pid:
                    os.waitpid(pid, 0)
                print(add.delay(20, 22).get(timeout=30), flush=True)
        """,
    )
    assert out == "42\n42\n"


# ---- what cannot start ----


def test_a_broken_import_in_the_application_is_told_in_words(place: Cluster) -> None:
    (place.folder / "parts.py").write_text("from greenroom import App\napp = App('parts')\n")
    out = run(
        place,
        """
        import parts
        if __name__ == "__main__":
            with open("parts.py", "a") as file:
                file.write("import not_there_at_all\\n")
            try:
                with parts.app.run(workers=1):
                    print("it runs")
            except Exception as error:
                print(type(error).__name__, error)
        """,
    )
    assert out == (
        "LaunchFailed the embedded worker could not start: the application cannot be loaded: "
        "ModuleNotFoundError: No module named 'not_there_at_all'\n"
    )


def test_what_cannot_be_sent_to_the_workers_is_told_in_words(place: Cluster) -> None:
    out = run(
        place,
        """
        import threading
        lock = threading.Lock()

        @app.task
        def locked():
            with lock:
                return 1

        if __name__ == "__main__":
            try:
                with app.run(workers=1):
                    print("it runs")
            except Exception as error:
                print(type(error).__name__, error)
        """,
    )
    assert out.startswith("EncodeError the application cannot be sent to its workers: TypeError: cannot pickle")
    assert "inside the tasks" in out


def test_a_start_that_fails_ends_at_once_where_signals_are_ignored_as_behind_a_shell(place: Cluster) -> None:
    out = run(
        place,
        """
        import threading
        lock = threading.Lock()

        @app.task
        def locked():
            with lock:
                return 1

        if __name__ == "__main__":
            signal.signal(signal.SIGQUIT, signal.SIG_IGN)
            began = time.monotonic()
            try:
                with app.run(workers=1):
                    print("it runs")
            except Exception as error:
                print(type(error).__name__, time.monotonic() - began < 10)
        """,
    )
    assert out.strip() == "EncodeError True"


def test_a_data_folder_that_is_in_use_is_told_with_the_pid(place: Cluster) -> None:
    out = run(
        place,
        """
        if __name__ == "__main__":
            with app.run(workers=0, data="kept") as first:
                try:
                    with App("second").run(workers=0, data="kept"):
                        print("it runs")
                except Exception as error:
                    print(str(first.broker_pid) in str(error), type(error).__name__)
        """,
    )
    assert out == "True LaunchFailed\n"


# ---- its end, in order and out of order ----


def test_ctrl_c_inside_the_block_stops_everything_at_once(place: Cluster) -> None:
    process = begin(
        place,
        """
        if __name__ == "__main__":
            with app.run(workers=1):
                nap.delay(60, "napping").get(timeout=90)
        """,
    )
    until(place, "napping")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert "KeyboardInterrupt" in err
    # Cold: the task is not waited for.
    assert time.monotonic() - began < 10
    place.assert_nothing_left()


def test_an_exception_inside_the_block_is_raised_and_stops_everything(place: Cluster) -> None:
    out = run(
        place,
        """
        if __name__ == "__main__":
            try:
                with app.run(workers=1):
                    nap.delay(60, "napping")
                    while not os.path.exists("napping"):
                        time.sleep(0.01)
                    raise RuntimeError("mine")
            except RuntimeError as error:
                print(error)
        """,
    )
    assert out == "mine\n"


def test_a_running_task_is_finished_when_the_block_is_left(place: Cluster) -> None:
    out = run(
        place,
        """
        @app.task
        def leave_a_trace():
            open("begun", "w").close()
            time.sleep(0.5)
            open("trace", "w").close()

        if __name__ == "__main__":
            with app.run(workers=1):
                leave_a_trace.delay()
                while not os.path.exists("begun"):
                    time.sleep(0.01)
            print(os.path.exists("trace"))
        """,
    )
    assert out == "True\n"


def test_ctrl_c_while_it_stops_makes_it_quicker(place: Cluster) -> None:
    process = begin(
        place,
        """
        if __name__ == "__main__":
            try:
                with app.run(workers=1) as cluster:
                    pids = cluster.broker_pid, cluster.node_pid
                    nap.delay(60, "napping")
                    while not os.path.exists("napping"):
                        time.sleep(0.01)
                    app.flush()
                    open("leaving", "w").close()
            except KeyboardInterrupt:
                # This program goes on, so that nothing ends because of its end.
                print([pid for pid in pids if os.path.exists(f"/proc/{pid}")], os.listdir(os.environ["TMPDIR"]))
        """,
    )
    until(place, "leaving")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert out == "[] []\n"
    place.assert_nothing_left()


def test_ctrl_c_before_the_worker_was_told_to_stop_makes_it_quicker_too(place: Cluster) -> None:
    out = run(
        place,
        """
        if __name__ == "__main__":
            began = 0.0
            try:
                with app.run(workers=1):
                    nap.delay(60, "napping")
                    while not os.path.exists("napping"):
                        time.sleep(0.01)
                    began = time.monotonic()

                    def flush(timeout):
                        raise KeyboardInterrupt

                    app.flush = flush
            except KeyboardInterrupt:
                print(time.monotonic() - began < 20, os.listdir(os.environ["TMPDIR"]))
        """,
    )
    assert out == "True []\n"
    place.assert_nothing_left()


def test_a_killed_program_leaves_no_process_and_no_folder_behind(place: Cluster) -> None:
    process = begin(
        place,
        """
        if __name__ == "__main__":
            with app.run(workers=2):
                nap.delay(60, "napping").get(timeout=90)
        """,
    )
    until(place, "napping")
    process.kill()
    process.communicate()
    place.assert_nothing_left(GONE_SECONDS)


def test_a_killed_program_s_cluster_ends_though_a_fork_of_it_lives_on(place: Cluster) -> None:
    process = begin(
        place,
        """
        if __name__ == "__main__":
            with app.run(workers=1) as cluster:
                pid = os.fork()
                if pid == 0:
                    time.sleep(60)
                    os._exit(0)
                with open("pids", "w") as file:
                    print(pid, cluster.broker_pid, cluster.node_pid, file=file)
                os.rename("pids", "written")
                time.sleep(60)
        """,
    )
    until(place, "written")
    fork, broker, node = map(int, (place.folder / "written").read_text().split())
    process.kill()
    process.wait()
    wait_for(lambda: not {broker, node} & place.left().keys(), "the cluster should end", GONE_SECONDS)
    assert fork in place.left()
    os.kill(fork, signal.SIGKILL)
    process.communicate()


# ---- worker_main ----


def test_s8_a_script_that_is_its_own_worker_names_its_tasks_after_main(place: Cluster) -> None:
    place.start_broker()
    (place.folder / "tasks.py").write_text(
        "import sys\nfrom greenroom import App\napp = App()\n"
        "@app.task\ndef add(x, y):\n    return x + y\n"
        "if __name__ == '__main__':\n    sys.exit(app.worker_main(sys.argv[1:]))\n"
    )
    told = {**place.environment, "GREENROOM_BROKER": place.address, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "tasks.py", "worker", "-c", "1", "-l", "WARNING"]
    with subprocess.Popen(command, cwd=place.folder, env=told, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        banner = ""
        while "stop " not in banner:
            banner += worker.stdout.readline()
        assert "__main__.add" in banner
        assert place.command("call", "__main__.add", "-a", "[20, 22]", "-w", "30").stdout == "SUCCESS: 42\n"
        # Who imports the same file knows the task by another name: a clear error, at the caller's.
        done = place.command("call", "tasks.add", "-a", "[20, 22]", "-w", "30")
        assert "NotRegistered" in done.stdout
        assert "tasks.add" in done.stdout
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE_SECONDS) == 0
