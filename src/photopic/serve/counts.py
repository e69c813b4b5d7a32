"""What the service has done, as Prometheus reads it."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from pathlib import Path

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Counts:
    """Counts of one process; used from the thread of the event loop only.

    Example:
        >>> counts = Counts()
        >>> counts.answered("rejected", 0.02, rejected_by=["open_set"])
        >>> 'photopic_guard_rejects_total{check="open_set"} 1' in counts.text()
        True
    """

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter(accepted=0, rejected=0, refused=0, busy=0, failed=0, gone=0)
        self.refusals: Counter[tuple[int, str]] = Counter()
        self.rejects: Counter[str] = Counter()
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def answered(self, outcome: str, seconds: float, *, rejected_by: list[str] | None = None) -> None:
        """A request that was decided, and how long it took from its first header."""
        self.outcomes[outcome] += 1
        self.rejects.update(rejected_by or [])
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def refused(self, status: int, code: str) -> None:
        """A request that was not."""
        self.outcomes["busy" if status == 503 else "failed" if status == 500 else "refused"] += 1
        self.refusals[status, code] += 1

    def text(self) -> str:
        """The text of ``GET /metrics``."""
        name = "photopic_guard"
        lines = [f"# TYPE {name}_requests_total counter"]
        lines += [f'{name}_requests_total{{outcome="{key}"}} {count}' for key, count in self.outcomes.items()]
        lines += [f"# TYPE {name}_refusals_total counter"]
        lines += [
            f'{name}_refusals_total{{status="{status}",reason="{code}"}} {count}'
            for (status, code), count in sorted(self.refusals.items())
        ]
        lines += [f"# TYPE {name}_rejects_total counter"]
        lines += [f'{name}_rejects_total{{check="{key}"}} {count}' for key, count in sorted(self.rejects.items())]
        lines += [f"# TYPE {name}_seconds histogram"]
        below = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.buckets, strict=True):
            below += count
            lines += [f'{name}_seconds_bucket{{le="{bound}"}} {below}']
        lines += [f"{name}_seconds_sum {self.seconds:.6f}", f"{name}_seconds_count {below}"]
        resident = resident_bytes()
        if resident is not None:
            lines += ["# TYPE process_resident_memory_bytes gauge", f"process_resident_memory_bytes {resident}"]
        return "\n".join([*lines, ""])


def resident_bytes(process: int | str = "self") -> int | None:
    """Resident memory of a process, where the system has /proc."""
    file = Path(f"/proc/{process}/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.exists() else None
