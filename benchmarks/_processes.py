"""What processes cost: CPU time and private memory of this process's descendants. Shared by the scripts here."""

from __future__ import annotations

from pathlib import Path

import psutil

MB = 1e6


def cpu_seconds() -> dict[str, float]:
    """CPU seconds so far of all living descendants, added up by process name (an actor's is `ray::CLASS`)."""
    spent: dict[str, float] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            name, times = process.name(), process.cpu_times()
        except psutil.Error:  # it has ended meanwhile
            continue
        spent[name] = spent.get(name, 0.0) + times.user + times.system
    return spent


def private_bytes(pid: int) -> int:
    """Memory that belongs to this process alone (USS): pages that nobody else maps."""
    fields = _rollup(pid)
    return fields["Private_Clean"] + fields["Private_Dirty"]


def shared_bytes(pid: int) -> int:
    """Memory mapped by this process and by others: libraries, and the object store."""
    fields = _rollup(pid)
    return fields["Shared_Clean"] + fields["Shared_Dirty"]


def _rollup(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}
