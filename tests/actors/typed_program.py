"""What type checkers make of a program: read by them, never run.

A line with an ignored error must be one: an ignore without its error is an error itself (test_typing.py, `make check`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_type

from greenroom import Actor, ActorRef, App, AskResult, AsyncResult, Signature, Task, shared_task

app = App("typed")


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task(bind=True, acks_late=True, max_deliveries=3)
def charge(self: Task[..., Any], order: str) -> None:
    self.retry(countdown=self.request.retries)


@app.task(name="named", queue="q")
def named(x: str) -> float:
    return float(x)


@app.task
async def fetch(url: str) -> bytes:
    return url.encode()


@shared_task
def shared(x: int) -> str:
    return str(x)


@shared_task(bind=True)
def shared_bound(self: Task[..., Any], x: int) -> str:
    return str(x)


def plain(x: int) -> str:
    return str(x)


def with_self(self: Task[..., Any], x: int) -> str:
    return str(x)


given = app.task(plain, name="given", queue="q")
given_bound = app.task(with_self, bind=True, name="bound")
shared_given = shared_task(plain, name="shared given")
shared_given_bound = shared_task(with_self, bind=True)

assert_type(add(1, 2), int)
assert_type(add.delay(1, y=2), AsyncResult[int])
assert_type(add.delay(1).get(timeout=5), int)
assert_type(add.apply_async((1, 2), countdown=5), AsyncResult[int])
assert_type(add.send_many([(1, 2), (3, 4)]), list[AsyncResult[int]])
assert_type(add.apply((1,)).get(), int)
assert_type(add.s(1), Signature[int])
assert_type(add.s(1).delay(2).get(), int)
assert_type(add.AsyncResult("id").get(), int)
assert_type(add.delay(1).dead is None, bool)
assert_type(charge.delay("order"), AsyncResult[None])
assert_type(named.delay("1.5").get(), float)
assert_type(fetch.delay("u"), AsyncResult[bytes])
assert_type(fetch.apply_async(("u",)).get(), bytes)
assert_type(fetch.send_many([("u",)])[0].get(), bytes)
assert_type(shared.delay(1), AsyncResult[str])
assert_type(shared_bound.delay(1), AsyncResult[str])
assert_type(given.delay(1), AsyncResult[str])
assert_type(given_bound.delay(1), AsyncResult[str])
assert_type(shared_given.delay(1), AsyncResult[str])
assert_type(shared_given_bound.delay(1), AsyncResult[str])
assert_type(app.send_task("elsewhere"), AsyncResult[Any])

in_the_words_of_the_design: Callable[[int, int], AsyncResult[int]] = add.delay

add.delay("1")  # type: ignore[arg-type]
add.delay()  # type: ignore[call-arg]
add.delay(1, z=2)  # type: ignore[call-arg]
add("1")  # type: ignore[arg-type]
charge.delay(1)  # type: ignore[arg-type]
charge.delay("order", "more")  # type: ignore[call-arg]
fetch.delay(1)  # type: ignore[call-overload]
shared.delay("1")  # type: ignore[arg-type]
given.delay("1")  # type: ignore[arg-type]
given_bound.delay("1")  # type: ignore[arg-type]
shared_given_bound.delay()  # type: ignore[call-arg]
text: str = add.delay(1).get()  # type: ignore[assignment]


with app.run(workers=2, pool="threads", data="kept") as cluster:
    assert_type(cluster.address, str)
    assert_type(cluster.status().accepted, int)
    assert_type(cluster.mailboxes()[0].ready, int)
    assert_type(cluster.dead_letters()[0].attempts[0].signal, int)
    cluster.adress  # type: ignore[attr-defined]  # noqa: B018

app.run(poool="threads")  # type: ignore[call-arg]
app.run(pool="gevent")  # type: ignore[arg-type]


def returned_inside() -> int:
    # The block swallows no exception, so that nothing can come after it.
    with app.run(workers=0):
        return 1


async def main() -> None:
    assert_type(await add.delay(1), int)
    assert_type(await fetch("u"), bytes)
    assert_type(await fetch.delay("u"), bytes)
    assert_type(await counter.ask(Counter.bump, 1), int)


class Counter(Actor):
    def __init__(self, start: int = 0) -> None:
        self.n = start

    def bump(self, by: int = 1) -> int:
        self.n += by
        return self.n

    async def later(self, x: str) -> bytes:
        return x.encode()


class Other(Actor):
    def ping(self) -> None: ...


counter = app.ref(Counter, "home")
assert_type(counter, ActorRef[Counter])
assert_type(counter.ask(Counter.bump, by=3), AskResult[int])
assert_type(counter.ask(Counter.bump, by=3).get(timeout=1), int)
assert_type(counter.ask(Counter.later, "x").get(), bytes)
assert_type(counter.ask("bump", 1, 2).get(), Any)
counter.tell(Counter.bump, 2)
counter.tell("bump", 2)
app.ref("shop.Counter", "home").tell("bump", 2)

counter.tell(Counter.bump, "2")  # type: ignore[call-overload]
counter.ask(Counter.bump, to=2)  # type: ignore[call-overload]
counter.tell(Other.ping)  # type: ignore[call-overload]


class Base(Task[..., Any]):
    abstract = True
    max_retries = 5
    acks_late = True
    queue = "slow"
    autoretry_for = (ValueError,)

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        assert_type(self.request.id, str | None)


@app.task(base=Base)
def based(x: int) -> int:
    return x


add.rate_limit = "10/s"
add.priority = 5
based.max_retries = None
