"""The application of the tests that kill those who host durable actors.

Workers import it as `bank_app`. An account keeps its balance and the number of every deposit, in the order in which it
handled them, so that what is lost or counted twice shows in its state.
"""

from __future__ import annotations

import os

from greenroom import Actor, App

app = App("bank_app")


class Account(Actor):
    """An account that remembers each deposit."""

    durable = True

    def __init__(self) -> None:
        self.balance = 0
        self.deposits: list[int] = []

    def deposit(self, number: int, amount: int) -> int:
        """Add `amount`; return the process in which that was."""
        self.balance += amount
        self.deposits.append(number)
        return os.getpid()

    def fail(self, number: int) -> None:
        """Change half of the state, and raise."""
        self.deposits.append(number)
        raise ValueError("out of money")

    def end_process(self, number: int) -> None:
        """Change the state, and take the process along."""
        self.deposits.append(number)
        os._exit(9)

    def statement(self) -> tuple[int, list[int]]:
        """Return the balance, and the number of each deposit."""
        return self.balance, self.deposits
