"""The application: constructor, current app, tasks and their joining, modules, what it hands to the runtime."""

# Short lambdas stand for tasks and receivers here, and some tests look inside.
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import pickle
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from greenroom.actors import runtime as runtimes
from greenroom.actors import signals
from greenroom.actors.app import App
from greenroom.actors.current import current_app, get_current_app, set_current_app, set_default_app
from greenroom.actors.errors import AlwaysEagerIgnored, DuplicateTaskNameWarning, NotRegistered
from greenroom.actors.tasks.make import shared_task
from greenroom.actors.tasks.task import Task

MakeApp = Callable[..., App]


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Writes importable modules, by dotted name; their parents become packages."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(**sources: str) -> None:
        for name, source in sources.items():
            parts = name.split("__")
            folder = tmp_path
            for part in parts[:-1]:
                folder = folder / part
                folder.mkdir(exist_ok=True)
                (folder / "__init__.py").touch()
            (folder / f"{parts[-1]}.py").write_text(source, "utf-8")

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


# --- the constructor


def test_s05_the_hello_program_gives_hello_world(app: App, client: Any) -> None:
    client.work_for(app)

    @app.task
    def hello() -> str:
        return "hello world"

    assert hello.delay().get() == "hello world"


def test_s06_repr_of_an_app_without_a_name(app: App) -> None:
    assert re.fullmatch(r"<App __main__ at 0x[0-9a-f]+>", repr(app))
    assert repr(app) == f"<App __main__ at {id(app):#x}>"


def test_s06_repr_of_an_app_with_a_name(make_app: MakeApp) -> None:
    assert repr(make_app("shop")).startswith("<App shop at 0x")


def test_the_constructor_takes_celerys_arguments(make_app: MakeApp) -> None:
    app = make_app(
        "proj",
        broker="tcp://10.0.0.1:5670",
        backend="rpc://",
        include=["proj.tasks"],
        changes={"task_default_queue": "jobs"},
        set_as_current=False,
        task_serializer="json",
        fixups=[],
        loader=None,
        amqp=None,
        events=None,
        log=None,
        control=None,
        namespace=None,
    )
    assert app.main == "proj"
    assert app.conf.broker_url == "tcp://10.0.0.1:5670"
    assert app.conf.result_backend == "rpc://"
    assert app.conf.include == ["proj.tasks"]
    assert app.conf.task_default_queue == "jobs"
    assert app.conf.task_serializer == "json"


def test_a_new_app_is_the_current_one_unless_it_should_not_be(make_app: MakeApp) -> None:
    first = make_app("first")
    assert get_current_app() is first
    make_app("second", set_as_current=False)
    assert get_current_app() is first
    assert current_app == first


def test_a_thread_without_an_app_of_its_own_sees_the_last_one_made(make_app: MakeApp) -> None:
    app = make_app("last")
    seen: list[App] = []
    thread = threading.Thread(target=lambda: seen.append(get_current_app()))
    thread.start()
    thread.join()
    assert seen == [app]


def test_a_default_app_is_chosen_for_good(make_app: MakeApp) -> None:
    chosen = make_app("chosen")
    chosen.set_default()
    make_app("later")
    set_current_app(None)
    assert get_current_app() is chosen


def test_where_no_app_was_made_a_default_one_is() -> None:
    set_current_app(None)
    set_default_app(None)
    made = get_current_app()
    assert made.main == "default"
    assert get_current_app() is made
    made.close()


def test_a_closed_app_flushes_and_is_forgotten(client: Any) -> None:
    app = App("gone")
    app.client_factory = lambda _app: client
    assert app.client == client
    with app:
        pass
    assert client.flushes == 1
    assert client.closed
    assert get_current_app() is not app


def test_an_app_is_pickled_as_itself_where_it_lives(app: App) -> None:
    assert pickle.loads(pickle.dumps(app)) is app


# --- tasks


def test_s07_repr_and_name_of_a_task(app: App) -> None:
    def add(x: int, y: int) -> int:
        return x + y

    add.__module__ = "__main__"
    task = app.task(add)
    assert task.name == "__main__.add"
    assert app.tasks["__main__.add"] is task
    assert repr(task) == f"<@task: __main__.add of __main__ at {id(app):#x}>"


