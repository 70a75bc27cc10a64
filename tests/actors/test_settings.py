"""Settings: layers, sources, old names, what is ignored, what is shown."""

# Short lambdas stand for tasks and receivers here, and some tests look inside.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import json
import logging
import sys
import types
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.app import App
from greenroom.actors.errors import ImproperlyConfigured
from greenroom.actors.settings import names
from greenroom.actors.settings.conf import Settings
from greenroom.actors.settings.defaults import DEFAULT_BROKER_URL, OPTIONS
from greenroom.actors.settings.loader import default_source, read_arguments
from greenroom.actors.settings.names import IGNORED, OLD_NAMES
from greenroom.actors.settings.table import MASK, masked, without_password


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[..., types.ModuleType]:
    def make(name: str, **attributes: Any) -> types.ModuleType:
        made = types.ModuleType(name)
        made.__dict__.update(attributes)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    return make


# --- layers


def test_s10_a_setting_is_read_and_set_by_attribute_by_item_and_by_update(app: App) -> None:
    assert app.conf.timezone is None
    app.conf.enable_utc = False
    assert app.conf["enable_utc"] is False
    app.conf.update(enable_utc=True, timezone="Europe/London")
    assert app.conf.enable_utc
    assert app.conf["timezone"] == "Europe/London"
    app.conf["timezone"] = "UTC"
    assert app.conf.timezone == "UTC"
    app.conf.update({"task_acks_late": True}, task_track_started=True)
    assert app.conf.task_acks_late
    assert app.conf.task_track_started


def test_s10_a_source_is_not_read_before_it_is_needed(app: App) -> None:
    app.config_from_object("settings_that_do_not_exist")
    assert not app.configured
    app.conf.task_serializer = "json"
    app.conf.update(timezone="UTC")
    assert app.conf.task_serializer == "json"
    assert not app.configured
    with pytest.raises(ModuleNotFoundError):
        app.conf.enable_utc  # noqa: B018


def test_s10_sources_are_objects_modules_classes_and_names(app: App, module: Callable[..., types.ModuleType]) -> None:
    made = module("settings_a", task_default_queue="from the module", helper=lambda: None)
    made.__dict__["Config"] = type("Config", (), {"task_default_queue": "from the class"})
    for source, expected in (
        ("settings_a", "from the module"),
        (made, "from the module"),
        ("settings_a:Config", "from the class"),
        ("settings_a.Config", "from the class"),
        (made.Config, "from the class"),
        ({"task_default_queue": "from a dict"}, "from a dict"),
    ):
        app.config_from_object(source)
        assert app.conf.task_default_queue == expected


def test_what_is_set_lies_over_the_constructor_over_the_source_over_the_defaults() -> None:
    conf = Settings({"task_default_queue": "constructor", "timezone": "constructor"})
    conf.read_from({"task_default_queue": "source", "timezone": "source", "task_serializer": "json"})
    conf.timezone = "set"
    assert conf.timezone == "set"
    assert conf.task_default_queue == "constructor"
    assert conf.task_serializer == "json"
    assert conf.task_protocol == 2
    assert conf.without_defaults() == {
        "task_default_queue": "constructor",
        "timezone": "set",
        "task_serializer": "json",
    }


def test_a_new_source_makes_what_was_set_before_void() -> None:
    conf = Settings()
    conf.timezone = "Europe/London"
    conf.read_from({})
    assert conf.timezone is None


def test_defaults_may_be_added_as_a_dict_and_as_a_function(app: App) -> None:
    called: list[int] = []

    def more() -> dict[str, Any]:
        called.append(1)
        return {"mine_b": 2, "mine_a": 9}

    app.add_defaults({"mine_a": 1})
    app.conf.add_defaults(more)
    assert not called
    assert app.conf.mine_b == 2
    assert app.conf.mine_a == 1
    assert called == [1]


