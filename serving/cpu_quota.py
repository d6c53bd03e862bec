"""The processors of this machine or container."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs that this process may use: those of its scheduler affinity, or fewer if its container has a quota.

    Args:
        cgroup: where cgroups are mounted, of version 2 or 1.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        # Without a quota, version 2 has the word "max" in its place and version 1 the number -1.
        with suppress(OSError, ValueError):
            quota, period = (int(number) for name in names for number in (cgroup / name).read_text().split())
            if quota > 0:
                cpus = min(cpus, math.ceil(quota / period))
    return cpus
