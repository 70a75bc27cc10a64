"""An application's settings, and what is made of them: the zone, the routes, how bodies are written.

Owns `Configured`, the part of `App` that knows settings and neither tasks nor brokers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, cast
from zoneinfo import ZoneInfo

from . import signals
from .bodies import Content
from .settings.conf import DefaultsSource, Settings
from .settings.loader import module_of_variable
from .tasks.queues import Queues, queue_name
from .tasks.routes import Router

#: The environment variable with the key that signs pickled bodies; both ends need the same.
SIGNING_KEY_VARIABLE: Final = "GREENROOM_SIGNING_KEY"
_SIGNED_SERIALIZERS: Final = frozenset({"pickle", "cloudpickle"})


class Configured:
    """Something with settings."""

    def __init__(self, changes: Mapping[str, Any], source: Any, *, namespace: str | None, silent: bool) -> None:
        self.namespace = namespace
        self.on_configure = signals.Signal("app.on_configure")
        self.on_after_configure = signals.Signal("app.on_after_configure", ("source",))
        self._conf = Settings(changes, on_load=self._configured)
        if source is not None:
            self._conf.read_from(source, namespace=namespace, silent=silent)
        self._router: tuple[int, Router] | None = None
        self._reads_plain: tuple[int, bool] = (-1, False)
        self._signing_key: bytes | None = None

    @property
    def conf(self) -> Settings:
        """The settings."""
        return self._conf

    @conf.setter
    def conf(self, settings: Mapping[str, Any]) -> None:
        self._conf.read_from(dict(settings))

    @property
    def configured(self) -> bool:
        """Whether the settings' source has been read."""
        return self._conf.configured

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Take the settings of an object, or of a module by its name, when they are first needed.

        What was set before by hand is forgotten. With a namespace only keys such as CELERY_TASK_SERIALIZER count.
        Raises ImportError (now with `force`, else at the first need), unless `silent`.
        """
        self._conf.read_from(obj, namespace=namespace or self.namespace, silent=silent, force=force)

    def config_from_envvar(self, variable_name: str, silent: bool = False, force: bool = False) -> bool:
        """Take the settings of the module that an environment variable names; tell whether it was set.

        Raises ImproperlyConfigured where it is not, unless `silent`.
        """
        module = module_of_variable(variable_name, silent=silent)
        if module is None:
            return False
        self._conf.read_from(module, namespace=self.namespace, silent=silent, force=force)
        return True

    def config_from_cmdline(self, argv: list[str], namespace: str = "celery") -> None:
        """Take the settings of words like `worker.concurrency=4`. Raises ImproperlyConfigured."""
        self._conf.read_arguments(argv, namespace)

    def add_defaults(self, fun: DefaultsSource) -> None:
        """Put defaults under everything but the built-in ones; a function is called at the first need."""
        self._conf.add_defaults(fun)

    def _configured(self, conf: Settings) -> None:
        self.on_configure.send(sender=self)
        self.on_after_configure.send(sender=self, source=conf)

    @property
    def timezone(self) -> tzinfo:
        """The zone of moments that name none: the setting's, else UTC, or the machine's without enable_utc."""
        zone = self.conf.timezone
        if zone is None:
            return UTC if self.conf.enable_utc else cast("tzinfo", datetime.now().astimezone().tzinfo)
        if isinstance(zone, tzinfo):
            return zone
        return UTC if zone.upper() == "UTC" else ZoneInfo(zone)

    def now(self) -> datetime:
        """Return the present time, in the app's zone."""
        return datetime.now(self.timezone)

    def uses_utc_timezone(self) -> bool:
        """Tell whether the app's zone is UTC."""
        return self.timezone is UTC

    @property
    def signing_key(self) -> bytes | None:
        """The key that signs pickled bodies: set here, else GREENROOM_SIGNING_KEY; None: there are none."""
        if self._signing_key is not None:
            return self._signing_key
        text = os.environ.get(SIGNING_KEY_VARIABLE)
        return text.encode() if text else None

    @signing_key.setter
    def signing_key(self, key: bytes | None) -> None:
        self._signing_key = key
        self._conf.touch()

    def content(self, serializer: str | None, compression: str | None) -> Content:
        """Return how bodies are written by this serializer and compression, by default the settings'."""
        name: str = serializer or self.conf.task_serializer
        return Content(
            name, compression or self.conf.task_compression, self.signing_key if name in _SIGNED_SERIALIZERS else None
        )

    @property
    def reads_plain_results(self) -> bool:
        """Whether results in MessagePack are accepted; looked up once a version of the settings."""
        version, reads = self._reads_plain
        if version != self._conf.version:
            reads = "msgpack" in self._conf.result_accept_content
            # The version of after the look, which may have read the source.
            self._reads_plain = (self._conf.version, reads)
        return reads

    @property
    def router(self) -> Router:
        """The routes of the settings."""
        version = self._conf.version
        if self._router is None or self._router[0] != version:
            conf = self._conf
            queues = Queues(
                conf.task_queues,
                default_exchange=queue_name(conf.task_default_exchange),
                default_exchange_type=conf.task_default_exchange_type,
                default_routing_key=queue_name(conf.task_default_routing_key),
                create_missing=bool(conf.task_create_missing_queues),
            )
            # The version of after the look, which may have read the source.
            self._router = (conf.version, Router(conf.task_routes, queues, conf.task_default_queue))
        return self._router[1]
