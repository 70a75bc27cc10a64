"""What applications need of this floor: embedded clusters, workers, the command line; the root hands it in."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Unpack

from ..actors.app import App
from ..actors.connecting import addresses_of
from ..actors.runtime import Cluster, ClusterOptions
from .cli.main import run
from .cluster.embedded import EmbeddedCluster


class ClusterRuntime:
    """Runs clusters and workers for applications."""

    def run(
        self, app: App, *, workers: int, **options: Unpack[ClusterOptions]
    ) -> AbstractContextManager[Cluster, None]:
        """Return an embedded cluster for a `with`; options as for EmbeddedCluster."""
        return EmbeddedCluster(app, workers=workers, **options)

    def worker_main(self, app: App, argv: Sequence[str]) -> int:
        """Run a worker of this app with the arguments of `greenroom worker`; return its exit code."""
        from .cli.worker import run_for_app

        arguments = list(argv)
        if arguments[:1] == ["worker"]:
            arguments = arguments[1:]
        return run_for_app(app, arguments)

    def start(self, app: App, argv: Sequence[str]) -> int:
        """Run the command line for this app: its worker, or a verb that asks its broker; return the exit code."""
        if list(argv[:1]) == ["worker"]:
            return self.worker_main(app, argv)
        return run(argv, broker=";".join(addresses_of(app.conf.broker_url)))
