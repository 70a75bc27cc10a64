"""Bodies in pickle and cloudpickle.

Owns the only imports of both. Loading such a body runs code that its sender chose, so nothing here is
called before `payload.py` has verified a signature, and this file is imported when the first such body
is made or has been verified.
"""

from __future__ import annotations

import pickle
from typing import Any

import cloudpickle  # pyright: ignore[reportMissingTypeStubs]

#: What every supported Python reads; a newer default would cut off the older end of a cluster.
_PROTOCOL = 5

_cloudpickle: Any = cloudpickle


def dumps_pickle(value: object) -> bytes:
    """Return a value as a body. Raises whatever the value's own methods or the library raise."""
    return pickle.dumps(value, _PROTOCOL)


def dumps_cloudpickle(value: object) -> bytes:
    """Return a value as a body, with the code of its functions and of the classes of `__main__`."""
    data: bytes = _cloudpickle.dumps(value, _PROTOCOL)
    return data


def loads(data: bytes) -> object:
    """Return the value of a body of either kind, running what it says."""
    value: object = pickle.loads(data)
    return value
