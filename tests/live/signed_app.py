"""The application of test_unsigned.py: it takes pickles, if they are signed."""

from __future__ import annotations

from typing import Any

from greenroom import Actor, App

app = App("signed_app", accept_content=["msgpack", "pickle"])


@app.task(name="signed_app.echo", serializer="pickle")
def echo(value: Any) -> Any:
    return value


class Keeper(Actor):
    def echo(self, value: Any) -> Any:
        return value
