"""An application by value: a script writes itself down, and another process makes it again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Program = Callable[..., str]


@pytest.fixture
def ship(tmp_path: Path) -> Program:
    """Runs a script that ends in writing `app.ship()`, then a worker with these lines; returns what that prints."""

    def run(script: str, worker: str, **modules: str) -> str:
        for name, source in modules.items():
            (tmp_path / f"{name}.py").write_text(source, "utf-8")
        shipped = tmp_path / "shipped"
        (tmp_path / "script.py").write_text(f"{script}\nopen({str(shipped)!r}, 'wb').write(app.ship())\n", "utf-8")
        (tmp_path / "elsewhere").mkdir()
        loader = tmp_path / "elsewhere" / "worker.py"
        loader.write_text(
            "from greenroom.actors.shipping import load_shipped\n"
            f"app = load_shipped(open({str(shipped)!r}, 'rb').read())\n"
            "tasks = app.tasks\n"
            f"{worker}\n",
            "utf-8",
        )
        subprocess.run([sys.executable, str(tmp_path / "script.py")], check=True, timeout=60, cwd=tmp_path)
        done = subprocess.run(
            [sys.executable, str(loader)], check=False, timeout=60, capture_output=True, text=True, cwd="/"
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def test_a_scripts_tasks_keep_their_names_and_bodies(ship: Program) -> None:
    script = """
from greenroom import App

app = App(broker="tcp://10.0.0.1:5670", task_serializer="json")
app.conf.task_default_queue = "jobs"
factor = 3

@app.task
def add(x, y):
    return x + y

@app.task(bind=True, name="own.name", max_retries=9, acks_late=True)
def scaled(self, x):
    return self.name, factor * add(x, 1), self.max_retries
"""
    worker = """
print(sorted(tasks), tasks["__main__.add"](1, 2), tasks["own.name"](1))
print(app.conf.broker_url, app.conf.task_serializer, app.conf.task_default_queue, app.main)
print(tasks["own.name"].acks_late, tasks["__main__.add"].app is app, repr(tasks["__main__.add"])[:25])
"""
    assert ship(script, worker).splitlines() == [
        "['__main__.add', 'own.name'] 3 ('own.name', 6, 9)",
        "tcp://10.0.0.1:5670 json jobs None",
        "True True <@task: __main__.add of _",
    ]


def test_s09_the_apps_name_holds_in_the_worker(ship: Program) -> None:
    script = """
from greenroom import App
app = App("shop")

@app.task
def add(x, y):
    return x + y
"""
    assert ship(script, "print(sorted(tasks), app.main)") == "['shop.add'] shop"


def test_tasks_that_mean_the_app_each_other_and_globals_share_them(ship: Program) -> None:
    script = """
from greenroom import App
app = App()
seen = []

@app.task
def note(x):
    seen.append(x)
    return list(seen), app.tasks["__main__.note"] is note

@app.task
def twice(x):
    note(x)
    return note(x), app.conf.timezone

app.conf.timezone = "Europe/London"
"""
    assert ship(script, "print(tasks['__main__.twice'](1))") == "(([1, 1], True), 'Europe/London')"


def test_classes_of_tasks_and_of_apps_come_along(ship: Program) -> None:
    script = """
from greenroom import App, Task

class Base(Task):
    unit = "kg"
    def on_success(self, retval, task_id, args, kwargs):
        print("hook", retval, self.unit)

class Mine(App):
    def gen_task_name(self, name, module):
        return "mine." + name

app = Mine("x")

@app.task(base=Base)
def weigh(x):
    return x

class Cleanup(Task):
    name = "cleanup"
    days = 3
    def run(self):
        return self.days, type(self).__name__

made = Cleanup()
made.days = 5
app.register_task(made)

class All(Task):
    mark = "all"

app.Task = All

@app.task
def marked():
    return marked.mark
"""
    worker = """
