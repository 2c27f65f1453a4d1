"""The machine: load and disk."""

import os
import shutil
from pathlib import Path

from dionysus.findings import Finding

_NEARLY_FULL = 0.05


def machine(path: Path) -> Finding:
    """Load per core (where the system tells it) and free space of the disk that `path` lies on."""
    parts = []
    if hasattr(os, "getloadavg"):
        parts.append(f"load {os.getloadavg()[0] / (os.cpu_count() or 1):.1f} per core")
    disk = shutil.disk_usage(path)
    full = "; disk nearly full" if disk.free < _NEARLY_FULL * disk.total else ""
    parts.append(f"{disk.free / 2**30:.0f} GiB free{full}")
    return Finding("machine", ", ".join(parts))
