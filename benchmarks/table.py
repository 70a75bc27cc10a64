"""What is printed and what is written: the same figures as a table for people and as JSON for programs."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contract import Metric, Row
from figures import Summary, ratio, shown, summarize
from runner import Choice, Outcome

#: Whom the others are compared with.
OURS = "greenroom"


def summaries(row: Row, metric: Metric, outcome: Outcome) -> dict[str, Summary]:
    """Return each system's figures of all rounds."""
    return {
        system: summarize([figures[metric.name] for figures in rounds])
        for system, rounds in outcome.figures.get(row.name, {}).items()
    }


def ratios(metric: Metric, found: Mapping[str, Summary]) -> dict[str, float]:
    """Return how many times better Greenroom's median is than each other's; empty where that says nothing."""
    if metric.better is None or OURS not in found:
        return {}
    return {
        system: ratio(found[OURS].median, summary.median, metric.better)
        for system, summary in found.items()
        if system != OURS
    }


def command_line() -> str:
    """Return the command that was given, as it can be given again from the root of the tree."""
    return shlex.join(["benchmarks/run.py", *sys.argv[1:]])


def as_json(choice: Choice, outcome: Outcome, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything: what was measured, on what, in which way, and what was not."""
    rows: dict[str, Any] = {}
    for row in choice.rows:
        metrics: dict[str, Any] = {}
        for metric in row.metrics:
            found = summaries(row, metric, outcome)
            metrics[metric.name] = {
                "title": metric.title,
                "unit": metric.unit,
                "better": metric.better,
                "systems": {
                    system: {
                        "median": summary.median,
                        "low": summary.low,
                        "high": summary.high,
                        "spread": summary.spread,
                        "values": list(summary.values),
                    }
                    for system, summary in found.items()
                },
                "greenroom_times_better": {
                    system: times if math.isfinite(times) else None for system, times in ratios(metric, found).items()
                },
            }
        rows[row.name] = {
            "title": row.title,
            "metrics": metrics,
            "rounds": outcome.figures.get(row.name, {}),
            "absent": outcome.absent.get(row.name, {}),
            "failed": outcome.failed.get(row.name, {}),
        }
    return {
        "command": command_line(),
        "full": choice.full,
        "rounds": choice.rounds,
        "count": choice.count,
        "machine": dict(machine),
        "systems": {
            system.name: {
                "title": system.title,
                "durability": system.durability,
                "missing": outcome.missing.get(system.name),
                "versions": {} if system.name in outcome.missing else dict(system.versions()),
            }
            for system in choice.systems
        },
        "rows": rows,
    }


def show(console: Console, choice: Choice, outcome: Outcome, machine: Mapping[str, Any], written: Path) -> None:
    """Print the table and, under it, what a reader must know to believe it."""
    table = Table(box=box.SIMPLE_HEAD, title=f"Median of {choice.rounds} alternating rounds", title_justify="left")
    table.add_column("measured")
    table.add_column("system")
    for title in ("median", "low", "high", "spread", "Greenroom is"):
        table.add_column(title, justify="right")
    for row in choice.rows:
        for metric in row.metrics:
            _add(table, row, metric, choice, outcome)
    away = {system.title: outcome.missing[system.name] for system in choice.systems if system.name in outcome.missing}
    if away:
        table.caption = "\n".join(f"{title} was not measured: {escape(why)}" for title, why in away.items())
        table.caption_justify = "left"
    console.print(table)
    for row in choice.rows:
        console.print(f"[bold]{row.name}[/]: {row.title}", highlight=False)
    console.print()
    for system in choice.systems:
        if system.name in outcome.missing:
            continue
        versions = ", ".join(f"{name} {version}" for name, version in system.versions().items())
        console.print(f"[bold]{system.title}[/]: {system.durability} ({versions})", highlight=False)
    for (name, why), rows in _failures(outcome).items():
        console.print(f"[red]failed[/]: {name}, {', '.join(rows)}: {escape(why)}", highlight=False)
    console.print()
    console.print(_machine_line(machine), highlight=False)
    if not machine["quiet"]:
        console.print("[yellow]Others were at work on this machine: these figures are provisional.[/]")
    console.print(f"{command_line()}; all figures: {written}", highlight=False, soft_wrap=True)


def _add(table: Table, row: Row, metric: Metric, choice: Choice, outcome: Outcome) -> None:
    found = summaries(row, metric, outcome)
    times = ratios(metric, found)
    title = f"{metric.title}, {metric.unit}"
    for system in choice.systems:
        if system.name in outcome.missing:
            continue
        if system.name in found:
            summary = found[system.name]
            cells = [shown(summary.median), shown(summary.low), shown(summary.high), f"{summary.spread:.0%}"]
        else:
            why = outcome.absent.get(row.name, {}).get(system.name) or "failed"
            cells = [f"[dim]{why}[/]", "", "", ""]
        better = f"{times[system.name]:,.2g}x" if times.get(system.name, 100) < 10 else ""
        if not better and system.name in times:
            better = f"{times[system.name]:,.0f}x"
        table.add_row(title, system.title, *cells, better)
        title = ""
    table.add_section()


def _failures(outcome: Outcome) -> dict[tuple[str, str], list[str]]:
    """Return the rows that failed, by system and reason: a system that does not start fails in all of them."""
    found: dict[tuple[str, str], list[str]] = {}
    for row, whys in outcome.failed.items():
        for name, why in whys.items():
            found.setdefault((name, why), []).append(row)
    return found


def _machine_line(machine: Mapping[str, Any]) -> str:
    return (
        f"{machine['date']}: {machine['cores']} cores ({machine['processor']}), {machine['memory_gib']} GiB, "
        f"{machine['system']} {machine['kernel']}, {machine['python']}, load {machine['load_1_minute']} at the start, "
        f"{machine['filesystem']}, fdatasync {machine['fdatasync_ms_median']} ms "
        f"(p99 {machine['fdatasync_ms_p99']} ms)"
    )
