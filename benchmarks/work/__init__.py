"""The application of each system: the tasks that its workers run, and the client that calls them.

Imported under the system's own interpreter. Environment: BENCH_BROKER and BENCH_RESULTS (URLs), BENCH_MARKS (a folder,
marks.py), BENCH_CONFIRM (1: ask for confirms where they are an option).
"""

from __future__ import annotations