print(tasks["mine.weigh"].apply((7,)).get(), tasks["cleanup"](), tasks["mine.marked"](), type(app).__name__)
"""
    assert ship(script, worker).splitlines() == ["hook 7 kg", "7 (5, 'Cleanup') all Mine"]


def test_retries_and_coroutines_work_as_before(ship: Program) -> None:
    script = """
from greenroom import App
app = App()

@app.task(bind=True, autoretry_for=(ValueError,), max_retries=2)
async def work(self):
    if self.request.retries < 2:
        raise ValueError
    return self.request.retries
"""
    assert ship(script, "print(tasks['__main__.work'].apply().get())") == "2"


def test_actors_and_refs_come_along(ship: Program) -> None:
    script = """
from greenroom import Actor, App
app = App("shop")

class Counter(Actor):
    def __init__(self):
        self.n = 0
    def bump(self, by=1):
        self.n += by
        return self.n

counter = app.ref(Counter, "home")

@app.task
def where():
    return str(counter), counter.app is app
"""
    worker = """
cls = app.actors["shop.Counter"]
print(cls().bump(2), app.actors.name_of(cls), tasks["shop.where"]())
"""
    assert ship(script, worker) == "2 shop.Counter ('actor:shop.Counter:home', True)"


def test_what_can_be_imported_is_imported(ship: Program) -> None:
    script = """
from greenroom import App
import library
app = App(include=["included"])
app.task(name="by.value")(library.plain)
counter = app.ref(library.Importable, "x")
"""
    library = """
from greenroom import Actor, shared_task

@shared_task
def shared(x):
    return ("shared", x)

def plain():
    return "plain"

class Importable(Actor):
    pass
"""
    worker = """
import sys
print(sorted(tasks), tasks["library.shared"](1), tasks["by.value"](), "included" in sys.modules)
print(app.import_modules(), sys.modules["library"].Importable is app.actors["library.Importable"])
print(tasks["library.shared"].run is sys.modules["library"].shared.run)
"""
    assert ship(script, worker, library=library, included="") == (
        "['by.value', 'library.shared'] ('shared', 1) plain False\n['included'] True\nTrue"
    )


def test_an_app_that_can_be_imported_is_with_what_the_script_adds(ship: Program) -> None:
    script = """
from proj import app

@app.task
def extra():
    return "extra"

app.conf.task_default_queue = "changed"
"""
    proj = """
from greenroom import App
app = App("proj", broker="tcp://10.0.0.1:5670")

@app.task
def base():
    return "base"
"""
    worker = """
import sys
print(sorted(tasks), tasks["proj.base"](), tasks["proj.extra"](), app is sys.modules["proj"].app)
print(app.conf.broker_url, app.conf.task_default_queue)
"""
    assert ship(script, worker, proj=proj) == (
        "['proj.base', 'proj.extra'] base extra True\ntcp://10.0.0.1:5670 changed"
    )


def test_receivers_of_signals_come_along(ship: Program) -> None:
    script = """
from greenroom import App
from greenroom.actors.signals import task_prerun, worker_process_init
app = App()

@worker_process_init.connect
def ready(**kwargs):
    print("ready", app.main)

@task_prerun.connect(sender="only this name")
def before(**kwargs):
    print("never")

@app.task
def work():
    return 1
"""
    worker = """
from greenroom.actors import signals
signals.worker_process_init.send()
print(tasks["__main__.work"].apply().get())
"""
    assert ship(script, worker).splitlines() == ["ready None", "1"]


def test_settings_that_are_functions_of_the_script_come_along(ship: Program) -> None:
    script = """
from greenroom import App

class Config:
    timezone = "Europe/London"

app = App(config_source=Config)

def route(name, args, kwargs, options, task=None):
    return {"queue": app.conf.timezone}

app.conf.task_routes = [route]
"""
    worker = "print(app.conf.timezone, app.router.route({}, 'x')[0])"
    assert ship(script, worker) == "Europe/London Europe/London"