def test_setdefault_sets_only_what_nobody_said(app: App) -> None:
    assert app.conf.setdefault("timezone", "UTC") == "UTC"
    assert app.conf.setdefault("timezone", "Europe/London") == "UTC"
    assert app.conf.value_set_for("timezone")
    assert not app.conf.value_set_for("enable_utc")


def test_a_setting_that_does_not_exist_is_an_error_that_names_it(app: App) -> None:
    with pytest.raises(AttributeError, match="'task_seriliazer'"):
        app.conf.task_seriliazer  # noqa: B018
    with pytest.raises(KeyError):
        app.conf["task_seriliazer"]
    assert "task_seriliazer" not in app.conf
    assert app.conf.get("task_seriliazer", 1) == 1
    app.conf.own_setting = 5
    assert app.conf.own_setting == 5


def test_a_setting_is_taken_back(app: App) -> None:
    app.conf.timezone = "UTC"
    del app.conf.timezone
    assert app.conf.timezone is None
    with pytest.raises(AttributeError):
        del app.conf.timezone


def test_settings_are_a_mapping_of_all_names(app: App) -> None:
    assert set(OPTIONS) <= set(app.conf)
    assert dict(app.conf)["task_default_queue"] == "celery"
    assert app.conf.first("timezone", "task_default_queue") == "celery"
    assert app.conf.get_by_parts("task", "default", "queue") == "celery"


def test_settings_without_a_value_of_their_own_follow_others(app: App) -> None:
    app.conf.update(task_default_queue="jobs", task_acks_on_failure_or_timeout=False, accept_content=["json"])
    assert app.conf.task_default_exchange == "jobs"
    assert app.conf.task_default_routing_key == "jobs"
    assert app.conf.task_acks_on_failure is False
    assert app.conf.result_accept_content == ["json"]
    app.conf.task_acks_on_timeout = True
    assert app.conf.task_acks_on_timeout is True


def test_the_defaults_differ_from_celerys_only_where_it_is_said(app: App) -> None:
    assert app.conf.task_serializer == "msgpack"
    assert list(app.conf.accept_content) == ["msgpack", "json"]
    assert app.conf.result_expires == timedelta(days=1)
    app.conf.strict_celery = True
    assert (app.conf.task_serializer, app.conf.result_serializer) == ("json", "json")
    assert list(app.conf.accept_content) == ["json"]


