"""What must always be true of a cluster, each sentence a class of its own, and the watch that keeps them."""

from __future__ import annotations

from .base import Invariant, Vacuous, Violated
from .table import ALL, NOT_YET, make, sentence_of
from .watch import Watch

__all__ = ["ALL", "NOT_YET", "Invariant", "Vacuous", "Violated", "Watch", "make", "sentence_of"]