def test_s08_a_task_of_an_imported_module_bears_its_name(app: App) -> None:
    def add(x: int, y: int) -> int:
        return x + y

    add.__module__ = "tasks"
    assert app.task(add).name == "tasks.add"


def test_s08_a_name_that_is_not_registered_is_told(app: App) -> None:
    with pytest.raises(NotRegistered, match=r"tasks\.add"):
        app.tasks["tasks.add"]


def test_s09_the_apps_name_stands_for_main(make_app: MakeApp) -> None:
    app = make_app("tasks")

    def add(x: int, y: int) -> int:
        return x + y

    add.__module__ = "__main__"
    assert app.main == "tasks"
    assert app.task(add).name == "tasks.add"


def test_gen_task_name_can_be_overridden(client: Any) -> None:
    class Named(App):
        def gen_task_name(self, name: str, module: str | None) -> str:
            return f"own.{name}"

    with Named(set_as_current=False) as app:

        @app.task
        def add() -> None: ...

        assert add.name == "own.add"


def test_of_two_tasks_with_one_name_the_first_stays(app: App) -> None:
    first = app.task(name="same")(lambda: 1)
    with pytest.warns(DuplicateTaskNameWarning, match="'same'"):
        second = app.task(name="same")(lambda: 2)
    assert second is first
    assert first() == 1


def test_decorating_reads_no_settings(app: App) -> None:
    app.config_from_object("a_module_that_does_not_exist")

    @app.task
    def add() -> None: ...

    with pytest.raises(ModuleNotFoundError):
        add.delay()


@pytest.mark.parametrize("shared", [False, True])
def test_a_function_may_be_given_with_its_options(app: App, client: Any, shared: bool) -> None:
    make: Any = shared_task if shared else app.task

    def add(x: int, y: int) -> int:
        return x + y

    def twice(self: Any, x: int) -> tuple[str, int]:
        return self.name, 2 * x

    # Shared tasks stay for all the tests that follow: each has a name of its own.
    plus, double = f"plus {shared}", f"double {shared}"
    task = make(add, name=plus, queue="sums", max_retries=7)
    assert (task.name, task.max_retries, task(1, 2)) == (plus, 7, 3)
    task.delay(1, 2)
    assert (client.mailbox, client.envelope.name) == ("sums", plus)
    assert make(twice, bind=True, name=double)(4) == (double, 8)
    for wrong in (("plus",), (add, twice), (add, "plus")):
        with pytest.raises(TypeError, match=r"takes one function, or options by name.*got "):
            make(*wrong)


def test_lazy_false_joins_at_once(app: App) -> None:
    bound: list[App] = []

    class Base(Task[..., Any]):
        def on_bound(self, app: App) -> None:
            bound.append(app)

    app.task(lazy=False, base=Base, name="a")(lambda: None)
    app.task(base=Base, name="b")(lambda: None)
    assert bound == [app]
    app.finalize()
    assert bound == [app, app]


def test_without_autofinalize_using_a_task_is_an_error(make_app: MakeApp) -> None:
    app = make_app(autofinalize=False)

    @app.task
    def add() -> int:
        return 1

    for use in (add, add.delay, lambda: app.tasks):
        with pytest.raises(RuntimeError, match="not finalized"):
            use()
    app.finalize()
    assert add() == 1


def test_finalizing_tells_once(app: App) -> None:
    told: list[Any] = []
    app.on_after_finalize.connect(lambda sender, **_kwargs: told.append(sender), weak=False)
    app.finalize()
    app.finalize()
    assert told == [app]


def test_a_shared_task_is_of_every_app_and_resolves_to_the_current_one(make_app: MakeApp, client: Any) -> None:
    before = make_app("before")
    before.finalize()

    @shared_task(name="shared.add")
    def add(x: int, y: int) -> int:
        return x + y

    after = make_app("after")
    assert after.tasks["shared.add"].app is after
    assert before.tasks["shared.add"].app is before
    assert add.app is after
    before.set_current()
    assert add.app is before
    add.delay(1, 2)
    assert client.envelope.name == "shared.add"
    assert add(1, 2) == 3


def test_a_class_of_tasks_is_registered_under_a_generated_name(app: App) -> None:
    class Cleanup(Task[..., Any]):
        def run(self, days: int) -> str:
            return f"{days} {self.request.called_directly}"

    for given in (Cleanup(), Cleanup):
        task = app.register_task(given)
        assert task.name == f"{__name__}.Cleanup"
        assert app.tasks[task.name] is task
        assert task(3) == "3 True"
        assert task.app is app


