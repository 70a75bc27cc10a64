"""An application's settings, as `app.conf`.

Owns `Settings`: four layers, of which the upper hides the lower: what was set explicitly, the constructor's
`changes`, the source (an object or a module), the defaults. The source is read at the first need of a value that is
not set explicitly, never before: naming a module in `config_from_object` imports nothing. `version` changes with
every change, so that what was derived from settings knows when to be derived again; a change *inside* a value,
such as `conf.task_routes["x"] = "y"`, is seen once anything is set.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from .defaults import DEFAULT_BROKER_URL, OPTIONS, STRICT_CELERY
from .loader import normalise, read_arguments, read_source
from .names import check_not_mixed, new_name, notice_ignored
from .table import humanize, masked

#: The environment variables that say where the broker is.
BROKER_VARIABLE: Final = "GREENROOM_BROKER"

#: A setting that takes another one's value while it has none.
_FALLBACKS: Final[dict[str, str]] = {
    "broker_read_url": "broker_url",
    "broker_write_url": "broker_url",
    "task_default_exchange": "task_default_queue",
    "task_default_routing_key": "task_default_queue",
    "result_accept_content": "accept_content",
    "result_failure_expires": "result_expires",
    "task_acks_on_failure": "task_acks_on_failure_or_timeout",
    "task_acks_on_timeout": "task_acks_on_failure_or_timeout",
}

DefaultsSource = Mapping[str, Any] | Callable[[], Mapping[str, Any]]


@dataclass(slots=True)
class Layers:
    """What settings are made of."""

    changes: dict[str, Any]
    on_load: Callable[[Settings], None] | None
    explicit: dict[str, Any] = field(default_factory=dict[str, Any])
    source: object = None
    namespace: str | None = None
    silent: bool = False
    #: What the source says, once `loaded`.
    read: dict[str, Any] = field(default_factory=dict[str, Any])
    pending_defaults: list[Callable[[], Mapping[str, Any]]] = field(
        default_factory=list[Callable[[], Mapping[str, Any]]]
    )
    defaults: dict[str, Any] = field(default_factory=dict[str, Any])
    loaded: bool = True
    loading: bool = False
    #: The first look has been told to `on_load` and to the log.
    announced: bool = False
    version: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)


class Settings(MutableMapping[str, Any]):
    """Settings by attribute and by item; see the top of this file for the layers."""

    # Attributes of the object itself, which would otherwise be settings.
    __slots__ = ("__weakref__", "_own")

    _own: Layers

    def __init__(
        self,
        changes: Mapping[str, Any] | None = None,
        *,
        on_load: Callable[[Settings], None] | None = None,
    ) -> None:
        own = Layers(changes=normalise(dict(changes or {}), namespace=None), on_load=on_load)
        object.__setattr__(self, "_own", own)

    # --- sources

    def read_from(
        self, source: object, *, namespace: str | None = None, silent: bool = False, force: bool = False
    ) -> None:
        """Make `source` the lower layer, and forget what was set explicitly before.

        The source is read at the first need, or now with `force`. Raises (then, or now) what reading raises.
        """
        own = self._own
        with own.lock:
            own.explicit.clear()
            own.source = source
            own.namespace = namespace
            own.silent = silent
            own.read = {}
            own.loaded = False
            own.version += 1
        if force:
            self._load()

    def read_arguments(self, arguments: list[str], namespace: str | None = None) -> None:
        """Set what a command line says in words like `worker.concurrency=4`."""
        self.update(read_arguments(arguments, namespace=namespace))

    def add_defaults(self, defaults: DefaultsSource) -> None:
        """Put defaults under everything but the built-in ones; a function is called at the first need."""
        own = self._own
        if callable(defaults):
            own.pending_defaults.append(defaults)
        else:
            own.defaults = {**normalise(defaults, namespace=None), **own.defaults}
        own.version += 1

    @property
    def configured(self) -> bool:
        """Whether the source has been read."""
        return self._own.loaded

    @property
    def version(self) -> int:
        """A number that grows with every change."""
        return self._own.version

    @property
    def layers(self) -> Layers:
        """What the settings are made of, for those who watch its `version` at every call."""
        return self._own

    def touch(self) -> None:
        """Let what was derived from settings be derived again, though none has changed."""
        self._own.version += 1

    @property
    def changes(self) -> dict[str, Any]:
        """What was set explicitly, or by the constructor."""
        own = self._own
        return {**own.changes, **own.explicit}

    def _load(self) -> None:
        own = self._own
        with own.lock:
            if own.loading:
                return
            own.loading = True
            try:
                if not own.loaded:
                    own.read = read_source(own.source, namespace=own.namespace, silent=own.silent)
                    own.loaded = True
                    own.version += 1
                while own.pending_defaults:
                    made = own.pending_defaults.pop(0)()
                    own.defaults = {**normalise(made, namespace=None), **own.defaults}
                    own.version += 1
                if not own.announced:
                    own.announced = True
                    if own.on_load is not None:
                        own.on_load(self)
                    notice_ignored([*own.changes, *own.explicit, *own.read])
            finally:
                own.loading = False

    # --- reading

    def __getitem__(self, name: str) -> Any:
        own = self._own
        key = name if name in OPTIONS else new_name(name)
        value = own.explicit.get(key)
        if value is not None:
            return value
        if not own.loaded or not own.announced or own.pending_defaults:
            self._load()
        for layer in (own.explicit, own.changes, own.read, own.defaults):
            if key in layer:
                value = layer[key]
                if value is not None or (key not in _FALLBACKS and key != "broker_url"):
                    return value
        option = OPTIONS.get(key)
        if option is None:
            raise KeyError(name)
        if key == "broker_url":
            return os.environ.get(BROKER_VARIABLE) or DEFAULT_BROKER_URL
        if key in _FALLBACKS:
            return self[_FALLBACKS[key]]
        if key in STRICT_CELERY and self["strict_celery"]:
            return STRICT_CELERY[key]
        default = option.default
        if isinstance(default, dict):
            # A default that is changed in place, such as the schedule, must not be everybody's.
            default = own.defaults[key] = cast("dict[str, Any]", dict(cast("dict[str, object]", default)))
        return default

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no setting {name!r}") from None

    def first(self, *names: str) -> Any:
        """Return the first of these settings that has a value other than None."""
        return next((value for name in names if (value := self.get(name)) is not None), None)

    def get_by_parts(self, *parts: str) -> Any:
        """Return the setting whose name is these parts, joined by underscores."""
        return self["_".join(part for part in parts if part)]

    def value_set_for(self, name: str) -> bool:
        """Tell whether a setting was given, whatever its value."""
        return new_name(name) in self.without_defaults()

    def without_defaults(self) -> dict[str, Any]:
        """Return what was given: explicitly, by the constructor, or by the source."""
        self._load()
        own = self._own
        return {**own.read, **own.changes, **own.explicit}

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(dict.fromkeys([*self.without_defaults(), *self._own.defaults, *OPTIONS]))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        try:
            self[cast("str", name)]
        except KeyError:
            return False
        return True

    # --- writing

    def __setitem__(self, name: str, value: Any) -> None:
        own = self._own
        key = new_name(name)
        own.explicit[key] = value
        own.version += 1
        if own.announced:
            notice_ignored([key])

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delitem__(self, name: str) -> None:
        own = self._own
        del own.explicit[new_name(name)]
        own.version += 1

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"setting {name!r} was not set") from None

    def update(self, *sources: Any, **settings: Any) -> None:
        """Set several at once. Raises ImproperlyConfigured, and sets nothing, where old and new names are mixed."""
        merged: dict[str, Any] = {}
        for source in sources:
            merged.update(source)
        merged.update(settings)
        check_not_mixed(merged)
        for name, value in merged.items():
            self[name] = value

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Set a setting that was not given; return what it is then."""
        if not self.value_set_for(name):
            self[name] = default
        return self[name]

    # --- showing

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """Return settings as a dict: those that were given, or all; secrets are masked unless told otherwise."""
        shown = dict(self) if with_defaults else self.without_defaults()
        shown = {name: value for name, value in shown.items() if name != "deprecated_settings"}
        return {name: masked(name, value) for name, value in shown.items()} if censored else shown

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """Return settings as text, a line each, with secrets masked unless told otherwise."""
        return humanize(self.table(with_defaults, censored))

    def __repr__(self) -> str:
        # Never the values: they hold passwords, and a repr ends up in logs.
        return f"<Settings: {len(self._own.explicit) + len(self._own.changes) + len(self._own.read)} given>"

    def __reduce__(self) -> Any:
        return Settings, (self.without_defaults(),)