def test_the_broker_is_said_by_the_setting_the_environment_or_the_default(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GREENROOM_BROKER", raising=False)
    assert app.conf.broker_url == DEFAULT_BROKER_URL
    monkeypatch.setenv("GREENROOM_BROKER", "tcp://10.0.0.9:5670")
    assert app.conf.broker_url == "tcp://10.0.0.9:5670"
    app.conf.broker_url = "ipc:///tmp/x"
    assert app.conf.broker_read_url == "ipc:///tmp/x"
    app.conf.broker_url = None
    assert app.conf.broker_url == "tcp://10.0.0.9:5670"


def test_a_default_that_is_changed_in_place_is_this_apps_alone(make_app: Callable[..., App]) -> None:
    one, other = make_app("one"), make_app("other")
    one.conf.beat_schedule["x"] = {}
    assert "x" in one.conf.beat_schedule
    assert "x" not in other.conf.beat_schedule


def test_every_change_changes_the_version(app: App) -> None:
    seen = {app.conf.version}
    changes: list[Callable[[], object]] = [
        lambda: app.conf.update(timezone="UTC"),
        lambda: setattr(app.conf, "timezone", None),
        lambda: app.conf.add_defaults({"x": 1}),
        lambda: app.config_from_object({}),
        app.conf.touch,
    ]
    for change in changes:
        change()
        assert app.conf.version not in seen
        seen.add(app.conf.version)


def test_configuring_tells_the_app_once_and_lets_it_set(app: App) -> None:
    told: list[str] = []

    @app.on_configure.connect
    def configure(sender: App, **_kwargs: Any) -> None:
        told.append("configure")

    @app.on_after_configure.connect
    def after(sender: App, source: Settings, **_kwargs: Any) -> None:
        told.append("after")
        source.timezone = "UTC"

    assert not told
    assert app.conf.timezone == "UTC"
    assert app.conf.enable_utc
    assert told == ["configure", "after"]


# --- namespaces, variables, command lines


def test_with_a_namespace_only_its_keys_count(app: App) -> None:
    app.config_from_object(
        {"CELERY_TASK_SERIALIZER": "json", "CELERY_TIMEZONE": "UTC", "DEBUG": True, "TASK_SERIALIZER": "pickle"},
        namespace="CELERY",
    )
    assert (app.conf.task_serializer, app.conf.timezone) == ("json", "UTC")
    assert "DEBUG" not in app.conf


def test_the_constructors_namespace_holds_for_later_sources(make_app: Callable[..., App]) -> None:
    app = make_app(namespace="ROOM_", config_source={"ROOM_TIMEZONE": "UTC"})
    assert app.conf.timezone == "UTC"
    app.config_from_object({"ROOM_TIMEZONE": "Europe/London"})
    assert app.conf.timezone == "Europe/London"


def test_a_variable_names_a_module(
    app: App, module: Callable[..., types.ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    module("settings_b", timezone="Europe/London")
    monkeypatch.setenv("PROJ_SETTINGS", "settings_b")
    assert app.config_from_envvar("PROJ_SETTINGS")
    assert app.conf.timezone == "Europe/London"


def test_a_variable_that_is_not_set_is_an_error_unless_silent(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROJ_SETTINGS", raising=False)
    with pytest.raises(ImproperlyConfigured, match="'PROJ_SETTINGS' is not set"):
        app.config_from_envvar("PROJ_SETTINGS")
    assert app.config_from_envvar("PROJ_SETTINGS", silent=True) is False


def test_a_module_that_is_not_there_may_be_silent(app: App) -> None:
    app.config_from_object("settings_that_do_not_exist", silent=True)
    assert app.conf.enable_utc


def test_a_file_name_in_place_of_a_modules_is_told(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "celeryconfig_x.py").write_text("timezone = 'UTC'")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImproperlyConfigured, match="write 'celeryconfig_x'"):
        app.config_from_object("celeryconfig_x.py", force=True)


def test_an_error_inside_a_module_is_not_taken_for_its_absence(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings_broken.py").write_text("import a_module_that_is_missing")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_missing"):
        app.config_from_object("settings_broken", force=True)


def test_a_command_line_sets_by_section_and_name(app: App) -> None:
    app.config_from_cmdline(
        ["worker.max_tasks_per_child=4", "task_acks_late=yes", "result.expires=1.5", "imports=a,b", ".timezone=UTC"]
    )
    assert app.conf.worker_max_tasks_per_child == 4
    assert app.conf.task_acks_late is True
    assert app.conf.result_expires == 1.5
    assert app.conf.imports == ("a", "b")
    assert app.conf.timezone == "UTC"
    assert read_arguments(["concurrency=4", "max_tasks_per_child=2"], namespace="worker") == {
        "worker_concurrency": "4",
        "worker_max_tasks_per_child": 2,
    }


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("worker", "name=value"),
        ("worker.no_such=1", "no setting 'worker_no_such'"),
        ("worker.max_tasks_per_child=many", "of kind int"),
        ("task_acks_late=perhaps", "of kind bool"),
    ],
)
def test_a_word_that_sets_nothing_is_an_error(app: App, word: str, why: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=why):
        app.config_from_cmdline([word])


def test_a_program_without_an_app_has_settings_by_variable_or_celeryconfig(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("GREENROOM_CONFIG_MODULE", "CELERY_CONFIG_MODULE"):
        monkeypatch.delenv(variable, raising=False)
    assert default_source() is None
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "celeryconfig.py").write_text("")
    assert default_source() == "celeryconfig"
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "proj.settings")
    assert default_source() == "proj.settings"


# --- old names


