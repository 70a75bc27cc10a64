"""A bank whose accounts are durable actors: money moves while the process that hosts them is killed, and none is lost.

    python examples/bank.py

Each account keeps its balance and the transfers that it has seen, in the broker's store. A transfer is a task with a
late ack: where its process dies it runs again. An account that knows the transfer already leaves its money as it is,
and one that does not yet, moves it.
"""

from __future__ import annotations

import os
import signal
import time

from greenroom import Actor, App

app = App("bank", broker="tcp://127.0.0.1:5670")

OWNERS = ("mia", "tom", "eve", "kim")
#: What each owner begins with.
START = 1_000
SECONDS = 30


class Refused(Exception):
    """Raised when an account has less than is asked of it."""


class Account(Actor):
    """One owner's money. What it has seen is done once, however often it is asked."""

    durable = True

    def __init__(self) -> None:
        self.balance = 0
        #: What was moved, by the transfer's name.
        self.seen: dict[str, int] = {}

    def move(self, transfer: str, amount: int) -> int:
        """Add `amount`, which may be negative; return the balance. Raises Refused when that would be below zero."""
        if transfer not in self.seen:
            self.seen[transfer] = amount
            self.balance += amount
            if self.balance < 0:
                # The change above is undone: the next message finds the state from before this one.
                raise Refused(f"{transfer}: {-amount} was asked for, {self.balance - amount} is there")
        return self.balance

    def host(self) -> int:
        """Return the process in which the account lives now."""
        return os.getpid()


@app.task(acks_late=True, reject_on_worker_lost=True)
def transfer(name: str, giver: str, taker: str, amount: int) -> None:
    """Take from one account and give to the other: both once, whatever happens in between."""
    app.ref(Account, giver).ask(Account.move, name, -amount).get(timeout=SECONDS)
    app.ref(Account, taker).ask(Account.move, name, amount).get(timeout=SECONDS)


def main() -> None:
    with app.run(workers=2):
        accounts = {owner: app.ref(Account, owner) for owner in OWNERS}
        for account in accounts.values():
            account.ask(Account.move, "opened", START).get(timeout=SECONDS)

        sent = [
            transfer.delay(f"transfer {number}", OWNERS[number % 4], OWNERS[(number + 1 + number % 3) % 4], number % 7)
            for number in range(200)
        ]
        sent[20].get(timeout=SECONDS)
        os.kill(accounts["mia"].ask(Account.host).get(timeout=SECONDS), signal.SIGKILL)
        killed_at = time.monotonic()
        accounts["mia"].ask(Account.host).get(timeout=SECONDS)
        print(f"killed; mia's account answers again after {time.monotonic() - killed_at:.2f} s")
        for one in sent:
            one.get(timeout=SECONDS)

        refused = transfer.delay("a yacht", "mia", "tom", 1_000_000)
        print(type(refused.get(timeout=SECONDS, propagate=False)).__name__)
        balances = {
            owner: account.ask(Account.move, "opened", 0).get(timeout=SECONDS) for owner, account in accounts.items()
        }
        print(balances, "together", sum(balances.values()))


if __name__ == "__main__":
    main()
