"""Two tasks and an actor, with a broker and two workers around them for as long as the program runs."""

from __future__ import annotations

from greenroom import Actor, App

app = App("shop", broker="tcp://127.0.0.1:5670")


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task(acks_late=True, reject_on_worker_lost=True, max_deliveries=3)
def charge(order: str) -> str:
    return f"{order} is charged"


class Counter(Actor):
    def __init__(self, start: int = 0) -> None:
        self.n = start

    def bump(self, by: int = 1) -> int:
        self.n += by
        return self.n


def main() -> None:
    with app.run(workers=2):  # a broker, its store, and two worker processes
        result = add.delay(20, 22)  # returns when the message is on disk
        print(result.get(timeout=10))  # in asyncio: await result

        orders = charge.send_many([("order 7",), ("order 8",)])  # thousands in one call
        print([order.get(timeout=10) for order in orders])

        counter = app.ref(Counter, "home")  # a named actor, made when its first message comes
        counter.tell(Counter.bump, 2)  # does not wait
        print(counter.ask(Counter.bump, by=3).get(timeout=10))


if __name__ == "__main__":
    main()
