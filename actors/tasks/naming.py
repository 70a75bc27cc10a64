"""What tasks and actor classes are called on the wire.

One rule for both: the module's name, a dot, and the name in it. For what is defined in the program itself the
module is `__main__`, or the app's name where it has one, so that a program and those that import it agree.
"""

from __future__ import annotations

import sys
from typing import Final

#: The program's own module. Children of `multiprocessing` know it by the second name.
MAIN_MODULES: Final = ("__main__", "__mp_main__")


def generate_name(main: str | None, name: str, module: str | None) -> str:
    """Return the name of `name` in `module` for an app that was made as `App(main)`."""
    module = module or "__main__"
    loaded = sys.modules.get(module)
    if loaded is not None:
        # A module may be filed under another name than its own.
        module = getattr(loaded, "__name__", None) or module
    if module in MAIN_MODULES:
        module = main or "__main__"
    return f"{module}.{name}"
