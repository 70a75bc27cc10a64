"""What a worker was started without, its application's settings say."""

from __future__ import annotations

import msgspec

from greenroom import App
from greenroom.actors.worker.child import with_settings
from greenroom.actors.worker.control import ChildConfig

SECOND = 1_000_000


STARTED_WITHOUT = ChildConfig(
    app="shop", broker="ipc:///nowhere", node="w@h", node_session="s", incarnation=1, number=1, page="/nowhere"
)


def app_with_limits() -> App:
    app = App("shop", set_as_current=False)
    app.conf.update(
        task_time_limit=30,
        task_soft_time_limit=1.5,
        worker_max_tasks_per_child=100,
        worker_max_memory_per_child=50_000,
    )
    return app


def test_limits_come_from_the_settings_where_the_worker_was_started_without() -> None:
    made = with_settings(STARTED_WITHOUT, app_with_limits().conf)
    assert (made.time_limit, made.soft_time_limit) == (30 * SECOND, 3 * SECOND // 2)
    assert (made.max_tasks, made.max_memory_kib) == (100, 50_000)


def test_what_the_worker_was_started_with_goes_before_the_settings() -> None:
    given = {"time_limit": 7 * SECOND, "soft_time_limit": 5 * SECOND, "max_tasks": 3, "max_memory_kib": 9}
    made = with_settings(msgspec.structs.replace(STARTED_WITHOUT, **given), app_with_limits().conf)
    assert {name: getattr(made, name) for name in given} == given


def test_without_either_there_is_no_limit() -> None:
    made = with_settings(STARTED_WITHOUT, App("shop", set_as_current=False).conf)
    assert (made.time_limit, made.soft_time_limit, made.max_tasks, made.max_memory_kib) == (0, 0, 0, 0)