def test_a_task_that_was_replaced_as_the_apps_class_is_the_base_also_of_earlier_ones(app: App) -> None:
    @app.task
    def early() -> None: ...

    class Mine(Task[..., Any]):
        mark = "mine"

    app.Task = Mine

    @app.task
    def late() -> None: ...

    app.finalize()
    assert isinstance(early, Mine)
    assert isinstance(late, Mine)


def test_the_base_of_tasks_may_be_named_by_its_path(make_app: MakeApp) -> None:
    app = make_app(task_cls="greenroom.actors.tasks.task:Task")
    assert issubclass(app.Task, Task)
    assert app.Task().app is app


def test_a_task_is_unregistered_by_name_or_itself(app: App) -> None:
    task = app.task(name="x")(lambda: None)
    app.tasks.unregister(task)
    assert "x" not in app.tasks
    with pytest.raises(NotRegistered):
        app.tasks.unregister("x")


def test_task_takes_a_function_or_options_by_name(app: App) -> None:
    wrong: Any = app.task
    with pytest.raises(TypeError, match="options by name"):
        wrong("name")


def test_annotations_change_tasks_by_name_and_for_all(app: App) -> None:
    def on_failure(self: Task[..., Any], *args: Any) -> None:
        failed.append(self.name)

    failed: list[str] = []
    app.conf.task_annotations = {
        "*": {"rate_limit": "1/s", "acks_late": True},
        "a": {"rate_limit": "10/s", "@on_failure": on_failure},
    }

    @app.task(name="a")
    def a() -> None:
        raise KeyError

    b = app.task(name="b")(lambda: None)
    app.finalize()
    assert (a.rate_limit, b.rate_limit) == ("10/s", "1/s")
    assert b.acks_late
    a.apply()
    assert failed == ["a"]


def test_annotations_may_be_objects(app: App) -> None:
    class Annotation:
        def annotate(self, task: Task[..., Any]) -> dict[str, Any] | None:
            return {"max_retries": 7} if task.name == "a" else None

    app.conf.task_annotations = [Annotation]
    a = app.task(name="a")(lambda: None)
    b = app.task(name="b")(lambda: None)
    app.finalize()
    assert (a.max_retries, b.max_retries) == (7, 3)


# --- modules


def test_include_and_imports_are_imported_by_the_worker(app: App, modules: Callable[..., None]) -> None:
    modules(one_of_them="", another="")
    app.conf.update(include=["one_of_them"], imports="another")
    assert app.import_modules() == ["another", "one_of_them"]
    assert {"one_of_them", "another"} <= set(sys.modules)


def test_autodiscovery_waits_for_the_worker(app: App, modules: Callable[..., None]) -> None:
    modules(pack_a__tasks="", pack_b__jobs="")
    app.autodiscover_tasks(lambda: ["pack_a", "pack_b"])
    assert "pack_a.tasks" not in sys.modules
    app.import_modules()
    assert "pack_a.tasks" in sys.modules
    assert "pack_b" in sys.modules
    signals.import_modules.receivers = ()


def test_autodiscovery_is_of_the_apps_own_worker(make_app: MakeApp, modules: Callable[..., None]) -> None:
    modules(pack_c__tasks="")
    make_app("one").autodiscover_tasks(["pack_c"])
    make_app("other").import_modules()
    assert "pack_c.tasks" not in sys.modules
    signals.import_modules.receivers = ()


def test_forced_autodiscovery_is_now_and_misses_nothing_silently(app: App, modules: Callable[..., None]) -> None:
    modules(pack_d__jobs="", pack_e__tasks="import a_module_that_is_not_there")
    app.autodiscover_tasks(["pack_d"], related_name="jobs", force=True)
    assert "pack_d.jobs" in sys.modules
    app.autodiscover_tasks(["pack_d"], related_name="nothing", force=True)
    app.autodiscover_tasks(["pack_d"], related_name=None, force=True)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        app.autodiscover_tasks(["a_package_that_is_not_there"], force=True)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        app.autodiscover_tasks(["pack_e"], force=True)


