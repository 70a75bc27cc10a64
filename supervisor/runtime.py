"""What applications need of this floor: embedded clusters, workers, the command line; the root hands it in."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from ..actors.app import App
from .cli.main import cli
from .cluster.embedded import EmbeddedCluster


class ClusterRuntime:
    """Runs clusters and workers for applications."""

    def run(self, app: App, *, workers: int, **options: Any) -> AbstractContextManager[Any]:
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
        """Run the command line; return its exit code."""
        try:
            cli.main(args=list(argv), prog_name="greenroom", standalone_mode=True)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        return 0
