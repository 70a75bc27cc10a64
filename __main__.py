"""`python -m greenroom`: the command line."""

from __future__ import annotations

from .supervisor.cli.main import main

if __name__ == "__main__":
    main()