def test_old_names_are_understood_everywhere(app: App) -> None:
    app.config_from_object({"CELERY_TASK_SERIALIZER": "json", "CELERYD_CONCURRENCY": 3, "CELERY_ROUTES": {"a": "q"}})
    assert app.conf.task_serializer == "json"
    assert app.conf.worker_concurrency == 3
    assert app.conf.task_routes == {"a": "q"}
    assert app.conf.CELERY_TASK_SERIALIZER == "json"
    app.conf.CELERY_ALWAYS_EAGER = True
    assert app.conf.task_always_eager is True
    assert OLD_NAMES["BROKER_URL"] == "broker_url"
    assert OLD_NAMES["CELERYBEAT_SCHEDULE"] == "beat_schedule"
    assert OLD_NAMES["CELERY_TASK_RESULT_EXPIRES"] == "result_expires"
    assert OLD_NAMES["CELERY_IMPORTS"] == "imports"


def test_old_names_all_mean_settings_that_exist() -> None:
    assert set(OLD_NAMES.values()) <= set(OPTIONS)
    assert not set(OLD_NAMES) & set(OPTIONS)


def test_old_and_new_names_together_are_an_error_with_a_table(app: App) -> None:
    app.config_from_object({"CELERYD_CONCURRENCY": 3, "CELERY_TASK_SERIALIZER": "json", "timezone": "UTC"})
    with pytest.raises(ImproperlyConfigured) as caught:
        app.conf.timezone  # noqa: B018
    assert "CELERYD_CONCURRENCY    -> worker_concurrency" in str(caught.value)
    assert "CELERY_TASK_SERIALIZER -> task_serializer" in str(caught.value)
    with pytest.raises(ImproperlyConfigured):
        app.conf.update(BROKER_URL="x", timezone="UTC")


# --- what is ignored


def test_a_setting_that_changes_nothing_is_told_once(
    make_app: Callable[..., App], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "_noticed", set[str]())
    with caplog.at_level(logging.WARNING):
        assert make_app(changes={"worker_prefetch_multiplier": 2}).conf.enable_utc
        app = make_app(changes={"worker_prefetch_multiplier": 1})
        assert app.conf.enable_utc
        app.conf.broker_pool_limit = 5
        app.conf.task_serializer = "json"
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith("setting worker_prefetch_multiplier is accepted and changes nothing: a worker takes")
    assert "broker_pool_limit" in told[1]
    assert app.conf.worker_prefetch_multiplier == 1


def test_what_is_ignored_exists() -> None:
    assert set(IGNORED) <= set(OPTIONS)


# --- showing


@given(
    name=st.sampled_from(["redis_password", "s3_secret_access_key", "my_api_token", "MY_SIGNATURE", "database_url"]),
    secret=st.text(min_size=8),
)
def test_secrets_are_masked_whatever_they_are(name: str, secret: str) -> None:
    conf = Settings({name: secret, "nested": {name: [secret]}})
    assert conf.table()[name] == MASK
    assert conf.table()["nested"] == {name: MASK}
    assert conf.table(censored=False)[name] == secret


@given(password=st.from_regex(r"[^@\s:/]{3,20}", fullmatch=True))
def test_a_password_in_an_address_is_masked(password: str) -> None:
    address = f"tcp://me:{password}@host:1"
    assert without_password(f"{address};{address}") == "tcp://me:**@host:1;tcp://me:**@host:1"
    assert masked("broker_url", [address]) == ["tcp://me:**@host:1"]


def test_settings_as_text(app: App) -> None:
    app.conf.update(broker_url="tcp://me:pw@host:1", security_key="k" * 8)
    text = app.conf.humanize()
    assert text == "broker_url: 'tcp://me:**@host:1'\nsecurity_key: '********'"
    assert "task_default_routing_key: 'celery'" in app.conf.humanize(with_defaults=True)
    assert "pw" in app.conf.humanize(censored=False)
    assert "pw" not in repr(app.conf)


def test_settings_are_plain_data_for_tools(app: App) -> None:
    assert json.dumps(app.conf.table(with_defaults=True), default=str)