def test_a_package_may_be_named_by_a_class_in_it(app: App, modules: Callable[..., None]) -> None:
    modules(pack_f__apps="class Config: pass", pack_f__tasks="")
    app.autodiscover_tasks(["pack_f.apps.Config"], related_name=None, force=True)
    assert "pack_f.apps" in sys.modules


def test_a_worker_does_not_start_without_a_module_that_fails(app: App, modules: Callable[..., None]) -> None:
    modules(pack_g__tasks="raise ZeroDivisionError")
    app.autodiscover_tasks(["pack_g"])
    with pytest.raises(ZeroDivisionError):
        app.import_modules()
    signals.import_modules.receivers = ()


# --- calls by name


def test_s01_send_task_needs_no_task(app: App, client: Any) -> None:
    result = app.send_task("elsewhere.add", (1,), {"y": 2}, queue="far", countdown=2)
    envelope = client.envelope
    assert (client.mailbox, envelope.name, envelope.id) == ("far", "elsewhere.add", result.id)
    assert envelope.more.delay == 2_000_000


def test_send_task_takes_a_registered_tasks_own_options(app: App, client: Any) -> None:
    app.task(name="near", queue="slow", priority=7, acks_late=True)(lambda: None)
    app.send_task("near")
    assert client.mailbox == "slow"
    assert client.envelope.priority == 7
    assert client.envelope.flags & 1


def test_send_task_cannot_be_eager(app: App, client: Any) -> None:
    app.conf.task_always_eager = True
    with pytest.warns(AlwaysEagerIgnored):
        app.send_task("elsewhere")
    assert len(client.published) == 1


# --- time


def test_now_is_in_the_apps_zone(app: App) -> None:
    assert app.timezone is UTC
    assert app.uses_utc_timezone()
    app.conf.timezone = "Europe/London"
    assert app.now().tzinfo == ZoneInfo("Europe/London")
    assert not app.uses_utc_timezone()
    app.conf.update(timezone=None, enable_utc=False)
    assert app.now().utcoffset() is not None


def test_a_periodic_task_becomes_an_entry_of_the_schedule(app: App) -> None:
    add = app.task(name="add")(lambda x, y: x + y)

    @app.on_after_configure.connect
    def setup(sender: App, **_kwargs: Any) -> None:
        sender.add_periodic_task(10.0, add.s(1, 2), name="each ten", expires=5)

    assert app.conf.beat_schedule["each ten"] == {
        "task": "add",
        "schedule": 10.0,
        "args": (1, 2),
        "kwargs": {},
        "options": {"expires": 5},
    }
    assert app.add_periodic_task(1.0, add.s(3, y=4)) == "add(3, y=4)"


# --- running


class FakeRuntime:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def run(self, app: App, *, workers: int, **options: Any) -> AbstractContextManager[Any]:
        self.calls.append(("run", app, workers, options))
        return nullcontext("the cluster")

    def worker_main(self, app: App, argv: Any) -> int:
        self.calls.append(("worker", app, argv))
        return 3

    def start(self, app: App, argv: Any) -> int:
        self.calls.append(("start", app, argv))
        return 0


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    fake = FakeRuntime()
    monkeypatch.setattr(runtimes, "_load", lambda: fake)
    monkeypatch.setattr(runtimes, "_runtime", None)
    return fake


def test_running_is_the_runtimes(app: App, runtime: FakeRuntime) -> None:
    with app.run(workers=3, pool="threads") as cluster:
        entered: object = cluster
        assert entered == "the cluster"
    assert app.worker_main(["worker", "-c", "4"]) == 3
    assert app.worker_main(["-c", "4"]) == 3
    app.start(["status"])
    assert runtime.calls == [
        ("run", app, 3, {"pool": "threads"}),
        ("worker", app, ["-c", "4"]),
        ("worker", app, ["-c", "4"]),
        ("start", app, ["status"]),
    ]


def test_worker_main_runs_no_other_verb(app: App, runtime: FakeRuntime) -> None:
    with pytest.raises(ValueError, match="'beat'"):
        app.worker_main(["beat"])
    assert not runtime.calls


def test_without_a_runtime_the_error_says_what_to_import(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_load", None)
    monkeypatch.setattr(runtimes, "_runtime", None)
    with pytest.raises(RuntimeError, match="import greenroom"):
        app.run()
