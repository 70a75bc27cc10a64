"""What a pool tells the log: a stable word, for programs, and a sentence, for people.

Owns the words, one function a notice. When something is told is `machine`'s to say.
"""

from __future__ import annotations

from ...actors.worker.control import Unusable
from ...transport.clock import MICROSECONDS
from ...transport.verbs import ChildKind
from ..reasons import ExitReason
from .events import Notice, SpawnAsked
from .members import Member


def died(member: Member, reason: ExitReason, wait: int) -> Notice:
    """A child ended without being asked to; its successor comes after `wait`."""
    later = f" in {wait / MICROSECONDS:.1f} s" if wait > 0 else ""
    return Notice("died", f"{member.name} {reason}; another takes its place{later}", grave=True)


def died_before_ready(member: Member, reason: ExitReason) -> Notice:
    """A child was killed from outside while it started."""
    return Notice("died", f"{member.name} {reason} before it was ready", grave=True)


def crash_loop(kind: ChildKind, deaths: int, period: int, longest_wait: int) -> Notice:
    """Children die too often: from now on their successors wait."""
    return Notice(
        "crash_loop",
        f"{deaths} {whose(kind)} died within {seconds(period)} s: what they run ends their processes. From now on "
        f"successors wait, for up to {seconds(longest_wait)} s, until one of them stays up; the worker goes on",
        grave=True,
    )


def crash_loop_over(kind: ChildKind) -> Notice:
    """They stay up again."""
    return Notice("crash_loop_over", f"{whose(kind)} stay up again: from now on a successor comes at once")


def timed_out(member: Member) -> Notice:
    """A child was killed for what it ran."""
    return Notice("timed_out", f"{member.name} was killed at a hard time limit")


def terminated(member: Member, reason: ExitReason) -> Notice:
    """A child ended by the signal of a revoke."""
    return Notice("terminated", f"{member.name} {reason}, as a revoke asked")


def leaving(member: Member, reason: str) -> Notice:
    """A child leaves of its own accord."""
    return Notice("leaving", f"{member.name} leaves: {reason}")


def unusable(word: Unusable) -> Notice:
    """The application cannot be used."""
    return Notice("unusable", f"{word.reason}\n{word.traceback}".rstrip(), grave=True)


def start_failed(member: Member, why: str) -> Notice:
    """A child did not get ready, by its own fault."""
    return Notice("start_failed", f"{member.name} did not start: {why}", grave=True)


def gave_up(reason: str) -> Notice:
    """The pool ends because of its children or spawners."""
    return Notice("gave_up", f"the worker gives up: {reason}", grave=True)


def spawner_died(reason: str) -> Notice:
    """The spawner ended by itself."""
    return Notice("spawner_died", f"the spawner died ({reason}); the pool starts anew", grave=True)


def spawn_limited(asked: SpawnAsked, most: int) -> Notice:
    """The broker wants more children than there may be."""
    text = f"{asked.count} {asked.kind.name.lower()} children were asked for; {most} is the most here"
    return Notice("spawn_limited", text)


def terminate_refused(member: Member) -> Notice:
    """A revoke cannot kill one of several bodies."""
    return Notice(
        "terminate_refused",
        f"{member.name} runs others beside the revoked message, so it is not killed; "
        "only prefork and solo workers can terminate what runs",
    )


def over_limit(member: Member) -> Notice:
    """A hard time limit has to wait for other bodies."""
    return Notice("over_limit", f"{member.name} has a body past its hard limit; it leaves, for the others in it")


def reload() -> Notice:
    """A reload begins."""
    return Notice("reload", "the children are being replaced by such that read the application anew")


def reload_refused(earlier: int) -> Notice:
    """Too many reloads are not over."""
    text = f"children of {earlier} earlier reloads still finish their work; no other one yet"
    return Notice("reload_refused", text)


def reload_failed(member: Member, why: str) -> Notice:
    """The new code does not start."""
    return Notice("reload_failed", f"the old children stay, because of {member.name}: {why}", grave=True)


def resized(wanted: int) -> Notice:
    """The pool has another size."""
    return Notice("resized", f"the pool keeps {wanted} children from now on")


def resize_refused(pool: str) -> Notice:
    """A pool of this kind has one child only."""
    return Notice("resize_refused", f"a pool of kind {pool} has one child; restart the worker with another -c")


def trouble(kinds: list[ChildKind]) -> str:
    """What the status says of a pool whose successors of these kinds wait; nothing where there are none."""
    return "; ".join(f"crash_loop: {whose(kind)} die again and again, and successors wait" for kind in kinds)


def whose(kind: ChildKind) -> str:
    """Children of this kind, in words."""
    return "children" if kind == ChildKind.POOL else f"{kind.name.lower()} children"


def seconds(microseconds: int) -> str:
    """A duration in seconds, as short as it can be written."""
    return f"{microseconds / MICROSECONDS:g}"
