"""The rows of the table, in its order: one file a kind of measurement.

Imported on both sides, so a row needs the standard library and this folder alone.
"""

from __future__ import annotations

from contract import Row
from rows import backlog, early, enqueue, fetched, latency, recovery, send_many, throughput

ROWS: dict[str, Row] = {
    module.ROW.name: module.ROW
    for module in (throughput, early, fetched, send_many, enqueue, latency, recovery, backlog)
}
